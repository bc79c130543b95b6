"""Triton kernels of batch normalisation: see :mod:`isthmus.train.kernels.normalisation`, which launches them.

Tensors are rows of channels. A program takes a share of one replica's rows and a block of its channels.
"""

from __future__ import annotations

from isthmus.train.kernels.language import jit, tl

# A kernel takes every number by place, and Triton reads its annotations itself.
# ruff: noqa: PLR0917
# pyright: reportInvalidTypeForm=false, reportPossiblyUnboundVariable=false


@jit
def moments(
    inputs, parts, rows, rows_each, CHANNELS: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    """Mean and squared deviations of a share of the rows, taken from its first row so that nothing cancels."""
    replica = tl.program_id(2).to(tl.int64)
    channel = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    known = channel < CHANNELS
    inputs += replica * rows * CHANNELS
    first = tl.program_id(0) * rows_each
    last = tl.minimum(first + rows_each, rows)
    pivot = tl.load(inputs + first * CHANNELS + channel, mask=known, other=0.0).to(tl.float32)
    total = tl.zeros((ROWS, BLOCK), dtype=tl.float32)
    squares = tl.zeros((ROWS, BLOCK), dtype=tl.float32)
    for start in range(first, last, ROWS):
        row = start + tl.arange(0, ROWS)
        inside = (row < last)[:, None] & known[None, :]
        value = tl.load(inputs + row[:, None] * CHANNELS + channel[None, :], mask=inside, other=0.0).to(tl.float32)
        value = tl.where(inside, value - pivot[None, :], 0.0)
        total += value
        squares += value * value
    count = (last - first).to(tl.float32)
    mean = tl.sum(total, 0) / count
    deviations = tl.sum(squares, 0) - mean * mean * count
    place = ((replica * tl.num_programs(0) + tl.program_id(0)) * 2) * CHANNELS + channel
    tl.store(parts + place, mean + pivot, mask=known)
    tl.store(parts + place + CHANNELS, deviations, mask=known)


@jit
def merge_moments(
    parts, mean, deviation, unbiased, rows, rows_each, shares, epsilon,
    CHANNELS: tl.constexpr, SHARES: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Mean, reciprocal deviation and unbiased variance from those of the shares: first the means, then the squares."""
    replica = tl.program_id(1).to(tl.int64)
    channel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    known = channel < CHANNELS
    parts += replica * shares * (2 * CHANNELS)
    total = tl.zeros((SHARES, BLOCK), dtype=tl.float32)
    for start in range(0, shares, SHARES):
        share = start + tl.arange(0, SHARES)
        inside = (share < shares)[:, None] & known[None, :]
        counts = tl.maximum(tl.minimum(rows - share * rows_each, rows_each), 0).to(tl.float32)[:, None]
        place = (share * (2 * CHANNELS))[:, None] + channel[None, :]
        total += tl.load(parts + place, mask=inside, other=0.0) * counts
    whole = tl.sum(total, 0) / rows
    total = tl.zeros((SHARES, BLOCK), dtype=tl.float32)
    for start in range(0, shares, SHARES):
        share = start + tl.arange(0, SHARES)
        inside = (share < shares)[:, None] & known[None, :]
        counts = tl.maximum(tl.minimum(rows - share * rows_each, rows_each), 0).to(tl.float32)[:, None]
        place = (share * (2 * CHANNELS))[:, None] + channel[None, :]
        apart = tl.where(inside, tl.load(parts + place, mask=inside, other=0.0) - whole[None, :], 0.0)
        total += tl.load(parts + place + CHANNELS, mask=inside, other=0.0) + apart * apart * counts
    squares = tl.sum(total, 0)
    place = replica * CHANNELS + channel
    tl.store(mean + place, whole, mask=known)
    tl.store(deviation + place, 1.0 / tl.sqrt(squares / rows + epsilon), mask=known)
    tl.store(unbiased + place, squares / tl.maximum(rows - 1, 1), mask=known)


@jit
def _per_channel(
    mean, deviation, gain, shift, place, known, AFFINE: tl.constexpr
):  # fmt: skip
    middle = tl.load(mean + place, mask=known, other=0.0)[None, :]
    scale = tl.load(deviation + place, mask=known, other=0.0)[None, :]
    offset = tl.zeros_like(scale)
    if AFFINE:
        scale = scale * tl.load(gain + place, mask=known, other=0.0)[None, :]
        offset = tl.load(shift + place, mask=known, other=0.0)[None, :]
    return middle, scale, offset


@jit
def normalise(
    inputs, mean, deviation, gain, shift, added, outputs, rows, rows_each,
    CHANNELS: tl.constexpr, AFFINE: tl.constexpr, ADDED: tl.constexpr, RECTIFIED: tl.constexpr,
    ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """(inputs − mean) · deviation · gain + shift, plus ``added``, rectified."""
    replica = tl.program_id(2).to(tl.int64)
    channel = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    known = channel < CHANNELS
    middle, scale, offset = _per_channel(
        mean, deviation, gain, shift, replica * CHANNELS + channel, known, AFFINE
    )  # fmt: skip
    first = tl.program_id(0) * rows_each
    last = tl.minimum(first + rows_each, rows)
    for start in range(first, last, ROWS):
        row = start + tl.arange(0, ROWS)
        inside = (row < last)[:, None] & known[None, :]
        place = replica * rows * CHANNELS + row[:, None] * CHANNELS + channel[None, :]
        value = tl.load(inputs + place, mask=inside, other=0.0).to(tl.float32)
        value = (value - middle) * scale + offset
        if ADDED:
            value += tl.load(added + place, mask=inside, other=0.0).to(tl.float32)
        if RECTIFIED:
            value = tl.where(value < 0.0, 0.0, value)  # lets what is not a number through
        tl.store(outputs + place, value.to(outputs.dtype.element_ty), mask=inside)


@jit
def slope_sums(
    slopes, more, inputs, outputs, kept, mean, deviation, gain, shift, parts, rows, rows_each,
    CHANNELS: tl.constexpr, AFFINE: tl.constexpr, RECTIFIED: tl.constexpr, KEPT: tl.constexpr, MORE: tl.constexpr,
    ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Sums of the slopes and of slopes times normalised inputs over a share of the rows.

    RECTIFIED: 0 not at all; 1 slopes count where the normalised inputs are positive; 2 where ``outputs`` are.
    KEPT: the slopes that count are also written. MORE: slopes are the sum of two tensors.
    """
    replica = tl.program_id(2).to(tl.int64)
    channel = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    known = channel < CHANNELS
    middle, scale, offset = _per_channel(
        mean, deviation, gain, shift, replica * CHANNELS + channel, known, AFFINE
    )  # fmt: skip
    own = tl.load(deviation + replica * CHANNELS + channel, mask=known, other=0.0)
    first = tl.program_id(0) * rows_each
    last = tl.minimum(first + rows_each, rows)
    total = tl.zeros((ROWS, BLOCK), dtype=tl.float32)
    products = tl.zeros((ROWS, BLOCK), dtype=tl.float32)
    for start in range(first, last, ROWS):
        row = start + tl.arange(0, ROWS)
        inside = (row < last)[:, None] & known[None, :]
        place = replica * rows * CHANNELS + row[:, None] * CHANNELS + channel[None, :]
        slope = tl.load(slopes + place, mask=inside, other=0.0).to(tl.float32)
        if MORE:
            slope += tl.load(more + place, mask=inside, other=0.0).to(tl.float32)
        value = tl.load(inputs + place, mask=inside, other=0.0).to(tl.float32) - middle
        if RECTIFIED == 1:
            slope = tl.where(value * scale + offset > 0.0, slope, 0.0)
        if RECTIFIED == 2:
            slope = tl.where(tl.load(outputs + place, mask=inside, other=0.0).to(tl.float32) > 0.0, slope, 0.0)
        if KEPT:
            rounded = slope.to(kept.dtype.element_ty)
            tl.store(kept + place, rounded, mask=inside)
            slope = rounded.to(tl.float32)
        total += slope
        products += slope * value
    place = ((replica * tl.num_programs(0) + tl.program_id(0)) * 2) * CHANNELS + channel
    tl.store(parts + place, tl.sum(total, 0), mask=known)
    tl.store(parts + place + CHANNELS, tl.sum(products, 0) * own, mask=known)


@jit
def merge_sums(
    parts, total, products, shares, CHANNELS: tl.constexpr, SHARES: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    """The sums of :func:`slope_sums` over all shares."""
    replica = tl.program_id(1).to(tl.int64)
    channel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    known = channel < CHANNELS
    parts += replica * shares * (2 * CHANNELS)
    first = tl.zeros((SHARES, BLOCK), dtype=tl.float32)
    second = tl.zeros((SHARES, BLOCK), dtype=tl.float32)
    for start in range(0, shares, SHARES):
        share = start + tl.arange(0, SHARES)
        inside = (share < shares)[:, None] & known[None, :]
        place = (share * (2 * CHANNELS))[:, None] + channel[None, :]
        first += tl.load(parts + place, mask=inside, other=0.0)
        second += tl.load(parts + place + CHANNELS, mask=inside, other=0.0)
    place = replica * CHANNELS + channel
    tl.store(total + place, tl.sum(first, 0), mask=known)
    tl.store(products + place, tl.sum(second, 0), mask=known)


@jit
def input_slopes(
    slopes, inputs, mean, deviation, gain, shift, total, products, made, rows, rows_each,
    CHANNELS: tl.constexpr, AFFINE: tl.constexpr, RECTIFIED: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The gradient of what was normalised."""
    replica = tl.program_id(2).to(tl.int64)
    channel = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    known = channel < CHANNELS
    middle, scale, offset = _per_channel(
        mean, deviation, gain, shift, replica * CHANNELS + channel, known, AFFINE
    )  # fmt: skip
    own = tl.load(deviation + replica * CHANNELS + channel, mask=known, other=0.0)[None, :]
    level = tl.load(total + replica * CHANNELS + channel, mask=known, other=0.0)[None, :] / rows
    tilt = tl.load(products + replica * CHANNELS + channel, mask=known, other=0.0)[None, :] * own / rows
    first = tl.program_id(0) * rows_each
    last = tl.minimum(first + rows_each, rows)
    for start in range(first, last, ROWS):
        row = start + tl.arange(0, ROWS)
        inside = (row < last)[:, None] & known[None, :]
        place = replica * rows * CHANNELS + row[:, None] * CHANNELS + channel[None, :]
        slope = tl.load(slopes + place, mask=inside, other=0.0).to(tl.float32)
        value = tl.load(inputs + place, mask=inside, other=0.0).to(tl.float32) - middle
        if RECTIFIED == 1:
            slope = tl.where(value * scale + offset > 0.0, slope, 0.0)
        slope = (slope - level - value * tilt) * scale
        tl.store(made + place, slope.to(made.dtype.element_ty), mask=inside)
