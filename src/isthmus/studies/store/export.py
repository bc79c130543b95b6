"""What a store holds as one table for other tools: CSV, JSON lines, pandas, Parquet, MLflow."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from isthmus.core.errors import IsthmusError, first_line
from isthmus.core.files import atomic
from isthmus.core.progress import Progress, silent
from isthmus.studies.store.rows import Row
from isthmus.studies.store.store import Run, Store

_KINDS = (".csv", ".jsonl", ".parquet")


def lines(store: Store, *, keys: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """One line for each number that was measured: the run, its recipe, the measure, the column, the value.

    Curves (lists) stay in the store's own files and in JSON lines; a table has a place for numbers only.
    """
    found = []
    for key in keys if keys is not None else store.keys:
        run = store.run(key)
        told = about(run)
        for row in run.rows:
            for column, value in numbers(row).items():
                found.append({**told, **_of_row(row), "column": column, "value": value})
    return found


def export_table(store: Store, path: str | Path, *, keys: Sequence[str] | None = None) -> int:
    """Write the table of a store; the suffix decides how. Returns the number of lines.

    Args:
        store: what to write.
        path: ``.csv``, ``.jsonl`` (whole rows, curves included) or ``.parquet`` (needs pandas and pyarrow).
        keys: which runs; all by default.

    Raises:
        IsthmusError: another suffix, a missing library, or a place that cannot be written.
    """
    file = Path(path)
    if file.suffix not in _KINDS:
        raise IsthmusError(f"a table is written as {', '.join(_KINDS)}, got {file.name}")
    if file.suffix == ".parquet":
        frame = to_pandas(store, keys=keys)
        _required("pyarrow", "Parquet")
        with atomic(file) as temporary:
            frame.to_parquet(temporary, engine="pyarrow")
        return len(frame)
    content = _whole_rows(store, keys) if file.suffix == ".jsonl" else lines(store, keys=keys)
    with atomic(file) as temporary, temporary.open("w", encoding="utf-8", newline="") as stream:
        if file.suffix == ".jsonl":
            stream.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in content)
        else:
            header = list(dict.fromkeys(name for line in content for name in line))
            writer = csv.DictWriter(stream, header, restval="")
            writer.writeheader()
            writer.writerows(content)
    return len(content)


def to_pandas(store: Store, *, keys: Sequence[str] | None = None) -> Any:
    """The table of a store as a ``pandas.DataFrame``, one line a number.

    Raises:
        IsthmusError: pandas is not installed.
    """
    pandas = _required("pandas", "this export")
    return pandas.DataFrame(lines(store, keys=keys))


def export_mlflow(
    store: Store,
    *,
    experiment: str,
    tracking_uri: str | None = None,
    keys: Sequence[str] | None = None,
    progress: Progress = silent,
) -> int:
    """Log every run of a store as a run of MLflow: recipe as parameters, numbers as metrics, the key as a tag.

    Runs whose key the experiment has already are left alone, so that an export can be repeated. Returns how many were
    new.

    Args:
        store: what to log.
        experiment: of MLflow; made if it is missing.
        tracking_uri: a folder or a server; MLflow's own default otherwise.
        keys: which runs; all by default.
        progress: told after every run.

    Raises:
        IsthmusError: MLflow is not installed or cannot be reached.
    """
    mlflow = _required("mlflow", "this export")
    chosen = list(keys) if keys is not None else list(store.keys)
    try:
        client = mlflow.MlflowClient(tracking_uri=tracking_uri)
        found = client.get_experiment_by_name(experiment)
        identity = found.experiment_id if found else client.create_experiment(experiment)
        new = [key for key in chosen if not client.search_runs([identity], f"tags.`isthmus.key` = '{key}'")]
        for done, key in enumerate(new):
            progress(done, len(new), key[:12])
            _log(mlflow, client, identity, store.run(key))
    except mlflow.exceptions.MlflowException as problem:
        raise IsthmusError(f"MLflow must take the runs, but: {first_line(problem)}") from problem
    return len(new)


def numbers(row: Row) -> dict[str, float | None]:
    """The plain numbers of a row by column; a value that is one number has the measure's own name."""
    content = row.value if isinstance(row.value, Mapping) else {row.measure: row.value}
    return {
        name: value
        for name, value in content.items()
        if value is None or (isinstance(value, int | float) and not isinstance(value, bool))
    }


def _log(mlflow: Any, client: Any, experiment: str, run: Run) -> None:
    """One run; values that are not finite have no place in MLflow's metrics and are left out."""
    tags = {"isthmus.key": run.key, "mlflow.runName": run.key[:12], "isthmus.status": _status(run)}
    made = client.create_run(experiment, tags=tags).info.run_id
    entities = mlflow.entities
    parameters = [entities.Param(name, str(value)[:500]) for name, value in flat(run.recipe).items()]
    metrics = [
        entities.Metric(_metric_name(row, column), float(value), 0, 0)
        for row in run.rows
        for column, value in numbers(row).items()
        if value is not None
    ]
    client.log_batch(made, metrics=metrics, params=parameters)
    client.set_terminated(made, "FAILED" if _status(run) == "diverged" else "FINISHED")


def _metric_name(row: Row, column: str) -> str:
    other = row.settings.get("other")
    return f"{row.measure}.{column}" + (f".{str(other)[:12]}" if other else "")


def _whole_rows(store: Store, keys: Sequence[str] | None) -> list[dict[str, Any]]:
    found = []
    for key in keys if keys is not None else store.keys:
        run = store.run(key)
        found += [{**about(run), **_of_row(row), "value": row.value} for row in run.rows]
    return found


def about(run: Run) -> dict[str, Any]:
    """What every line of a table says of its run: key, status and recipe, by dotted names."""
    return {"key": run.key, "status": _status(run), **{f"recipe.{k}": v for k, v in flat(run.recipe).items()}}


def _of_row(row: Row) -> dict[str, Any]:
    settings = {name: value for name, value in row.settings.items() if name != "other"}
    return {
        "measure": row.measure,
        "version": row.version,
        "other": row.settings.get("other"),
        "settings": json.dumps(settings),
        "unit": row.unit,
    }


def flat(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe without nesting: settings by dotted names, lists as JSON."""
    flat = {name: value for name, value in recipe.items() if name != "settings"}
    flat |= {f"settings.{name}": value for name, value in recipe.get("settings", {}).items()}
    return {name: json.dumps(value) if isinstance(value, list | dict) else value for name, value in flat.items()}


def _status(run: Run) -> str:
    return str(run.provenance.get("status", "unknown"))


def _required(library: str, what: str) -> Any:
    import importlib

    try:
        return importlib.import_module(library)
    except ImportError:
        raise IsthmusError(f"{what} needs {library}, which is not installed; pip install {library}") from None
