"""``isthmus runs``: what a store holds."""

from __future__ import annotations

from typing import Annotated

import typer

from isthmus.cli import console

app = typer.Typer(
    name="runs", add_completion=False, rich_markup_mode=None, help="List, show, export, verify and clean a store."
)

_Store = Annotated[str, typer.Option("--store", help="Folder of the store.")]
_Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
_DEFAULT = "isthmus-store"


@app.command("list", short_help="List the runs, the oldest first.")
def list_runs(
    store: _Store = _DEFAULT,
    study: Annotated[str | None, typer.Option(help="Only the runs of this study.")] = None,
    json: _Json = False,
) -> None:
    """List the runs, the oldest first."""
    from isthmus.studies import Store
    from isthmus.studies.store.index import listing

    opened = Store.open(store)
    wanted = set(opened.members_of(study)) if study else None
    found = [entry for entry in listing(opened) if wanted is None or entry.key in wanted]
    if json:
        console.emit_json(found)
        return
    rows = [
        [
            entry.key[:12],
            entry.status,
            entry.recipe.get("network"),
            entry.recipe.get("data"),
            entry.rows,
            entry.seconds,
            entry.created,
        ]
        for entry in found
    ]
    console.table(["key", "status", "network", "data", "rows", "seconds", "created"], rows)
    console.say(f"{len(found)} runs in {store}; studies: {', '.join(opened.studies()) or 'none'}")


@app.command(short_help="Show one run: recipe, origin, measures.")
def show(
    key: Annotated[str, typer.Argument(help="The run's key, or the start of it.")],
    store: _Store = _DEFAULT,
    json: _Json = False,
) -> None:
    """Show one run: its recipe, how it was made, what was measured."""
    from isthmus.studies import Store
    from isthmus.studies.store.export import numbers

    opened = Store.open(store)
    run = opened.run(opened.find(key))
    if json:
        console.emit_json(run)
        return
    made = run.provenance
    console.say(f"{run.key}: {made.get('status')}, trained {made.get('engine')} in {made.get('seconds', 0):.3g} s")
    console.table(["recipe", "value"], [[name, str(value)] for name, value in run.recipe.items()])
    rows = [
        [row.measure, column, value, row.unit, str(row.settings.get("other", ""))[:12]]
        for row in run.rows
        for column, value in numbers(row).items()
    ]
    console.table(["measure", "column", "value", "unit", "other"], rows)


@app.command(short_help="Export the table of measures, weights or everything.")
def export(
    output: Annotated[
        str, typer.Argument(help=".csv, .jsonl or .parquet for the table; .safetensors or .pt for one run's weights.")
    ] = "",
    store: _Store = _DEFAULT,
    study: Annotated[str | None, typer.Option(help="Only the runs of this study.")] = None,
    run: Annotated[str | None, typer.Option(help="The run whose weights are wanted, or the start of its key.")] = None,
    moment: Annotated[str, typer.Option(help="When in the training: final, step-100, …")] = "final",
    mlflow: Annotated[str | None, typer.Option(help="Log the runs to this experiment of MLflow.")] = None,
    tracking_uri: Annotated[str | None, typer.Option(help="Folder or server of MLflow.")] = None,
) -> None:
    """Export the table of measures, one run's weights, or everything to MLflow."""
    from isthmus.core.errors import SettingError
    from isthmus.core.history import save_with_lineage
    from isthmus.studies import Store
    from isthmus.studies.store.export import export_mlflow, export_table
    from isthmus.studies.store.kept import lineage_of

    opened = Store.open(store)
    keys = opened.members_of(study) if study else None
    if mlflow is not None:
        with console.progress("mlflow") as told:
            new = export_mlflow(opened, experiment=mlflow, tracking_uri=tracking_uri, keys=keys, progress=told)
        console.say(f"{new} runs logged to {mlflow}")
    elif not output:
        raise SettingError("an export needs a file to write or --mlflow EXPERIMENT, got neither")
    elif run is not None:
        key = opened.find(run)
        kept = opened.run(key)
        lineage = lineage_of(kept.recipe, kept.provenance, moment)
        held = {"recipe": key, "moment": moment}
        save_with_lineage(opened.weights(key, moment=moment), output, lineage, metadata=held)
        console.say(f"{output} holds run {key[:12]} at {moment}")
    else:
        console.say(f"{output} holds {export_table(opened, output, keys=keys)} lines")


@app.command(short_help="Read every byte and compare it with what was written.")
def verify(store: _Store = _DEFAULT, json: _Json = False) -> int:
    """Read every byte and compare it with what was written; exit code 1 if anything is damaged."""
    from isthmus.studies import Store
    from isthmus.studies import verify as verify_store

    with console.progress("verify") as told:
        found = verify_store(Store.open(store), progress=told)
    if json:
        console.emit_json(found)
    else:
        for key, wrong in found.damaged.items():
            console.say(f"damaged: {key[:12]}: {wrong}")
        console.say(f"{found.runs} runs, {found.groups} groups, {found.rows} values: {len(found.damaged)} damaged")
    return 0 if found.sound else 1


@app.command(short_help="Remove leftovers of killed processes.")
def gc(
    store: _Store = _DEFAULT,
    unused: Annotated[bool, typer.Option("--unused", help="Also remove runs that belong to no study.")] = False,
    damaged: Annotated[bool, typer.Option("--damaged", help="Also remove runs that fail to verify.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    json: _Json = False,
) -> None:
    """Remove leftovers of killed processes and weights that no run reads."""
    from isthmus.studies import Store, collect
    from isthmus.studies import unused as unused_runs
    from isthmus.studies import verify as verify_store

    opened = Store.open(store)
    doomed = dict.fromkeys(unused_runs(opened) if unused else ())
    if damaged:
        with console.progress("verify") as told:
            doomed |= dict.fromkeys(verify_store(opened, progress=told).damaged)
    found = collect(opened, runs=tuple(doomed), remove=not dry_run)
    if json:
        console.emit_json(found)
        return
    verb = "removed" if found.removed else "would remove"
    console.say(
        f"{verb} {found.runs} runs, {found.groups} groups, {found.leftovers} leftovers: {found.bytes / 1e6:.1f} MB"
    )
