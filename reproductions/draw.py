"""Figures and tables of recorded results: python reproductions/draw.py FOLDER [FOLDER ...]

Every ``*.json`` of a folder that holds a result (it names its kind) becomes ``NAME-1.svg`` and so on, one for each
figure of its section on a page, and all their sentences and tables stand in ``tables.md``.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from isthmus.core.files import write_text
from isthmus.report.figures import write_picture
from isthmus.report.page import Table
from isthmus.report.section import section


def draw(folder: Path) -> None:
    """Draw what lies in a folder."""
    if not folder.is_dir():
        raise SystemExit(f"a folder of recorded results must be there, got {folder}")
    lines = []
    for file in sorted(folder.glob("*.json")):
        values = json.loads(file.read_text(encoding="utf-8"))
        if "kind" not in values:
            continue
        drawn = section(values)
        for number, figure in enumerate(drawn.figures, start=1):
            write_picture(figure.spec, folder / f"{file.stem}-{number}.svg")
        lines += [f"## {file.stem}", "", *(f"{line}\n" for line in drawn.text), *map(markdown, drawn.tables)]
    write_text(folder / "tables.md", "\n".join(lines).rstrip() + "\n")


def markdown(table: Table) -> str:
    """A table of a page as one of a text."""
    rows = [table.columns, ["---"] * len(table.columns), *table.rows]
    lines = ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]
    return "\n".join([f"**{table.title}**", "", *lines, ""])


if __name__ == "__main__":
    words = argparse.ArgumentParser(description="Figures and tables of recorded results.")
    words.add_argument("folders", nargs="+", type=Path)
    for each in words.parse_args().folders:
        draw(each)
