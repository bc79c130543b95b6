"""Pages of results that the store keeps, drawn when they are first asked for."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, Response

from isthmus.core.errors import IsthmusError
from isthmus.report.assemble import page_of
from isthmus.report.page import render
from isthmus.report.section import SECTIONS
from isthmus.web.library import Library
from isthmus.web.pages import language_of, page, problem

# A result's page carries its own scripts and is shut off from this site: it has no origin, no cookies, no connections.
_POLICY = (
    "sandbox allow-scripts allow-downloads allow-popups; default-src 'none'; script-src 'unsafe-inline'; "
    "style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def list_results(request: Request) -> Response:
    """What results there are."""
    library: Library = request.app.state.library
    shown = [
        {"name": file.stem, "kind": kind, "at": file.stat().st_mtime}
        for file in library.results()[:500]
        if file.is_file() and (kind := _kind(str(file), file.stat().st_mtime_ns))
    ]
    return page(request, "results", results=shown)


def show_result(request: Request) -> Response:
    """The page of one result."""
    file = request.app.state.library.result(request.path_params["name"])
    if file is None:
        return problem(request, "site.problem.result", status=404)
    try:
        html = _drawn(str(file), file.stat().st_mtime_ns, language_of(request))
    except IsthmusError as wrong:
        return problem(request, wrong, status=422)
    return HTMLResponse(html, headers={"Content-Security-Policy": _POLICY})


def result_json(request: Request) -> Response:
    """The values of one result."""
    file = request.app.state.library.result(request.path_params["name"])
    if file is None:
        return problem(request, "site.problem.result", status=404)
    return FileResponse(file, media_type="application/json", filename=file.name)


@functools.lru_cache(maxsize=16)
def _drawn(file: str, stamp: int, language: str) -> str:
    """Drawn once for each state of the file."""
    return render(page_of([file], language=language), language=language)


@functools.lru_cache(maxsize=2000)
def _kind(file: str, stamp: int) -> str:
    """The kind of a result; empty where it is none that is drawn."""
    try:
        values: Any = json.loads(Path(file).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ""
    kind = values.get("kind") if isinstance(values, Mapping) else None
    return kind if kind in SECTIONS or kind == "Demo" else ""
