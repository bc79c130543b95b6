"""``isthmus path``: straight and learned curves between two checkpoints, and layer by layer."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from isthmus.cli import console, inputs, options


def path(
    checkpoints: options.Checkpoints,
    model: options.Model,
    data: options.Data,
    data_dir: options.DataDir = None,
    bends: Annotated[int, typer.Option(help="Learn a curve with so many bends; 0 measures the line alone.")] = 0,
    kind: Annotated[str, typer.Option(help="Of the learned curve: bezier or polygon.")] = "bezier",
    steps: Annotated[int, typer.Option(help="Of the learning.")] = 500,
    layers: Annotated[str, typer.Option(help="Also layer by layer: none, only (one layer moves) or up_to.")] = "none",
    curvature: Annotated[
        int, typer.Option(help="Also largest eigenvalue and trace of the training loss's Hessian at so many points.")
    ] = 0,
    adaptive: Annotated[
        float | None, typer.Option(help="Add points until the barrier is known this well (nats).")
    ] = None,
    metrics: Annotated[
        str | None, typer.Option(help="Beside loss and error: calibration, distance, disagreement; some, with commas.")
    ] = None,
    split: options.Split = "test",
    examples: options.Examples = None,
    points: options.Points = 25,
    normalisation: options.Normalisation = "reestimate",
    seed: options.Seed = 0,
    device: options.Device = "auto",
    unsafe_pickle: options.UnsafePickle = False,
    report: options.Report = None,
    output: options.Output = None,
    json: options.Json = False,
) -> None:
    """Look between two checkpoints: the straight line, a learned curve of low loss, single layers."""
    from isthmus.core.errors import SettingError

    checkpoints = inputs.expanded(checkpoints)
    if len(checkpoints) != 2:
        raise SettingError(f"a path lies between exactly 2 checkpoints, got {len(checkpoints)}")
    if layers not in ("none", "only", "up_to"):
        raise SettingError(f"layers must be none, only or up_to, got {layers}")
    with console.progress("path") as told:
        from isthmus.studies.between import paths_between

        case = inputs.case(
            checkpoints, model=model, data=data, data_dir=data_dir, examples=examples, split=split, device=device,
            unsafe_pickle=unsafe_pickle, least=2,
        )  # fmt: skip
        start, end = case.solutions
        found = paths_between(
            start,
            end,
            case.objective,
            case.training,
            bends=bends,
            kind=kind,  # type: ignore[arg-type]
            steps=steps,
            layers=layers,  # type: ignore[arg-type]
            curvature=curvature,
            names=(case.names[0], case.names[1]),
            seed=seed,
            points=points,
            adaptive=adaptive,
            normalisation=normalisation,
            further=tuple(console.names(metrics)),
            progress=told,
        )
        values = console.traced(found, case.data)
    console.deliver(values, output=output, report=report, json=json, show=_show)


def _show(values: dict[str, Any]) -> None:
    from isthmus.report.connectivity import CONVENTIONS
    from isthmus.report.words import words_for

    words = words_for("en")
    rows = [[words(f"convention.{kind}"), *(c[kind] for c in values["curves"].values())] for kind in CONVENTIONS]
    rows.append([words("path.uncertainty"), *(c["uncertainty"] for c in values["curves"].values())])
    for name in values["curves"]["line"]["metrics"]:
        if name != "error":
            highest = [max(value for value in c["metrics"][name]) for c in values["curves"].values()]
            rows.append([f"{name}, highest on the way", *highest])
    policy = values["curves"]["line"]["normalisation"]
    title = f"{' – '.join(values['names'])}, statistics between the ends: {policy}"
    console.table(["convention", *(words(f"path.{name}") for name in values["curves"])], rows, title=title)
    if values["layers"]:
        heights = values["layers"]["heights"]
        rows = [
            [name, heights["loss_barrier"][i], heights["error_barrier"][i]]
            for i, name in enumerate(values["layers"]["layers"])
        ]
        console.table(
            ["layer", "loss barrier", "error barrier"], rows, title=words(f"layers.{values['layers']['mode']}")
        )
    if values["curvature"]:
        named = {words(f"path.{name}"): curve for name, curve in values["curvature"].items()}
        columns = [
            words("curvature.position"),
            *(f"{name}: {words(f'curvature.{kind}')}" for name in named for kind in ("largest", "trace")),
        ]
        rows = [
            [f"{t:.2f}", *(curve[kind][place] for curve in named.values() for kind in ("largest", "trace"))]
            for place, t in enumerate(next(iter(named.values()))["positions"])
        ]
        console.table(columns, rows, title=words("curvature.title"))
