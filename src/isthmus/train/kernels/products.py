"""Triton kernels of convolutions: see :mod:`isthmus.train.kernels.convolution`, which launches them.

In a group of neighbouring output places each sees a part of a common run of each image row. Names in capitals
are compiled in: EXTENT and WIDTH are rows and columns of the window, SEEN and MADE the channels read and written.
"""

from __future__ import annotations

from isthmus.train.kernels.language import jit, tl

# A kernel takes every number by place, and Triton reads its annotations itself.
# ruff: noqa: PLR0917
# pyright: reportInvalidTypeForm=false, reportPossiblyUnboundVariable=false


@jit
def lay_out(
    weight, laid, stride_replica, stride_out, stride_in,
    EXTENT: tl.constexpr, WIDTH: tl.constexpr, REACH: tl.constexpr, PIXELS: tl.constexpr,
    SEEN: tl.constexpr, MADE: tl.constexpr, ACROSS: tl.constexpr, COLUMNS: tl.constexpr, BEGIN: tl.constexpr,
    TURNED: tl.constexpr, LIBRARY: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Kernels (replicas, outputs, inputs, rows, columns) as (replicas, rows, reach, seen, pixels, made).

    LIBRARY: as (replicas, made, rows, reach, seen), channels last, with the rows in the order that they are seen in.
    """
    BLOCKS: tl.constexpr = (MADE + BLOCK - 1) // BLOCK
    seen = tl.program_id(0) // BLOCKS * BLOCK + tl.arange(0, BLOCK)
    made = tl.program_id(0) % BLOCKS * BLOCK + tl.arange(0, BLOCK)
    row = tl.program_id(1)
    replica = tl.program_id(2).to(tl.int64)
    inside = (seen < SEEN)[:, None] & (made < MADE)[None, :]
    weight += replica * stride_replica + row * WIDTH
    laid += replica * (EXTENT * REACH * SEEN * PIXELS * MADE)
    if TURNED:
        offset = seen[:, None] * stride_out + made[None, :] * stride_in
    else:
        offset = seen[:, None] * stride_in + made[None, :] * stride_out
    for place in tl.static_range(REACH):
        for pixel in tl.static_range(PIXELS):
            column = pixel + COLUMNS - ACROSS * (place + BEGIN) if TURNED else place - pixel * ACROSS
            value = tl.zeros((BLOCK, BLOCK), dtype=laid.dtype.element_ty)
            if (column >= 0) & (column < WIDTH):  # known when it is compiled
                value = tl.load(weight + offset + column, mask=inside, other=0.0).to(laid.dtype.element_ty)
            if LIBRARY:
                line = EXTENT - 1 - row if TURNED else row
                spot = ((made[None, :] * EXTENT + line) * REACH + place) * SEEN + seen[:, None]
            else:
                spot = (((row * REACH + place) * SEEN + seen[:, None]) * PIXELS + pixel) * MADE + made[None, :]
            tl.store(laid + spot, value, mask=inside)


@jit
def _seen(
    images, row, inside, place, column, kernel_row, within,
    stride_row, stride_column, stride_channel, height, width,
    SEEN: tl.constexpr, STRIDE: tl.constexpr, PADDING: tl.constexpr, TURNED: tl.constexpr,
):  # fmt: skip
    """A block of the images' side: rows are groups of output places, columns ``within`` a run of the images."""
    if TURNED:
        shifted = row + PADDING - kernel_row
        line = shifted // STRIDE
        known = inside & (shifted >= 0) & (line < height)
        if STRIDE > 1:
            known = known & (shifted % STRIDE == 0)
    else:
        line = row * STRIDE - PADDING + kernel_row
        known = inside & (line >= 0) & (line < height)
    across = column + within // SEEN
    known = known & (across >= 0) & (across < width)
    pointers = images + place + line * stride_row + across * stride_column + (within % SEEN) * stride_channel
    return tl.load(pointers, mask=known, other=0.0)


@jit
def convolve(
    images, laid, outputs, added, groups_total,
    stride_replica, stride_image, stride_row, stride_column, stride_channel, height, width,
    EXTENT: tl.constexpr, REACH: tl.constexpr, SEEN: tl.constexpr, MADE: tl.constexpr, PIXELS: tl.constexpr,
    OUT_HEIGHT: tl.constexpr, OUT_WIDTH: tl.constexpr, STEP: tl.constexpr, BEGIN: tl.constexpr,
    STRIDE: tl.constexpr, PADDING: tl.constexpr, TURNED: tl.constexpr, ADDED: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Output places of all replicas; ``added`` is added to them where asked for."""
    ACROSS: tl.constexpr = (OUT_WIDTH + PIXELS - 1) // PIXELS
    RUN: tl.constexpr = REACH * SEEN
    RUNS: tl.constexpr = (RUN + BLOCK_K - 1) // BLOCK_K
    COLUMNS: tl.constexpr = PIXELS * MADE
    replica = tl.program_id(2).to(tl.int64)
    group = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    inside = group < groups_total
    spot = group % ACROSS
    row = group // ACROSS % OUT_HEIGHT
    image = group // (ACROSS * OUT_HEIGHT)
    made = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    images += replica * stride_replica
    laid += replica * (EXTENT * RUN * COLUMNS)
    total = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
    place = (image * stride_image)[:, None]
    column = (spot * STEP + BEGIN)[:, None]
    for block in range(EXTENT * RUNS):
        kernel_row = block // RUNS
        within = (block % RUNS) * BLOCK_K + tl.arange(0, BLOCK_K)
        known = within < RUN
        left = _seen(
            images, row[:, None], inside[:, None] & known[None, :], place, column, kernel_row, within[None, :],
            stride_row, stride_column, stride_channel, height, width, SEEN, STRIDE, PADDING, TURNED,
        )  # fmt: skip
        right = tl.load(
            laid + (kernel_row * RUN + within)[:, None] * COLUMNS + made[None, :],
            mask=known[:, None] & (made < COLUMNS)[None, :],
            other=0.0,
        )
        total = tl.dot(left.to(right.dtype), right, total, input_precision=PRECISION)
    offset = ((image * OUT_HEIGHT + row) * OUT_WIDTH + spot * PIXELS) * MADE
    offset = offset[:, None] + made[None, :]
    kept = (
        inside[:, None] & (made < COLUMNS)[None, :] & ((spot * PIXELS)[:, None] + (made // MADE)[None, :] < OUT_WIDTH)
    )
    size = groups_total // (ACROSS * OUT_HEIGHT) * (OUT_HEIGHT * OUT_WIDTH * MADE)
    if ADDED:
        total += tl.load(added + replica * size + offset, mask=kept, other=0.0).to(tl.float32)
    tl.store(outputs + replica * size + offset, total.to(outputs.dtype.element_ty), mask=kept)


@jit
def kernel_slopes(
    images, slopes, parts, groups_total, groups_each,
    stride_replica, stride_image, stride_row, stride_column, stride_channel, height, width,
    EXTENT: tl.constexpr, REACH: tl.constexpr, SEEN: tl.constexpr, MADE: tl.constexpr, PIXELS: tl.constexpr,
    OUT_HEIGHT: tl.constexpr, OUT_WIDTH: tl.constexpr, STEP: tl.constexpr, BEGIN: tl.constexpr,
    STRIDE: tl.constexpr, PADDING: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, PRECISION: tl.constexpr,
    DTYPE: tl.constexpr, TOGETHER: tl.constexpr,
):  # fmt: skip
    """Products of what is seen with the slopes of the outputs, summed over a share of the output places."""
    ACROSS: tl.constexpr = (OUT_WIDTH + PIXELS - 1) // PIXELS
    RUN: tl.constexpr = REACH * SEEN
    COLUMNS: tl.constexpr = PIXELS * MADE
    BLOCKS: tl.constexpr = (COLUMNS + BLOCK_N - 1) // BLOCK_N
    RUNS: tl.constexpr = (RUN + BLOCK_K - 1) // BLOCK_K
    replica = tl.program_id(2).to(tl.int64)
    # A block lies within one row of the window: only so the compiler knows which values are neighbours in memory.
    kernel_row = tl.program_id(0) // BLOCKS // RUNS
    within = tl.program_id(0) // BLOCKS % RUNS * BLOCK_K + tl.arange(0, BLOCK_K)
    made = tl.program_id(0) % BLOCKS * BLOCK_N + tl.arange(0, BLOCK_N)
    images += replica * stride_replica
    slopes += replica * (groups_total // (ACROSS * OUT_HEIGHT) * (OUT_HEIGHT * OUT_WIDTH * MADE))
    total = tl.zeros((BLOCK_K, BLOCK_N), dtype=tl.float32)
    second = tl.zeros((BLOCK_K, BLOCK_N), dtype=tl.float32)
    third = tl.zeros((BLOCK_K, BLOCK_N), dtype=tl.float32)
    first = tl.program_id(1) * groups_each
    for block in range(first, first + groups_each, BLOCK_M):
        group = block + tl.arange(0, BLOCK_M)
        inside = group < groups_total
        spot = group % ACROSS
        row = group // ACROSS % OUT_HEIGHT
        image = group // (ACROSS * OUT_HEIGHT)
        offset = ((image * OUT_HEIGHT + row) * OUT_WIDTH + spot * PIXELS) * MADE
        kept = inside[:, None] & (made < COLUMNS)[None, :]
        kept = kept & ((spot * PIXELS)[:, None] + (made // MADE)[None, :] < OUT_WIDTH)
        right = tl.load(slopes + offset[:, None] + made[None, :], mask=kept, other=0.0).to(DTYPE)
        known = inside[:, None] & (within < RUN)[None, :]
        place, column = (image * stride_image)[:, None], (spot * STEP + BEGIN)[:, None]
        left = _seen(
            images, row[:, None], known, place, column, kernel_row, within[None, :],
            stride_row, stride_column, stride_channel, height, width, SEEN, STRIDE, PADDING, False,
        )  # fmt: skip
        total = tl.dot(tl.trans(left.to(DTYPE)), right, total, input_precision=PRECISION)
        if TOGETHER > 1:
            left = _seen(
                images, row[:, None], known, place, column, 1, within[None, :],
                stride_row, stride_column, stride_channel, height, width, SEEN, STRIDE, PADDING, False,
            )  # fmt: skip
            second = tl.dot(tl.trans(left.to(DTYPE)), right, second, input_precision=PRECISION)
        if TOGETHER > 2:
            left = _seen(
                images, row[:, None], known, place, column, 2, within[None, :],
                stride_row, stride_column, stride_channel, height, width, SEEN, STRIDE, PADDING, False,
            )  # fmt: skip
            third = tl.dot(tl.trans(left.to(DTYPE)), right, third, input_precision=PRECISION)
    part = (replica * tl.num_programs(1) + tl.program_id(1)) * (EXTENT * RUN * COLUMNS)
    kept = (within < RUN)[:, None] & (made < COLUMNS)[None, :]
    pointers = parts + part + (kernel_row * RUN + within)[:, None] * COLUMNS + made[None, :]
    tl.store(pointers, total, mask=kept)
    if TOGETHER > 1:
        tl.store(pointers + RUN * COLUMNS, second, mask=kept)
    if TOGETHER > 2:
        tl.store(pointers + 2 * RUN * COLUMNS, third, mask=kept)


@jit
def gather(
    parts, weight, shares, extent,
    EXTENT: tl.constexpr, WIDTH: tl.constexpr, REACH: tl.constexpr, SEEN: tl.constexpr, MADE: tl.constexpr,
    PIXELS: tl.constexpr, ACROSS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Slopes of the kernels (replicas, outputs, inputs, rows, columns) from the shares' products."""
    SIZE: tl.constexpr = EXTENT * REACH * SEEN * PIXELS * MADE
    index = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)  # made is fastest, as it lies in the shares
    replica = tl.program_id(1).to(tl.int64)
    inside = index < extent
    made = index % MADE
    seen = index // MADE % SEEN
    column = index // (MADE * SEEN) % WIDTH
    row = index // (MADE * SEEN * WIDTH)
    total = tl.zeros((BLOCK,), dtype=tl.float32)
    for share in range(shares):
        for pixel in tl.static_range(PIXELS):
            offset = (((row * REACH + column + pixel * ACROSS) * SEEN + seen) * PIXELS + pixel) * MADE + made
            total += tl.load(parts + (replica * shares + share) * SIZE + offset, mask=inside, other=0.0)
    place = ((made * SEEN + seen) * EXTENT + row) * WIDTH + column
    tl.store(weight + replica * extent + place, total, mask=inside)


@jit
def spread(laid, weight, SEEN: tl.constexpr, PLACES: tl.constexpr, BLOCK: tl.constexpr, WINDOW: tl.constexpr):
    """One replica's kernels (outputs, rows and columns, inputs), as a library makes them, as (…, inputs, window)."""
    seen = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    place = tl.arange(0, WINDOW)
    inside = (seen < SEEN)[:, None] & (place < PLACES)[None, :]
    first = tl.program_id(1) * (SEEN * PLACES)
    value = tl.load(laid + first + place[None, :] * SEEN + seen[:, None], mask=inside, other=0.0)
    tl.store(weight + first + seen[:, None] * PLACES + place[None, :], value.to(weight.dtype.element_ty), mask=inside)
