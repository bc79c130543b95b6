"""From files of results to a page."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from isthmus.core.errors import SettingError
from isthmus.report.check import check_page
from isthmus.report.demo import demo_page
from isthmus.report.page import Page
from isthmus.report.section import section
from isthmus.report.words import words_for


def page_of(files: Sequence[str | Path], *, language: str = "en") -> Page:
    """The page that shows the results in some files.

    Raises:
        SettingError: a file cannot be read or holds no result that is drawn.
    """
    return page_of_results([(str(file), _read(Path(file))) for file in files], language=language)


def page_of_results(results: Sequence[tuple[str, Mapping[str, Any]]], *, language: str = "en") -> Page:
    """The page that shows named results, given as plain values."""
    # Some results have a page of their own, with guidance; among others they are a section like any.
    whole = {"Check": check_page, "Demo": demo_page}.get(results[0][1].get("kind", "")) if len(results) == 1 else None
    if whole is not None:
        try:
            return whole(results[0][1], language=language)
        except (KeyError, TypeError, IndexError) as problem:
            raise _incomplete(results[0][0], problem) from problem
    words = words_for(language)
    sections = []
    for name, values in results:
        try:
            sections.append(section(values, language=language))
        except (KeyError, TypeError, IndexError) as problem:
            raise _incomplete(name, problem) from problem
    first: Mapping[str, Any] = next((v["provenance"] for _, v in results if v.get("provenance")), {})
    names = _title(results, first)
    verdict = sections[0].headline if len(sections) == 1 else ""
    if verdict and sections[0].text and sections[0].text[0] == verdict:  # said already, in larger letters
        sections = [dataclasses.replace(sections[0], text=sections[0].text[1:])]
    return Page(
        title=names,
        verdict=verdict or words("page.collected", n=len(results)),
        reasons=[part.headline for part in sections if part.headline] if len(sections) > 1 else (),
        sections=sections,
        provenance=first,
    )


def _title(results: Sequence[tuple[str, Mapping[str, Any]]], made: Mapping[str, Any]) -> str:
    """The files' names; of a command's own result, which has none yet, the command."""
    kinds = [values["kind"] for _, values in results]
    if [name for name, _ in results] == kinds and made.get("command"):
        return " ".join(str(made["command"]).split()[:2])
    return ", ".join(Path(name).name for name, _ in results)


def _incomplete(name: str, problem: Exception) -> SettingError:
    return SettingError(
        f"{name} must hold a whole result of this version of isthmus, but something is missing: {problem}"
    )


def _read(file: Path) -> Mapping[str, Any]:
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except OSError as problem:
        raise SettingError(f"results must be a readable file, but {file}: {problem.strerror}") from problem
    except ValueError as problem:
        raise SettingError(f"{file} must be JSON that isthmus wrote, but: {problem}") from problem
    if not isinstance(values, Mapping) or "kind" not in values:
        raise SettingError(f"{file} must be a result that isthmus wrote (it has no kind)")
    return values
