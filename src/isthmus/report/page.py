"""What a page is made of, and its rendering as one HTML file that needs no network.

Everything that comes from outside (names of checkpoints, tensors, commands) is escaped by the template; figures are
data, drawn by a script that the page carries, with a static picture for print and for readers without scripts.
"""

from __future__ import annotations

import base64
import csv
import dataclasses
import functools
import importlib
import io
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from isthmus.core.files import write_text
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
    """

    title: str
    verdict: str
    mood: Mood = "neutral"
    reasons: Sequence[str] = ()
    sections: Sequence[Section] = ()
    provenance: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    guidance: Sequence[str] = ()


def render(page: Page, *, language: str = "en", interactive: bool = True) -> str:
    """The page as HTML text.

    Args:
        page: what to show.
        language: ``en`` or ``ja``; decides the page's own words (the page's content was written in one already).
        interactive: carry the drawing script (0.9 MB); without it the figures are static pictures.
    """
    words = words_for(language)
    figures = [figure for part in page.sections for figure in part.figures]
    pictures = {id(figure): _svg(json.dumps(figure.spec)) for figure in figures}
    return _template().render(
        page=page,
        words=words,
        language=language,
        pictures=pictures,
        svg_of=_svg_file,
        csv_of=_csv_file,
        file_name=_file_name,
        number=number,
        key_of=id,
        flat=_flat,
        script=_script() if interactive and figures else "",
        as_json=_json_for_script,
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
def _script() -> str:
    """Vega, Vega-Lite and Vega-Embed in one script, from the wheel that also draws the static pictures."""
    vl_convert: Any = importlib.import_module("vl_convert")
    # A closing tag inside a string of the script would end it early.
    return vl_convert.javascript_bundle().replace("</script", "<\\/script")


@functools.lru_cache(maxsize=64)
def _svg(spec: str) -> str:
    import vl_convert

    return vl_convert.vegalite_to_svg(json.loads(spec))


def _svg_file(spec: Mapping[str, Any]) -> str:
    """A figure's picture as an address that holds it, in black ink, for a link that saves it."""
    picture = _svg(json.dumps(spec)).replace("currentColor", "black")
    return f"data:image/svg+xml;base64,{base64.b64encode(picture.encode()).decode()}"


def _csv_file(spec: Mapping[str, Any]) -> str:
    """A figure's rows as an address that holds them as CSV, for a link that saves them.

    Text that a spreadsheet would run as a formula gets an apostrophe in front.
    """
    rows = _rows(spec)
    names = list(dict.fromkeys(name for row in rows for name in row if not name.startswith("drawn_")))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(names)
    writer.writerows([inert(row.get(name)) for name in names] for row in rows)
    # The mark at the beginning tells spreadsheets that names are written in UTF-8.
    return f"data:text/csv;charset=utf-8;base64,{base64.b64encode(text.getvalue().encode('utf-8-sig')).decode()}"


def _rows(part: Any) -> list[Mapping[str, Any]]:
    """Every row of data in a definition, in its order; equal sets of rows in several layers once."""
    found: list[Mapping[str, Any]] = []
    sets: list[Any] = []

    def walk(node: Any) -> None:
        if isinstance(node, Mapping):
            data = node.get("data")
            values = data.get("values") if isinstance(data, Mapping) else None
            if isinstance(values, list) and values not in sets:
                sets.append(values)
                found.extend(row for row in values if isinstance(row, Mapping))
            for name, value in node.items():
                if name != "data":
                    walk(value)
        elif isinstance(node, list):
            for value in node:
                walk(value)

    walk(part)
    return found


def inert(value: Any) -> Any:
    """Text that a spreadsheet would run as a formula, with an apostrophe in front; all else as it is."""
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r") else value


def _file_name(title: str) -> str:
    """A title as the name of a file on any system."""
    return re.sub(r"[^\w.-]+", "-", title).strip("-.")[:60] or "figure"


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
    "inert",
    "number",
    "render",
    "tokens",
    "write_page",
]
