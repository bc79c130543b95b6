"""Lightning, under both of its import names: a callback that records the trajectory."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from isthmus.core.errors import SettingError
from isthmus.integrations.order import order_of, readable, start_of
from isthmus.integrations.trajectory import Recorder

# What only says when to stop; a training that goes on may have more of it.
_LIMITS = ("arguments.max_epochs", "arguments.max_steps")
_NAMES = ("lightning.pytorch", "pytorch_lightning")


def lightning_callback(
    folder: str | Path,
    *,
    at: Sequence[int] = (0,),
    every: int | None = None,
    last: bool = True,
    recipe: Mapping[str, Any] | None = None,
) -> Any:
    """A Lightning callback that records weights at chosen steps, and the recipe.

    It is a callback of ``lightning`` and of ``pytorch_lightning``, whichever the program has imported (both, if both);
    if none, of the first that is installed. Recorded are the module's hyperparameters, the optimisers with their
    settings, the trainer's limits, the seed that ``seed_everything`` set, what the data loader says of the order, the
    versions, and a digest of the weights at the start. Only the first process writes. A step is an optimiser step, as
    ``trainer.global_step`` counts them: with several optimisers more than one for a batch, and what is recorded is the
    first count that reaches a chosen one. A training that goes on with ``ckpt_path`` goes on in its folder, also with
    more steps than at first.

    Args:
        folder: of the trajectory; see :class:`isthmus.integrations.Trajectory`.
        at: optimiser steps to record; 0 is the initialisation.
        every: also every so many steps.
        last: also the end.
        recipe: further fields.

    Raises:
        SettingError: Lightning is not installed; or, at the start of the training, the folder holds another one.

    Cost: one write of the weights for each recorded step, in the training's own process.
    """
    recorder = Recorder(folder, at=at, every=every, last=last)
    done = {"step": -1}

    class RecordTrajectory(*_bases()):  # type: ignore[misc]
        """Records weights at chosen steps, and the recipe."""

        def on_train_start(self, trainer: Any, pl_module: Any) -> None:
            if trainer.is_global_zero:
                step = trainer.global_step
                recorder.start({**_recipe(trainer, pl_module), **(recipe or {})}, step=step, limits=_LIMITS)
                recorder.seen(step, pl_module.state_dict)
                done["step"] = step

        def on_train_batch_end(self, trainer: Any, pl_module: Any, *further: Any, **more: Any) -> None:
            # Gradients are accumulated over several batches: the step counts only once.
            if trainer.is_global_zero and trainer.global_step != done["step"]:
                recorder.seen(trainer.global_step, pl_module.state_dict, since=done["step"])
                done["step"] = trainer.global_step

        def on_train_end(self, trainer: Any, pl_module: Any) -> None:
            if trainer.is_global_zero:
                recorder.finish(trainer.global_step, pl_module.state_dict)

        def __reduce__(self) -> Any:
            # Strategies that start their processes by spawning send the callback there; a class made here is made anew.
            return partial(lightning_callback, folder, at=at, every=every, last=last, recipe=recipe), ()

    return RecordTrajectory()


def _bases() -> tuple[type, ...]:
    """The callback classes of every Lightning that the program has imported, or of the first that can be."""
    imported = [sys.modules[name] for name in _NAMES if name in sys.modules]
    for name in _NAMES if not imported else ():
        try:
            imported.append(importlib.import_module(name))
            break
        except ModuleNotFoundError:
            continue
    if not imported:
        raise SettingError("a Lightning callback needs lightning, which is not installed; pip install lightning")
    return tuple(dict.fromkeys(module.Callback for module in imported))


def _recipe(trainer: Any, module: Any) -> dict[str, Any]:
    seed = os.environ.get("PL_GLOBAL_SEED")
    limits = ("max_epochs", "max_steps", "accumulate_grad_batches", "gradient_clip_val", "precision")
    return {
        "made_with": "lightning",
        "model": type(module).__name__,
        "configuration": readable(dict(getattr(module, "hparams", {}))),
        "arguments": readable({name: getattr(trainer, name, None) for name in limits}),
        "optimisers": [{"name": type(one).__name__, **readable(one.defaults)} for one in trainer.optimizers],
        "processes": trainer.world_size,
        "initialisation_seed": int(seed) if seed else None,
        "order_seed": int(seed) if seed else None,
        "augmentation_seed": int(seed) if seed else None,
        "order": order_of(trainer.train_dataloader),
        "start": None if trainer.global_step else start_of(module),  # it goes on from other weights than its start
    }
