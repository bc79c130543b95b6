"""Every language says everything, with the same places to fill."""

import string

import pytest

from isthmus.report.words import LANGUAGES, en, words_for


def places(text):
    return sorted(name for _, name, _, _ in string.Formatter().parse(text) if name)


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_language_is_complete(language):
    words = words_for(language)
    assert set(words._texts) == set(en.TEXTS)
    for key, text in en.TEXTS.items():
        assert places(words._texts[key]) == places(text), key
        assert words._texts[key].strip()
