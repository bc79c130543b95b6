"""``isthmus glass``: how solutions are arranged, judged against controls."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any

import typer

from isthmus.cli import console, inputs, options


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
    passes: Annotated[
        bool, typer.Option("--passes", help="Also draw the disconnectivity graph (needs model and data).")
    ] = False,
    train: Annotated[str | None, typer.Option(help="Train instead: fields of a recipe, name=value,… or JSON.")] = None,
    solutions: Annotated[int, typer.Option(help="How many to train.")] = 16,
    data: options.Data = "digits",
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

    if sum((bool(checkpoints), demo, train is not None)) != 1:
        raise SettingError("give checkpoints, --demo or --train, and only one of them")
    with console.progress("glass") as told:
        from isthmus.core.provenance import provenance
        from isthmus.studies.glass import glass as arrange

        wanted = [name.strip() for name in alignments.split(",")]
        given: dict[str, Any]
        if checkpoints and model is None:
            from isthmus.core.checkpoint import load

            if passes:
                raise SettingError("passes must have a model and data")
            wanted = ["raw"]
            weights = [load(path, unsafe_pickle=unsafe_pickle) for path in checkpoints]
            given = {"solutions": weights, "names": inputs.shortened(checkpoints)}
        elif checkpoints:
            case = inputs.case(
                checkpoints, model=model or "", data=data, data_dir=data_dir, examples=examples, device=device,
                unsafe_pickle=unsafe_pickle, least=3,
            )  # fmt: skip
            given = _given(case.module, case.solutions, case.names, case.objective if passes else None, case.data)
        else:
            given = _trained(
                train, solutions, data, data_dir, examples, inputs.found_device(device), told, passes or demo
            )
        known = _families(families, given["names"]) if families else None
        found = arrange(alignments=wanted, families=known, seed=seed, progress=told, **given)
        values = dataclasses.replace(found, provenance=provenance()).to_dict()
    console.deliver(values, output=output, report=report, json=json, show=_show)


def _given(module: Any, solutions: Any, names: Any, objective: Any, data: Any) -> dict[str, Any]:
    from isthmus.core.network import Network
    from isthmus.studies.glass import symmetry_with_scale

    return {
        "solutions": solutions,
        "names": names,
        "parameters": Network.of(module).parameter_names,
        "symmetry": symmetry_with_scale(module, data.train_inputs[:2]),
        "objective": objective,
        "data": data.train_inputs,
    }


def _trained(
    fields: str | None,
    solutions: int,
    data: str,
    data_dir: str | None,
    examples: int | None,
    device: str,
    progress: Any,
    passes: bool,
) -> dict[str, Any]:
    """Networks of one hidden layer unless the recipe's fields say otherwise."""
    from isthmus.core.network import Network
    from isthmus.core.objective import Objective
    from isthmus.train import Recipe, train
    from isthmus.zoo.models import build
    from isthmus.zoo.networks import is_network

    found = inputs.found_data(data, data_dir, examples=examples).to(device)
    base: dict[str, Any] = {"network": "mlp-64x1", "data": data, "epochs": 20, "rate": 0.1, "batch_size": 64}
    base |= dict(console.settings(fields, what="train"))
    if is_network(base["network"]):
        base["settings"] = {"inputs": list(found.shape), "classes": found.classes, **base.get("settings", {})}
    recipe = Recipe.from_dict(base)
    replicas = train(
        recipe.replicates(solutions), data=found, module=build, device=device, scores="never", progress=progress
    )
    module = build(recipe).to(device)
    objective = Objective(Network.of(module), found.test_inputs, found.test_targets) if passes else None
    names = [str(index) for index in range(solutions)]
    return _given(module, [replica.weights for replica in replicas], names, objective, found)


def _families(text: str, names: Any) -> dict[str, str]:
    from isthmus.core.errors import SettingError

    found = [part.strip() for part in text.split(",")]
    if len(found) != len(names):
        raise SettingError(f"families must name one family for each of {len(names)} solutions, got {len(found)}")
    return dict(zip(names, found, strict=True))


def _show(values: dict[str, Any]) -> None:
    from isthmus.report.glass import arrangement_rows
    from isthmus.report.words import words_for

    console.table(*arrangement_rows(values, words_for("en")))
    for each in values["arrangements"]:
        if each["verdict"]:
            console.say(f"{each['label']}: {each['verdict']['sentence']}")
    for each in values["arrangements"][0]["overlaps"]["left_out"]:
        console.say(f"left out: {each['label']} ({each['reason']})")
