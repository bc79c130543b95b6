"""Files that hold no whole model, told by names and shapes alone; torch is not needed."""

from __future__ import annotations

import re
from collections.abc import Iterable

from isthmus.core.errors import CheckpointError, listed

# What stage 3 of DeepSpeed's ZeRO leaves in place of a tensor that it keeps in parts.
_HOLLOW = (
    "DeepSpeed saves empty tensors where ZeRO-3 has them in parts: gather them with its zero_to_fp32.py, or save with "
    "stage3_gather_16bit_weights_on_model_save"
)
_FACTOR = re.compile(r"\.lora_(embedding_)?[AB](\.|$)")


def check_is_model(names: Iterable[str], what: str) -> None:
    """Refuse an adapter where a model is needed: a mean of products is no product of means.

    Raises:
        CheckpointError: the names are those of LoRA factors.
    """
    if factors := [name for name in names if _FACTOR.search(name)]:
        raise CheckpointError(
            f"{what} must be a model, but is an adapter to one ({listed(factors, 1)}); put it into its base first "
            "(peft: model.merge_and_unload().save_pretrained(FOLDER))"
        )


def check_not_hollow(shapes: Iterable[tuple[str, tuple[int, ...]]], what: str) -> None:
    """Refuse weights without entries, which a training with DeepSpeed may have left.

    Raises:
        CheckpointError: a tensor called weight has shape (0,).
    """
    if hollow := [name for name, shape in shapes if shape == (0,) and name.rpartition(".")[2] == "weight"]:
        raise CheckpointError(f"{what} must hold whole tensors, but {listed(hollow, 2)} is empty; {_HOLLOW}")


def misfit(what: str, name: str, wanted: tuple[int, ...], found: tuple[int, ...]) -> str:
    """The error line of a tensor whose shape is not the model's."""
    line = f"{what} must have the model's shapes; {name} is {wanted} in the model, {found} in the file"
    return f"{line}; {_HOLLOW}" if found == (0,) else line
