"""Elementwise operations: entries at one place meet; what PyTorch tags as pointwise comes here on its own."""

from __future__ import annotations

from typing import Any

from isthmus.discover.labels import Labels
from isthmus.discover.ledger import Ledger
from isthmus.discover.rules.registry import rule


def elementwise(ledger: Ledger, *arguments: Any, **keywords: Any) -> Labels:
    """Any function of the entries at one place."""
    values = [value for value in [*arguments, *keywords.values()] if isinstance(value, Labels)]
    return ledger.meet(*values)


@rule(
    "_prelu_kernel",
    "clamp_min",
    "clamp_max",
    "masked_fill",
    "addcmul",
    "addcdiv",
    "lerp",
    "threshold",
    "hardtanh",
    "leaky_relu",
    "ldexp",
    "softplus",
    "celu",
    "mish",
    "log_sigmoid",
    "bitwise_not",
    "logical_not",
    "isnan",
    "fill",
    "nan_to_num",
    "relu6",
    "selu",
    "silu",
    "hardswish",
    "hardsigmoid",
    "frac",
    "square",
    "copy",
)
def pointwise(ledger: Ledger, *arguments: Any, **keywords: Any) -> Labels:
    """Elementwise operations that are not tagged as such everywhere."""
    return elementwise(ledger, *arguments, **keywords)


@rule("where")
def where(ledger: Ledger, condition: Labels, *arguments: Any) -> Any:
    """One of two values; or, of a condition alone, the places where it holds."""
    from isthmus.discover.rules.lookup import places_of

    return elementwise(ledger, condition, *arguments) if arguments else places_of(ledger, condition)


@rule("prelu")
def prelu(ledger: Ledger, value: Labels, weight: Labels) -> Labels:
    """A slope for each channel (axis 1), or one for all."""
    if weight.shape in ((), (1,)) or value.rank < 2:
        return ledger.meet(value, weight)
    return ledger.meet(value, along(weight, value.rank, 1))


@rule("glu")
def glu(ledger: Ledger, value: Labels, dim: int = -1) -> Labels:
    """One half of an axis gates the other."""
    from isthmus.discover.rules.movement import narrowed

    half = value.shape[dim] // 2
    first, second = narrowed(ledger, value, dim, 0, half), narrowed(ledger, value, dim, half, 2 * half)
    return ledger.meet(first, second)


@rule(
    "to",
    "_to_copy",
    "type_as",
    "clone",
    "contiguous",
    "detach",
    "detach_",
    "alias",
    "lift_fresh_copy",
    "lift_fresh",
    "float",
    "double",
    "half",
    "bfloat16",
    "positive",
    "_assert_tensor_metadata",
    "prims.convert_element_type",
    "conj",
    "resolve_conj",
    "resolve_neg",
    "native_identity",
    "nan_to_num_",
)
def unchanged(ledger: Ledger, value: Labels, *_: Any, **__: Any) -> Labels:
    """The same entries in another type, memory or graph."""
    return value


def along(vector: Labels, rank: int, axis: int) -> Labels:
    """A vector laid along one axis of a value of ``rank`` axes."""
    from isthmus.discover.labels import reshaped

    shape = [1] * rank
    shape[axis] = vector.shape[0]
    return reshaped(vector, shape)
