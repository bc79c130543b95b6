"""Are these solutions in one basin, as they are or after a permutation? Barriers of all pairs, before and after."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, get_args

from torch import Tensor

from isthmus.align import Match
from isthmus.connect import PairBarriers, barriers
from isthmus.connect.pairs import beside
from isthmus.core.errors import SettingError
from isthmus.core.network import Network
from isthmus.core.objective import Objective
from isthmus.core.progress import Progress, silent, within
from isthmus.core.randomness import child
from isthmus.core.record import Record
from isthmus.core.symmetry import Symmetry
from isthmus.core.threads import fitting, in_threads
from isthmus.core.weights import Weights, nbytes
from isthmus.studies.matchers import matcher

Method = Literal["naive", "weights", "activations"]
_COPIES = 4  # sets of weights that one matching holds: both solutions as they are compared, the moved one, similarities


@dataclasses.dataclass(frozen=True, eq=False)
class Comparison(Record):
    """Barriers of all pairs, by method.

    Attributes:
        barriers: ``naive`` as the solutions are; ``weights`` and ``activations`` after the second of each pair was
            matched to the first.
        matches: by method, the matches of the pairs ``(first, second)``, first < second.
        names: what the solutions are called.
        log10_size: log10 of the number of equivalent permuted networks; ``None`` if nothing was aligned.
        provenance: versions, machine, command.
    """

    barriers: Mapping[str, PairBarriers]
    matches: Mapping[str, Mapping[tuple[int, int], Match]]
    names: tuple[str, ...]
    log10_size: float | None = None
    provenance: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def compare(
    solutions: Sequence[Weights],
    objective: Objective,
    *,
    symmetry: Symmetry | None = None,
    inputs: Tensor | tuple[Tensor, ...] | None = None,
    methods: Sequence[Method] = ("naive", "weights", "activations"),
    names: Sequence[str] | None = None,
    seed: int = 0,
    progress: Progress = silent,
    **settings: Any,
) -> Comparison:
    """Measure the barriers of all pairs, as they are and after alignment.

    Args:
        solutions: at least two.
        objective: what is measured; its network is what the solutions are weights of.
        symmetry: of the network; needed by every method but ``naive``.
        inputs: training inputs, for activations and for normalisation statistics.
        methods: what to compare.
        names: what the solutions are called.
        seed: of the alignment.
        progress: told after every point.
        **settings: further arguments of :func:`isthmus.connect.barrier`.

    Raises:
        SettingError: a method is unknown or lacks what it needs.
    """
    if unknown := [method for method in methods if method not in get_args(Method)]:
        raise SettingError(f"methods must be some of {', '.join(get_args(Method))}, got {unknown[0]}")
    # A GPU that holds the data holds the weights too: matching runs where both are.
    solutions = [beside(weights, objective) for weights in solutions]
    place_of = next(iter(solutions[0].values())).device
    if inputs is not None:
        inputs = tuple(part.to(place_of) for part in inputs) if isinstance(inputs, tuple) else inputs.to(place_of)
    found: dict[str, PairBarriers] = {}
    matches: dict[str, dict[tuple[int, int], Match]] = {}
    for place, method in enumerate(methods):
        told = within(progress, place, len(methods), label=method)
        moving: Callable[[int, int], Weights] | None = None
        measuring: Progress = told
        if method != "naive":
            measuring = within(told, 1, 2)
            known = _matched(solutions, objective.network, symmetry, inputs, method, seed, within(told, 0, 2))
            matches[method] = known
            moving = functools.partial(_moved, known, solutions)
        found[method] = barriers(
            solutions, objective, moving=moving, names=names, inputs=inputs, progress=measuring, **settings
        )
    size = symmetry.log10_size if symmetry is not None else None
    return Comparison(found, matches, next(iter(found.values())).names, size)


def threads_for(weights: Weights, matches: int) -> int:
    """How many matchings of such weights run at once, by this machine's threads and by memory.

    One where there are fewer matchings than that: each then does better with all threads inside it.
    """
    return fitting(matches, _COPIES * nbytes(weights))


def _moved(known: Mapping[tuple[int, int], Match], solutions: Sequence[Weights], first: int, second: int) -> Weights:
    """The second solution of a pair as it meets the first."""
    return known[first, second].permutation.apply(solutions[second])


def _matched(  # noqa: PLR0917
    solutions: Sequence[Weights],
    network: Network,
    symmetry: Symmetry | None,
    inputs: Tensor | tuple[Tensor, ...] | None,
    method: str,
    seed: int,
    progress: Progress,
) -> dict[tuple[int, int], Match]:
    """The match of every pair, many pairs at once in threads: each draws from a generator of its own."""
    if symmetry is None:
        raise SettingError(f"aligning by {method} must have a symmetry; discover it from the module")
    matching = matcher(method, network, inputs)
    pairs = [(first, second) for first in range(len(solutions)) for second in range(first + 1, len(solutions))]

    def match(pair: tuple[int, int]) -> Match:
        first, second = pair
        generator = child(seed, "alignment", method, first, second)
        return matching(symmetry, solutions[second], solutions[first], generator=generator)

    threads = threads_for(solutions[0], len(pairs))
    return dict(zip(pairs, in_threads(match, pairs, threads=threads, progress=progress, label="matching"), strict=True))
