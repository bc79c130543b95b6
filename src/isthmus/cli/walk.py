"""``isthmus walk``: what the landscape around a solution looks like to walkers."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any

import typer

from isthmus.cli import console, options, subjects


def walk(
    checkpoint: Annotated[str | None, typer.Argument(help="A checkpoint: .safetensors, .pt or a folder.")] = None,
    model: options.MaybeModel = None,
    data: options.MaybeData = None,
    train: options.Train = None,
    store: options.Store = None,
    run: options.Run = None,
    data_dir: options.DataDir = None,
    method: Annotated[str, typer.Option(help="random, metropolis, langevin or level.")] = "random",
    steps: Annotated[int, typer.Option(help="Of each walker.")] = 100,
    walkers: Annotated[int, typer.Option(help="How many.")] = 8,
    every: Annotated[int, typer.Option(help="Steps between two looks.")] = 1,
    size: Annotated[float | None, typer.Option(help="Of a step: relative length, or rate for langevin.")] = None,
    temperature: Annotated[float, typer.Option(help="Of metropolis and langevin, in units of the loss.")] = 1e-3,
    rise: Annotated[float, typer.Option(help="How far above the start's loss the level set reaches.")] = 0.5,
    permute: Annotated[bool, typer.Option("--permute", help="Also permute k of h units and measure barriers.")] = False,
    split: options.Split = "test",
    examples: options.Examples = 1000,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    unsafe_pickle: options.UnsafePickle = False,
    report: options.Report = None,
    output: options.Output = None,
    json: options.Json = False,
) -> None:
    """Loss, error, overlap and distance along random or thermal walks; ruggedness; permuted copies."""
    with console.progress("walk") as told:
        import isthmus.discover as discovery
        from isthmus.core.provenance import provenance
        from isthmus.studies.landscape.solution import walk_from

        case = subjects.chosen(
            [checkpoint] if checkpoint else None, model=model, data=data, data_dir=data_dir, train=train,
            store=store, run=run, examples=examples, split=split, device=device, unsafe_pickle=unsafe_pickle,
            most=1, progress=told,
        )  # fmt: skip
        symmetry = discovery.discover(case.module, case.data.train_inputs[:2]) if permute else None
        found = walk_from(
            case.solutions[0],
            case.objective,
            name=case.names[0],
            method=method,
            steps=steps,
            walkers=walkers,
            every=every,
            temperature=temperature,
            rise=rise,
            size=size,
            symmetry=symmetry,
            inputs=case.data.train_inputs,
            seed=seed,
            progress=told,
        )
        values = dataclasses.replace(found, provenance={**provenance(), "data": case.data.fingerprint}).to_dict()
    console.deliver(values, output=output, report=report, json=json, show=_show)


def _show(values: dict[str, Any]) -> None:
    from isthmus.report.landscape import permutation_rows, walk_rows
    from isthmus.report.words import words_for

    words = words_for("en")
    console.table(*walk_rows(values, words), title=f"{values['name']}: {values['walk']['method']}")
    if values["permutations"]:
        console.table(*permutation_rows(values["permutations"], words), title=values["permutations"]["group"])
    for line in values["walk"]["notes"]:
        console.say(line)
