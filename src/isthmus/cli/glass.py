"""``isthmus glass``: how solutions are arranged, judged against controls."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any

import typer

from isthmus.cli import console, inputs, options, subjects


def glass(
    checkpoints: Annotated[
        list[str] | None, typer.Argument(help="Three solutions or more of one architecture.")
    ] = None,
    demo: Annotated[
        bool, typer.Option("--demo", help="Sixteen one-hidden-layer networks on digits, and a planted tree.")
    ] = False,
    model: Annotated[str | None, typer.Option(help="The checkpoints' model; without it they are compared raw.")] = None,
    alignments: Annotated[
        str, typer.Option(help="raw, reference, pairwise: some, with commas.")
    ] = "raw,reference,pairwise",
    families: Annotated[str | None, typer.Option(help="The known family of each checkpoint, with commas.")] = None,
    widths: Annotated[
        str | None,
        typer.Option(help="With --train: as many networks of these widths too, as a control for finite size; commas."),
    ] = None,
    passes: Annotated[
        bool, typer.Option("--passes", help="Also draw the disconnectivity graph (needs model and data).")
    ] = False,
    train: options.Train = None,
    solutions: options.Solutions = 16,
    trunks: Annotated[
        int, typer.Option(help="With --train spawn=STEPS: the networks leave so many common trunks, known families.")
    ] = 1,
    store: options.Store = None,
    study: options.Study = None,
    data: options.MaybeData = None,
    data_dir: options.DataDir = None,
    examples: options.Examples = None,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    unsafe_pickle: options.UnsafePickle = False,
    report: options.Report = None,
    output: options.Output = None,
    json: options.Json = False,
) -> None:
    """Overlaps, their distribution, and whether solutions form a hierarchy; a planted tree is judged beside them."""
    from isthmus.core.errors import SettingError

    if demo and (checkpoints or train is not None or store is not None):
        raise SettingError("--demo trains its own networks; give it without checkpoints, --train or --store")
    with console.progress("glass") as told:
        from isthmus.core.provenance import provenance
        from isthmus.studies.landscape.glass import glass as arrange

        wanted = console.names(alignments)
        given: dict[str, Any]
        if checkpoints and model is None:
            from isthmus.core.checkpoint import load

            if passes:
                raise SettingError("--passes measures networks on data: give --model and --data")
            wanted = ["raw"]
            files = inputs.expanded(checkpoints)
            weights = [load(path, unsafe_pickle=unsafe_pickle) for path in files]
            given = {"solutions": weights, "names": inputs.brief(inputs.shortened(files))}
        else:
            case = subjects.chosen(
                checkpoints, model=model, data=data, data_dir=data_dir, train="" if demo else train,
                solutions=solutions, trunks=trunks, store=store, study=study, examples=examples, device=device,
                unsafe_pickle=unsafe_pickle, least=3, finite=False, progress=told,
            )  # fmt: skip
            given = _given(case, passes=passes or demo)
            if demo:
                given["spawned"] = _spawned(data, data_dir, device, told)
            sizes = console.numbers("16,128" if demo and widths is None else widths, int, what="widths")
            given["others"] = [
                _sized(width, "" if demo else train, solutions, data=data, data_dir=data_dir,
                       device=device, progress=told)
                for width in sizes
            ]  # fmt: skip
        known = _families(families, given["names"]) if families else None
        if known is None and trunks > 1:
            known = {name: str(place * trunks // solutions) for place, name in enumerate(given["names"])}
        found = arrange(alignments=wanted, families=known, seed=seed, progress=told, **given)
        values = dataclasses.replace(found, provenance=provenance()).to_dict()
    console.deliver(values, output=output, report=report, json=json, show=_show)


def _given(case: inputs.Case, *, passes: bool) -> dict[str, Any]:
    from isthmus.studies.landscape.glass import symmetry_with_scale

    return {
        "solutions": case.solutions,
        "names": case.names,
        "tensors": case.network.parameter_names,
        "symmetry": symmetry_with_scale(case.module, case.data.train_inputs[:2]),
        "objective": case.objective if passes else None,
        "inputs": case.data.train_inputs,
    }


def _spawned(data: str | None, data_dir: str | None, device: str, progress: Any) -> tuple[Any, list[str]]:
    """A known structure that was trained: four trunks, left after 200 steps by four networks each."""
    found = subjects.chosen(
        None, train="spawn=200", data=data, data_dir=data_dir, solutions=16, trunks=4, device=device,
        progress=progress,
    )  # fmt: skip
    return found.solutions, [str(place // 4) for place in range(16)]


def _sized(width: int, train: str | None, solutions: int, **asked: Any) -> tuple[Any, Any]:
    """As many networks of another width, and their symmetry."""
    from isthmus.core.errors import SettingError
    from isthmus.studies.landscape.glass import symmetry_with_scale

    if train is None:
        raise SettingError("widths are trained; give --train with the recipe they share")
    case = subjects.chosen(None, train=subjects.widened(train, width), solutions=solutions, least=4, **asked)
    return case.solutions, symmetry_with_scale(case.module, case.data.train_inputs[:2])


def _families(text: str, names: Any) -> dict[str, str]:
    from isthmus.core.errors import SettingError

    found = console.names(text)
    if len(found) != len(names):
        raise SettingError(f"families must name one family for each of {len(names)} solutions, got {len(found)}")
    return dict(zip(names, found, strict=True))


def _show(values: dict[str, Any]) -> None:
    from isthmus.report.glass import arrangement_rows, family_lines
    from isthmus.report.words import words_for

    console.table(*arrangement_rows(values, words_for("en")))
    for each in values["arrangements"]:
        if each["verdict"]:
            console.say(f"{each['label']}: {each['verdict']['sentence']}")
    for line in family_lines(values, words_for("en")):
        console.say(line)
    left_out = values["arrangements"][0]["overlaps"]["left_out"]
    for each in left_out:
        console.say(f"left out, {len(left_out)} in all: {each['name']} ({each['reason']})")
    for first, second in values["arrangements"][0]["overlaps"]["identical"]:
        console.say(f"the same solution, judged once: {first} and {second}")
