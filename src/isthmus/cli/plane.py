"""``isthmus plane``: the loss on a plane through checkpoints."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from isthmus.cli import console, inputs, options


def plane(
    checkpoints: options.Checkpoints,
    model: options.Model,
    data: options.Data,
    data_dir: options.DataDir = None,
    points: Annotated[int, typer.Option(help="Points along each axis of the grid.")] = 21,
    margin: Annotated[float, typer.Option(help="Around the marked points, as a share of their extent.")] = 0.2,
    curvature: Annotated[
        int,
        typer.Option(help="Also the training loss's largest Hessian eigenvalue, on so many points along each axis."),
    ] = 0,
    split: options.Split = "test",
    examples: options.Examples = None,
    normalisation: Annotated[
        str, typer.Option(help="Statistics off the solutions: reestimate or interpolate.")
    ] = "reestimate",
    seed: options.Seed = 0,
    device: options.Device = "auto",
    unsafe_pickle: options.UnsafePickle = False,
    report: options.Report = None,
    output: options.Output = None,
    json: options.Json = False,
) -> None:
    """Draw the loss around one checkpoint (random filter-normalised directions), or on the plane through three.

    With more than three checkpoints, given in order, the plane of the trajectory's two principal directions is drawn.
    """
    from isthmus.core.errors import SettingError

    checkpoints = inputs.expanded(checkpoints)
    if normalisation not in ("reestimate", "interpolate"):
        raise SettingError(f"normalisation must be reestimate or interpolate, got {normalisation}")
    if curvature and curvature < 3:
        raise SettingError(f"curvature must be at least 3 points along each axis (0 for none), got {curvature}")
    with console.progress("plane") as told:
        from isthmus.connect import surface
        from isthmus.core.progress import within
        from isthmus.core.provenance import provenance
        from isthmus.studies.between import curvature_of, plane_of

        case = inputs.case(
            checkpoints, model=model, data=data, data_dir=data_dir, examples=examples, split=split, device=device,
            unsafe_pickle=unsafe_pickle,
        )  # fmt: skip
        marked = plane_of(case.solutions, tensors=case.network.parameter_names, seed=seed)
        found = surface(
            marked, case.objective, points=points, margin=margin,
            normalisation=normalisation,  # type: ignore[arg-type]
            inputs=case.data.train_inputs, progress=within(told, 0, 2 if curvature else 1),
        )  # fmt: skip
        values = {**found.to_dict(), "names": list(case.names), "curvature": None}
        if curvature:
            bent = curvature_of(found, marked, case.training, points=curvature, seed=seed, progress=within(told, 1, 2))
            values["curvature"] = bent.to_dict()
        values["provenance"] = {**provenance(), "data": case.data.fingerprint}
    console.deliver(values, output=output, report=report, json=json, show=_show)
    if not report and not json:
        console.say("--report page.html draws it.")


def _show(values: dict[str, Any]) -> None:
    losses = [loss for column in values["loss"] for loss in column if loss is not None]
    rows = [
        [name, f"({x:.4g}, {y:.4g})", score["loss"], score["metrics"].get("error")]
        for name, (x, y), score in zip(values["names"], values["points"], values["scores"], strict=False)
    ]
    title = f"{len(values['x'])} × {len(values['y'])} points, loss {min(losses):.4g} … {max(losses):.4g}"
    console.table(["solution", "at", "loss", "error"], rows, title=title)
    if values["explained"]:
        shares = ", ".join(f"{share:.1%}" for share in values["explained"])
        console.say(f"The axes explain {shares} of the trajectory's variance.")
    if values["curvature"]:
        largest = [value for row in values["curvature"]["largest"] for value in row]
        console.say(f"The largest Hessian eigenvalue lies between {min(largest):.4g} and {max(largest):.4g}.")
