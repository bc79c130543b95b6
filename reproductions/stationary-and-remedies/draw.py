"""Figures and tables of the recorded results: every chart of both sections as SVG, both summary tables as Markdown."""

from __future__ import annotations

import json
from pathlib import Path

from isthmus.core.files import write_text
from isthmus.report.figures import write_picture
from isthmus.report.page import Table
from isthmus.report.section import section


def main() -> None:
    """Draw what lies beside this file."""
    folder = Path(__file__).parent
    tables = []
    for name in ("stationary", "remedies"):
        drawn = section(json.loads((folder / f"{name}.json").read_text(encoding="utf-8")))
        for number, figure in enumerate(drawn.figures, start=1):
            write_picture(figure.spec, folder / f"{name}-{number}.svg")
        tables += [f"{line}\n" for line in drawn.text[1:]] + [_markdown(drawn.tables[0])]
    write_text(folder / "tables.md", "\n".join(tables))


def _markdown(table: Table) -> str:
    rows = [table.columns, ["---"] * len(table.columns), *table.rows]
    lines = ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]
    return "\n".join([f"**{table.title}**", "", *lines, ""])


if __name__ == "__main__":
    main()
