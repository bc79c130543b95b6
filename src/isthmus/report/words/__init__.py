"""The words of the pages: a folder for each language, in it a file for each subject, with ``TEXTS`` by key.

A key begins with its subject; the keys of one beginning stand in one file, which has the same name in every language.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Mapping

from isthmus.core.errors import SettingError

LANGUAGES = ("en", "ja")


class Words:
    """Sentences by key; ``words("curve.title", width=64)`` fills the places in braces."""

    def __init__(self, language: str, texts: Mapping[str, str]) -> None:
        self.language = language
        self._texts = texts

    def __call__(self, key: str, /, **values: object) -> str:
        """The sentence of a key, with its places filled."""
        return self._texts[key].format(**values)

    def __contains__(self, key: str) -> bool:
        return key in self._texts


@functools.cache
def words_for(language: str) -> Words:
    """The words of one language.

    Raises:
        SettingError: there is none of that name.
    """
    return Words(language, {key: text for texts in subjects(language).values() for key, text in texts.items()})


def subjects(language: str) -> dict[str, Mapping[str, str]]:
    """The sentences of one language by subject.

    Raises:
        SettingError: there is none of that name.
    """
    if language not in LANGUAGES:
        raise SettingError(f"the language must be one of {', '.join(LANGUAGES)}, got {language}")
    folder = importlib.import_module(f"isthmus.report.words.{language}")
    names = sorted(found.name for found in pkgutil.iter_modules(folder.__path__))
    return {name: importlib.import_module(f"{folder.__name__}.{name}").TEXTS for name in names}
