"""What lies in a folder of checkpoints, told by the names of its files; nothing is opened."""

from __future__ import annotations

import re
from pathlib import Path

from isthmus.core.errors import CheckpointError, listed

TORCH_SUFFIXES = (".pt", ".pth", ".bin", ".ckpt")
# What can be read beside safetensors; also the endings that old training scripts (timm's among them) still write.
_TORCH = re.compile(r"\.(pt|pth|bin|ckpt|th|(pth|pt)\.tar)$")
_INDEX = re.compile(r"\.index(\.[^.]+)?\.json$")
_SHARD = re.compile(r"-\d{5}-of-(\d{5})\.(safetensors|bin)$")
# Optimisers, schedules, scalers, generators and settings, as transformers, accelerate and DeepSpeed name them.
_BESIDE = re.compile(
    r"(training_args|(optimizer|scheduler|scaler|sampler|rng_state)(_\d+)?)\.(pt|pth|bin)"
    r"|.*_optim_states\.pt|.*zero_pp_rank_.*_states\.pt"
)
# The same weights once more beside ``model.safetensors``: in torch's format, as Mistral's code reads them, in another
# precision.
_AGAIN = re.compile(r"(pytorch_model|consolidated)(\.[^.]+)*\.(bin|pth|safetensors)|model\.[a-z0-9_]+\.safetensors")
_STEP = re.compile(r"checkpoint-(\d+)")
_PARTS_OF_ZERO = "*zero_pp_rank_*_model_states.pt"
_FOREIGN = (".gguf", ".h5", ".msgpack", ".onnx", ".npz", ".pt2", ".tflite", ".pkl")
_METADATA = ".metadata"  # of torch.distributed.checkpoint


def is_torch_file(path: Path) -> bool:
    """Whether a file is one of torch's own format, going by its name."""
    return _TORCH.search(path.name) is not None


def is_index(path: Path) -> bool:
    """Whether a file is an index of shards, going by its name; of another precision too (``….index.fp16.json``)."""
    return _INDEX.search(path.name) is not None


def is_distributed(path: Path) -> bool:
    """Whether a folder was written by ``torch.distributed.checkpoint``."""
    return (path / _METADATA).is_file()


def is_safetensors(path: Path) -> bool:
    """Whether a file, or the shards of an index, are safetensors, going by its name."""
    return path.suffix == ".safetensors" or (is_index(path) and ".bin.index" not in path.name)


def checkpoints_in(folder: Path) -> list[Path]:
    """The checkpoint files in a folder, by name; the index alone where there are shards.

    Not among them: what trainers write beside the weights, shards whose index is missing, and the same weights once
    more in another format or precision.
    """
    if indices := sorted(folder.glob("*.safetensors.index.json")):
        return indices
    found = sorted(
        file
        for file in folder.iterdir()
        if (file.suffix == ".safetensors" or is_torch_file(file)) and file.is_file()
        if not _BESIDE.fullmatch(file.name) and not shards_of_name(file)
    )
    if folder / "model.safetensors" in found:
        return [file for file in found if not _AGAIN.fullmatch(file.name)]
    return found if any(file.suffix == ".safetensors" for file in found) else _torch_indices(folder) or found


def home_of(path: Path) -> Path | None:
    """The folder whose other files belong to a checkpoint; ``None`` where a single file was named."""
    return path if path.is_dir() else path.parent if is_index(path) else None


def steps_in(folder: Path) -> list[Path]:
    """The folders ``checkpoint-STEP`` that a ``Trainer`` leaves, in the order of their steps."""
    steps = [(int(named[1]), one) for one in folder.iterdir() if (named := _STEP.fullmatch(one.name)) and one.is_dir()]
    return [one for _, one in sorted(steps)]


def shards_of_name(file: Path) -> int:
    """How many shards a file's own name speaks of, as ``model-00001-of-00003.safetensors``; 0 where it is none."""
    match = _SHARD.search(file.name)
    return int(match.group(1)) if match and int(match.group(1)) > 1 else 0


def checkpoint_at(path: Path) -> Path:
    """The one checkpoint that a path means: a file, an index of shards, or a folder of torch.distributed.checkpoint.

    Raises:
        CheckpointError: nothing is there, or the folder holds several, none, or one that has to be joined first.
    """
    if not path.exists():
        raise CheckpointError(f"a checkpoint must exist, but there is nothing at {path}")
    if path.name == _METADATA or path.suffix == ".distcp":
        path = path.parent
    if not path.is_dir() or is_distributed(path):
        return path
    inside = checkpoints_in(path) + _elsewhere(path)
    candidates = [file for file in inside if is_safetensors(file)] or inside
    if len(candidates) == 1:
        return candidates[0]
    if candidates:
        found = listed(file.name for file in candidates)
        raise CheckpointError(f"the folder {path} must hold exactly one checkpoint, found {found}; name the file")
    raise _none(path)


def _torch_indices(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.bin.index.json"))


def _elsewhere(folder: Path) -> list[Path]:
    """Weights that DeepSpeed and accelerate (FSDP) keep one folder further down."""
    sharded = [one for one in sorted(folder.glob("pytorch_model_fsdp_*")) if is_distributed(one)]
    step = _latest(folder)
    if step is None or any(step.glob(_PARTS_OF_ZERO)):
        return sharded
    return sharded + sorted(step.glob("mp_rank_*_model_states.pt"))


def _latest(folder: Path) -> Path | None:
    """The folder of the step that DeepSpeed names in ``latest``."""
    named = folder / "latest"
    try:
        name = named.read_text(encoding="utf-8").strip() if named.is_file() and named.stat().st_size < 200 else ""
    except (OSError, ValueError):
        return None
    step = folder / name
    return step if name and Path(name).name == name and step.is_dir() else None


def _none(path: Path) -> CheckpointError:
    """Why a folder holds no checkpoint that can be read, and what to do."""
    step = _latest(path) or path
    if any(step.glob(_PARTS_OF_ZERO)):
        home = path if step != path else path.parent
        return CheckpointError(
            f"the folder {path} must hold whole tensors, but DeepSpeed left the parts of several processes there; run "
            f"`python zero_to_fp32.py . whole` in {home} once, and give the folder whole that it makes"
        )
    if shards := sorted(file for file in path.iterdir() if shards_of_name(file)):
        wanted = shards_of_name(shards[0])
        if len(shards) < wanted:
            return CheckpointError(
                f"{path} must hold all {wanted} shards and their index, but has only {listed(f.name for f in shards)}; "
                "fetch the others too"
            )
        index = _SHARD.sub("", shards[0].name) + shards[0].suffix + ".index.json"
        return CheckpointError(f"{path} must hold the index of its shards, {index}, which is missing; fetch it too")
    if deeper := [one.name for one in sorted(path.iterdir()) if one.is_dir() and checkpoints_in(one)]:
        return CheckpointError(
            f"the folder {path} must hold exactly one checkpoint, found none, but further down in {listed(deeper)}; "
            "name that folder"
        )
    if foreign := [file.name for file in sorted(path.iterdir()) if file.suffix in _FOREIGN]:
        return CheckpointError(
            f"the folder {path} must hold a checkpoint in .safetensors or torch's format, found only "
            f"{listed(foreign, 2)}; convert it first"
        )
    return CheckpointError(f"the folder {path} must hold exactly one checkpoint, found none; name the file")
