"""Pages of studies: how far each is, and what one holds."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from isthmus.studies.store.query import Query
from isthmus.web.library import Library
from isthmus.web.pages import page, problem
from isthmus.web.runs import PAGE


def list_studies(request: Request) -> Response:
    """Every study with its progress."""
    return page(request, "studies", studies=request.app.state.library.studies())


def show_study(request: Request) -> Response:
    """One study: its question, its progress, its first runs."""
    library: Library = request.app.state.library
    study = library.study(request.path_params["name"])
    if study is None:
        return problem(request, "No study of this name used this store.", status=404)
    found = library.search(Query(keys=study.keys, order="created", descending=True, limit=PAGE))
    return page(request, "study", study=study, found=found)
