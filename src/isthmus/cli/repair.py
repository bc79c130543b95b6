"""``isthmus repair``: average two checkpoints and repair the average's hidden statistics."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from isthmus.cli import console, inputs, options


def repair(
    checkpoints: options.Checkpoints,
    model: options.Model,
    data: options.Data,
    data_dir: options.DataDir = None,
    t: Annotated[float, typer.Option("--t", help="Position of the average between the two, inside (0, 1).")] = 0.5,
    align: options.Align = "none",
    rescale_only: Annotated[bool, typer.Option("--rescale-only", help="Correct deviations only, not means.")] = False,
    split: options.Split = "test",
    examples: options.Examples = None,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    unsafe_pickle: options.UnsafePickle = False,
    save: Annotated[str | None, typer.Option(help="Write the repaired checkpoint here.")] = None,
    report: options.Report = None,
    output: options.Output = None,
    json: options.Json = False,
) -> None:
    """Average two checkpoints, repair the average (REPAIR), and say by layer why a plain average collapses."""
    from isthmus.core.errors import SettingError

    checkpoints = inputs.expanded(checkpoints)
    if len(checkpoints) != 2:
        raise SettingError(f"a repair takes exactly 2 checkpoints, got {len(checkpoints)}")
    if align not in ("none", "weights", "activations"):
        raise SettingError(f"align must be none, weights or activations, got {align}")
    with console.progress("repair"):
        from isthmus.core.history import Lineage, save_with_lineage
        from isthmus.core.randomness import child
        from isthmus.merge.parents import parents_of
        from isthmus.studies.between import repaired_average
        from isthmus.studies.matchers import matcher

        case = inputs.case(
            checkpoints, model=model, data=data, data_dir=data_dir, examples=examples, split=split, device=device,
            unsafe_pickle=unsafe_pickle, least=2,
        )  # fmt: skip
        start, end = case.solutions
        if align != "none":
            matching = matcher(align, case.network, case.data.train_inputs)
            match = matching(case.symmetry, end, start, generator=child(seed, "alignment", align, 0, 1))
            end = match.permutation.apply(end)
        found, weights = repaired_average(
            start, end, case.objective, case.data.train_inputs, t=t, rescale_only=rescale_only,
            names=case.names,  # type: ignore[arg-type]
        )  # fmt: skip
        values = console.traced(found, case.data, align=align)
        if save:
            score = found.scores["repaired"]
            lineage = Lineage(
                "isthmus repair", parents_of(checkpoints, unsafe_pickle=unsafe_pickle),
                {"t": t, "align": align, "rescale_only": rescale_only, "seed": seed}, case.data.fingerprint,
                capabilities={case.data.name: 1 - score.metrics["error"]}, measures={"loss": score.loss},
            )  # fmt: skip
            held = {"made_by": "isthmus repair", "sources": ", ".join(checkpoints)}
            save_with_lineage(weights, save, lineage, metadata=held)
    console.deliver(values, output=output, report=report, json=json, show=_show)


def _show(values: dict[str, Any]) -> None:
    from isthmus.report.words import words_for

    words = words_for("en")
    rows = [[words(f"repair.{name}"), s["loss"], 1 - s["metrics"]["error"]] for name, s in values["scores"].items()]
    console.table(["network", "loss", "accuracy"], rows, title=f"{' – '.join(values['names'])}, t = {values['t']:g}")
    before, after = values["variance"]["average"], values["variance"]["repaired"]
    rows = [list(row) for row in zip(before["layers"], before["ratio"], after["ratio"], strict=True)]
    console.table(["layer", "variance kept by the average", "after repair"], rows, title=words("repair.variance"))
