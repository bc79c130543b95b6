"""Pages of work that readers start."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from isthmus.core.errors import SettingError
from isthmus.web.jobs import Jobs
from isthmus.web.library import Library
from isthmus.web.pages import form_of, page, problem


def list_jobs(request: Request) -> Response:
    """All work, the newest first."""
    return page(request, "jobs", jobs=request.app.state.jobs.all())


def show_job(request: Request) -> Response:
    """One piece of work and what it says."""
    job = request.app.state.jobs.find(request.path_params["id"])
    if job is None:
        return problem(request, "site.problem.work", status=404)
    return page(request, "job", job=job)


async def start_job(request: Request) -> Response:
    """Start work that a form asks for."""
    jobs: Jobs = request.app.state.jobs
    library: Library = request.app.state.library
    form = await form_of(request)
    keys, study = list(dict.fromkeys(form.get("run", ()))), form.get("study", [""])[0]
    if not jobs.allowed:
        return problem(request, "site.problem.shows", status=403)
    # Only what the store holds reaches a command line.
    if any(library.run(key) is None for key in keys) or (study and library.study(study) is None):
        return problem(request, "site.problem.strange", status=400)
    try:
        job = jobs.start(form.get("kind", [""])[0], runs=keys, study=study)
    except SettingError as wrong:
        return problem(request, wrong, status=400)
    return RedirectResponse(f"/jobs/{job.id}", 303)


async def stop_job(request: Request) -> Response:
    """Stop work."""
    jobs: Jobs = request.app.state.jobs
    job = jobs.find(request.path_params["id"])
    if job is None or not jobs.allowed:
        return problem(request, "site.problem.work", status=404)
    jobs.stop(job)
    return RedirectResponse(f"/jobs/{job.id}", 303)
