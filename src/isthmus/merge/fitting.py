"""Do checkpoints on disk fit each other? Every refusal says which tensor, which model and what would be needed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from isthmus.core.errors import CheckpointError, listed
from isthmus.core.misfits import check_is_model, check_not_hollow
from isthmus.core.names import without_prefixes
from isthmus.merge.shards import Shards

_VOCABULARY = re.compile(
    r"embed_tokens|wte\.|word_embeddings|embed_in|tok_embeddings|lm_head|embed_out|output\.weight$"
)
_OUTPUT_HEAD = re.compile(r"lm_head|embed_out")
_RUNNING = re.compile(r"(?:^|\.)running_(?:mean|var)$")


def running_statistic(name: str) -> bool:
    """Whether a tensor holds running statistics of a normalisation: they belong to one point in weight space."""
    return _RUNNING.search(name) is not None


def vocabulary(name: str) -> bool:
    """Whether the rows of a tensor are tokens, going by its name."""
    return _VOCABULARY.search(name) is not None


def check_places(inputs: Sequence[Shards], output: Path) -> None:
    """Refuse an output that is an input, lies in one, or exists.

    Raises:
        CheckpointError: says which.
    """
    target = output.resolve()
    for shards in inputs:
        taken = {shards.path.resolve(), *(file.resolve() for file in shards.files)}
        if shards.folder is not None:
            taken.add(shards.folder.resolve())
        if target in taken:
            raise CheckpointError(f"the output must not be an input, got {output} for both; choose another output")
    if output.exists() and (output.is_file() or any(output.iterdir())):
        raise CheckpointError(f"the output must not exist yet, but {output} does; remove it or choose another output")
    if output.suffix in (".pt", ".pth", ".bin", ".ckpt"):
        raise CheckpointError(f"the output must be a folder or end in .safetensors, got {output}")


def check_fit(inputs: Sequence[Shards], *, any_precision: bool) -> None:
    """Refuse checkpoints that differ in names, shapes or types.

    Args:
        inputs: at least one.
        any_precision: floating types may differ, because the output's is given.

    Raises:
        CheckpointError: names the tensor and both models.
    """
    first = inputs[0]
    for shards in inputs:
        check_is_model(shards.entries, str(shards.path))
        check_not_hollow(((name, entry.shape) for name, entry in shards.entries.items()), str(shards.path))
    for other in inputs[1:]:
        _check_names(first, other)
        for name, entry in first.entries.items():
            theirs = other.entries[name]
            if entry.shape != theirs.shape:
                raise CheckpointError(_shapes(name, first, other))
            both_floating = all(code in ("F16", "BF16", "F32", "F64") for code in (entry.code, theirs.code))
            if entry.code != theirs.code and not (any_precision and both_floating):
                raise CheckpointError(
                    f"models must have one precision, but {name} is {entry.code} in {first.path} and {theirs.code} in "
                    f"{other.path}; name the precision to merge in (dtype, such as bfloat16)"
                )
    if unreal := [name for name, entry in first.entries.items() if entry.code == "C64"]:
        raise CheckpointError(
            f"complex numbers are not merged from disk to disk, got {listed(unreal, 2)}; name files in torch's format "
            "(.pt), which are merged in memory"
        )
    if eight := [name for name, entry in first.entries.items() if entry.code.startswith("F8")]:
        raise CheckpointError(f"8-bit floats cannot be merged, got {listed(eight, 2)}; expand them to bfloat16 first")


def _check_names(first: Shards, other: Shards) -> None:
    missing = [name for name in first.entries if name not in other.entries]
    extra = [name for name in other.entries if name not in first.entries]
    if not missing and not extra:
        return
    for plain, wrapped in ((first, other), (other, first)):
        if any(set(names) == plain.entries.keys() for names in without_prefixes(tuple(wrapped.entries))):
            raise CheckpointError(
                f"models must have the same names, but those of {wrapped.path} carry a wrapper's part "
                f"({listed(wrapped.entries, 1)}); save it without: the state_dict of what torch.compile or "
                "DistributedDataParallel was given"
            )
    holder, lacking = (first, other) if missing else (other, first)
    names = missing or extra
    if all(_OUTPUT_HEAD.search(name) for name in names):
        raise CheckpointError(
            f"models must tie their output layer alike, but {holder.path} stores {listed(names)} and {lacking.path} "
            "shares it with the embedding; untie both or neither"
        )
    raise CheckpointError(
        f"models must have the same tensors, but {lacking.path} lacks {listed(names)} of {holder.path}"
    )


def _shapes(name: str, first: Shards, other: Shards) -> str:
    ours, theirs = first.entries[name].shape, other.entries[name].shape
    shapes = f"{name} is {ours} in {first.path} and {theirs} in {other.path}"
    if vocabulary(name) and len(ours) == len(theirs) and ours[1:] == theirs[1:]:
        return (
            f"models must have one vocabulary, but {shapes}; bring both to one tokenizer first: the same tokens in the "
            f"same rows, {max(ours[0], theirs[0])} of them"
        )
    return f"models must have the same shapes, but {shapes}; only networks of one architecture can be merged"
