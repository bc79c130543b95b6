"""What lies in a folder of checkpoints, told by the names of its files; nothing is opened."""

from __future__ import annotations

import re
from pathlib import Path

TORCH_SUFFIXES = (".pt", ".pth", ".bin", ".ckpt")
# Optimisers, schedules, scalers, generators and settings, as transformers and accelerate name them.
_BESIDE = re.compile(r"(training_args|(optimizer|scheduler|scaler|sampler|rng_state)(_\d+)?)\.(pt|pth|bin)")
_STEP = re.compile(r"checkpoint-(\d+)")


def checkpoints_in(folder: Path) -> list[Path]:
    """The checkpoint files in a folder, by name; the index alone where there are shards.

    Not among them: what trainers write beside the weights, and the same weights once more in torch's format.
    """
    if indices := sorted(folder.glob("*.safetensors.index.json")):
        return indices
    whole = (folder / "model.safetensors").is_file()
    return sorted(
        file
        for file in folder.iterdir()
        if file.suffix in (".safetensors", *TORCH_SUFFIXES)
        and file.is_file()
        and not _BESIDE.fullmatch(file.name)
        and not (whole and file.name == "pytorch_model.bin")
    )


def steps_in(folder: Path) -> list[Path]:
    """The folders ``checkpoint-STEP`` that a ``Trainer`` leaves, in the order of their steps."""
    steps = [(int(named[1]), one) for one in folder.iterdir() if (named := _STEP.fullmatch(one.name)) and one.is_dir()]
    return [one for _, one in sorted(steps)]
