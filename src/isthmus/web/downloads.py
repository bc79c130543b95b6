"""Files to take away: weights, tables, results; names of files are made here, never taken from a reader."""

from __future__ import annotations

import csv
import io
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import FileResponse, Response, StreamingResponse

from isthmus.core.errors import IsthmusError, SettingError
from isthmus.core.record import to_json
from isthmus.report.saved import inert
from isthmus.studies.factors.measures import unit_of
from isthmus.studies.store.export import about, numbers
from isthmus.studies.store.kept import Run, lineage_of
from isthmus.studies.store.query import Query
from isthmus.web.library import Library
from isthmus.web.pages import problem
from isthmus.web.runs import chosen, query_of

_FEW = 500  # runs that an address can name
_FIXED = ("key", "status", "measure", "version", "other", "unit", "column", "value")


def weights(request: Request) -> Response:
    """The weights of one run at a moment, as a safetensors file of its own."""
    from isthmus.core import checkpoint

    library: Library = request.app.state.library
    key, moment = request.path_params["key"], request.path_params["moment"]
    run = library.run(key)
    if run is None or moment not in run.moments:
        return problem(request, "site.problem.weights", status=404)
    handle, name = tempfile.mkstemp(prefix="isthmus-", suffix=".safetensors")
    os.close(handle)
    try:
        held = {"recipe": key, "moment": moment, **lineage_of(run.recipe, run.provenance, moment).header()}
        checkpoint.save(library.store.weights(key, moment=moment), name, metadata=held)
    except IsthmusError:
        Path(name).unlink(missing_ok=True)
        raise
    return FileResponse(
        name,
        media_type="application/octet-stream",
        filename=f"{key[:12]}-{_plain(moment)}.safetensors",
        background=BackgroundTask(Path(name).unlink, missing_ok=True),
    )


def run_json(request: Request) -> Response:
    """Everything about one run but its weights."""
    run = request.app.state.library.run(request.path_params["key"])
    if run is None:
        return problem(request, "site.problem.run", status=404)
    return _attached(to_json(run), "application/json", f"{run.key[:12]}.json")


def table_csv(request: Request) -> Response:
    """Every number measured on the chosen runs, or on all that a search finds, a line each."""
    return _table(request, "csv")


def table_json(request: Request) -> Response:
    """The same as JSON lines, with the recipe by dotted names."""
    return _table(request, "jsonl")


def _table(request: Request, suffix: str) -> Response:
    try:
        runs = _wanted(request)
    except SettingError as wrong:
        return problem(request, wrong, status=400)
    if suffix == "csv":
        body, kind = _csv(runs), "text/csv; charset=utf-8"
    else:
        body, kind = (json.dumps(line, ensure_ascii=False) + "\n" for line in _lines(runs)), "application/jsonl"
    headers = {"Content-Disposition": f'attachment; filename="isthmus-table.{suffix}"'}
    return StreamingResponse(body, media_type=kind, headers=headers)


def _wanted(request: Request) -> Iterator[Run]:
    library: Library = request.app.state.library
    if request.query_params.getlist("run"):
        return iter(chosen(request, most=_FEW))
    query = query_of(request)
    keys = [run.key for run in library.search(Query(query.words, query.keys, query.order, query.descending)).runs]
    return _readable(library, keys)


def _readable(library: Library, keys: list[str]) -> Iterator[Run]:
    """Runs one after the other; those that are damaged or gone by now are left out."""
    for key in keys:
        try:
            run = library.run(key)
        except IsthmusError:
            continue
        if run is not None:
            yield run


def _lines(runs: Iterator[Run]) -> Iterator[dict[str, Any]]:
    for run in runs:
        told = about(run)
        for row in run.rows:
            for column, value in numbers(row).items():
                of_row = {"measure": row.measure, "version": row.version, "other": row.settings.get("other")}
                yield {**told, **of_row, "unit": unit_of(row, column), "column": column, "value": value}


def _csv(runs: Iterator[Run]) -> Iterator[str]:
    """Columns that every line has, the recipe as JSON in the last one: a stream cannot know later runs' fields."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    # The mark at the beginning tells spreadsheets that names are written in UTF-8.
    text.write("\ufeff")
    writer.writerow([*_FIXED, "recipe"])
    for line in _lines(runs):
        recipe = {name.removeprefix("recipe."): value for name, value in line.items() if name.startswith("recipe.")}
        writer.writerow([*(inert(line[name]) for name in _FIXED), json.dumps(recipe, ensure_ascii=False)])
        if text.tell() > 100_000:
            yield text.getvalue()
            text.seek(0)
            text.truncate()
    yield text.getvalue()


def _attached(text: str, kind: str, name: str) -> Response:
    return Response(text, media_type=kind, headers={"Content-Disposition": f'attachment; filename="{name}"'})


def _plain(name: str) -> str:
    return "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "-" for c in name)[:60]
