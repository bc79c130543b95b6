"""Paths and surfaces in weight space: values that are called with a position and give weights.

A curve takes one position t, its ends at 0 and 1; a simplex takes barycentric coordinates, a plane two coordinates. At
its own corner points each gives back the very tensors that it was made of, so that an end is evaluated exactly. Weights
in bfloat16 or float16 are mixed in float32 and rounded once: what is evaluated is the network as it would be stored.
Use ``path.to(dtype=torch.float32)`` to evaluate between half-precision ends without that rounding.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, Protocol, Self, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from isthmus.core import weights as algebra
from isthmus.core.errors import SettingError
from isthmus.core.weights import Weights


@runtime_checkable
class Path(Protocol):
    """A curve through weight space, from its start at t = 0 to its end at t = 1."""

    def __call__(self, t: float) -> dict[str, Tensor]:
        """The weights at position ``t``; the caller must not write to them."""
        ...

    def to(self, *, device: Any = None, dtype: torch.dtype | None = None) -> Path:
        """The same curve between converted corner points."""
        ...


@dataclasses.dataclass(frozen=True, eq=False)
class Line:
    """The straight line (1−t)·start + t·end; positions outside [0, 1] extrapolate.

    Example:
        >>> line = Line({"w": torch.zeros(2)}, {"w": torch.ones(2)})
        >>> line(0.25)["w"]
        tensor([0.2500, 0.2500])
    """

    start: Weights
    end: Weights

    def __post_init__(self) -> None:
        algebra.check_alike(self.start, self.end, what="the ends of a line")

    def __repr__(self) -> str:
        return f"<Line between 2 solutions of {len(self.start)} tensors>"

    def __call__(self, t: float) -> dict[str, Tensor]:
        """The weights at ``t``."""
        return algebra.lerp(self.start, self.end, t)

    def write(self, t: float, buffers: dict[str, Tensor]) -> dict[str, Tensor]:
        """The same point, written into reused buffers (made by ``buffers()``): no memory is asked for.

        The buffers are overwritten by the next call.
        """
        if t in (0.0, 1.0):
            return dict(self.start if t == 0.0 else self.end)
        point = {}
        for name, tensor in self.start.items():
            if name in buffers:
                other = self.end[name].to(tensor)
                point[name] = torch.lerp(tensor.detach(), other.detach(), t, out=buffers[name])
            elif tensor.is_floating_point():
                point[name] = torch.lerp(tensor.float(), self.end[name].to(tensor.device).float(), t).to(tensor.dtype)
            elif tensor.is_complex():
                point[name] = torch.lerp(tensor, self.end[name].to(tensor), t)
            else:
                point[name] = tensor if t <= 0.5 else self.end[name]
        return point

    def buffers(self) -> dict[str, Tensor]:
        """Memory for ``write``: one tensor for each of full precision; half precision is mixed in float32 elsewhere."""
        full = (torch.float32, torch.float64)
        return {name: torch.empty_like(tensor) for name, tensor in self.start.items() if tensor.dtype in full}

    def to(self, *, device: Any = None, dtype: torch.dtype | None = None) -> Line:
        """The line between converted ends."""
        return Line(*(algebra.to(point, device=device, dtype=dtype) for point in (self.start, self.end)))


@dataclasses.dataclass(frozen=True, eq=False)
class _Corners:
    """What curves over several points share."""

    points: Sequence[Weights]

    def __post_init__(self) -> None:
        if len(self.points) < 2:
            raise SettingError(f"a {type(self).__name__} must have at least 2 points, got {len(self.points)}")
        for other in self.points[1:]:
            algebra.check_alike(self.points[0], other, what=f"the points of a {type(self).__name__}")

    def __repr__(self) -> str:
        return f"<{type(self).__name__} over {len(self.points)} solutions of {len(self.points[0])} tensors>"

    def to(self, *, device: Any = None, dtype: torch.dtype | None = None) -> Self:
        """The same shape over converted points."""
        return dataclasses.replace(
            self, points=tuple(algebra.to(point, device=device, dtype=dtype) for point in self.points)
        )

    def coefficients(self, t: float) -> list[float]:
        """How much of each point there is at position ``t``; they sum to one."""
        raise NotImplementedError

    def __call__(self, t: float) -> dict[str, Tensor]:
        """The weights at ``t``."""
        return _mixed(self.points, self.coefficients(t))


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Polygon(_Corners):
    """Straight pieces from point to point, each taking the same share of t (a polygonal chain).

    Reference: Garipov et al., arXiv 1802.10026, equation 3 (one bend; here any number).
    """

    def coefficients(self, t: float) -> list[float]:
        """Two neighbours share the weight.

        Raises:
            SettingError: a position outside [0, 1].
        """
        if not 0.0 <= t <= 1.0:
            raise SettingError(f"a position on a polygon must lie in [0, 1], got {t}")
        pieces = len(self.points) - 1
        piece = min(int(t * pieces), pieces - 1)
        rest = t * pieces - piece
        shares = [0.0] * len(self.points)
        shares[piece], shares[piece + 1] = 1.0 - rest, rest
        return shares


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Bezier(_Corners):
    """Σ C(n,i) (1−t)ⁿ⁻ⁱ tⁱ · pointᵢ: from the first to the last point, drawn towards the others.

    Reference: Garipov et al., arXiv 1802.10026, equation 4 (quadratic; here of any order).
    """

    def coefficients(self, t: float) -> list[float]:
        """The Bernstein polynomials at ``t``."""
        order = len(self.points) - 1
        return [math.comb(order, i) * (1.0 - t) ** (order - i) * t**i for i in range(order + 1)]


@dataclasses.dataclass(frozen=True, eq=False)
class Simplex:
    """All weighted averages of n solutions; called with n barycentric coordinates."""

    solutions: Sequence[Weights]

    def __post_init__(self) -> None:
        if len(self.solutions) < 2:
            raise SettingError(f"a simplex must have at least 2 solutions, got {len(self.solutions)}")
        for other in self.solutions[1:]:
            algebra.check_alike(self.solutions[0], other, what="the corners of a simplex")

    def __repr__(self) -> str:
        return f"<Simplex over {len(self.solutions)} solutions of {len(self.solutions[0])} tensors>"

    def __call__(self, coordinates: Sequence[float] | Float[Tensor, " solutions"]) -> dict[str, Tensor]:
        """The average with these shares, which are none below 0 and sum to 1."""
        shares = [float(share) for share in coordinates]
        if len(shares) != len(self.solutions) or min(shares) < 0.0 or abs(sum(shares) - 1.0) > 1e-6:
            raise SettingError(
                f"barycentric coordinates must be {len(self.solutions)} shares that sum to 1, got {shares}"
            )
        return _mixed(self.solutions, shares)

    def random(self, generator: torch.Generator) -> dict[str, Tensor]:
        """A point drawn uniformly from the simplex (flat Dirichlet law)."""
        # Normalised exponentials are uniform on the simplex; 1 − u avoids log 0.
        gaps = -(1.0 - torch.rand(len(self.solutions), generator=generator, dtype=torch.float64)).log()
        return self((gaps / gaps.sum()).tolist())

    def to(self, *, device: Any = None, dtype: torch.dtype | None = None) -> Simplex:
        """The simplex over converted solutions."""
        return Simplex(tuple(algebra.to(solution, device=device, dtype=dtype) for solution in self.solutions))


@dataclasses.dataclass(frozen=True, eq=False)
class Plane:
    """origin + x·first + y·second; called with the two coordinates.

    Attributes:
        origin: weights at (0, 0).
        first: the direction of x; may lack tensors, which then stay as in the origin.
        second: the direction of y.
    """

    origin: Weights
    first: Weights
    second: Weights

    def __post_init__(self) -> None:
        for direction in (self.first, self.second):
            algebra.check_alike(
                direction, {n: t for n, t in self.origin.items() if n in direction}, what="a plane's vectors"
            )

    def __repr__(self) -> str:
        return f"<Plane through a solution of {len(self.origin)} tensors>"

    def __call__(self, x: float, y: float) -> dict[str, Tensor]:
        """The weights at (x, y)."""
        point = dict(self.origin)
        for name, tensor in self.origin.items():
            for share, direction in ((x, self.first), (y, self.second)):
                if share == 0.0 or name not in direction or not tensor.is_floating_point():
                    continue
                wide = torch.promote_types(tensor.dtype, torch.float32)
                point[name] = point[name].to(wide) + share * direction[name].to(tensor.device, wide)
            point[name] = point[name].to(tensor.dtype)
        return point

    def coordinates(self, weights: Weights) -> tuple[float, float]:
        """The coordinates of the plane's point nearest to ``weights``."""
        shared = [name for name in self.origin if name in self.first and self.origin[name].is_floating_point()]
        offset = {n: weights[n].double() - self.origin[n].double() for n in shared}
        axes = [{n: axis[n].double() for n in shared} for axis in (self.first, self.second)]
        gram = torch.tensor([[algebra.dot(a, b) for b in axes] for a in axes], dtype=torch.float64)
        image = torch.tensor([algebra.dot(a, offset) for a in axes], dtype=torch.float64)
        x, y = torch.linalg.lstsq(gram, image.unsqueeze(1)).solution.flatten().tolist()
        return x, y

    def to(self, *, device: Any = None, dtype: torch.dtype | None = None) -> Plane:
        """The plane with converted vectors."""
        return Plane(*(algebra.to(part, device=device, dtype=dtype) for part in (self.origin, self.first, self.second)))


def _mixed(points: Sequence[Weights], shares: Sequence[float]) -> dict[str, Tensor]:
    """Σ share·point; a single share of one gives that point's own tensors, and counters come from the largest share."""
    largest = max(range(len(points)), key=lambda index: shares[index])
    if shares[largest] == 1.0 and all(share == 0.0 for i, share in enumerate(shares) if i != largest):
        return dict(points[largest])
    used = [index for index, share in enumerate(shares) if share != 0.0]
    used.sort(key=lambda index: index != largest)
    mixed = algebra.combine([points[index] for index in used], [shares[index] for index in used])
    return {name: mixed[name] for name in points[0]}
