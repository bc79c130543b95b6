"""``isthmus spectrum``: eigenvalues and spectral density of the curvature at one solution."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from isthmus.cli import console, inputs, options, subjects

if TYPE_CHECKING:
    from isthmus.core.progress import Progress
    from isthmus.studies.landscape.solution import Spectrum


def spectrum(
    checkpoint: options.Checkpoint = None,
    model: options.MaybeModel = None,
    data: options.MaybeData = None,
    train: options.Train = None,
    store: options.Store = None,
    run: options.Run = None,
    data_dir: options.DataDir = None,
    matrix: Annotated[str, typer.Option(help="hessian or gauss_newton.")] = "hessian",
    pairs: Annotated[int, typer.Option(help="How many of the largest eigenvalues.")] = 10,
    probes: Annotated[int, typer.Option(help="Random probes of the density.")] = 5,
    steps: Annotated[int, typer.Option(help="Lanczos steps of each probe.")] = 60,
    layers: Annotated[bool, typer.Option("--layers", help="Also the block of every layer.")] = False,
    split: options.Split = "train",
    examples: options.Examples = 1000,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    unsafe_pickle: options.UnsafePickle = False,
    report: options.Report = None,
    output: options.Output = None,
    json: options.Json = False,
) -> None:
    """The ends and the density of the Hessian's spectrum, with residuals, intervals and the classes' share."""

    def look(case: inputs.Case, told: Progress) -> Spectrum:
        from isthmus.studies.landscape.solution import spectrum_of

        return spectrum_of(
            case.solutions[0], case.objective, name=case.names[0], matrix=matrix, pairs=pairs, probes=probes,
            steps=steps, layers=layers, seed=seed, progress=told,
        )  # fmt: skip

    subjects.measured(
        "spectrum", look, show=_show, output=output, report=report, json=json, most=1, data=data, data_dir=data_dir,
        checkpoints=[checkpoint] if checkpoint else None, model=model, train=train, store=store, run=run,
        examples=examples, split=split, device=device, unsafe_pickle=unsafe_pickle,
    )  # fmt: skip


def _show(values: dict[str, Any]) -> None:
    from isthmus.report.spectrum import eigenvalue_rows, layer_rows
    from isthmus.report.words import words_for

    words = words_for("en")
    console.table(*eigenvalue_rows(values, words), title=f"{values['name']}, {words('spectrum.' + values['matrix'])}")
    if values["layers"]:
        console.table(*layer_rows(values, words), title=words("spectrum.layers"))
