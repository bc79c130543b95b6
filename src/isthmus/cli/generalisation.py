"""``isthmus generalisation``: do flatter networks generalise better, at the same training loss?"""

from __future__ import annotations

from typing import Annotated, Any

import typer

from isthmus.cli import console, inputs, options, subjects


def generalisation(
    train: options.Recipe = "network=mlp-64x1,epochs=60,label_noise=0.1",
    rates: Annotated[str, typer.Option(help="Learning rates, with commas.")] = "0.02,0.04,0.08",
    batch_sizes: Annotated[str, typer.Option(help="Batch sizes, with commas.")] = "32,64,128",
    solutions: Annotated[int, typer.Option(help="Networks of each rate and batch size.")] = 4,
    target: Annotated[float, typer.Option(help="Training loss at which networks are compared, in nats.")] = 0.4,
    tolerance: Annotated[float, typer.Option(help="How far from it they may be, as a share of it.")] = 0.1,
    gap: Annotated[str, typer.Option(help="Generalisation gap of the loss or of the error.")] = "loss",
    products: Annotated[int, typer.Option(help="Matrix products for each trace.")] = 40,
    data: options.RecipeData = None,
    data_dir: options.DataDir = None,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    report: options.Report = None,
    output: options.Output = None,
    json: options.Json = False,
) -> None:
    """Train over rate × batch size, stop all at one training loss, and correlate sharpness with the gap."""
    with console.progress("generalisation") as told:
        from isthmus.studies.landscape.generalisation import Grid
        from isthmus.studies.landscape.generalisation import generalisation as study
        from isthmus.zoo.models import build

        steps = console.numbers(rates, float, what="rates")
        sizes = console.numbers(batch_sizes, int, what="batch-sizes")
        grid = Grid(tuple(steps), tuple(sizes), solutions, target, tolerance)
        where = inputs.found_device(device)
        name = subjects.data_name(data, console.settings(train, what="train"))
        found = inputs.found_data(name, data_dir).to(where)
        recipe = subjects.recipe_of(train or "", found, name)
        found = inputs.taken(found, recipe)
        made = study(
            recipe, data=found, module=build, grid=grid, gap=gap,
            products=products, device=where, seed=seed, progress=told,
        )  # fmt: skip
        values = console.traced(made, found)
    console.deliver(values, output=output, report=report, json=json, show=_show)


def _show(values: dict[str, Any]) -> None:
    from isthmus.report.landscape import correlation_rows
    from isthmus.report.words import words_for

    words = words_for("en")
    console.table(*correlation_rows(values, words), title=words("generalisation.table"))
    console.say(values["verdict"]["sentence"])
