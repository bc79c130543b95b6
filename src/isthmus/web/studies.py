"""Pages of studies: how far each is, and what one holds."""

from __future__ import annotations

import json
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from isthmus.report.studied import claim_line
from isthmus.report.words import Words
from isthmus.studies.store.query import Query
from isthmus.studies.store.store import result_name
from isthmus.web.library import Library
from isthmus.web.pages import page, problem, words_of
from isthmus.web.runs import PAGE


def list_studies(request: Request) -> Response:
    """Every study with its progress."""
    return page(request, "studies", studies=request.app.state.library.studies())


def show_study(request: Request) -> Response:
    """One study: its question, its progress, its first runs."""
    library: Library = request.app.state.library
    study = library.study(request.path_params["name"])
    if study is None:
        return problem(request, "site.problem.study", status=404)
    found = library.search(Query(keys=study.keys, order="created", descending=True, limit=PAGE))
    return page(request, "study", study=study, found=found, answer=_answer(library, study.name, words_of(request)))


def _answer(library: Library, name: str, words: Words) -> dict[str, Any] | None:
    """What the study itself kept when it ended: where its page is, when it was made, its claims in words."""
    file = library.result(kept := result_name(name))
    try:
        values = json.loads(file.read_text(encoding="utf-8")) if file is not None else None
        if values is None or values["kind"] != "StudyResult" or file is None:
            return None
        lines = [claim_line(verdict, words) for verdict in values["verdicts"]]
        return {"page": kept, "at": file.stat().st_mtime, "lines": lines}
    except (OSError, ValueError, KeyError, TypeError):
        return None  # what cannot be read is left out: the page of the result says what is wrong with it
