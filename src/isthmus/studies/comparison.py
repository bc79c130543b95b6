"""Are these solutions in one basin, as they are or after a permutation? Barriers of all pairs, before and after."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, get_args

from torch import Tensor

from isthmus.align import ActivationMatching, Match, WeightMatching
from isthmus.connect import PairBarriers, barriers
from isthmus.core.errors import SettingError
from isthmus.core.network import Network
from isthmus.core.objective import Objective
from isthmus.core.progress import Progress, silent
from isthmus.core.randomness import child
from isthmus.core.record import Record
from isthmus.core.symmetry import Symmetry
from isthmus.core.weights import Weights

Method = Literal["naive", "weights", "activations"]
ACTIVATION_EXAMPLES = 2000  # correlations of unit outputs settle well before this many


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
    inputs: Tensor | None = None,
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
    found: dict[str, PairBarriers] = {}
    matches: dict[str, dict[tuple[int, int], Match]] = {}
    for place, method in enumerate(methods):

        def told(done: float, total: float, label: str = "", *, place: int = place, method: str = method) -> None:
            progress(place + done / total, len(methods), f"{method} {label}".strip())

        moving = None
        if method != "naive":
            matches[method] = {}
            moving = _mover(solutions, objective.network, symmetry, inputs, method, seed, matches[method])
        found[method] = barriers(
            solutions, objective, moving=moving, names=names, data=inputs, progress=told, **settings
        )
    size = symmetry.log10_size if symmetry is not None else None
    return Comparison(found, matches, next(iter(found.values())).names, size)


def matcher(method: str, network: Network, inputs: Tensor | None) -> WeightMatching | ActivationMatching:
    """The matcher that a method's name means.

    Raises:
        SettingError: activations without inputs.
    """
    if method == "weights":
        return WeightMatching()
    if inputs is None:
        raise SettingError("matching activations must have data; give some, or match weights")
    return ActivationMatching(network, inputs[:ACTIVATION_EXAMPLES])


def _mover(  # noqa: PLR0917
    solutions: Sequence[Weights],
    network: Network,
    symmetry: Symmetry | None,
    inputs: Tensor | None,
    method: str,
    seed: int,
    matches: dict[tuple[int, int], Match],
) -> Callable[[int, int], Weights]:
    """The second solution of a pair as it meets the first; each match is kept."""
    if symmetry is None:
        raise SettingError(f"aligning by {method} must have a symmetry; discover it from the module")
    matching = matcher(method, network, inputs)

    def moving(first: int, second: int) -> Weights:
        match = matching(
            symmetry,
            solutions[second],
            solutions[first],
            generator=child(seed, "alignment", method, first, second),
        )
        matches[first, second] = match
        return match.permutation.apply(solutions[second])

    return moving
