"""Floating-point formats of checkpoints as NumPy arrays: widening, rounding once, and magnitudes as whole numbers.

NumPy has no bfloat16. Its bits are the upper half of a float32, so widening is a copy and rounding is an addition; both
run at memory speed and need no other library, which keeps the start of a merge under a second.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from isthmus.core.errors import CheckpointError

Array = NDArray[np.unsignedinteger]


@dataclasses.dataclass(frozen=True)
class Precision:
    """One floating-point format.

    Attributes:
        code: its name in safetensors files.
        name: its name in torch and in configuration files.
        bits: the unsigned type of the same width; magnitudes order like its values without the sign bit.
        work: the type that sums are kept in.
        stored: NumPy's own type of the format, None for bfloat16.
    """

    code: str
    name: str
    bits: type[np.unsignedinteger]
    work: type[np.floating]
    stored: type[np.floating] | None

    @property
    def size(self) -> int:
        """Bytes for one entry."""
        return np.dtype(self.bits).itemsize

    @property
    def magnitude_mask(self) -> np.unsignedinteger:
        """All bits but the sign."""
        return self.bits((1 << (8 * self.size - 1)) - 1)

    @property
    def infinity(self) -> int:
        """The bits of +infinity; a magnitude at or above it is not finite."""
        if self.stored is None:
            return 0x7F80
        return int(np.array(np.inf, self.stored).view(self.bits))


BF16 = Precision("BF16", "bfloat16", np.uint16, np.float32, None)
F16 = Precision("F16", "float16", np.uint16, np.float32, np.float16)
F32 = Precision("F32", "float32", np.uint32, np.float32, np.float32)
F64 = Precision("F64", "float64", np.uint64, np.float64, np.float64)
PRECISIONS = (BF16, F16, F32, F64)


def precision_of(text: str) -> Precision:
    """The format with a safetensors code (``BF16``) or a name (``bfloat16``, ``torch.bfloat16``).

    Raises:
        CheckpointError: no format of that name.
    """
    wanted = text.removeprefix("torch.")
    for precision in PRECISIONS:
        if wanted in (precision.code, precision.name):
            return precision
    known = ", ".join(precision.name for precision in PRECISIONS)
    raise CheckpointError(
        f"a precision must be one of {known}, got {text}; convert the checkpoint to one of them first"
    )


def widen(bits: Array, precision: Precision, out: NDArray[np.floating]) -> NDArray[np.floating]:
    """Stored bits as numbers of the working type, exactly. ``out`` has the length of ``bits``."""
    if precision.stored is None and out.dtype == np.float32:
        whole = out.view(np.uint32)
        np.copyto(whole, bits)
        np.left_shift(whole, np.uint32(16), out=whole)
    elif precision.stored is None:
        np.copyto(out, widen(bits, precision, np.empty(len(bits), np.float32)))
    else:
        np.copyto(out, bits.view(precision.stored))
    return out


def narrow(values: NDArray[np.floating], precision: Precision, out: Array, scratch: NDArray[np.uint32]) -> Array:
    """Numbers rounded once, to nearest with ties to even, into stored bits.

    Args:
        values: of the working type.
        precision: the format to round to.
        out: receives the bits; as long as ``values``.
        scratch: as long as ``values``; overwritten.
    """
    if precision.stored is not None:
        # Numbers beyond the largest float16 become infinite here; whoever writes them refuses that.
        with np.errstate(over="ignore"):
            np.copyto(out.view(precision.stored), values, casting="same_kind")
        return out
    if values.dtype == np.float64:
        values = _to_odd(values.astype(np.float64, copy=False))
    whole = values.view(np.uint32)
    np.right_shift(whole, np.uint32(16), out=scratch)
    np.bitwise_and(scratch, np.uint32(1), out=scratch)
    np.add(scratch, np.uint32(0x7FFF), out=scratch)
    np.add(scratch, whole, out=scratch)
    np.copyto(out, scratch.view(np.uint16)[1::2])
    return out


def _to_odd(values: NDArray[np.float64]) -> NDArray[np.float32]:
    """float64 as float32, rounded to odd, so that the rounding to bfloat16 that follows is as if done once."""
    with np.errstate(over="ignore"):
        near = values.astype(np.float32)
    back = near.astype(np.float64)
    bits = near.view(np.uint32)
    away = (np.abs(back) > np.abs(values)) & np.isfinite(back)
    bits[away] -= 1  # truncated towards zero
    bits[(back != values) & np.isfinite(back)] |= 1
    return near


def finite(bits: Array, precision: Precision, scratch: Array) -> bool:
    """Whether no entry is NaN or infinite; ``scratch`` is of the bits' type and at least as long."""
    if len(bits) == 0:
        return True
    magnitude = np.bitwise_and(bits, precision.magnitude_mask, out=scratch[: len(bits)])
    return int(magnitude.max()) < precision.infinity


def tobits(raw: bytes | memoryview, precision: Precision) -> Array:
    """Raw little-endian bytes of a tensor as its bits, without a copy."""
    return np.frombuffer(raw, dtype=np.dtype(precision.bits).newbyteorder("<"))
