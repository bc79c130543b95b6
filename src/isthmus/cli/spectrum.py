"""``isthmus spectrum``: eigenvalues and spectral density of the curvature at one solution."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any

import typer

from isthmus.cli import console, options, subjects


def spectrum(
    checkpoint: Annotated[str | None, typer.Argument(help="A checkpoint: .safetensors, .pt or a folder.")] = None,
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
    split: Annotated[str, typer.Option(help="train or test.")] = "train",
    examples: options.Examples = 1000,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    unsafe_pickle: options.UnsafePickle = False,
    report: options.Report = None,
    output: options.Output = None,
    json: options.Json = False,
) -> None:
    """The ends and the density of the Hessian's spectrum, with residuals, intervals and the classes' share."""
    with console.progress("spectrum") as told:
        from isthmus.core.provenance import provenance
        from isthmus.studies.landscape.solution import spectrum_of

        case = subjects.chosen(
            [checkpoint] if checkpoint else None, model=model, data=data, data_dir=data_dir, train=train,
            store=store, run=run, examples=examples, split=split, device=device, unsafe_pickle=unsafe_pickle,
            most=1, progress=told,
        )  # fmt: skip
        found = spectrum_of(
            case.solutions[0],
            case.objective,
            name=case.names[0],
            matrix=matrix,
            pairs=pairs,
            probes=probes,
            steps=steps,
            seed=seed,
            progress=told,
        )
        made_by = {**provenance(), "data": case.data.fingerprint, "split": split}
        values = dataclasses.replace(found, provenance=made_by).to_dict()
    console.deliver(values, output=output, report=report, json=json, show=_show)


def _show(values: dict[str, Any]) -> None:
    from isthmus.report.landscape import eigenvalue_rows
    from isthmus.report.words import words_for

    words = words_for("en")
    console.table(*eigenvalue_rows(values, words), title=f"{values['name']}, {words('spectrum.' + values['matrix'])}")
