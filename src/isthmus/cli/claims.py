"""``isthmus claims``: the three claims about connectivity modulo permutation, with controls."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from isthmus.cli import console, inputs, options, subjects
from isthmus.core.progress import Progress, within

if TYPE_CHECKING:
    from isthmus.studies.claims import Networks
    from isthmus.train import Recipe
    from isthmus.zoo.data import Data

_METHODS = {"weights": ("weights",), "activations": ("activations",), "both": ("weights", "activations")}


def claims(
    checkpoints: Annotated[
        list[str] | None, typer.Argument(help="Your own solutions; without any, networks are trained.")
    ] = None,
    model: Annotated[
        str, typer.Option(help="With checkpoints: their model. Else mlp, resnet20 or vit to train.")
    ] = "mlp",
    widths: Annotated[str, typer.Option(help="Widths to train, separated by commas.")] = "32,128",
    solutions: Annotated[int, typer.Option(help="Networks of each width.")] = 6,
    train: options.Recipe = None,
    times: Annotated[int, typer.Option(help="Also test one permutation for so many checkpoints of each training.")] = 0,
    levels: Annotated[
        int, typer.Option("--pruning-levels", help="Also test one permutation for so many levels of pruning (IMP).")
    ] = 0,
    align: Annotated[str, typer.Option(help="How networks are aligned: weights, activations or both.")] = "both",
    data: options.RecipeData = None,
    data_dir: options.DataDir = None,
    examples: options.Examples = None,
    points: options.Points = 11,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    unsafe_pickle: options.UnsafePickle = False,
    report: options.Report = None,
    output: options.Output = None,
    json: options.Json = False,
) -> None:
    """Does a permutation connect every pair (weak), two trainings at all times, all networks at once (strong)?"""
    with console.progress("claims") as told:
        from isthmus.core.errors import SettingError
        from isthmus.studies.claims import Networks, check_claims

        if align not in _METHODS:
            raise SettingError(f"align must be one of {', '.join(_METHODS)}, got {align}")
        wanted = ["weak", "strong", "cycles", *(["times"] if times else []), *(["sparsity"] if levels else [])]
        name = subjects.data_name(data, console.settings(train, what="train"))
        if checkpoints:
            if times or levels:
                raise SettingError(
                    "--times and --pruning-levels need networks that are trained here; leave the checkpoints out"
                )
            case = inputs.case(
                checkpoints, model=model, data=name, data_dir=data_dir, examples=examples, device=device,
                unsafe_pickle=unsafe_pickle, least=2,
            )  # fmt: skip
            found, groups = case.data, [Networks(model, case.module, case.solutions)]
        else:
            where = inputs.found_device(device)
            found = inputs.found_data(name, data_dir, examples=examples).to(where)
            recipes = _recipes(model, widths, found, name, train)
            kept = {"solutions": solutions, "checkpoints": times, "levels": levels}
            groups = _trained(recipes, found, device=where, progress=within(told, 0, 2), **kept)
        result = check_claims(
            groups, found, methods=_METHODS[align], wanted=wanted, points=points, seed=seed,
            progress=within(told, 1, 2),
        )  # fmt: skip
        values = result.to_dict()
    console.deliver(values, output=output, report=report, json=json, show=_show)


def _trained(
    recipes: Mapping[str, Recipe], found: Data, *, device: str, progress: Progress, **kept: int
) -> list[Networks]:
    """One set of networks for each recipe."""
    from isthmus.studies.claims import trained

    return [
        trained(recipe, found, label=label, device=device, progress=within(progress, place, len(recipes)), **kept)
        for place, (label, recipe) in enumerate(recipes.items())
    ]


def _recipes(model: str, widths: str, found: Data, data: str, fields: str | None) -> dict[str, Recipe]:
    """One recipe for each width, trained steadily: weight matching needs that."""
    from isthmus.cli.demo import parsed_widths
    from isthmus.studies.demo import Settings
    from isthmus.train import Recipe

    recipes = {}
    for width in parsed_widths(widths):
        settings = Settings.sensible(model, data)
        base = settings.recipe(width, found.shape, found.classes)
        changed = {**base.to_dict(), **console.settings(fields, what="train")}
        recipes[f"{width:g}"] = Recipe.from_dict(changed)
    return recipes


def _show(values: dict[str, Any]) -> None:
    from isthmus.report.claims import claims_rows
    from isthmus.report.words import words_for

    words = words_for("en")
    console.table(*claims_rows(values, words), title=words("claims.rows", threshold=values["threshold"]))
    for tested in values["tested"]:
        for name in ("times", "sparsity"):
            if tested[name]:
                found = tested[name]
                # The claims are about the permutation of the trained ends, and of the dense networks.
                row = found["means"][-1 if name == "times" else 0]
                shown = ", ".join(
                    f"{at}: {cell['estimate']:.3f}" for at, cell in zip(found["labels"], row, strict=True)
                )
                console.say(f"{words(f'claims.{name}')}, {tested['label']} {tested['method']}: {shown}")
