"""The site: which address is answered by what."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import socket
from collections.abc import AsyncIterator, Collection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from isthmus.core.errors import IsthmusError
from isthmus.report.page import tokens
from isthmus.studies.store.store import Store
from isthmus.web import downloads, pictures, results, runs, studies, work
from isthmus.web.guard import Guard, entered
from isthmus.web.jobs import Jobs
from isthmus.web.library import Library
from isthmus.web.live import Live
from isthmus.web.pages import form_of, page, problem

LOOPBACK = ("localhost", "127.0.0.1", "::1")


def application(
    store: Store,
    *,
    token: str | None = None,
    hosts: Collection[str] = LOOPBACK,
    addresses: bool = False,
    allow_run: bool = False,
    data_folder: str | None = None,
    every: float = 1.0,
) -> Guard:
    """The site of one store.

    Args:
        store: what is shown.
        token: that every request must bring; ``None`` for readers on this machine only.
        hosts: names under which the site is reached; others are refused.
        addresses: whether numeric addresses are such names too.
        allow_run: whether readers may start work.
        data_folder: where that work finds its data.
        every: seconds between two looks at the store.

    Raises:
        IsthmusError: the store cannot be read.

    Cost: a look at every run once, and about a twentieth of a core while it runs.
    """
    library = Library(store)
    library.refresh()
    jobs = Jobs(store.path.absolute(), allowed=allow_run, data_folder=data_folder)
    live = Live(library, jobs, every=every)
    app = Starlette(
        routes=_routes(),
        exception_handlers={404: _missing, 405: _missing, IsthmusError: _damaged},
        lifespan=_lifespan,
    )
    app.state.library, app.state.jobs, app.state.live = library, jobs, live
    app.state.token, app.state.name, app.state.allow_run = token, store.path.name or "store", allow_run
    # Around everything, so that answers to what went wrong have the headers too.
    return Guard(app, token=token, hosts=hosts, addresses=addresses)


def _routes() -> list[Route | Mount]:
    return [
        Route("/", runs.list_runs),
        Route("/runs/{key}", runs.show_run),
        Route("/runs/{key}/run.json", downloads.run_json),
        Route("/runs/{key}/weights/{moment}", downloads.weights),
        Route("/compare", runs.compare),
        Route("/pictures/curves.svg", pictures.curves),
        Route("/table.csv", downloads.table_csv),
        Route("/table.jsonl", downloads.table_json),
        Route("/studies", studies.list_studies),
        Route("/studies/{name}", studies.show_study),
        Route("/results", results.list_results),
        Route("/results/{name}.json", results.result_json),
        Route("/results/{name}", results.show_result),
        Route("/jobs", work.list_jobs, methods=["GET"]),
        Route("/jobs", work.start_job, methods=["POST"]),
        Route("/jobs/{id}", work.show_job, methods=["GET"]),
        Route("/jobs/{id}/stop", work.stop_job, methods=["POST"]),
        Route("/help", _help),
        Route("/events", _events),
        Route("/enter", _enter, methods=["GET", "POST"]),
        Route("/static/tokens.css", _tokens),
        Mount("/static", StaticFiles(directory=Path(__file__).parent / "static")),
    ]


@contextlib.asynccontextmanager
async def _lifespan(app: Starlette) -> AsyncIterator[None]:
    live: Live = app.state.live
    watching = asyncio.create_task(live.watch())
    try:
        yield
    finally:
        watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watching
        await live.close()
        await asyncio.to_thread(app.state.jobs.close)
        app.state.library.close()


async def _events(request: Request) -> Response:
    headers = {"X-Accel-Buffering": "no"}
    return StreamingResponse(request.app.state.live.events(), media_type="text/event-stream", headers=headers)


async def _enter(request: Request) -> Response:
    """The form for the token, and what it sends."""
    token = request.app.state.token
    if token is None:
        return RedirectResponse("/", 303)
    if request.method == "POST":
        given = (await form_of(request)).get("token", [""])[0].strip()
        if hmac.compare_digest(given.encode(), token.encode()):
            return entered(request.scope, token, to="/")
        return page(request, "enter", status=401, wrong=True)
    return page(request, "enter", wrong=False)


def _help(request: Request) -> Response:
    return page(request, "help")


def _tokens(request: Request) -> Response:
    return Response(tokens(), media_type="text/css", headers={"Cache-Control": "max-age=300"})


def _missing(request: Request, wrong: Any) -> Response:
    return problem(request, "site.problem.nothing", status=wrong.status_code)


def _damaged(request: Request, wrong: Exception) -> Response:
    return problem(request, wrong, status=500)


def server_of(site: Guard, *, certificate: str | None = None, key: str | None = None) -> uvicorn.Server:
    """What answers on a socket: ``server_of(site).run(sockets=[listening])``."""
    live: Live = site.app.state.live  # type: ignore[attr-defined]

    class Server(uvicorn.Server):
        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            # Open pages listen for as long as they are let: they go first.
            await live.close()
            await super().shutdown(sockets)

    return Server(
        uvicorn.Config(
            site, log_level="warning", access_log=False, server_header=False, timeout_graceful_shutdown=2,
            ssl_certfile=certificate, ssl_keyfile=key, ws="none",
        )
    )  # fmt: skip


def address_of(host: str, port: int, *, token: str | None, secure: bool) -> str:
    """What a reader types into a browser."""
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    place = urlsplit(f"{'https' if secure else 'http'}://{shown}:{port}/").geturl()
    return f"{place}?token={token}" if token else place
