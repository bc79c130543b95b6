"""``isthmus redundancy``: how many equal copies a network has, by layer, and how many its weights can tell apart."""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

import typer

from isthmus.cli import console, inputs, options

Number = TypeVar("Number", int, float)


def redundancy(
    model: Annotated[
        str,
        typer.Argument(help=options.MODEL),
    ],
    checkpoints: Annotated[
        list[str] | None,
        typer.Argument(
            help="Trained weights: how many copies do they still tell apart? With --data, which units are dead?"
        ),
    ] = None,
    shape: options.Shape = None,
    tokens: options.Tokens = False,
    widths: Annotated[
        str | None, typer.Option(help="Also count for these widths (a zoo network that has one).")
    ] = None,
    depths: Annotated[
        str | None, typer.Option(help="Also count for these depths (a zoo network that has one).")
    ] = None,
    factors: Annotated[
        bool | None, typer.Option(help="Look for signs and scales, too; by default up to two million parameters.")
    ] = None,
    noise: Annotated[
        float | None,
        typer.Option(help="Deviation of a weight; by default that between aligned checkpoints, or exact equality."),
    ] = None,
    data: options.MaybeData = None,
    data_dir: options.DataDir = None,
    examples: options.Examples = 1000,
    seed: options.Seed = 0,
    unsafe_pickle: options.UnsafePickle = False,
    report: options.Report = None,
    output: options.Output = None,
    json: options.Json = False,
) -> None:
    """Count the equal copies of a network: permutations and signs by layer, scales as continuous dimensions."""
    with console.progress("redundancy") as told:
        from isthmus.core.network import Network
        from isthmus.studies.redundancy.counting import count
        from isthmus.zoo.text import suited

        shapes = inputs.shapes(shape)
        found = inputs.found_data(data, data_dir, examples=examples) if data else None
        settings: dict[str, Any] = {"inputs": tuple(shapes[0][1:])} if shapes else {}
        if found is not None:
            settings = {"inputs": found.shape, "classes": found.classes}
        family = _family(model, settings, widths, depths)
        module = inputs.module(model, data=found, shape=shapes[0][1:] if shapes else None)
        found = suited(found, Network.of(module)) if found else None
        example = inputs.example(shape, module, tokens=tokens, seed=seed)
        if found is not None and shape is None:
            example = (found.train_inputs[:2],)
        paths = inputs.expanded(checkpoints or [])
        solutions = inputs.found_solutions(paths, Network.of(module), unsafe_pickle=unsafe_pickle)
        result = count(
            module,
            example,
            name=model,
            family=family,
            solutions=dict(zip(inputs.shortened(paths), solutions, strict=True)),
            inputs=None if found is None else found.train_inputs,
            factors=factors,
            noise=noise,
            seed=seed,
            progress=told,
        )
        values = result.to_dict()
    console.deliver(values, output=output, report=report, json=json, show=_show)


def _family(model: str, settings: dict[str, Any], widths: str | None, depths: str | None) -> dict[tuple[int, int], Any]:
    """Functions that build the model at each wanted width and depth."""
    if widths is None and depths is None:
        return {}
    from isthmus.core.errors import SettingError
    from isthmus.zoo.networks import is_network, network, parse

    if not is_network(model):
        raise SettingError(f"widths and depths must go with a network of the zoo, got {model}")
    kind, short = parse(model)
    start = {"width": 128, "depth": 2, **short}
    grid = {
        name: console.numbers(text, int, what=f"{name}s") if text else [start[name]]
        for name, text in {"width": widths, "depth": depths}.items()
    }
    changed: dict[str, Any] = {**{name: value for name, value in short.items() if name not in grid}, **settings}
    return {
        (width, depth): lambda width=width, depth=depth: network(
            kind, **{**changed, "width": width, **({"depth": depth} if depths else {})}
        )
        for depth in grid["depth"]
        for width in grid["width"]
    }


def _show(values: dict[str, Any]) -> None:
    from isthmus.report.counting import counting_tables, counting_text
    from isthmus.report.words import words_for

    words = words_for("en")
    for table in counting_tables(values, words):
        console.table(table.columns, table.rows, title=table.title)
    for line in counting_text(values, words):
        console.say(line)
