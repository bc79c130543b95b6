"""Hugging Face's ``Trainer``: a callback that records the trajectory."""

from __future__ import annotations

import importlib
import re
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

# What only says when to stop; a training that goes on may have more of it.
_LIMITS = ("arguments.max_steps", "arguments.num_train_epochs")
# What the library writes into a configuration when it saves or reads it, which says nothing about the network.
_WRITTEN_BY_SAVING = ("transformers_version", "architectures", "_name_or_path", "dtype", "torch_dtype")


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

    A training that goes on with ``resume_from_checkpoint`` goes on in its folder, also with more steps than at first.
    With ``load_best_model_at_end`` the last step is recorded before the best weights come back, and those under the
    step that they are of.

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
                model, step = further["model"], state.global_step
                found = {**_recipe(args, model, further.get("train_dataloader"), step), **(recipe or {})}
                recorder.start(found, step=step, limits=_LIMITS)
                recorder.seen(step, model.state_dict)

        def on_step_end(self, args: Any, state: Any, control: Any, **further: Any) -> None:
            if state.is_world_process_zero:
                recorder.seen(state.global_step, further["model"].state_dict)
            self._stopped(state, control, further["model"])

        def on_epoch_end(self, args: Any, state: Any, control: Any, **further: Any) -> None:
            self._stopped(state, control, further["model"])

        def on_save(self, args: Any, state: Any, control: Any, **further: Any) -> None:
            self._stopped(state, control, further["model"])

        def _stopped(self, state: Any, control: Any, model: Any) -> None:
            # The trainer may put other weights, the best ones, in the model's place before it says that it has ended.
            if control.should_training_stop and state.is_world_process_zero:
                recorder.finish(state.global_step, model.state_dict)

        def on_train_end(self, args: Any, state: Any, control: Any, **further: Any) -> None:
            if state.is_world_process_zero and (step := _step_of(args, state)) is not None:
                recorder.finish(step, further["model"].state_dict)

    return RecordTrajectory()


def _step_of(args: Any, state: Any) -> int | None:
    """Which step the weights are of that the trainer leaves in the model; ``None`` if it does not say."""
    best = getattr(state, "best_model_checkpoint", None)
    if not (best and getattr(args, "load_best_model_at_end", False)):
        return state.global_step
    number = re.search(r"checkpoint-(\d+)$", str(best).rstrip("/\\"))
    return int(number.group(1)) if number else None


def _recipe(args: Any, model: Any, loader: Any, step: int) -> dict[str, Any]:
    config: Any = getattr(model, "config", None)
    chosen = readable(config.to_dict()) if hasattr(config, "to_dict") else {}
    adapters = {n: one for n, one in (getattr(model, "peft_config", None) or {}).items() if hasattr(one, "to_dict")}
    order_seed = args.seed if getattr(args, "data_seed", None) is None else args.data_seed
    return {
        "made_with": "transformers.Trainer",
        "model": type(model).__name__,
        "configuration": {name: value for name, value in chosen.items() if name not in _WRITTEN_BY_SAVING},
        **({"adapters": readable({n: one.to_dict() for n, one in adapters.items()})} if adapters else {}),
        "arguments": readable({name: getattr(args, name) for name in _DECIDING if hasattr(args, name)}),
        "processes": getattr(args, "world_size", 1),
        "initialisation_seed": None,
        "order_seed": order_seed,
        "augmentation_seed": args.seed,
        "order": order_of(loader),
        "start": None if step else start_of(model),  # the weights that it goes on from are not those of its start
    }
