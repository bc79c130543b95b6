"""``isthmus uncertainty``: how far a loss can be trusted, and which labels to check first."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from isthmus.cli import console, inputs, options, subjects


def uncertainty(
    checkpoints: Annotated[
        list[str] | None, typer.Argument(help="Your own solutions; without any, two networks are trained.")
    ] = None,
    model: Annotated[str, typer.Option(help="Their model; it also checks the labels.")] = "mlp-64x2",
    train: options.Recipe = None,
    before: Annotated[
        bool, typer.Option("--before", help="Only what is known before training: risks and labels to check.")
    ] = False,
    folds: Annotated[int, typer.Option(help="Predictors that check the labels, each on data it has not seen.")] = 5,
    label_noise: Annotated[
        str, typer.Option(help="Shares of wrong labels to try, separated by commas, besides the estimated one.")
    ] = "0.05",
    data: options.RecipeData = None,
    data_dir: options.DataDir = None,
    examples: options.Examples = None,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    unsafe_pickle: options.UnsafePickle = False,
    report: options.Report = None,
    output: options.Output = None,
    json: options.Json = False,
) -> None:
    """Risk table before training; spread of loss and gradient over examples, labels, views and metrics; their noise."""
    with console.progress("uncertainty") as told:
        from isthmus.core.errors import SettingError
        from isthmus.core.network import Network
        from isthmus.core.weights import to
        from isthmus.studies.redundancy.remedies import RECIPE
        from isthmus.studies.redundancy.uncertainty import assess
        from isthmus.train import train as trained
        from isthmus.zoo.models import build
        from isthmus.zoo.text import suited

        if before and checkpoints:
            raise SettingError("--before looks at the data alone; leave the checkpoints out, or leave --before out")
        where = inputs.found_device(device)
        fields = console.settings(train, what="train")
        name = subjects.data_name(data, fields)
        found = inputs.found_data(name, data_dir, examples=examples).to(where)
        own = {"network": model, "settings": {}, "data": name, **fields}
        recipe = subjects.recipe_for(found, {**RECIPE.to_dict(), **own})
        network = Network.of(build(recipe).to(where))
        found = suited(found, network)
        solutions: list[Any] = []
        if checkpoints:
            solutions = inputs.found_solutions(inputs.expanded(checkpoints), network, unsafe_pickle=unsafe_pickle)
        elif not before:
            replicas = trained(recipe.replicates(2), data=found, module=build, device=where)
            solutions = [replica.weights for replica in replicas]
        solutions = [to(weights, device=where) for weights in solutions]
        result = assess(
            network,
            solutions,
            found,
            recipe,
            folds=folds,
            label_noise=console.numbers(label_noise, float, what="label-noise"),
            seed=seed,
            device=where,
            progress=told,
        )
        values = result.to_dict()
    console.deliver(values, output=output, report=report, json=json, show=_show)


def _show(values: dict[str, Any]) -> None:
    from isthmus.report.uncertainty import headline, uncertainty_tables, uncertainty_text
    from isthmus.report.words import words_for

    words = words_for("en")
    for table in uncertainty_tables(values, words):
        console.table(table.columns, table.rows, title=table.title)
    for line in [*uncertainty_text(values, words), headline(values, words)]:
        console.say(line)
