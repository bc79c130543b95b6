"""Fourier transforms: every place along the axes of the transform is mixed with every other, in order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from isthmus.discover.labels import Labels, Layer, positional
from isthmus.discover.ledger import Ledger
from isthmus.discover.rules.movement import select
from isthmus.discover.rules.registry import rule

_ALONG = "transforms the axis on which these units lie"


def _transformed(ledger: Ledger, value: Labels, axes: Sequence[int]) -> Labels:
    axes = [axis % value.rank for axis in axes]
    for axis in axes:
        value = ledger.order(value, axis, _ALONG)
    rest = ledger.reduce(value, axes, keepdim=True)
    shape = tuple(ledger.shape)
    return ledger.meet(Labels(shape, rest.layers), Labels(shape, (positional(shape, axes),)))


@rule("fft_fft", "fft_ifft", "fft_rfft", "fft_irfft", "fft_hfft", "fft_ihfft")
def along_one(ledger: Ledger, value: Labels, n: int | None = None, dim: int = -1, *_: Any, **__: Any) -> Labels:
    """Along one axis."""
    return _transformed(ledger, value, [dim])


@rule("fft_fft2", "fft_ifft2", "fft_rfft2", "fft_irfft2", "fft_fftn", "fft_ifftn", "fft_rfftn", "fft_irfftn")
def along_several(ledger: Ledger, value: Labels, s: Any = None, dim: Any = None, *_: Any, **__: Any) -> Labels:
    """Along several axes: those named, the last two, or all."""
    two = "fft2" in ledger.operation
    return _transformed(ledger, value, dim if dim is not None else ((-2, -1) if two else range(value.rank)))


@rule("_fft_r2c", "_fft_c2c", "_fft_c2r")
def kernel(ledger: Ledger, value: Labels, dim: Sequence[int], *_: Any) -> Labels:
    """The kernels behind them."""
    return _transformed(ledger, value, dim)


@rule("fft_fftshift", "fft_ifftshift")
def shifted(ledger: Ledger, value: Labels, dim: Any = None) -> Labels:
    """Places rolled by half: order matters."""
    axes = range(value.rank) if dim is None else [dim] if isinstance(dim, int) else dim
    for axis in axes:
        value = ledger.order(value, axis, _ALONG)
    return value


@rule("view_as_complex", "_conj")
def joined(ledger: Ledger, value: Labels) -> Labels:
    """Real and imaginary parts, side by side along the last axis, become one number."""
    if value.shape == tuple(ledger.shape):
        return value
    axis = value.rank - 1
    value = ledger.order(value, axis)
    return ledger.meet(*[select(ledger, value, axis, part) for part in (0, 1)])


@rule("view_as_real")
def parted(ledger: Ledger, value: Labels) -> Labels:
    """One number becomes two along a new last axis."""
    shape = tuple(ledger.shape)
    layers = tuple(Layer(layer.ids[..., None], layer.pinned, layer.distinct) for layer in value.layers)
    return Labels(shape, (*layers, positional(shape, [len(shape) - 1])))


@rule("real", "imag", "complex", "polar", "angle", "view_as_real_copy")
def pointwise_parts(ledger: Ledger, *values: Labels) -> Labels:
    """Each entry's own parts."""
    return ledger.meet(*values)
