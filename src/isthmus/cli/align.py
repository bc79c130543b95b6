"""``isthmus align``: permute the hidden units of checkpoints to match the first one."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from isthmus.cli import console, inputs, options

if TYPE_CHECKING:
    import torch

    from isthmus.core.symmetry import Symmetry
    from isthmus.studies.alignment import Manner
    from isthmus.zoo.data import Data


def align(
    checkpoints: options.Checkpoints,
    model: Annotated[
        str | None,
        typer.Option(help="As elsewhere; by default the configuration in the first checkpoint's folder."),
    ] = None,
    symmetry: Annotated[
        str | None, typer.Option(help="Instead of a model: a file from isthmus symmetry --save.")
    ] = None,
    method: Annotated[
        str,
        typer.Option(
            help="weights, cosine, frank_wolfe or sinkhorn; with --data also activations, straight_through or swaps."
        ),
    ] = "weights",
    together: Annotated[
        str, typer.Option(help="Three and more: each to the first (reference), mean, universe; with --data simplex.")
    ] = "reference",
    unit_scale: Annotated[
        bool,
        typer.Option(
            "--unit-scale", help="Compare units scaled to length one where the function does not see it (ReLU)."
        ),
    ] = False,
    data: options.MaybeData = None,
    data_dir: options.DataDir = None,
    examples: options.Examples = None,
    shape: options.Shape = None,
    check: Annotated[bool, typer.Option("--check", help="Evaluate that the function did not change.")] = False,
    seed: options.Seed = 0,
    unsafe_pickle: options.UnsafePickle = False,
    output: Annotated[str, typer.Option("--output", "-o", help="Folder for the aligned checkpoints.")] = "aligned",
    json: options.Json = False,
) -> None:
    """Write permuted checkpoints, their permutations as JSON, and a card of what was done."""
    from isthmus.core.errors import SettingError

    checkpoints = inputs.expanded(checkpoints)
    if len(checkpoints) < 2:
        raise SettingError(f"an alignment takes a fixed checkpoint and at least one to permute, got {len(checkpoints)}")
    model = model or _configuration(checkpoints[0], symmetry)
    if check and model is None:
        raise SettingError("--check runs the network: give --model")
    with console.progress("align") as told:
        from isthmus.core.files import write_text
        from isthmus.core.provenance import provenance
        from isthmus.core.record import to_json
        from isthmus.studies.alignment import Manner, align_checkpoints, checked

        manner = Manner(method=method, together=together, scale="unit" if unit_scale else "as_is", seed=seed)  # type: ignore[arg-type]
        if manner.needs_data and (data is None or model is None):
            raise SettingError(f"{method} together={together} looks at a network's answers: give --model and --data")
        folder = inputs.output_folder(output)
        found = inputs.found_data(data, data_dir, examples=examples) if data else None
        groups, known = _known(model, symmetry, found, shape, manner)
        with _hinted(model if data is None and shape is None else None):
            result = align_checkpoints(
                checkpoints, groups, manner, folder, **known, unsafe_pickle=unsafe_pickle, progress=told
            )
        if check and model is not None:
            real, example = _module(model, found, shape, seed, numbers=True)
            keywords = inputs.keywords(real)
            result = checked(result, real, example, keywords=keywords, unsafe_pickle=unsafe_pickle)
        result = dataclasses.replace(result, provenance=provenance())
        write_text(folder / "alignment.json", to_json(result))
    if json:
        console.emit_json(result)
    else:
        _show(result.to_dict(), checked=check)


@contextlib.contextmanager
def _hinted(model: str | None) -> Iterator[None]:
    """Say of a misfit that a network of the zoo takes its size from options that were not given."""
    from isthmus.core.errors import CheckpointError
    from isthmus.zoo.networks import is_network

    try:
        yield
    except CheckpointError as problem:
        if model is None or not is_network(model) or "shapes" not in str(problem):
            raise
        raise CheckpointError(f"{problem}; --input or --data says what {model} takes") from problem


def _known(
    model: str | None, symmetry: str | None, found: Data | None, shape: str | None, manner: Manner
) -> tuple[Symmetry, dict[str, Any]]:
    """The symmetry, and what else is known of the network, as :func:`align_checkpoints` takes it."""
    from isthmus.core.network import Network
    from isthmus.core.symmetry_file import load_symmetry
    from isthmus.zoo.text import suited

    if model is None:
        return load_symmetry(str(symmetry)), {}
    module, example = _module(model, found, shape, manner.seed, numbers=manner.needs_data)
    scales = manner.scale == "unit"
    groups = load_symmetry(symmetry) if symmetry else _discovered(module, example, scales=scales)
    network = Network.of(module)
    if found is None or not manner.needs_data:
        return groups, {"tied": network.tied}
    objective = inputs.objective(network, suited(found, network), split="train")
    return groups, {"tied": network.tied, "network": network, "objective": objective}


def _configuration(checkpoint: str, symmetry: str | None) -> str | None:
    """The first checkpoint's own folder, if its architecture is written there."""
    from isthmus.core.errors import SettingError

    folder = Path(checkpoint) if Path(checkpoint).is_dir() else Path(checkpoint).parent
    if (folder / "config.json").is_file():
        return str(folder)
    if symmetry is None:
        raise SettingError(f"the architecture must be known: give --model or --symmetry; {folder} has no config.json")
    return None


def _module(
    model: str, found: Any, shape: str | None, seed: int, *, numbers: bool = False
) -> tuple[torch.nn.Module, tuple[Any, ...]]:
    """The network, and an example for it. Configurations without ``numbers``: neither holds any memory."""
    import torch

    from isthmus.core.network import Network
    from isthmus.zoo.text import as_taken

    shapes = inputs.shapes(shape)
    empty = (Path(model) / "config.json").is_file() or Path(model).name == "config.json"
    with torch.device("meta") if empty and not numbers else contextlib.nullcontext():
        module = inputs.module(model, data=found, shape=shapes[0][1:] if shapes else None)
    if found is not None:
        example = (as_taken(found.train_inputs[:2], Network.of(module)),)
    else:
        example = inputs.example(shape, module, seed=seed)
    if empty and not numbers:
        example = tuple(part.to("meta") for part in example)
    return module, example


def _discovered(module: torch.nn.Module, example: Any, *, scales: bool) -> Symmetry:
    import isthmus.discover as discovery

    kinds = ("permutation", "scale") if scales else ("permutation",)
    return discovery.discover(module, example, keywords=inputs.keywords(module), kinds=kinds)


def _show(values: dict[str, Any], *, checked: bool) -> None:
    columns = ["file", "objective", "before", "bound", "status", "stayed", *(["change of output"] if checked else [])]
    rows = []
    seconds: dict[str, float] = {}
    for one in values["aligned"]:
        match = one["match"] or {}
        shown = [match.get(name) for name in ("objective", "identity_objective", "upper_bound", "status")]
        rows.append([one["file"], *shown, f"{one['stayed']:.1%}", *([one["largest_change"]] if checked else [])])
        for name, spent in match.get("seconds", {}).items():
            seconds[name] = seconds.get(name, 0.0) + spent
    console.table(columns, rows, title=f"aligned to {values['fixed']} by {values['method']}; {values['measure']}")
    if values["together"] != "reference":
        reached = f"{values['identity_objective']:.4g} → {values['objective']:.4g}"
        console.say(f"all together ({values['together']}), {values['measure']}: {reached}")
    longest = sorted(seconds.items(), key=lambda item: -item[1])[:8]
    if sum(seconds.values()) > 5:
        console.table(["group", "seconds"], [[name, spent] for name, spent in longest], title="where the time went")
