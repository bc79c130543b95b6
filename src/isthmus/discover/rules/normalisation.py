"""Normalisations: statistics are symmetric functions of what they run over; gains and shifts meet entry by entry."""

from __future__ import annotations

from typing import Any

from isthmus.discover.labels import Labels, reshaped
from isthmus.discover.ledger import Ledger
from isthmus.discover.rules.elementwise import along
from isthmus.discover.rules.registry import rule


def _affine(ledger: Ledger, value: Labels, axis: int, *vectors: Labels | None) -> Labels:
    return ledger.meet(value, *[along(vector, value.rank, axis) for vector in vectors if vector is not None])


@rule("batch_norm", "cudnn_batch_norm", "native_batch_norm", "_native_batch_norm_legit", "_batch_norm_impl_index")
def batch_norm(  # noqa: PLR0917
    ledger: Ledger,
    value: Labels,
    weight: Labels | None,
    bias: Labels | None,
    mean: Labels | None = None,
    variance: Labels | None = None,
    *_: Any,
    **__: Any,
) -> Any:
    """Channels lie along axis 1; batch statistics run over all other axes."""
    if mean is None:
        ledger.reduce(value, [axis for axis in range(value.rank) if axis != 1])
    result = _affine(ledger, value, 1, weight, bias, mean, variance)
    return ledger.first_of(result)


@rule("_native_batch_norm_legit_no_training")
def batch_norm_evaluated(  # noqa: PLR0917
    ledger: Ledger, value: Labels, weight: Labels | None, bias: Labels | None, mean: Labels, variance: Labels, *_: Any
) -> Any:
    """Batch normalisation with running statistics."""
    return batch_norm(ledger, value, weight, bias, mean, variance)


@rule("layer_norm", "native_layer_norm", "rms_norm", "_fused_rms_norm")
def layer_norm(
    ledger: Ledger,
    value: Labels,
    normalised: list[int],
    weight: Labels | None = None,
    bias: Labels | None = None,
    *_: Any,
    **__: Any,
) -> Any:
    """Over the last axes; also without centring."""
    axes = range(value.rank - len(normalised), value.rank)
    extra = [v for v in (weight, bias) if isinstance(v, Labels)]
    return ledger.first_of(ledger.meet(ledger.normalise(value, axes), *extra))


@rule("group_norm")
def group_norm(
    ledger: Ledger,
    value: Labels,
    groups: int,
    weight: Labels | None = None,
    bias: Labels | None = None,
    *_: Any,
    **__: Any,
) -> Labels:
    """Channels in groups of neighbours, each normalised over its channels and all space."""
    ledger.word = "groups"
    shape = value.shape
    split = reshaped(value, (shape[0], groups, shape[1] // groups, *shape[2:]))
    ledger.normalise(split, range(2, split.rank))
    return _affine(ledger, value, 1, weight, bias)


@rule("native_group_norm")
def native_group_norm(  # noqa: PLR0917
    ledger: Ledger,
    value: Labels,
    weight: Labels | None,
    bias: Labels | None,
    n: int,
    c: int,
    hw: int,
    groups: int,
    *_: Any,
) -> Any:
    """The kernel behind ``group_norm``."""
    return ledger.first_of(group_norm(ledger, value, groups, weight, bias))


@rule("instance_norm")
def instance_norm(  # noqa: PLR0917
    ledger: Ledger,
    value: Labels,
    weight: Labels | None,
    bias: Labels | None,
    mean: Labels | None = None,
    variance: Labels | None = None,
    *_: Any,
) -> Labels:
    """Each channel over its own space."""
    ledger.normalise(value, range(2, value.rank))
    return _affine(ledger, value, 1, weight, bias, mean, variance)


@rule("softmax", "_softmax", "log_softmax", "_log_softmax", "_safe_softmax", "softmin")
def softmax(ledger: Ledger, value: Labels, dim: int, *_: Any, **__: Any) -> Labels:
    """Each entry against all along an axis."""
    return ledger.normalise(value, [dim]) if value.rank else value


@rule("renorm", "local_response_norm")
def pinned_norm(ledger: Ledger, value: Labels, *_: Any, **__: Any) -> Labels:
    """Normalisation over neighbours along axis 1: order matters."""
    return ledger.order(value, 1, "normalises over neighbouring channels")


@rule("_weight_norm", "_weight_norm_interface")
def weight_norm(ledger: Ledger, direction: Labels, gain: Labels, dim: int = 0, *_: Any) -> Any:
    """W = g v / ‖v‖, the norm over all axes but one."""
    if dim >= 0:
        ledger.reduce(direction, [axis for axis in range(direction.rank) if axis != dim])
    return ledger.first_of(ledger.meet(direction, gain))
