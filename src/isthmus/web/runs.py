"""Pages of runs: the list with search and filter, one run, several side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from isthmus.core.errors import SettingError
from isthmus.studies.factors.measures import unit_of
from isthmus.studies.store.export import flat, numbers
from isthmus.studies.store.kept import Run
from isthmus.studies.store.query import Query
from isthmus.web.library import Library
from isthmus.web.pages import SiteError, integer, page, problem

PAGE = 50
MOST_COMPARED = 50
# column -> whether its order starts with the largest
COLUMNS = {
    "created": True,
    "status": False,
    "network": False,
    "data": False,
    "test_error": False,
    "training_loss": False,
    "seconds": True,
}
_FILTERS = ("network", "data", "status")


def query_of(request: Request) -> Query:
    """What an address of the list asks for.

    Raises:
        SettingError: the study is unknown, or a number is none.
    """
    asked, library = request.query_params, request.app.state.library
    words = [asked.get("q", "")[:500]]
    words += [f"{name}={asked[name]}" for name in _FILTERS if asked.get(name)]
    keys = None
    if name := asked.get("study"):
        if (study := library.study(name)) is None:
            raise SiteError("site.problem.unknown", given=repr(name[:80]))
        keys = study.keys
    order = asked.get("order", "created")[:80]
    descending = asked.get("way", "down" if COLUMNS.get(order, False) else "up") == "down"
    number = integer(request, "page", default=1, low=1, high=1_000_000)
    return Query(" ".join(words), keys, order, descending, (number - 1) * PAGE, PAGE)


def list_runs(request: Request) -> Response:
    """The list of runs."""
    library: Library = request.app.state.library
    try:
        query = query_of(request)
    except SettingError as wrong:
        return problem(request, wrong, status=400)
    found = library.search(query)
    asked = request.query_params
    return page(
        request,
        "runs",
        found=found,
        query=query,
        asked=asked,
        columns=COLUMNS,
        filters={name: library.counts(name) for name in _FILTERS},
        studies=library.studies(),
        number_of_page=query.offset // PAGE + 1,
        pages=max(1, -(-found.total // PAGE)),
        narrowed=bool(query.words.strip() or query.keys is not None),
        most=MOST_COMPARED,
    )


def show_run(request: Request) -> Response:
    """One run: its recipe, how it was made, what was measured."""
    library: Library = request.app.state.library
    run = library.run(request.path_params["key"])
    if run is None:
        return problem(request, "site.problem.run", status=404)
    return page(
        request,
        "run",
        run=run,
        recipe=flat(run.recipe),
        made=_flat_provenance(run.provenance),
        values=_values(run),
        moments=library.store.moments(run.key),
        studies=[study.name for study in library.studies() if run.key in study.keys],
        curve="training_curve" in {row.measure for row in run.rows},
    )


def compare(request: Request) -> Response:
    """Several runs side by side: where their recipes differ, what was measured, and what was measured between them."""
    try:
        runs = chosen(request, most=MOST_COMPARED)
    except SettingError as wrong:
        return problem(request, wrong, status=400)
    if len(runs) < 2:
        return problem(request, "site.problem.two", status=400)
    recipes = [flat(run.recipe) for run in runs]
    names = list(dict.fromkeys(name for recipe in recipes for name in recipe))
    different = {name: [recipe.get(name) for recipe in recipes] for name in names}
    same = {name: values[0] for name, values in different.items() if all(v == values[0] for v in values)}
    return page(
        request,
        "compare",
        runs=runs,
        different={name: values for name, values in different.items() if name not in same},
        same=same,
        measured=_side_by_side(runs),
        pairs=_between(runs),
        curve=any(row.measure == "training_curve" for run in runs for row in run.rows),
        networks=len({(run.recipe.get("network"), str(run.recipe.get("settings"))) for run in runs}),
    )


def chosen(request: Request, *, most: int) -> list[Run]:
    """The runs that an address names, each once, in its order.

    Raises:
        SettingError: too many.
    """
    library: Library = request.app.state.library
    keys = list(dict.fromkeys(request.query_params.getlist("run")))
    if len(keys) > most:
        raise SiteError("site.problem.together", most=most, got=len(keys))
    found = (library.run(key) for key in keys)
    return [run for run in found if run is not None]


def _values(run: Run) -> list[dict[str, Any]]:
    """What was measured on a run, one entry a number."""
    return [
        {
            "measure": row.measure,
            "name": name,
            "value": value,
            "unit": unit_of(row, name),
            "other": row.settings.get("other"),
        }
        for row in run.rows
        for name, value in numbers(row).items()
    ]


def _side_by_side(runs: Sequence[Run]) -> dict[str, list[Any]]:
    """What was measured on each run alone, by name."""
    found = [{v["name"]: v["value"] for v in _values(run) if v["other"] is None} for run in runs]
    return {name: [one.get(name) for one in found] for name in dict.fromkeys(name for one in found for name in one)}


def _between(runs: Sequence[Run]) -> dict[str, list[list[float | None]]]:
    """Each measure of pairs among the runs as a symmetric table; empty cells were not measured."""
    place = {run.key: number for number, run in enumerate(runs)}
    tables: dict[str, list[list[float | None]]] = {}
    for run in runs:
        for value in _values(run):
            if (other := value["other"]) in place and isinstance(value["value"], int | float):
                name = f"{value['measure']}: {value['name']}" if value["measure"] != value["name"] else value["name"]
                table = tables.setdefault(name, [[None] * len(runs) for _ in runs])
                table[place[run.key]][place[other]] = table[place[other]][place[run.key]] = value["value"]
    return tables


def _flat_provenance(made: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    rows: dict[str, Any] = {}
    for name, value in made.items():
        if isinstance(value, Mapping):
            rows |= _flat_provenance(value, f"{prefix}{name}.")
        else:
            rows[f"{prefix}{name}"] = ", ".join(map(str, value)) if isinstance(value, list) else value
    return rows
