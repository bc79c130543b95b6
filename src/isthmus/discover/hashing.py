"""64-bit hashes of rows of integers, and sums of them: multisets compared in bulk."""

from __future__ import annotations

import numpy as np

_C1, _C2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def hashed(*columns: np.ndarray) -> np.ndarray:
    """A 64-bit hash of each row of some integer columns."""
    result = np.zeros(len(columns[0]), dtype=np.uint64)
    with np.errstate(over="ignore"):
        for column in columns:
            result = result * _GOLDEN + column.astype(np.uint64) + _GOLDEN
            result = (result ^ (result >> np.uint64(30))) * _C1
            result = (result ^ (result >> np.uint64(27))) * _C2
            result ^= result >> np.uint64(31)
    return result


def summed(index: np.ndarray, values: np.ndarray, size: int) -> np.ndarray:
    """Sums of 64-bit hashes by index, modulo 2**64."""
    total = np.zeros(size, dtype=np.uint64)
    if not len(index):
        return total
    order = np.argsort(index, kind="stable")
    index, values = index[order], values[order]
    starts = np.flatnonzero(np.r_[True, index[1:] != index[:-1]])
    total[index[starts]] = np.add.reduceat(values, starts)
    return total
