"""Optimisers as plain arithmetic on lists of tensors, so that one network and a stack of them take the same step.

Everything here is elementwise, hence the same for a stack. Two forms: :func:`stepped` returns new tensors and can be
traced, compiled and read; :func:`step_` writes in place through torch's fused kernels where there are any. The tests
hold both to ``torch.optim``.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from isthmus.train.recipe import Recipe

Tensors = Sequence[Tensor]
Slots = Sequence[Sequence[Tensor]]


def slots(recipe: Recipe, parameters: Tensors) -> list[list[Tensor]]:
    """What the optimiser remembers at the start: nothing, a momentum, or two moments; one list of tensors each."""
    count = 2 if recipe.optimiser in ("adam", "adamw") else int(recipe.momentum > 0)
    return [[torch.zeros_like(parameter) for parameter in parameters] for _ in range(count)]


def stepped(
    recipe: Recipe, parameters: Tensors, gradients: Tensors, memory: Slots, *, rate: Tensor | float, step: Tensor
) -> tuple[list[Tensor], list[list[Tensor]]]:
    """New parameters and memory after one step.

    Args:
        recipe: the optimiser and its settings.
        parameters: trainable tensors.
        gradients: one for each.
        memory: from :func:`slots`, or from the step before.
        rate: the learning rate of this step, a number.
        step: how many steps were taken before, a number.

    Reference: Kingma & Ba 2015 (arXiv 1412.6980), algorithm 1; Loshchilov & Hutter 2019 (arXiv 1711.05101), algorithm
    2, with the decay scaled by the rate as in torch; Sutskever et al. 2013 for Nesterov, in torch's form.
    """
    if recipe.optimiser in ("adam", "adamw"):
        return _adam(recipe, parameters, gradients, memory, rate=rate, step=step)
    new, velocities = [], []
    for index, (parameter, given) in enumerate(zip(parameters, gradients, strict=True)):
        gradient = given + recipe.weight_decay * parameter if recipe.weight_decay else given
        if recipe.momentum:
            velocity = recipe.momentum * memory[0][index] + gradient
            velocities.append(velocity)
            gradient = gradient + recipe.momentum * velocity if recipe.nesterov else velocity
        new.append(parameter - rate * gradient)
    return new, [velocities] if recipe.momentum else []


def _adam(
    recipe: Recipe, parameters: Tensors, gradients: Tensors, memory: Slots, *, rate: Tensor | float, step: Tensor
) -> tuple[list[Tensor], list[list[Tensor]]]:
    (first, second), new, means, squares = recipe.betas, [], [], []
    after = step.double() + 1  # float32 would lose seven digits of the correction
    correction = 1 - first**after
    root = (1 - second**after).sqrt()
    for index, (parameter, given) in enumerate(zip(parameters, gradients, strict=True)):
        gradient, start = given, parameter
        if recipe.weight_decay and recipe.optimiser == "adam":
            gradient = gradient + recipe.weight_decay * parameter
        elif recipe.weight_decay:
            start = parameter * (1 - rate * recipe.weight_decay)
        mean = torch.lerp(memory[0][index], gradient, 1 - first)
        square = second * memory[1][index] + (1 - second) * gradient * gradient
        new.append(start - rate / correction * mean / (square.sqrt() / root + recipe.epsilon))
        means.append(mean)
        squares.append(square)
    return new, [means, squares]


@torch.no_grad()
def step_(
    recipe: Recipe, parameters: Tensors, gradients: Tensors, memory: Slots, *, rate: Tensor | float, step: Tensor
) -> None:
    """Take one step in place, by one fused kernel for all tensors where torch has one for them.

    ``rate`` and ``step`` are tensors, so that a captured graph reads their present value. The step counter is not
    moved.
    """
    if not parameters:
        return
    if not _fused(parameters):
        new, remembered = stepped(recipe, parameters, gradients, memory, rate=rate, step=step)
        torch._foreach_copy_(list(parameters), new)
        for old, values in zip(memory, remembered, strict=True):
            torch._foreach_copy_(list(old), values)
        return
    given = [g if g.stride() == p.stride() else _like(g, p) for g, p in zip(gradients, parameters, strict=True)]
    if recipe.optimiser in ("adam", "adamw"):
        fused = torch._fused_adam_ if recipe.optimiser == "adam" else torch._fused_adamw_
        after = step + 1
        fused(
            list(parameters), given, list(memory[0]), list(memory[1]), [], [after] * len(given),
            lr=rate, beta1=recipe.betas[0], beta2=recipe.betas[1], weight_decay=recipe.weight_decay,
            eps=recipe.epsilon, amsgrad=False, maximize=False,
        )  # fmt: skip
        return
    torch._fused_sgd_(
        list(parameters), given, list(memory[0]) if memory else [], weight_decay=recipe.weight_decay,
        momentum=recipe.momentum, lr=rate, dampening=0.0, nesterov=recipe.nesterov, maximize=False, is_first_step=False,
    )  # fmt: skip


def _fused(parameters: Tensors) -> bool:
    """Whether torch's fused kernels take these tensors."""
    first = parameters[0]
    known = (torch.float32, torch.float64) if first.device.type == "cpu" else (torch.float32,)  # CUDA's rate is float32
    return first.device.type in ("cpu", "cuda") and all(
        tensor.dtype is first.dtype and tensor.dtype in known for tensor in parameters
    )


def _like(gradient: Tensor, parameter: Tensor) -> Tensor:
    """A gradient in its parameter's memory layout, which the fused kernels take for granted."""
    return torch.empty_like(parameter).copy_(gradient)
