"""A checkpoint's tensors matched to a network's: names, shapes, kinds of numbers, and what the model ties."""

from __future__ import annotations

import torch
from torch import Tensor

from isthmus.core.errors import CheckpointError, listed
from isthmus.core.misfits import check_is_model, misfit
from isthmus.core.names import without_prefixes
from isthmus.core.weights import Weights, check_finite


def fit(weights: Weights, like: Weights, *, what: str = "the checkpoint", finite: bool = True) -> dict[str, Tensor]:
    """Match a checkpoint's names and shapes to a network's, dropping wrappers such as ``module.`` or ``model.``.

    Args:
        weights: what was read from a file.
        like: the network's own weights (``Network.weights``): names, shapes and order.
        what: how errors call the checkpoint.
        finite: also refuse NaN and infinities.

    Raises:
        CheckpointError: tensors are missing, extra or of another shape; says which.
        WeightsError: not finite.
    """
    check_is_model(weights, what)
    names = max(without_prefixes(tuple(weights)), key=lambda candidate: sum(name in like for name in candidate))
    best = dict(zip(names, weights.values(), strict=True))
    # A counter of batches is bookkeeping that old checkpoints lack; it changes no output in evaluation.
    best = {**{n: t for n, t in like.items() if n.endswith("num_batches_tracked")}, **best}
    best = {**_tied(best, like), **best}
    if missing := [name for name in like if name not in best]:
        hint = f" (it has {listed(best, 3) or 'none'})" if len(missing) == len(like) else ""
        raise CheckpointError(f"{what} must hold every tensor of the model; missing: {listed(missing)}{hint}")
    if extra := [name for name in best if name not in like]:
        raise CheckpointError(f"{what} must hold only the model's tensors; extra: {listed(extra)}")
    for name, tensor in like.items():
        if best[name].shape != tensor.shape:
            raise CheckpointError(misfit(what, name, tuple(tensor.shape), tuple(best[name].shape)))
        if (unlike := _kind(best[name])) != _kind(tensor) or unlike in _NOT_EVALUATED:
            raise CheckpointError(
                f"{what} must hold numbers of the model's kind; {name} is {unlike} in the file, {_kind(tensor)} in the "
                "model; convert it to bfloat16 or wider first"
            )
    ordered = {name: best[name] for name in like}
    _check_tied(ordered, like, what)
    if finite:
        check_finite(ordered, what=what)
    return ordered


def _kind(tensor: Tensor) -> str:
    """Which numbers can stand for each other: any floats, any whole ones."""
    if tensor.is_quantized:
        return "quantised"
    if tensor.is_floating_point():
        return "real" if tensor.element_size() > 1 else "8-bit float"
    return "complex" if tensor.is_complex() else "whole"


_NOT_EVALUATED = ("quantised", "8-bit float")  # no layer computes with them as they are


def _tied(weights: Weights, like: Weights) -> dict[str, Tensor]:
    """Tensors that a file leaves out because the model ties them to one that it holds, as safetensors files do."""
    held = {_place(like[name]): tensor for name, tensor in weights.items() if name in like}
    return {name: held[_place(t)] for name, t in like.items() if name not in weights and _place(t) in held}


def _same(one: Tensor, other: Tensor) -> bool:
    """Equal entries; NaN, which a diverged network holds twice, is like NaN."""
    if one.is_floating_point():
        return one.dtype == other.dtype and torch.allclose(one, other, rtol=0.0, atol=0.0, equal_nan=True)
    return torch.equal(one, other)


def _check_tied(weights: Weights, like: Weights, what: str) -> None:
    """Refuse two tensors in the file where the model has one: only one of them could be evaluated."""
    first: dict[tuple[int, tuple[int, ...], tuple[int, ...]], str] = {}
    for name, tensor in like.items():
        one = first.setdefault(_place(tensor), name)
        if one != name and not _same(weights[one], weights[name]):
            raise CheckpointError(
                f"{what} must hold equal tensors where the model ties them; {one} and {name} differ, so it is a "
                "checkpoint of a model that does not tie them"
            )


def _place(tensor: Tensor) -> tuple[int, tuple[int, ...], tuple[int, ...]]:
    """Where a tensor's entries lie: equal for tied tensors only. An empty tensor lies nowhere."""
    return tensor.data_ptr() or id(tensor), tuple(tensor.shape), tensor.stride()
