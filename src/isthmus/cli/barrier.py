"""``isthmus barrier``: the loss on the straight way between checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from isthmus.cli import console, inputs


def barrier(
    checkpoints: Annotated[list[str], typer.Argument(help="Two checkpoints or more: .safetensors, .pt or folders.")],
    model: Annotated[
        str, typer.Option(help="package.module:function, file.py:function, torchvision:NAME or a zoo name.")
    ],
    data: Annotated[str, typer.Option(help="digits, mnist, fashion-mnist, cifar10, an .npz or module:function.")],
    data_dir: Annotated[str | None, typer.Option(help="Folder with the data's files.")] = None,
    align: Annotated[
        str, typer.Option(help="Also measure after matching: none, weights, activations or both.")
    ] = "none",
    split: Annotated[str, typer.Option(help="Measure on the test or the train split.")] = "test",
    examples: Annotated[int | None, typer.Option(help="Use at most so many examples of each split.")] = None,
    points: Annotated[int, typer.Option(help="Points on each path, at least 3.")] = 25,
    normalisation: Annotated[
        str, typer.Option(help="Statistics between the ends: reestimate, interpolate, repair or rescale.")
    ] = "reestimate",
    seed: Annotated[int, typer.Option(help="Seed of the alignment.")] = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda, or auto.")] = "auto",
    unsafe_pickle: Annotated[
        bool, typer.Option("--unsafe-pickle", help="Run pickles in full: they can execute any code. Own files only.")
    ] = False,
    report: Annotated[str | None, typer.Option(help="Also write a page with the curves here.")] = None,
    output: Annotated[str | None, typer.Option("--output", "-o", help="Also write the results here, as JSON.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the results as JSON.")] = False,
) -> None:
    """Measure the barriers between all pairs of checkpoints, in every convention."""
    from isthmus.core.errors import SettingError

    ways = {"none": ("naive",), "weights": ("naive", "weights"), "activations": ("naive", "activations")}
    ways["both"] = ("naive", "weights", "activations")
    if align not in ways:
        raise SettingError(f"align must be one of {', '.join(ways)}, got {align}")
    if split not in ("test", "train"):
        raise SettingError(f"split must be test or train, got {split}")
    if len(checkpoints) < 2:
        raise SettingError(f"a barrier lies between at least 2 checkpoints, got {len(checkpoints)}")
    with console.progress("barrier") as told:
        import dataclasses

        import isthmus.discover as discovery
        from isthmus.core.files import write_text
        from isthmus.core.network import Network
        from isthmus.core.provenance import provenance
        from isthmus.core.record import to_json
        from isthmus.studies.comparison import compare

        where = inputs.device(device)
        found = inputs.data(data, data_dir, examples=examples)
        module = inputs.module(model, data=found)
        network = Network.of(module)
        solutions = inputs.solutions(checkpoints, network, unsafe_pickle=unsafe_pickle)
        symmetry = discovery.discover(module, found.train_inputs[:2]) if align != "none" else None
        network = Network.of(module.to(where))
        solutions = [{name: tensor.to(where) for name, tensor in weights.items()} for weights in solutions]
        found = found.to(where)
        result = compare(
            solutions,
            inputs.objective(network, found, split=split),
            symmetry=symmetry,
            inputs=found.train_inputs,
            methods=ways[align],
            names=shortened(checkpoints),
            seed=seed,
            points=points,
            normalisation=normalisation,
            progress=told,
        )
        values = dataclasses.replace(result, provenance={**provenance(), "data": found.fingerprint}).to_dict()
    if output:
        write_text(output, to_json(values))
    if report:
        from isthmus.report.assemble import page_of_results
        from isthmus.report.page import write_page

        write_page(page_of_results([("barrier", values)]), report)
    if json:
        console.emit_json(values)
        return
    _show(values)


def shortened(paths: list[str]) -> list[str]:
    """File names where they tell the checkpoints apart, else the whole paths."""
    names = [Path(path).name for path in paths]
    return names if len(set(names)) == len(names) else list(paths)


def _show(values: dict) -> None:
    from isthmus.report.connectivity import interval_text
    from isthmus.report.words import words_for

    words = words_for("en")
    kinds = ("loss_barrier", "loss_barrier_over_mean", "error_barrier", "error_barrier_over_mean", "midpoint")
    first = next(iter(values["barriers"].values()))
    rows = [
        [words(f"convention.{kind}"), *(interval_text(b["intervals"][kind]) for b in values["barriers"].values())]
        for kind in kinds
    ]
    n = len(first["names"])
    title = f"{n} solutions, {n * (n - 1) // 2} pair(s), statistics between the ends: {first['normalisation']}"
    console.table(["convention", *(words(f"method.{name}") for name in values["barriers"])], rows, title=title)
    if n > 2:
        pairs = [
            [f"{first['names'][i]} – {first['names'][j]}"]
            + [b["heights"]["loss_barrier"][i][j] for b in values["barriers"].values()]
            for i in range(n)
            for j in range(i + 1, n)
        ]
        console.table(["pair, loss barrier", *(words(f"method.{name}") for name in values["barriers"])], pairs)
