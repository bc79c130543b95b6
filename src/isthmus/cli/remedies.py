"""``isthmus remedies``: which remedy against redundancy removes the barrier between seeds, and at what price."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from isthmus.cli import console, inputs, options, subjects

if TYPE_CHECKING:
    from isthmus.zoo.data import Data


def remedies(
    model: Annotated[
        str | None,
        typer.Option(
            help="Try them on your own model (file.py:function, torchvision:NAME, a zoo name): through its symmetry."
        ),
    ] = None,
    only: Annotated[
        str | None, typer.Option(help="Remedies to try, separated by commas, or all; one of each kind by default.")
    ] = None,
    widths: Annotated[
        str,
        typer.Option(help="Widths of the plain network, separated by commas; passed over for a model without a width."),
    ] = "16,64",
    label_noise: Annotated[str, typer.Option(help="Shares of wrong training labels, separated by commas.")] = "0,0.2",
    solutions: Annotated[int, typer.Option(help="Networks of each kind; 4 or more for intervals.")] = 4,
    train: options.Recipe = None,
    align: Annotated[str, typer.Option(help="How pairs are aligned: weights or activations.")] = "weights",
    target: Annotated[float, typer.Option(help="Test accuracy up to which training steps are counted.")] = 0.9,
    data: options.RecipeData = None,
    data_dir: options.DataDir = None,
    examples: options.Examples = None,
    points: options.Points = 7,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    report: options.Report = None,
    output: options.Output = None,
    json: options.Json = False,
) -> None:
    """Train each remedy beside the plain network and aligning, at matched parameters: barrier and price."""
    with console.progress("remedies") as told:
        from isthmus.core.errors import SettingError
        from isthmus.studies.redundancy.candidates import REMEDIES
        from isthmus.studies.redundancy.remedies import RECIPE, USUAL, try_remedies
        from isthmus.train import Recipe

        if align not in ("weights", "activations"):
            raise SettingError(f"align must be weights or activations, got {align}")
        if points < 3:
            raise SettingError(f"points must be at least 3 to see inside the path, got {points}")
        where = inputs.found_device(device)
        fields = console.settings(train, what="train")
        name = subjects.data_name(data, fields)
        found = inputs.found_data(name, data_dir, examples=examples).to(where)
        recipe = Recipe.from_dict({**RECIPE.to_dict(), "data": name, **fields})
        if model is not None:
            found = inputs.taken(found, subjects.recipe_for(found, {**recipe.to_dict(), "network": model}))
            _check_fit(model, found)
        chosen = USUAL if only is None else tuple(REMEDIES) if only == "all" else tuple(console.names(only))
        result = try_remedies(
            found,
            recipe,
            model=model,
            remedies=chosen,
            widths=console.numbers(widths, int, what="widths"),
            label_noise=console.numbers(label_noise, float, what="label-noise"),
            solutions=solutions,
            method=align,
            points=points,
            target=target,
            seed=seed,
            device=where,
            progress=told,
        )
        values = result.to_dict()
    console.deliver(values, output=output, report=report, json=json, show=_show)


def _check_fit(model: str, found: Data) -> None:
    """Find out before the work whether the model takes these data."""
    from isthmus.core.network import Network

    module = inputs.module(model, data=found).to(found.train_inputs.device)
    inputs.objective(Network.of(module), found, split="test")


def _show(values: dict[str, Any]) -> None:
    from isthmus.report.remedies import headline, remedies_text, summary_table
    from isthmus.report.words import words_for

    words = words_for("en")
    table = summary_table(values, words)
    console.table(table.columns, table.rows, title=table.title)
    for line in [*remedies_text(values, words)[1:], headline(values, words)]:
        console.say(line)
