"""What a reader takes away from a page: the picture of a figure as SVG, its data as CSV."""

from __future__ import annotations

import base64
import csv
import functools
import io
import json
import re
from collections.abc import Mapping
from typing import Any


@functools.lru_cache(maxsize=64)
def svg(spec: str) -> str:
    """The picture of a definition, drawn without a browser; ink stays ``currentColor``."""
    import vl_convert

    return vl_convert.vegalite_to_svg(json.loads(spec))


def svg_file(spec: Mapping[str, Any]) -> str:
    """A figure's picture as an address that holds it, in black ink, for a link that saves it."""
    picture = svg(json.dumps(spec)).replace("currentColor", "black")
    return f"data:image/svg+xml;base64,{base64.b64encode(picture.encode()).decode()}"


def csv_file(spec: Mapping[str, Any]) -> str:
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


def file_name(title: str) -> str:
    """A title as the name of a file on any system."""
    return re.sub(r"[^\w.-]+", "-", title).strip("-.")[:60] or "figure"
