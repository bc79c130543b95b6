"""Hugging Face's ``Trainer``: a callback that records the trajectory."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from isthmus.integrations.order import order_of, readable, start_of
from isthmus.integrations.trajectory import Recorder

# The arguments that decide which weights come out; the others say where logs go and how fast it is.
_DECIDING = (
    "seed", "data_seed", "full_determinism", "learning_rate", "weight_decay", "adam_beta1", "adam_beta2",
    "adam_epsilon", "max_grad_norm", "num_train_epochs", "max_steps", "lr_scheduler_type", "lr_scheduler_kwargs",
    "warmup_steps", "warmup_ratio", "optim", "optim_args", "per_device_train_batch_size",
    "gradient_accumulation_steps", "label_smoothing_factor", "train_sampling_strategy", "group_by_length",
    "dataloader_drop_last", "neftune_noise_alpha", "bf16", "fp16", "tf32",
)  # fmt: skip


def trainer_callback(
    folder: str | Path,
    *,
    at: Sequence[int] = (0,),
    every: int | None = None,
    last: bool = True,
    recipe: Mapping[str, Any] | None = None,
) -> Any:
    """A ``transformers.TrainerCallback`` that records weights at chosen steps, and the recipe.

    Recorded are the arguments that decide about the weights, the model's configuration, the seeds and what the data
    loader says of the order, the versions, and a digest of the weights at the start (whoever made the model chose its
    initialisation before the trainer saw it). Only the first process writes.

    Args:
        folder: of the trajectory; see :class:`isthmus.integrations.Trajectory`.
        at: optimiser steps to record; 0 is the initialisation.
        every: also every so many steps.
        last: also the end.
        recipe: further fields, such as ``{"initialisation_seed": 3}``.

    Raises:
        SettingError: at the start of the training, if the folder holds another one.

    Cost: one write of the weights for each recorded step, in the training's own process.
    """
    base = importlib.import_module("transformers").TrainerCallback
    recorder = Recorder(folder, at=at, every=every, last=last)

    class RecordTrajectory(base):  # type: ignore[misc, valid-type]
        """Records weights at chosen steps, and the recipe."""

        def on_train_begin(self, args: Any, state: Any, control: Any, **further: Any) -> None:
            if state.is_world_process_zero:
                model = further["model"]
                recorder.start({**_recipe(args, model, further.get("train_dataloader")), **(recipe or {})})
                recorder.seen(state.global_step, model.state_dict)

        def on_step_end(self, args: Any, state: Any, control: Any, **further: Any) -> None:
            if state.is_world_process_zero:
                recorder.seen(state.global_step, further["model"].state_dict)

        def on_train_end(self, args: Any, state: Any, control: Any, **further: Any) -> None:
            if state.is_world_process_zero:
                recorder.finish(state.global_step, further["model"].state_dict)

    return RecordTrajectory()


def _recipe(args: Any, model: Any, loader: Any) -> dict[str, Any]:
    config: Any = getattr(model, "config", None)
    order_seed = args.seed if getattr(args, "data_seed", None) is None else args.data_seed
    return {
        "made_with": "transformers.Trainer",
        "model": type(model).__name__,
        "configuration": readable(config.to_dict()) if hasattr(config, "to_dict") else {},
        "arguments": readable({name: getattr(args, name) for name in _DECIDING if hasattr(args, name)}),
        "processes": getattr(args, "world_size", 1),
        "initialisation_seed": None,
        "order_seed": order_seed,
        "augmentation_seed": args.seed,
        "order": order_of(loader),
        "start": start_of(model),
    }
