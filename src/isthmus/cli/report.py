"""``isthmus report``: a page from results that were written before."""

from __future__ import annotations

from typing import Annotated

import typer

from isthmus.cli import console, options


def report(
    results: Annotated[
        list[str], typer.Argument(help="Files that a command wrote with --json or into its output folder.")
    ],
    output: Annotated[
        str, typer.Option("--output", "-o", help="The page to write (.html).", callback=options.page_file)
    ] = "report.html",
    language: options.Language = "en",
    static: Annotated[
        bool, typer.Option("--static", help="Pictures instead of interactive figures: a smaller file.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print where the page is, as JSON.")] = False,
) -> None:
    """Draw results as one offline HTML page."""
    from isthmus.report.assemble import page_of
    from isthmus.report.page import write_page

    page = page_of(results, language=language)
    path = write_page(page, output, language=language, interactive=not static)
    if json:
        console.emit_json({"page": str(path), "verdict": page.verdict})
    else:
        console.say(f"{page.verdict}\n{path} is written.")
