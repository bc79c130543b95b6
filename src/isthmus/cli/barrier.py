"""``isthmus barrier``: the loss on the straight way between checkpoints."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from isthmus.cli import console, inputs, options

WAYS = {
    "none": ("naive",),
    "weights": ("naive", "weights"),
    "activations": ("naive", "activations"),
    "both": ("naive", "weights", "activations"),
}


def barrier(
    checkpoints: options.Checkpoints,
    model: options.Model,
    data: options.Data,
    data_dir: options.DataDir = None,
    align: Annotated[str, typer.Option(help="Also measure after matching: none, weights, activations, both.")] = "none",
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
    """Measure the barriers between all pairs of checkpoints, in every convention."""
    from isthmus.core.errors import SettingError

    if align not in WAYS:
        raise SettingError(f"align must be one of {', '.join(WAYS)}, got {align}")
    with console.progress("barrier") as told:
        from isthmus.studies.comparison import compare

        case = inputs.case(
            checkpoints, model=model, data=data, data_dir=data_dir, examples=examples, split=split,
            device=device, unsafe_pickle=unsafe_pickle, least=2,
        )  # fmt: skip
        result = compare(
            case.solutions,
            case.objective,
            symmetry=case.symmetry if align != "none" else None,
            inputs=case.data.train_inputs,
            methods=WAYS[align],
            names=case.names,
            seed=seed,
            points=points,
            normalisation=normalisation,
            progress=told,
        )
        values = console.traced(result, case.data)
    console.deliver(values, output=output, report=report, json=json, show=_show)


def _show(values: dict[str, Any]) -> None:
    from isthmus.report.connectivity import CONVENTIONS
    from isthmus.report.numbers import interval_text
    from isthmus.report.words import words_for

    words = words_for("en")
    found, names = values["barriers"], values["names"]
    policy, n = next(iter(found.values()))["normalisation"], len(names)
    methods = [words(f"method.{name}") for name in found]
    rows = [
        [words(f"convention.{kind}"), *(interval_text(each["intervals"][kind]) for each in found.values())]
        for kind in CONVENTIONS
    ]
    counted = "1 pair" if n == 2 else f"{n * (n - 1) // 2} pairs"
    title = f"{n} solutions, {counted}, statistics between the ends: {policy}"
    console.table(["convention", *methods], rows, title=title)
    if n > 2:
        pairs = [(i, j) for i in range(n) for j in range(i + 1, n)]
        console.table(
            ["pair, loss barrier", *methods],
            [
                [f"{names[i]} – {names[j]}", *(b["heights"]["loss_barrier"][i][j] for b in found.values())]
                for i, j in pairs
            ],
        )
