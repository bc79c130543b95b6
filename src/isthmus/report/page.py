"""What a page is made of, and its rendering as one HTML file that needs no network.

Everything that comes from outside (names of checkpoints, tensors, commands) is escaped by the template; figures are
data, drawn by a script that the page carries, with a static picture for print and for readers without scripts.
"""

from __future__ import annotations

import base64
import dataclasses
import functools
import hashlib
import importlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from isthmus.core.files import write_text
from isthmus.report.saved import csv_file, file_name, svg, svg_file
from isthmus.report.words import Words, words_for

Mood = Literal["good", "mixed", "bad", "neutral"]


@dataclasses.dataclass(frozen=True)
class Figure:
    """A chart: its Vega-Lite definition, what it shows in one line, and what it says to who cannot see it."""

    title: str
    spec: Mapping[str, Any]
    caption: str = ""
    description: str = ""


@dataclasses.dataclass(frozen=True)
class Table:
    """Rows under named columns; numbers stay numbers so that they can be copied."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    note: str = ""


@dataclasses.dataclass(frozen=True)
class Choice:
    """A choice that all interactive figures of a section follow, such as which pair they show.

    Attributes:
        label: what is chosen.
        field: name of the figures' parameter, see :func:`isthmus.report.figures.chosen`.
        options: the values.
        value: chosen at first, and what a static picture shows.
    """

    label: str
    field: str
    options: Sequence[str]
    value: str


@dataclasses.dataclass(frozen=True)
class Section:
    """One answer: a heading, a few sentences, figures, the numbers under them, and the definitions used.

    ``headline`` is the answer in one sentence, for a page that holds this section alone; the first ``leading`` tables
    stand open above the figures.
    """

    title: str
    text: Sequence[str] = ()
    figures: Sequence[Figure] = ()
    tables: Sequence[Table] = ()
    definitions: Sequence[tuple[str, str]] = ()
    headline: str = ""
    choice: Choice | None = None
    leading: int = 0


@dataclasses.dataclass(frozen=True)
class Page:
    """A page: the answer first, then why, then figures and numbers, then how to reproduce it.

    Attributes:
        title: short.
        verdict: the answer in a sentence.
        mood: colours the verdict; the words carry the meaning.
        reasons: the evidence in a few sentences.
        sections: the rest.
        provenance: command, versions, machine, recipe.
        guidance: for readers who do not know the field: what to do next.
        scale: all answers that the verdict could have been, the best first; empty where there is no such order.
        place: which of them it is.
    """

    title: str
    verdict: str
    mood: Mood = "neutral"
    reasons: Sequence[str] = ()
    sections: Sequence[Section] = ()
    provenance: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    guidance: Sequence[str] = ()
    scale: Sequence[str] = ()
    place: int = 0


def render(page: Page, *, language: str = "en", interactive: bool = True) -> str:
    """The page as HTML text.

    Args:
        page: what to show.
        language: ``en`` or ``ja``; decides the page's own words (the page's content was written in one already).
        interactive: carry the drawing script (0.9 MB); without it the figures are static pictures.
    """
    words = words_for(language)
    figures = [figure for part in page.sections for figure in part.figures]
    pictures = {id(figure): svg(json.dumps(figure.spec)) for figure in figures}
    return _template().render(
        page=page,
        words=words,
        language=language,
        pictures=pictures,
        svg_of=svg_file,
        csv_of=csv_file,
        file_name=file_name,
        number=number,
        key_of=id,
        width_of=_width,
        texts=_texts,
        flat=_flat,
        scripts=_scripts() if interactive and figures else (),
        hashes=_hashes() if interactive and figures else (),
        charts=_json_for_script(
            {
                f"f{outer}-{inner}": figure.spec
                for outer, part in enumerate(page.sections, start=1)
                for inner, figure in enumerate(part.figures, start=1)
            }
        ),
        tokens=tokens(),
    )


def write_page(page: Page, path: str | Path, *, language: str = "en", interactive: bool = True) -> Path:
    """Render a page and write it atomically."""
    write_text(path, render(page, language=language, interactive=interactive))
    return Path(path)


@functools.cache
def tokens() -> str:
    """The colours, fonts and distances that pages and the site share, as CSS."""
    return (Path(__file__).parent / "templates" / "tokens.css").read_text(encoding="utf-8")


@functools.cache
def _template() -> Any:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("isthmus.report", "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template("page.html.j2")


@functools.cache
def _scripts() -> tuple[str, str]:
    """The drawing library, from the wheel that also draws the static pictures, and the page's own script."""
    vl_convert: Any = importlib.import_module("vl_convert")
    own = (Path(__file__).parent / "templates" / "page.js").read_text(encoding="utf-8")
    # A closing tag inside a string of a script would end it early.
    library, own = (text.replace("</script", "<\\/script") for text in (vl_convert.javascript_bundle(), own))
    return library, own


@functools.cache
def _hashes() -> tuple[str, ...]:
    """What the page's policy lets run: these scripts and no other, whatever stands in the data."""
    digests = (hashlib.sha256(script.encode()).digest() for script in _scripts())
    return tuple(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)


def _texts(table: Table) -> list[bool]:
    """Which columns of a table hold sentences or names, which stand left, and which numbers, which stand right."""
    columns = zip(*table.rows, strict=False) if table.rows else ()
    found = [any(isinstance(v, str) and not _is_figure(v) for v in column) for column in columns]
    return found + [False] * (len(table.columns) - len(found))


def _is_figure(text: str) -> bool:
    """Whether a text is a number with its interval or unit, such as ``8.9% [5.8%, 11.9%]`` or ``≈ 1.6 s``."""
    return not text or text[0] in "0123456789+-−–≈×±<>[" or text in ("✓", "✗")


def _json_for_script(value: Any) -> str:
    """JSON that is safe inside a script element: nothing in it can close the element or open a comment."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def number(value: Any) -> str:
    """A value as a reader wants it: four significant digits, a dash for what is missing."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}".replace(",", "\u202f")
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1e4 else f"{value:.3e}"
    return str(value)


def _width(picture: str) -> int:
    """Of a drawn chart, in pixels."""
    found = re.search(r'<svg[^>]* width="(\d+)', picture)
    return int(found[1]) if found else 0


def _flat(mapping: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Nested settings as rows of dotted names and values."""
    rows: list[tuple[str, Any]] = []
    for name, value in mapping.items():
        if isinstance(value, Mapping):
            rows.extend(_flat(value, f"{prefix}{name}."))
        elif isinstance(value, list | tuple):
            rows.append((f"{prefix}{name}", ", ".join(number(entry) for entry in value)))
        else:
            rows.append((f"{prefix}{name}", value))
    return rows


__all__ = [
    "Choice",
    "Figure",
    "Mood",
    "Page",
    "Section",
    "Table",
    "Words",
    "number",
    "render",
    "tokens",
    "write_page",
]
