"""``isthmus walk``: what the landscape around a solution looks like to walkers."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated, Any

import typer

from isthmus.cli import console, inputs, options, subjects

if TYPE_CHECKING:
    from isthmus.core.progress import Progress
    from isthmus.studies.landscape.walks import Walks
    from isthmus.walk import PermutationBarriers


def walk(
    checkpoint: options.Checkpoint = None,
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
    widths: Annotated[
        str | None, typer.Option(help="With --train: --permute, and networks of these widths beside it; with commas.")
    ] = None,
    descend: Annotated[
        str | None, typer.Option(help="Steps after which the walkers descend: do they come back? Some, with commas.")
    ] = None,
    gradients: Annotated[int, typer.Option(help="Of each descent, at most.")] = 300,
    split: options.Split = "train",
    examples: options.Examples = 1000,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    unsafe_pickle: options.UnsafePickle = False,
    report: options.Report = None,
    output: options.Output = None,
    json: options.Json = False,
) -> None:
    """Loss, error, overlap and distance along random or thermal walks; ruggedness; permuted copies."""

    def look(case: inputs.Case, told: Progress) -> Walks:
        from isthmus.studies.landscape.walks import Manner, walk_from

        manner = Manner(
            method=method, steps=steps, walkers=walkers, every=every, temperature=temperature, rise=rise, size=size,
            descend=tuple(console.numbers(descend, int, what="descend")), gradients=gradients,
        )  # fmt: skip
        others = _other_widths(widths, train, data=data, data_dir=data_dir, examples=examples, split=split,
                               device=device, seed=seed, progress=told)  # fmt: skip
        found = walk_from(
            case.solutions[0], case.objective, name=case.names[0], manner=manner, inputs=case.data.train_inputs,
            symmetry=case.symmetry if permute or others else None, seed=seed, progress=told,
        )  # fmt: skip
        own = {f"width {subjects.width_of(train or '')}": found.permutations[found.name]} if others else {}
        return dataclasses.replace(found, permutations={**own, **others} or found.permutations)

    subjects.measured(
        "walk", look, show=_show, output=output, report=report, json=json, most=1, data=data, data_dir=data_dir,
        checkpoints=[checkpoint] if checkpoint else None, model=model, train=train, store=store, run=run,
        examples=examples, split=split, device=device, unsafe_pickle=unsafe_pickle,
    )  # fmt: skip


def _other_widths(widths: str | None, train: str | None, **asked: Any) -> dict[str, PermutationBarriers]:
    """Permuted copies of networks of other widths, trained by the same recipe."""
    from isthmus.core.errors import SettingError
    from isthmus.studies.landscape.walks import permuted_copies

    sizes = console.numbers(widths, int, what="widths")
    if sizes and train is None:
        raise SettingError("widths are trained; give --train with the recipe they share")
    seed = asked.pop("seed")
    found = {}
    for width in sizes:
        case = subjects.chosen(None, train=subjects.widened(train or "", width), **asked)
        found[f"width {width}"] = permuted_copies(
            case.solutions[0], case.objective, case.symmetry, inputs=case.data.train_inputs, seed=seed,
            progress=asked["progress"],
        )  # fmt: skip
    return found


def _show(values: dict[str, Any]) -> None:
    from isthmus.report.walks import permutation_rows, return_rows, walk_rows
    from isthmus.report.words import words_for

    words = words_for("en")
    console.table(*walk_rows(values, words), title=f"{values['name']}: {values['walk']['method']}")
    if values["returns"]:
        console.table(*return_rows(values["returns"], words), title=words("walk.returns"))
    if values["permutations"]:
        console.table(*permutation_rows(values["permutations"], words), title=words("walk.permuted"))
    for line in (*values["walk"]["notes"], *(values["returns"] or {}).get("notes", ())):
        console.say(line)
