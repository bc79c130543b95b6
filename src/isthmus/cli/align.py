"""``isthmus align``: permute the hidden units of checkpoints to match the first one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from isthmus.cli import console, inputs, options


def align(
    checkpoints: options.Checkpoints,
    model: options.Model,
    method: Annotated[str, typer.Option(help="weights, or activations (needs --data).")] = "weights",
    data: options.MaybeData = None,
    data_dir: options.DataDir = None,
    shape: options.Shape = None,
    check: Annotated[bool, typer.Option("--check", help="Evaluate that the function did not change.")] = False,
    seed: options.Seed = 0,
    unsafe_pickle: options.UnsafePickle = False,
    output: Annotated[str, typer.Option("--output", "-o", help="Folder for the aligned checkpoints.")] = "aligned",
    json: options.Json = False,
) -> None:
    """Write permuted checkpoints, their permutations as JSON, and a card of what was done."""
    from isthmus.core.errors import SettingError

    if method not in ("weights", "activations"):
        raise SettingError(f"method must be weights or activations, got {method}")
    checkpoints = inputs.expanded(checkpoints)
    if len(checkpoints) < 2:
        raise SettingError(f"an alignment takes a fixed checkpoint and at least one to permute, got {len(checkpoints)}")
    folder = inputs.output_folder(output)
    with console.progress("align") as told:
        import isthmus.discover as discovery
        from isthmus.core.checkpoint import save
        from isthmus.core.files import write_text
        from isthmus.core.network import Network
        from isthmus.core.provenance import provenance
        from isthmus.core.randomness import child
        from isthmus.core.record import to_json
        from isthmus.core.symmetry_file import save_permutation
        from isthmus.studies.comparison import matcher

        found = inputs.found_data(data, data_dir) if data else None
        shapes = inputs.shapes(shape)
        module = inputs.module(model, data=found, shape=shapes[0][1:] if shapes else None)
        network = Network.of(module)
        solutions = inputs.found_solutions(checkpoints, network, unsafe_pickle=unsafe_pickle)
        example = (found.train_inputs[:2],) if found is not None else inputs.example(shape, module, seed=seed)
        symmetry = discovery.discover(module, example)
        matching = matcher(method, network, found.train_inputs if found is not None else None)
        rows = []
        for place, (path, moving) in enumerate(zip(checkpoints[1:], solutions[1:], strict=True)):
            told(place, len(checkpoints) - 1, Path(path).name)
            match = matching(symmetry, moving, solutions[0], generator=child(seed, "alignment", place))
            aligned = match.permutation.apply(moving)
            target = folder / target_name(path, [Path(done["file"]).name for done in rows])
            save(aligned, target, metadata={"made_by": "isthmus align", "aligned_to": str(checkpoints[0])})
            save_permutation(match.permutation, target.with_suffix(".permutation.json"))
            rows.append({"source": path, "file": str(target), "match": match.to_dict()})
            if check:
                rows[-1]["largest_change"] = _change(network, moving, aligned, example)
        result = {
            "kind": "Alignment",
            "fixed": checkpoints[0],
            "method": method,
            "aligned": rows,
            "provenance": provenance(),
        }
        write_text(folder / "alignment.json", to_json(result))
    if json:
        console.emit_json(result)
        return
    columns = ["file", "objective", "before", "bound", "status", *(["change of output"] if check else [])]
    shown = [
        [row["file"], *(row["match"][name] for name in ("objective", "identity_objective", "upper_bound", "status"))]
        + ([row["largest_change"]] if check else [])
        for row in rows
    ]
    console.table(columns, shown, title=f"aligned to {checkpoints[0]} by {method}; {rows[0]['match']['measure']}")


def target_name(path: str, taken: list[str]) -> str:
    """The name of an aligned checkpoint: the source's own, numbered where two sources share it."""
    source = Path(path)
    stem, suffix = source.stem, source.suffix if source.suffix in (".safetensors", ".pt", ".pth") else ".safetensors"
    name, number = f"{stem}{suffix}", 1
    while name in taken:
        number += 1
        name = f"{stem}-{number}{suffix}"
    return name


def _change(network: object, before: object, after: object, example: tuple) -> float:
    """The largest change of the output over the example, relative to the largest output; judged in float32."""
    import torch

    from isthmus.core.weights import to

    with torch.no_grad():
        first, second = (network(to(weights, dtype=torch.float32), *example) for weights in (before, after))  # type: ignore
    first, second = (getattr(output, "logits", output) for output in (first, second))
    return float((first - second).abs().max() / first.abs().max().clamp_min(1e-30))
