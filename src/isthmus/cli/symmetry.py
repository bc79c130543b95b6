"""``isthmus symmetry``: which hidden units of a model may be exchanged."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from isthmus.cli import console, inputs, options

if TYPE_CHECKING:
    import torch

_LARGE = 500_000_000  # parameters; in float64, as they are proved, 4 GB


def symmetry(
    model: Annotated[
        str,
        typer.Argument(help=options.MODEL),
    ],
    shape: options.Shape = None,
    tokens: options.Tokens = False,
    scales: Annotated[
        bool, typer.Option("--scales", help="Also scales and flips of single units; needs weights, not a meta device.")
    ] = False,
    seed: options.Seed = 0,
    save: Annotated[
        str | None,
        typer.Option(help="Write the symmetry here, as JSON that bare checkpoints can use.", callback=options.new_file),
    ] = None,
    report: options.Report = None,
    output: options.Output = None,
    json: options.Json = False,
) -> None:
    """Find every group of units that may be permuted without changing the function, prove it, and count."""
    with console.progress("symmetry"):
        import isthmus.discover as discovery
        from isthmus.core.provenance import provenance
        from isthmus.core.randomness import child
        from isthmus.core.symmetry_file import save_symmetry
        from isthmus.report.redundancy import summary

        shapes = inputs.shapes(shape)
        module = _empty(model) if not scales else None
        module = module or inputs.module(model, shape=shapes[0][1:] if shapes else None)
        example = inputs.example(shape, module, tokens=tokens, seed=seed)
        if any(tensor.is_meta for tensor in module.parameters()):
            example = tuple(part.to("meta") for part in example)
        keywords = inputs.keywords(module)
        found = discovery.discover(
            module,
            example,
            keywords=keywords,
            kinds=("permutation", "scale", "sign") if scales else ("permutation",),
            generator=child(seed, "proof"),
        )
        if save:
            save_symmetry(found, save)
        values = {**summary(found, discovery.layer_map(found)), "provenance": provenance()}
    console.deliver(values, output=output, report=report, json=json, show=_show)


def _empty(model: str) -> torch.nn.Module | None:
    """The network of a configuration that is too large to be filled with numbers for its proof: it holds no memory."""
    import torch

    if not (Path(model) / "config.json").is_file() and Path(model).name != "config.json":
        return None
    with torch.device("meta"):
        module = inputs.module(model)
    return module if sum(tensor.numel() for tensor in module.parameters()) > _LARGE else None


def _show(values: dict[str, Any]) -> None:
    rows = [
        [*row[:3], row[3][0] + (f" and {len(row[3]) - 1} more" if len(row[3]) > 1 else "")]
        for row in folded(values["groups"])
    ]
    console.table(["group", "units", "inside", "tensors"], rows)
    count = len(values["groups"])
    console.say(
        f"{count} {'group' if count == 1 else 'groups'}; 10^{values['log10_size']:.1f} networks compute this function."
    )
    if values["proof"]:
        proof = values["proof"]
        console.say(
            f"Proved: {proof['draws']} random draws in {proof['dtype']}, largest relative change {proof['error']:.1e}."
        )
        if proof["note"]:
            console.say(proof["note"])
    if values["obstacles"]:
        console.table(
            ["pinned by", "why", "tensors", "where"],
            [
                [o["operation"], o["reason"], ", ".join(o["tensors"][:4]), "/".join(o["where"].split("/")[-2:])]
                for o in values["obstacles"]
            ],
        )


def folded(groups: Sequence[Mapping[str, Any]]) -> list[list[Any]]:
    """Rows of name, units, inside and tensors; groups that repeat in each unit of one group share a row."""
    rows: dict[tuple[Any, ...], list[Any]] = {}
    shown: dict[str, str] = {}
    for group in groups:
        inside = group["inside"]
        if inside is None:
            rows[group["name"],] = [group["name"], group["units"], None, group["tensors"]]
            continue
        outer = str(inside).rpartition(", unit ")[0]
        around = shown.get(outer, outer)
        name = shown[group["name"]] = _starred(group["name"], outer, around)
        place = "each unit" if name.startswith(around) else f"each unit of {around}"
        rows.setdefault((name, group["units"], around), [name, group["units"], place, group["tensors"]])
    return list(rows.values())


def _starred(name: str, outer: str, around: str) -> str:
    """A nested group's name with a star for the unit: ``experts.0.up`` inside ``experts.*`` is ``experts.*.up``."""
    stem = outer.removesuffix("*")
    if outer.endswith(".*") and name.startswith(stem):
        return re.sub(r"^[^.\[ ]*", lambda _: around, name[len(stem) :], count=1)
    return re.sub(r"\[\d+\]", "[*]", name)
