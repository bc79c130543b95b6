"""``isthmus merge``: many checkpoints into one, larger than memory where need be."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

Models = Annotated[list[Path] | None, typer.Argument(help="Checkpoints: .safetensors files or Hugging Face folders.")]


def merge(
    models: Models = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="New folder, or a .safetensors file.")] = None,
    config: Annotated[Path | None, typer.Option("--config", "-c", help="A merge in mergekit's YAML format.")] = None,
    method: Annotated[str, typer.Option("--method", "-m", help="linear, slerp, task_arithmetic, ties, …")] = "linear",
    base: Annotated[Path | None, typer.Option("--base", help="The checkpoint that the models started from.")] = None,
    weight: Annotated[list[float] | None, typer.Option("--weight", help="One for each model, in order.")] = None,
    density: Annotated[float | None, typer.Option(help="Share of each task vector that is kept.")] = None,
    t: Annotated[float, typer.Option("--t", help="slerp: position between the base (0) and the model (1).")] = 0.5,
    scale: Annotated[float | None, typer.Option(help="Factor of the merged task vector (lambda).")] = None,
    dtype: Annotated[str | None, typer.Option(help="Precision of the output; that of the models by default.")] = None,
    seed: Annotated[int, typer.Option(help="Of random masks.")] = 0,
    threads: Annotated[int | None, typer.Option(help="Tensors worked on at once; one a processor by default.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Merge checkpoints into one, tensor by tensor: nothing needs to fit into memory, and no model code is run."""
    from isthmus.core.errors import SettingError
    from isthmus.core.record import to_json
    from isthmus.merge.configuration import Configuration
    from isthmus.merge.stream import merge_files

    if output is None:
        raise SettingError("a merge needs a place to write to: give --output")
    if (config is None) == (not models):
        raise SettingError("a merge needs models or a configuration: give either paths or --config")
    recipe = (
        Configuration.read(config)
        if config is not None
        else Configuration.of(_content(models or [], method, base, weight, density, t, scale, dtype), what="the options")
    )
    result = merge_files(recipe, output, seed=seed, threads=threads)
    typer.echo(to_json(result) if json else f"wrote {output} ({result.tensors} tensors, {result.seconds:.1f} s)")


def _content(
    models: list[Path],
    method: str,
    base: Path | None,
    weight: list[float] | None,
    density: float | None,
    t: float,
    scale: float | None,
    dtype: str | None,
) -> dict[str, Any]:
    """The options as a configuration file would say them."""
    return {}
