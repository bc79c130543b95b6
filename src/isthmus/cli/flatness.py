"""``isthmus flatness``: how flat solutions are, by measures that no rescaling can fake."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from isthmus.cli import console, inputs, options, subjects

if TYPE_CHECKING:
    from isthmus.core.progress import Progress
    from isthmus.studies.landscape.solution import Flatness


def flatness(
    checkpoints: options.MaybeCheckpoints = None,
    model: options.MaybeModel = None,
    data: options.MaybeData = None,
    train: options.Train = None,
    solutions: options.Solutions = 4,
    store: options.Store = None,
    study: options.Study = None,
    data_dir: options.DataDir = None,
    split: options.Split = "train",
    examples: options.Examples = 1000,
    pairs: Annotated[int, typer.Option(help="How many eigenvalues.")] = 3,
    products: Annotated[int, typer.Option(help="Matrix products for each trace.")] = 60,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    unsafe_pickle: options.UnsafePickle = False,
    report: options.Report = None,
    output: options.Output = None,
    json: options.Json = False,
) -> None:
    """Hessian eigenvalues and trace, and the rise of the loss under random and worst-case perturbations."""

    def look(case: inputs.Case, told: Progress) -> Flatness:
        from isthmus.studies.landscape.glass import symmetry_with_scale
        from isthmus.studies.landscape.solution import flatness_of

        return flatness_of(
            case.solutions, case.objective, names=case.names, pairs=pairs, products=products, seed=seed, progress=told,
            symmetry=symmetry_with_scale(case.module, case.data.train_inputs[:2]),
        )  # fmt: skip

    subjects.measured(
        "flatness", look, show=_show, output=output, report=report, json=json, checkpoints=checkpoints, model=model,
        data=data, data_dir=data_dir, train=train, solutions=solutions, store=store, study=study, examples=examples,
        split=split, device=device, unsafe_pickle=unsafe_pickle,
    )  # fmt: skip


def _show(values: dict[str, Any]) -> None:
    from isthmus.report.landscape import flatness_rows
    from isthmus.report.words import words_for

    words = words_for("en")
    console.table(
        *flatness_rows(values, words), title=words("flatness.scale" if values["scale_removed"] else "flatness.text")
    )
