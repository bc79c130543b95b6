"""``isthmus symmetry``: which hidden units of a model may be exchanged."""

from __future__ import annotations

from typing import Annotated

import typer

from isthmus.cli import console, inputs


def symmetry(
    model: Annotated[
        str, typer.Argument(help="module:function, file.py:function, torchvision:NAME, timm:NAME, a config.")
    ],
    shape: Annotated[
        str | None, typer.Option("--input", help="Shape of an example, such as 1x3x224x224; several with commas.")
    ] = None,
    tokens: Annotated[bool, typer.Option("--tokens", help="The input is token numbers, not real numbers.")] = False,
    seed: Annotated[int, typer.Option(help="Seed of the proof's random draws.")] = 0,
    save: Annotated[
        str | None, typer.Option(help="Write the symmetry here, as JSON that bare checkpoints can use.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the groups as JSON.")] = False,
) -> None:
    """Find every group of units that may be permuted without changing the function, prove it, and count."""
    with console.progress("symmetry"):
        import isthmus.discover as discovery
        from isthmus.core.randomness import child
        from isthmus.core.symmetry_file import save_symmetry
        from isthmus.report.redundancy import summary

        shapes = parsed_shapes(shape)
        module = inputs.module(model, shape=shapes[0][1:] if shapes else None)
        example = _example(shapes, module, tokens=tokens, seed=seed)
        found = discovery.discover(module, example, generator=child(seed, "proof"))
        if save:
            save_symmetry(found, save)
        values = summary(found)
    if json:
        console.emit_json(values)
        return
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


def parsed_shapes(text: str | None) -> list[tuple[int, ...]]:
    """``1x3x224x224`` as a tuple; several shapes are separated by commas.

    Raises:
        SettingError: something else.
    """
    from isthmus.core.errors import SettingError

    if not text:
        return []
    try:
        shapes = [tuple(int(part) for part in one.lower().split("x")) for one in text.split(",")]
    except ValueError:
        raise SettingError(f"input must be a shape such as 1x3x224x224, got {text!r}") from None
    if any(size < 1 for one in shapes for size in one):
        raise SettingError(f"input must have sizes of at least 1, got {text!r}")
    return shapes


def _example(shapes: list[tuple[int, ...]], module: object, *, tokens: bool, seed: int) -> tuple:
    """Random inputs of the wanted shapes; by default an image batch, or token numbers for a language model."""
    import torch

    from isthmus.core.randomness import child

    generator = child(seed, "example")
    vocabulary = getattr(getattr(module, "config", None), "vocab_size", None)
    if not shapes:
        shapes = [(2, 16)] if vocabulary else [(2, *getattr(module, "input_shape", (3, 224, 224)))]
        tokens = tokens or bool(vocabulary)
    if tokens:
        return tuple(torch.randint(vocabulary or 100, shape, generator=generator) for shape in shapes)
    return tuple(torch.randn(shape, generator=generator) for shape in shapes)
