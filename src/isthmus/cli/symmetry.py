"""``isthmus symmetry``: which hidden units of a model may be exchanged."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from isthmus.cli import console, inputs, options


def symmetry(
    model: Annotated[
        str, typer.Argument(help="module:function, file.py:function, torchvision:NAME, timm:NAME, a config.")
    ],
    shape: options.Shape = None,
    tokens: Annotated[bool, typer.Option("--tokens", help="The input is token numbers, not real numbers.")] = False,
    scales: Annotated[
        bool, typer.Option("--scales", help="Also scales and flips of single units; needs weights, not a meta device.")
    ] = False,
    seed: options.Seed = 0,
    save: Annotated[
        str | None, typer.Option(help="Write the symmetry here, as JSON that bare checkpoints can use.")
    ] = None,
    report: options.Report = None,
    output: options.Output = None,
    json: options.Json = False,
) -> None:
    """Find every group of units that may be permuted without changing the function, prove it, and count."""
    with console.progress("symmetry"):
        import isthmus.discover as discovery
        from isthmus.core.randomness import child
        from isthmus.core.symmetry_file import save_symmetry
        from isthmus.report.redundancy import summary

        shapes = inputs.shapes(shape)
        module = inputs.module(model, shape=shapes[0][1:] if shapes else None)
        example = inputs.example(shape, module, tokens=tokens, seed=seed)
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
        values = summary(found, discovery.layer_map(found))
    console.deliver(values, output=output, report=report, json=json, show=_show)


def _show(values: dict[str, Any]) -> None:
    rows = [[g["name"], g["units"], g["inside"], ", ".join(g["tensors"][:3]) + ("" if len(g["tensors"]) < 4 else " …")]
            for g in values["groups"]]  # fmt: skip
    console.table(["group", "units", "inside", "tensors"], rows)
    console.say(f"{len(rows)} groups; 10^{values['log10_size']:.1f} networks compute this function.")
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
            [[o["operation"], o["reason"], ", ".join(o["tensors"][:4]), o["where"]] for o in values["obstacles"]],
        )
