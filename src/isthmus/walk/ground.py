"""The ground that walkers walk on: trainable tensors as rows of one matrix, scored by an objective."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from isthmus.core.errors import SettingError, WeightsError
from isthmus.core.objective import Objective
from isthmus.core.portions import Portions
from isthmus.core.score import Scores
from isthmus.core.weights import Weights, check_finite, pick, stack
from isthmus.walk.walk import Refresh

# Walkers that go through the network together on a CPU: at most 16, beyond which nothing was gained for networks of a
# few thousand weights, or as many as share 65,536 weights, which stay in a core's cache.
_TOGETHER, _CACHED = 16, 65_536


@dataclasses.dataclass(frozen=True, eq=False)
class Ground:
    """Where walkers stand: rows of a matrix, one entry for each trainable number, in at least float32.

    Attributes:
        objective: what scores a place.
        start: the weights of the origin, buffers included.
        refresh: applied to each walker's weights before they are scored.
        portions: how many walkers fit into the device's memory together.
    """

    objective: Objective
    start: Weights
    refresh: Refresh | None = None
    portions: Portions = dataclasses.field(default_factory=Portions, repr=False)

    def __post_init__(self) -> None:
        network = self.objective.network
        if missing := [name for name in network.parameter_names if name not in self.start]:
            raise WeightsError(f"the start must hold every trainable tensor of the network; missing: {missing[0]}")
        if not network.parameter_names:
            raise WeightsError("a walk needs a network with trainable tensors, got none")
        check_finite(self.start, what="the start of a walk")

    @functools.cached_property
    def spans(self) -> tuple[tuple[str, int, int], ...]:
        """For each trainable tensor: its name and its first and last-plus-one column."""
        spans, column = [], 0
        for name in self.objective.network.parameter_names:
            size = self.start[name].numel()
            spans.append((name, column, column + size))
            column += size
        return tuple(spans)

    @functools.cached_property
    def home(self) -> Float[Tensor, " entries"]:
        """The start as one row."""
        parts = [self.start[name].detach().flatten() for name, _, _ in self.spans]
        dtype = functools.reduce(torch.promote_types, (part.dtype for part in parts), torch.float32)
        return torch.cat([part.to(dtype) for part in parts])

    @functools.cached_property
    def exact_home(self) -> Float[Tensor, " entries"]:
        """The start as one row in float64."""
        return self.home.double()

    @functools.cached_property
    def radius(self) -> float:
        """The length of the start."""
        return float(self.exact_home.norm())

    def weights(self, places: Float[Tensor, "walkers entries"]) -> dict[str, Tensor]:
        """Stacked weights at some places, as views where the precision allows; buffers are the start's."""
        moved = {
            name: places[:, first:last].view(-1, *self.start[name].shape).to(self.start[name].dtype)
            for name, first, last in self.spans
        }
        tied = self.objective.network.tied
        return {
            name: moved[tied.get(name, name)]
            if tied.get(name, name) in moved
            else tensor.expand(len(places), *tensor.shape)
            for name, tensor in self.start.items()
        }

    def score(self, places: Float[Tensor, "walkers entries"], *, together: bool) -> Scores:
        """The objective's scores at some places."""
        stacked = self.weights(places)
        if self.refresh is not None:
            stacked = stack([self.refresh(pick(stacked, index)) for index in range(len(places))])
        if not together:
            return self.objective.many(stacked, together=False)
        score = functools.partial(self.objective.many, together=True)
        return Scores.joined(self.portions(len(places), lambda part: score(pick(stacked, part))))

    def gradients(
        self, places: Float[Tensor, "walkers entries"], *, together: bool
    ) -> tuple[Scores, Float[Tensor, "walkers entries"]]:
        """Scores and gradients of the mean loss."""
        stacked = self.weights(places)
        if self.refresh is not None:
            stacked = stack([self.refresh(pick(stacked, index)) for index in range(len(places))])
        rows = torch.empty_like(places)
        if together:

            def climb(part: slice) -> Scores:
                scores, gradients = self.objective.gradients(pick(stacked, part), together=True)
                for name, first, last in self.spans:
                    rows[part, first:last] = gradients[name].flatten(1)
                return scores

            return Scores.joined(self.portions(len(places), climb)), rows
        # One after the other straight into the rows: a stack of gradients would be one more copy of all weights.
        one_by_one = []
        for index, row in enumerate(rows):
            score, gradient = self.objective.gradient(pick(stacked, index))
            one_by_one.append(score)
            for name, first, last in self.spans:
                row[first:last] = gradient[name].flatten()
        return Scores.of(one_by_one), rows

    def filters(self, places: Float[Tensor, "walkers entries"]) -> Iterator[Float[Tensor, "walkers filters size"]]:
        """Views of the filters of each tensor: its rows along the first axis; a vector is one filter."""
        for name, first, last in self.spans:
            shape = self.start[name].shape
            yield places[:, first:last].view(len(places), shape[0] if len(shape) > 1 else 1, -1)

    @functools.cached_property
    def filter_norms(self) -> tuple[Float[Tensor, "1 filters 1"], ...]:
        """The lengths of the start's filters, tensor by tensor."""
        return tuple(part.norm(dim=2, keepdim=True) for part in self.filters(self.home[None]))

    @functools.cached_property
    def filter_scale(self) -> Float[Tensor, " entries"]:
        """For each entry the root mean square of the start's filter that it lies in."""
        scale = torch.empty_like(self.home)[None]
        for part, norms in zip(self.filters(scale), self.filter_norms, strict=True):
            part.copy_((norms / max(part.shape[2], 1) ** 0.5).expand_as(part))
        return scale[0]

    def filter_normalised(self, directions: Float[Tensor, "walkers entries"]) -> Float[Tensor, "walkers entries"]:
        """Directions whose every filter has the length of the start's filter (in place).

        Reference: Li et al., "Visualizing the loss landscape of neural nets" (2018), section 4; there biases are left
        out, here a vector is one filter.
        """
        for part, norms in zip(self.filters(directions), self.filter_norms, strict=True):
            lengths = part.norm(dim=2, keepdim=True)
            part.mul_(norms / lengths.clamp_min(torch.finfo(part.dtype).tiny))
        return directions

    def onto_sphere(self, places: Float[Tensor, "walkers entries"]) -> Float[Tensor, "walkers entries"]:
        """Places pulled back to the start's distance from the origin (in place)."""
        return places.mul_(self.radius / places.norm(dim=1, keepdim=True))

    def group_size(self, walkers: int) -> int:
        """How many walkers go together: all on a GPU; on a CPU one or a few, whichever a short trial shows faster."""
        if self.home.device.type != "cpu":
            return walkers
        few = min(walkers, max(_TOGETHER, _CACHED // len(self.home)))
        if few == 1 or self.refresh is not None:
            return 1
        places = self.home.repeat(few, 1)
        try:
            apart, joined = (min(self._timed(places, together=t) for _ in range(2)) for t in (False, True))
        except RuntimeError:
            return 1
        return few if joined < 0.9 * apart else 1

    def joined(self, walkers: int) -> bool:
        """Whether a crowd goes through the network in one pass: on a GPU if a short trial shows that to be faster.

        It is for perceptrons, whose kernels are small; many networks' convolutions at once have slow kernels.
        """
        if walkers == 1 or self.home.device.type == "cpu" or self.refresh is not None:
            return walkers > 1
        places = self.home.repeat(walkers, 1)
        joined, apart = (min(self._timed(places, together=t) for _ in range(3)) for t in (True, False))
        return joined < apart

    def _timed(self, places: Tensor, *, together: bool) -> float:
        began = time.perf_counter()
        self.score(places, together=together)
        return time.perf_counter() - began


def check_sphere(ground: Ground) -> None:
    """Refuse a sphere of no size."""
    if ground.radius == 0.0:
        raise SettingError("a walk on the sphere of its start needs a start that is not all zero")
