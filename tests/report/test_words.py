"""Every language says everything, with the same places to fill, in the same files."""

import string

import pytest

from isthmus.core.errors import SettingError
from isthmus.report.words import LANGUAGES, subjects, words_for


def places(text):
    return sorted(name for _, name, _, _ in string.Formatter().parse(text) if name)


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_language_is_complete(language):
    english, other = subjects("en"), subjects(language)
    assert other.keys() == english.keys()
    for subject, texts in english.items():
        assert other[subject].keys() == texts.keys(), subject
        for key, text in texts.items():
            assert places(other[subject][key]) == places(text), key
            assert other[subject][key].strip(), key


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_key_and_the_beginning_of_a_key_stand_in_one_file(language):
    found = subjects(language)
    assert len(words_for(language)._texts) == sum(map(len, found.values()))
    home = {}
    for subject, texts in found.items():
        for key in texts:
            assert home.setdefault(key.split(".")[0], subject) == subject, key


def test_japanese_is_written_in_japanese():
    """A sentence copied and not translated would be the same in both; names and symbols may be."""
    english, japanese = words_for("en")._texts, words_for("ja")._texts
    same = {key for key, text in english.items() if japanese[key] == text and len(text) > 24}
    assert not same


def test_a_language_that_nobody_wrote_is_refused():
    with pytest.raises(SettingError, match="language must be one of en, ja, got xx"):
        words_for("xx")
