"""Merging one tensor that lies in files: chunk by chunk, each output entry rounded once.

Sums are kept in float32 (float64 for float64 tensors). Trimming ranks differences by their magnitude in the working
precision, which is what makes one histogram exact for 16-bit floats; the differences themselves are not rounded.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from isthmus.merge.floats import Array, Precision, finite, narrow, widen
from isthmus.merge.selection import Band, dare_masks, largest, middle

Numbers = NDArray[np.floating]
# Entries worked on at once: a handful of float32 buffers of this length stay in a core's second-level cache, and each
# NumPy call is long enough that threads do not fight for the interpreter.
CHUNK = 1 << 16
# Bytes of magnitudes that one thread keeps between its two passes over a tensor.
REMEMBERED = 128 << 20
# Above this cosine the arc is a straight line within rounding, and its formula divides by nearly zero.
PARALLEL = 0.9995


@dataclasses.dataclass(frozen=True)
class Settings:
    """How one tensor is merged; names and meaning as in the merging literature and in mergekit's files.

    Attributes:
        method: linear, slerp, task_arithmetic, ties, dare_linear, dare_ties, breadcrumbs or breadcrumbs_ties.
        weights: one for each solution.
        densities: share of each task vector that is kept.
        gammas: share of the largest entries that breadcrumbs drop.
        t: position on the arc, 0 at the base.
        scale: factor of the merged task vector (lambda).
        normalize: divide by the sum of weights (for TIES: of those that agree).
        rescale: DARE only: divide by the probability of being kept.
        seed: of DARE's masks.
    """

    method: str
    weights: tuple[float, ...] = ()
    densities: tuple[float, ...] = ()
    gammas: tuple[float, ...] = ()
    t: float = 0.5
    scale: float = 1.0
    normalize: bool = True
    rescale: bool = True
    seed: int = 0

    @property
    def trims(self) -> bool:
        """Whether thresholds must be found before anything is merged."""
        return self.method in ("ties", "breadcrumbs", "breadcrumbs_ties")

    @property
    def elects(self) -> bool:
        """Whether only entries of the elected sign count."""
        return self.method in ("ties", "dare_ties", "breadcrumbs_ties")


@dataclasses.dataclass(frozen=True)
class Operand:
    """One solution's tensor: its bits, flat, and their format."""

    bits: Array
    precision: Precision


class Workspace:
    """One thread's buffers, made once and used for every chunk."""

    def __init__(self) -> None:
        self._buffers: dict[tuple[str, np.dtype], NDArray] = {}

    def __call__(self, name: str, kind: type[np.generic] | np.dtype, length: int) -> NDArray:
        """The buffer of a name and type, cut to ``length`` entries."""
        key = (name, np.dtype(kind))
        if key not in self._buffers:
            self._buffers[key] = np.empty(CHUNK, kind)
        return self._buffers[key][:length]


Emit = Callable[[int, Numbers], None]


@dataclasses.dataclass(frozen=True)
class Task:
    """One tensor to merge.

    Attributes:
        name: the tensor's name; with the seed it fixes random masks.
        solutions: what is merged.
        base: the common ancestor; for slerp the start of the arc.
        settings: the method.
        working: the format in which magnitudes of differences from the base are ranked.
        space: buffers of the thread that does the work.
    """

    name: str
    solutions: Sequence[Operand]
    base: Operand | None
    settings: Settings
    working: Precision
    space: Workspace

    def run(self, emit: Emit) -> None:
        """Merge and hand on each chunk: (first entry, numbers of the working type, valid until the next chunk)."""
        method = self.settings.method
        if method == "linear":
            total = sum(self.settings.weights) if self.settings.normalize else 1.0
            self._combine(self.solutions, [weight / total for weight in self.settings.weights], emit)
        elif method == "slerp":
            self._slerp(emit)
        else:
            self._task_vectors(emit)

    @property
    def size(self) -> int:
        """Entries of the tensor."""
        return len(self.solutions[0].bits)

    def _chunks(self) -> Iterator[tuple[int, int]]:
        for first in range(0, self.size, CHUNK):
            yield first, min(first + CHUNK, self.size)

    def _wide(self, operand: Operand, first: int, last: int, name: str) -> Numbers:
        return widen(operand.bits[first:last], operand.precision, self.space(name, self.working.work, last - first))

    def _combine(self, operands: Sequence[Operand], coefficients: Sequence[float], emit: Emit) -> None:
        for first, last in self._chunks():
            total = self.space("total", self.working.work, last - first)
            for place, (operand, coefficient) in enumerate(zip(operands, coefficients, strict=True)):
                wide = self._wide(operand, first, last, "wide")
                np.multiply(wide, wide.dtype.type(coefficient), out=wide if place else total)
                if place:
                    np.add(total, wide, out=total)
            emit(first, total)

    def _slerp(self, emit: Emit) -> None:
        assert self.base is not None
        start, end, t = self.base, self.solutions[0], self.settings.t
        squares = [0.0, 0.0, 0.0]
        for first, last in self._chunks():
            a, b = self._wide(start, first, last, "total"), self._wide(end, first, last, "wide")
            for place, (x, y) in enumerate(((a, a), (b, b), (a, b))):
                squares[place] += float(np.einsum("i,i->", x, y))
        self._combine((start, end), arc(t, *squares), emit)

    def _task_vectors(self, emit: Emit) -> None:
        assert self.base is not None
        remembered = self._memory()
        bands = self._bands(remembered) if self.settings.trims else [None] * len(self.solutions)
        masks = self._masks()
        for first, last in self._chunks():
            length = last - first
            base = self._wide(self.base, first, last, "base")
            total = self.space("total", self.working.work, length)
            weighted = []
            for place, solution in enumerate(self.solutions):
                delta = self._delta(solution, base, first, last, f"delta {place}")
                band = bands[place]
                if band is not None:
                    known = remembered[place]
                    magnitudes = known[first:last] if known is not None else self._magnitudes(delta)
                    np.multiply(delta, self._kept(band, magnitudes), out=delta)
                elif masks:
                    mask, probability = next(masks[place])
                    np.multiply(delta, mask, out=delta)
                    if self.settings.rescale:
                        np.divide(delta, delta.dtype.type(probability), out=delta)
                np.multiply(delta, delta.dtype.type(self.settings.weights[place]), out=delta)
                weighted.append(delta)
            self._mix(weighted, total)
            if self.settings.scale != 1.0:
                np.multiply(total, total.dtype.type(self.settings.scale), out=total)
            emit(first, np.add(total, base, out=total))

    def _delta(self, solution: Operand, base: Numbers, first: int, last: int, name: str) -> Numbers:
        """The difference from the base."""
        delta = self._wide(solution, first, last, name)
        return np.subtract(delta, base, out=delta)

    def _magnitudes(self, delta: Numbers) -> Array:
        """Bits of the differences' magnitudes, rounded to the working format."""
        bits = self.space("bits", self.working.bits, len(delta))
        narrow(delta, self.working, bits, self.space("scratch", np.uint32, len(delta)))
        return np.bitwise_and(bits, self.working.magnitude_mask, out=bits)

    def _kept(self, band: Band, magnitudes: Array) -> NDArray[np.bool_]:
        kept, equal = (self.space(name, np.bool_, len(magnitudes)) for name in ("kept", "equal"))
        return band.keep(magnitudes, kept, equal)

    def _memory(self) -> list[Array | None]:
        """Room for each solution's magnitudes, so that they are worked out once; none for too large tensors."""
        enough = self.settings.trims and self.size * self.working.size * len(self.solutions) <= REMEMBERED
        return [np.empty(self.size, self.working.bits) if enough else None for _ in self.solutions]

    def _bands(self, remembered: Sequence[Array | None]) -> list[Band | None]:
        """For each solution, which magnitudes its task vector keeps."""
        bands: list[Band | None] = []
        width = 8 * self.working.size
        for place, (solution, density) in enumerate(zip(self.solutions, self.settings.densities, strict=True)):
            known = remembered[place]

            def magnitudes(solution: Operand = solution, known: Array | None = known) -> Iterator[Array]:
                for first, last in self._chunks():
                    base = self._wide(self.base, first, last, "base")  # type: ignore[arg-type]
                    found = self._magnitudes(self._delta(solution, base, first, last, "delta 0"))
                    if known is not None:
                        known[first:last] = found
                    yield found

            if density >= 1:
                bands.append(None)
            elif self.settings.method == "ties":
                bands.append(largest(magnitudes, self.size, kept_of(self.size, density), width=width))
            else:
                dropped, kept = crumbs_of(self.size, density, self.settings.gammas[place])
                bands.append(middle(magnitudes, dropped, kept, width=width))
        return bands

    def _masks(self) -> list[Iterator[tuple[NDArray[np.bool_], float]]]:
        if not self.settings.method.startswith("dare"):
            return []
        return [
            dare_masks(self.size, density, seed=self.settings.seed, name=self.name, solution=place, part=CHUNK)
            for place, density in enumerate(self.settings.densities)
        ]

    def _mix(self, weighted: Sequence[Numbers], total: Numbers) -> None:
        """The merged task vector, into ``total``; the weighted ones are used up."""
        np.copyto(total, weighted[0])
        for vector in weighted[1:]:
            np.add(total, vector, out=total)
        if not self.settings.elects:
            divisor = sum(self.settings.weights)
            if self.settings.normalize and abs(divisor) >= 1e-8:
                np.divide(total, total.dtype.type(divisor), out=total)
            return
        sign = np.copysign(total.dtype.type(1), total, out=self.space("sign", total.dtype, len(total)))
        agreeing = self.space("agreeing", total.dtype, len(total))
        share = self.space("wide", total.dtype, len(total))
        kept = self.space("kept", np.bool_, len(total))
        total.fill(0)
        agreeing.fill(0)
        for vector, weight in zip(weighted, self.settings.weights, strict=True):
            np.multiply(vector, sign, out=vector)
            np.greater(vector, 0, out=kept)
            np.add(agreeing, np.multiply(kept, total.dtype.type(weight), out=share), out=agreeing)
            np.add(total, np.maximum(vector, 0, out=vector), out=total)
        np.multiply(total, sign, out=total)
        if self.settings.normalize:
            np.add(agreeing, np.equal(agreeing, 0, out=kept), out=agreeing)  # nothing agrees: 0 / 1
            np.divide(total, agreeing, out=total)


def arc(t: float, start_square: float, end_square: float, product: float) -> tuple[float, float]:
    """Coefficients of both ends at position ``t`` on the great circle through them.

    Args:
        t: 0 at the start, 1 at the end.
        start_square: squared length of the start.
        end_square: squared length of the end.
        product: inner product of both.

    Reference: Shoemake, "Animating rotation with quaternion curves" (1985). Lengths are not normalised first, so ends
    of different length are met exactly; nearly parallel or opposite ends fall back to the straight line.
    """
    lengths = math.sqrt(start_square * end_square)
    cosine = max(-1.0, min(1.0, product / lengths)) if lengths > 0 else 1.0
    if abs(cosine) > PARALLEL:
        return 1 - t, t
    angle = math.acos(cosine)
    return math.sin((1 - t) * angle) / math.sin(angle), math.sin(t * angle) / math.sin(angle)


def kept_of(size: int, density: float) -> int:
    """How many entries trimming keeps: the whole part of density × size, and at least one where any are wanted."""
    return min(size, max(1, int(density * size))) if density > 0 and size else 0


def crumbs_of(size: int, density: float, gamma: float) -> tuple[int, int]:
    """How many of the smallest entries breadcrumbs drop, and how many of the next ones they keep."""
    kept = int(density * size)
    return max(0, size - kept - int(gamma * size)), kept


def all_finite(operand: Operand, space: Workspace, first: int, last: int) -> bool:
    """Whether a stretch of one operand holds neither NaN nor infinities."""
    bits = operand.bits[first:last]
    return finite(bits, operand.precision, space("finite", operand.precision.bits, last - first))
