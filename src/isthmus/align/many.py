"""Many solutions at once: one permutation each, into a frame that all share. Cycles then close by construction."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from isthmus.align.landscape import Landscape
from isthmus.align.match import Match, Matcher, settings_of
from isthmus.align.weight_matching import WeightMatching
from isthmus.core.errors import WeightsError
from isthmus.core.progress import Progress, silent, within
from isthmus.core.record import Record
from isthmus.core.status import Status
from isthmus.core.symmetry import Permutation, Symmetry
from isthmus.core.weights import Weights, combine


@dataclasses.dataclass(frozen=True, eq=False)
class ManyMatch(Record):
    """One permutation for each of many solutions, into a common frame.

    Attributes:
        permutations: in the order of the solutions; applying each puts all units in the common order.
        objective: the similarity that was reached, in the method's own measure; larger is better.
        identity_objective: the same without permuting anything.
        measure: what the objective is, in words.
        status: how it ended.
        rounds: passes over the solutions, or steps.
        history: the objective after each round.
        method: the method's name.
        settings: its settings.
        matches: the matches to the reference, where there is one.
    """

    permutations: tuple[Permutation, ...] = dataclasses.field(metadata={"record": False})
    objective: float
    identity_objective: float
    measure: str
    status: Status
    rounds: int
    history: tuple[float, ...]
    method: str
    settings: Mapping[str, Any]
    matches: tuple[Match, ...] = ()

    def between(self, moving: int, fixed: int) -> Permutation:
        """The permutation that brings one solution to another, through the common frame."""
        return self.permutations[fixed].inverse().after(self.permutations[moving])

    def aligned(self, solutions: Sequence[Weights]) -> list[dict[str, torch.Tensor]]:
        """All solutions in the common frame."""
        return [p.apply(solution) for p, solution in zip(self.permutations, solutions, strict=True)]


def to_reference(
    symmetry: Symmetry,
    solutions: Sequence[Weights],
    matcher: Matcher,
    *,
    reference: int = 0,
    generator: torch.Generator,
    progress: Progress = silent,
) -> ManyMatch:
    """Match every solution to one of them.

    Args:
        symmetry: of all.
        solutions: at least two.
        matcher: any matcher of two.
        reference: which solution stays.
        generator: handed to the matcher.
        progress: told by the matcher, and after each solution.

    Raises:
        WeightsError: fewer than two solutions, or the reference is none of them.

    Cost: one match for each solution but the reference.
    """
    check_many(solutions)
    if not -len(solutions) <= reference < len(solutions):
        raise WeightsError(f"the reference must be one of {len(solutions)} solutions, got {reference}")
    reference %= len(solutions)
    permutations, matches = [], []
    for place, solution in enumerate(solutions):
        if place == reference:
            permutations.append(symmetry.identity())
        else:
            told = within(progress, len(matches), len(solutions) - 1)
            matches.append(matcher(symmetry, solution, solutions[reference], generator=generator, progress=told))
            permutations.append(matches[-1].permutation)
            progress(len(matches), len(solutions) - 1, "to the reference")
    converged = all(match.status is Status.CONVERGED for match in matches)
    return ManyMatch(
        permutations=tuple(permutations),
        objective=math.fsum(match.objective for match in matches),
        identity_objective=math.fsum(match.identity_objective for match in matches),
        measure=f"sum over all others of: {matches[0].measure}",
        status=Status.CONVERGED if converged else Status.STOPPED,
        rounds=1,
        history=(),
        method="to a reference",
        settings={"reference": reference, "matcher": {"method": matches[0].method, **matches[0].settings}},
        matches=tuple(matches),
    )


def to_mean(
    symmetry: Symmetry,
    solutions: Sequence[Weights],
    matcher: Matcher | None = None,
    *,
    rounds: int = 20,
    generator: torch.Generator,
    progress: Progress = silent,
) -> ManyMatch:
    """Match each solution in turn to the mean of all others, until no round gains.

    Args:
        symmetry: of all.
        solutions: at least two.
        matcher: any matcher of two; it sees the solution where it stands and the mean of the others. A step is taken
            only if the similarity of weights, summed over all pairs, rises with it. Default: weight matching.
        rounds: the most passes over the solutions.
        generator: draws the order, and is handed to the matcher.
        progress: called after each round.

    Raises:
        WeightsError: fewer than two solutions.

    Reference: Ainsworth et al., arXiv 2209.04836, algorithm 3. The objective Σ_{i<j} ⟨πᵢθᵢ, πⱼθⱼ⟩ rises monotonically.
    """
    check_many(solutions)
    chosen = matcher or WeightMatching(start="identity", tolerance=0)
    permutations, history, converged = polish(
        symmetry, solutions, chosen, rounds=rounds, generator=generator, progress=progress
    )
    return ManyMatch(
        permutations=tuple(permutations),
        objective=history[-1],
        identity_objective=history[0],
        measure="linear similarity of weights, summed over pairs",
        status=Status.CONVERGED if converged else Status.STOPPED,
        rounds=len(history) - 1,
        history=tuple(history),
        method="to the mean",
        settings={"rounds": rounds, "matcher": {"method": type(chosen).__name__, **settings_of(chosen)}},
    )


def polish(
    symmetry: Symmetry,
    solutions: Sequence[Weights],
    matcher: Matcher,
    *,
    rounds: int,
    generator: torch.Generator,
    progress: Progress,
) -> tuple[list[Permutation], list[float], bool]:
    """Coordinate ascent over solutions; their permutations, the objective after each round, and whether it settled."""
    biases = getattr(matcher, "biases", True)
    permutations = [symmetry.identity() for _ in solutions]
    current: list[Weights] = list(solutions)
    history = [agreement(symmetry, current, biases=biases)]
    for done in range(rounds):
        gained = False
        for place in torch.randperm(len(solutions), generator=generator).tolist():
            others = [weights for index, weights in enumerate(current) if index != place]
            mean = combine(others, [1 / len(others)] * len(others))
            step = matcher(symmetry, current[place], mean, generator=generator).permutation
            if step.is_identity:
                continue
            landscape = Landscape.of(symmetry, current[place], mean, biases=biases)
            own = landscape.stacking.permutation(step)
            if landscape.gain(landscape.moving, own, landscape.names) > 1e-9 * landscape.scale:
                current[place] = step.apply(current[place])
                permutations[place] = step.after(permutations[place])
                gained = True
        history.append(agreement(symmetry, current, biases=biases))
        progress(done + 1, rounds, "to the mean")
        if not gained:
            return permutations, history, True
    return permutations, history, False


def agreement(
    symmetry: Symmetry,
    solutions: Sequence[Weights],
    permutations: Sequence[Permutation] | None = None,
    *,
    biases: bool = True,
) -> float:
    """Σ_{i<j} ⟨πᵢθᵢ, πⱼθⱼ⟩ over the counted tensors."""
    moved = solutions
    if permutations is not None:
        moved = [p.apply(solution) for p, solution in zip(permutations, solutions, strict=True)]
    total = 0.0
    for place, first in enumerate(moved):
        for second in moved[place + 1 :]:
            landscape = Landscape.of(symmetry, first, second, biases=biases)
            total += landscape.objective(landscape.moving)
    return total


def check_many(solutions: Sequence[Weights]) -> None:
    """Refuse fewer than two solutions."""
    if len(solutions) < 2:
        raise WeightsError(f"matching needs at least two solutions, got {len(solutions)}")
