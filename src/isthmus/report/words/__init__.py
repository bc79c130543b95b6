"""The words of the pages, one file for each language."""

from __future__ import annotations

import importlib
from collections.abc import Mapping

from isthmus.core.errors import SettingError

LANGUAGES = ("en", "ja")


class Words:
    """Sentences by key; ``words("curve.title", width=64)`` fills the places in braces."""

    def __init__(self, language: str, texts: Mapping[str, str]) -> None:
        self.language = language
        self._texts = texts

    def __call__(self, key: str, **values: object) -> str:
        """The sentence of a key, with its places filled."""
        return self._texts[key].format(**values)

    def __contains__(self, key: str) -> bool:
        return key in self._texts


def words_for(language: str) -> Words:
    """The words of one language.

    Raises:
        SettingError: there is none of that name.
    """
    if language not in LANGUAGES:
        raise SettingError(f"the language must be one of {', '.join(LANGUAGES)}, got {language}")
    texts = importlib.import_module(f"isthmus.report.words.{language}").TEXTS
    return Words(language, texts)
