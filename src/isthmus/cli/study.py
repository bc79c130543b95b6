"""``isthmus study``: run what is missing of a factor study and say what came out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from isthmus.cli import console, inputs, options

if TYPE_CHECKING:
    from isthmus.core.statistics import Interval
    from isthmus.studies import Engine, Outlook, Store, Study, StudyResult, TwoWay


def study(
    file: Annotated[str, typer.Argument(help="The study: a .toml or .yaml file.")],
    store: Annotated[str, typer.Option(help="Folder of the store that results are looked for and kept in.")] = (
        "isthmus-store"
    ),
    data_dir: options.DataDir = None,
    engine: Annotated[str, typer.Option(help="local (processes on this machine) or ray (a cluster).")] = "local",
    address: Annotated[str | None, typer.Option(help="Of the Ray cluster: auto, HOST:PORT or ray://HOST:PORT.")] = None,
    workers: Annotated[int | None, typer.Option(help="Processes; by default one for each GPU or core.")] = None,
    threads: Annotated[
        int | None, typer.Option(help="Threads of each process; by default one, or more where a probe finds they pay.")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, or auto: all GPUs if there are any.")] = "auto",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would run and how long it would take.")] = False,
    report: options.Report = None,
    output: options.Output = None,
    json: options.Json = False,
) -> None:
    """Run what is missing of a study; may be stopped at any moment and goes on from there."""
    from pathlib import Path

    from isthmus.core.files import write_text
    from isthmus.core.record import to_json
    from isthmus.studies import Store, Study, judge, outlook, probe_seconds, read_design, run_study
    from isthmus.studies.store.store import result_name

    design = read_design(file)
    made = Study.of(design, data_folder=data_dir)
    place = Path(store)
    if dry_run:
        known = Store.open(place) if (place / "store.json").exists() else None
        running = _local(workers, threads or 1, device, made, None) if engine == "local" else None
        slots = running.slots if running else workers or 1
        found = outlook(made, known, slots=slots)
        if found.seconds is None and found.steps:
            found = outlook(made, known, slots=slots, seconds_per_step=probe_seconds(made))
        console.emit_json(found) if json else _say_outlook(found, made)
        return
    kept = Store.open(place, create=True)
    running = _engine(engine, address, workers, threads, device, made, kept)
    console.note(f"{design.name}: {len(made.cells)} cells, {len(made.keys)} networks; {running.description}")
    try:
        with console.progress(design.name) as told:
            table = run_study(made, kept, engine=running, progress=told)
    except KeyboardInterrupt:
        console.note(_interrupted(made, kept))
        raise typer.Exit(130) from None
    finally:
        running.close()
    result = judge(design, table)
    # Beside the runs, where ``isthmus serve`` shows it on the study's page.
    write_text(kept.path / "results" / f"{result_name(design.name)}.json", to_json(result))
    console.deliver(result.to_dict(), output=output, report=report, json=json, show=lambda _: _say_result(result))


def _interrupted(made: Study, kept: Store) -> str:
    """What is in the store when somebody stops a study, and how it goes on."""
    trained = sum(key in kept for key in made.keys)
    there = f"{kept.path} holds {trained} of {len(made.keys)} networks and all that was measured on them"
    return f"interrupted; {there}; the same command goes on from there"


def _engine(
    name: str,
    address: str | None,
    workers: int | None,
    threads: int | None,
    device: str,
    made: Study,
    kept: Store,
) -> Engine:
    from isthmus.core.errors import SettingError

    if name == "ray":
        from isthmus.studies.factors.cluster import Cluster

        return Cluster(address=address, threads=threads or 1)
    if name != "local":
        raise SettingError(f"engine must be local or ray, got {name}")
    if address is not None:
        raise SettingError(f"address is for the ray engine; add --engine ray, got {address} with local")
    return _local(workers, threads, device, made, kept)


def _local(workers: int | None, threads: int | None, device: str, made: Study, kept: Store | None) -> Engine:
    """No more processes than there are groups to train: each costs seconds to start."""
    from isthmus.studies.factors.local import Local, cores
    from isthmus.studies.factors.threads import threads_for

    devices = None if device == "auto" else (inputs.found_device(device),)
    on_gpus = (devices is None and _gpus() > 0) or (devices is not None and devices[0] != "cpu")
    groups = max(1, len(made.plan.trainings))
    most = workers if workers is not None else None if devices is None and _gpus() else min(cores(), groups)
    if threads is None:
        threads = 1 if on_gpus or not most or most < 1 else threads_for(made, kept, workers=most)
    return Local(workers=most, threads=threads, devices=devices)


def _gpus() -> int:
    import torch

    return torch.cuda.device_count()


def _say_outlook(found: Outlook, made: Study) -> None:
    from isthmus.studies import describe

    console.table(
        ["cell", "networks", "comparisons"],
        [[cell.name, len(cell.places), len(cell.comparisons)] for cell in made.cells],
        title=made.design.name,
    )
    console.say(f"in the store: {found.trained} of {found.networks} networks")
    console.say(f"to do: {found.groups} groups of networks to train, {found.measurements} values to measure")
    if not found.steps:
        console.say("nothing is missing")
    elif found.seconds is not None:
        console.say(f"estimated time: {describe(found.seconds)} (from {found.basis})")


def _shown(interval: Interval) -> str:
    """A mean with its interval; nothing where every network diverged."""
    return "–" if interval.estimate != interval.estimate else str(interval)


def _say_two_way(found: TwoWay) -> None:
    """Means of one measure by two factors, their margins, and what does not add up."""
    rows = [
        [f"{found.rows}={level}", *map(_shown, means), _shown(margin)]
        for level, means, margin in zip(found.row_levels, found.means, found.row_means, strict=True)
    ]
    rows.append([f"all {found.rows}", *map(_shown, found.column_means), ""])
    head = [f"{found.columns}={level}" for level in found.column_levels]
    console.table(["", *head, f"all {found.columns}"], rows, title=f"{found.measure}: {found.rows} × {found.columns}")
    for one in (one for row in found.interactions for one in row):
        console.say(
            f"interaction: ({one.second} − {one.first}) at {one.there} less that at {one.here}: {one.difference}, "
            f"p = {one.p_corrected:.2g}"
        )


def _say_result(result: StudyResult) -> None:
    found = result.effects
    measures = list(dict.fromkeys(cell.measure for cell in found.cells))
    cells: dict[str, dict[str, Any]] = {}
    for entry in found.cells:
        name = ", ".join(f"{factor}={level}" for factor, level in entry.levels.items())
        cells.setdefault(name, {})[entry.measure] = entry.interval
    rows = [[name, *(_shown(means[measure]) for measure in measures)] for name, means in cells.items()]
    console.table(["cell", *measures], rows, title=f"{result.study}: means with 95 % intervals over networks")
    claimed = [measure for measure in measures if any(v.measure == measure for v in result.verdicts)]
    for found_table in found.two_way:
        if found_table.measure in (claimed or measures):
            _say_two_way(found_table)
    if found.matching and not found.matching.matched:
        m = found.matching
        console.say(
            f"training loss is not matched: {m.lowest:.3g} at {m.low}, {m.highest:.3g} at {m.high} "
            f"(tolerance {m.tolerance:g})"
        )
    if found.diverged:
        console.say(f"{found.diverged} of {found.networks} networks diverged; they are kept and left out of the means")
    measured = [c for c in found.contrasts if c.measure in (claimed or measures)] if found.two_way else []
    for one in measured:
        console.say(
            f"main effect on {one.measure}: {one.factor}, {one.second} − {one.first}: {one.difference}, "
            f"p = {one.p_corrected:.2g}"
        )
    if measured:
        console.say(f"p after {found.correction}")
    for verdict in result.verdicts:
        console.say(f"{verdict.outcome}: {verdict.words} ({verdict.evidence})")
