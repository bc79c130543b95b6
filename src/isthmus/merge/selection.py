"""Exact order statistics of magnitudes without sorting, and the random masks of DARE.

The magnitude of a float is its bits without the sign, read as a whole number. A histogram over 16 of those bits is
exact for 16-bit floats after one pass over the data; wider floats take one more pass for each further 16 bits.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from isthmus.core.randomness import child_seed

Magnitudes = NDArray[np.unsignedinteger]
Mask = NDArray[np.bool_]
_DIGIT = 16


@dataclasses.dataclass(frozen=True)
class Cut:
    """A place in the order of magnitudes.

    Attributes:
        value: the magnitude (as bits) at this rank.
        below: how many entries are smaller.
        ties: how many entries have this very magnitude.
    """

    value: int
    below: int
    ties: int


def cuts(passes: Callable[[], Iterable[Magnitudes]], ranks: Sequence[int], *, width: int) -> list[Cut]:
    """The magnitudes at some ranks, exactly.

    Args:
        passes: gives all magnitudes again on every call, in parts of any length.
        ranks: counted from 0 for the smallest.
        width: bits of one magnitude: 16, 32 or 64.

    Cost: width / 16 passes; 65,536 counters for each rank.
    """
    found = [Cut(0, 0, 0) for _ in ranks]
    for shift in range(width - _DIGIT, -1, -_DIGIT):
        histograms = {cut.value: np.zeros(1 << _DIGIT, np.int64) for cut in found}
        for part in passes():
            for prefix, histogram in histograms.items():
                counted = np.bincount(_digits(part, prefix, shift, width))
                histogram[: len(counted)] += counted
        for place, (cut, rank) in enumerate(zip(found, ranks, strict=True)):
            histogram = histograms[cut.value]
            reach = np.cumsum(histogram)
            digit = int(np.searchsorted(reach, rank - cut.below, side="right"))
            smaller = int(reach[digit] - histogram[digit])
            found[place] = Cut(cut.value << _DIGIT | digit, cut.below + smaller, int(histogram[digit]))
    return found


def _digits(part: Magnitudes, prefix: int, shift: int, width: int) -> Magnitudes:
    """The 16 bits at ``shift`` of those magnitudes whose higher bits are ``prefix``."""
    if width == _DIGIT:
        return part
    wide = part.astype(np.uint64, copy=False)
    if shift + _DIGIT < width:
        wide = wide[wide >> np.uint64(shift + _DIGIT) == prefix]
    return (wide >> np.uint64(shift) & np.uint64(0xFFFF)).astype(np.uint16)


@dataclasses.dataclass
class Band:
    """Which entries lie between two cuts, decided part by part in the order of positions.

    Entries that tie with a cut are told apart by position, so that exactly the promised number is kept.

    Attributes:
        low: magnitudes below it are dropped.
        low_ties: (first, last) of the ties with ``low``, counted in the order of positions, that are kept.
        high: magnitudes above it are dropped; None for no upper end.
        high_ties: the same for the ties with ``high``.
    """

    low: int
    low_ties: tuple[int, int]
    high: int | None = None
    high_ties: tuple[int, int] = (0, 0)
    _seen: dict[int, int] = dataclasses.field(default_factory=dict)

    def keep(self, magnitudes: Magnitudes, out: Mask, scratch: Mask) -> Mask:
        """The next part's mask; both buffers are as long as the part."""
        kept = np.greater(magnitudes, self.low, out=out)
        if self.high is not None:
            np.logical_and(kept, np.less(magnitudes, self.high, out=scratch), out=kept)
        ends = {self.low: [self.low_ties]}
        if self.high is not None:
            ends.setdefault(self.high, []).append(self.high_ties)
        for value, kept_ties in ends.items():
            self._ties(magnitudes, value, kept_ties, kept, scratch)
        return kept

    def _ties(self, magnitudes: Magnitudes, value: int, ranges: list[tuple[int, int]], kept: Mask, equal: Mask) -> None:
        # A tie with both cuts at once is kept where both ranges agree.
        first, last = max(r[0] for r in ranges), min(r[1] for r in ranges)
        seen = self._seen.get(value, 0)
        if first >= last or seen >= last:
            return
        np.equal(magnitudes, value, out=equal)
        ties = int(np.count_nonzero(equal))
        self._seen[value] = seen + ties
        if first <= seen and seen + ties <= last:
            np.logical_or(kept, equal, out=kept)
        elif ties:
            places = np.flatnonzero(equal)
            kept[places[max(first - seen, 0) : max(last - seen, 0)]] = True


def largest(passes: Callable[[], Iterable[Magnitudes]], size: int, kept: int, *, width: int) -> Band:
    """The band of the ``kept`` largest of ``size`` magnitudes; among ties the first positions are kept."""
    if kept <= 0:
        return Band(low=(1 << width) - 1, low_ties=(0, 0))
    (cut,) = cuts(passes, [size - kept], width=width)
    above = size - cut.below - cut.ties
    return Band(cut.value, (0, kept - above))


def middle(passes: Callable[[], Iterable[Magnitudes]], dropped: int, kept: int, *, width: int) -> Band:
    """The band of ``kept`` magnitudes that follow the ``dropped`` smallest; of ties, earlier ones are smaller."""
    if kept <= 0:
        return Band(low=(1 << width) - 1, low_ties=(0, 0))
    low, high = cuts(passes, [dropped, dropped + kept - 1], width=width)
    everything = 1 << 62
    low_ties = (dropped - low.below, everything)
    high_ties = (0, dropped + kept - high.below)
    return Band(low.value, low_ties, high.value, high_ties)


def dare_masks(
    size: int, density: float, *, seed: int, name: str, solution: int, part: int
) -> Iterator[tuple[Mask, float]]:
    """Random masks of DARE, part by part: which entries are kept, and the probability with which each was.

    The same on every machine, device and number of threads: they depend on the seed, the tensor's name and the number
    of the solution alone. Probabilities are multiples of 1/65536; the one that was used is given back.

    Args:
        size: entries of the tensor.
        density: probability of being kept.
        seed: the merge's seed.
        name: the tensor's name.
        solution: number of the solution among those merged.
        part: entries of one part, a multiple of 4.
    """
    stream = np.random.SFC64(child_seed(seed, "dare", name, solution))
    level = min(max(round(density * 65536), 1), 65536)
    for first in range(0, size, part):
        length = min(part, size - first)
        drawn = np.asarray(stream.random_raw(-(-length // 4)), np.uint64).view(np.uint16)[:length]
        yield drawn < level if level < 65536 else np.ones(length, np.bool_), level / 65536
