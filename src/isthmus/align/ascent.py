"""Coordinate ascent: one tree of groups at a time takes its best answer to where all others stand, until none moves."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from isthmus.align.assignment import assign, value
from isthmus.align.costs import Costs
from isthmus.align.held import Made, moved
from isthmus.align.landscape import Landscape
from isthmus.align.trees import Tree, solve
from isthmus.core.progress import Progress, silent
from isthmus.core.status import Status
from isthmus.core.symmetry import Permutation, UnitGroup
from isthmus.core.threads import in_threads

_NOISE = 1e-12
"""Gains below this share of ‖moving‖·‖fixed‖ are rounding: taking them could make the ascent run in circles."""
_ROUNDING = 1e-6
"""A single-precision gain above this share of ‖moving‖·‖fixed‖ is no rounding; smaller ones are checked in float64."""
_DAMPING = (0.25, 1.0, 4.0)
"""How much staying is favoured when a full step does not gain: in units of the mean absolute diagonal similarity."""
_WORTH_A_THREAD = 256
"""Units from which on a solve takes longer than handing it to a thread."""
_THREADED = 2_000_000_000
"""The most bytes of similarities, costs and the solver's copy that threads may hold together."""


@dataclasses.dataclass
class Ascent:
    """One climb on a landscape. Mutable, and private to one call of a matcher.

    Attributes:
        landscape: what is climbed.
        generator: draws the order of the trees.
        permutation: where the climb stands.
        current: the counted tensors of the moving solution there.
        unsettled: trees that may still move.
        seconds: time spent on each tree.
        history: the objective after each sweep, from the start on.
        costs: similarities that are kept between visits.
        parts: the objective's parts by tensor, those that are up to date.
        settled: whether the last sweep gained no more than the tolerance.
    """

    landscape: Landscape
    generator: torch.Generator
    permutation: Permutation
    current: Mapping[str, Tensor]
    unsettled: set[str]
    seconds: dict[str, float]
    history: list[float]
    costs: Costs
    parts: dict[str, float]
    settled: bool = False

    @classmethod
    def at(cls, landscape: Landscape, start: Permutation, *, generator: torch.Generator) -> Ascent:
        """A climb that begins at a permutation, of the solutions or of the landscape's stacked weights."""
        start = landscape.stacking.permutation(start)
        current = moved(landscape.moving, start)
        names = {tree.name for tree in landscape.trees}
        return cls(
            landscape, generator, start, current, names, dict.fromkeys(sorted(names), 0.0), [], Costs(landscape), {}
        )

    @property
    def answer(self) -> Permutation:
        """Where the climb stands, as a permutation of the solutions."""
        return self.landscape.stacking.back(self.permutation)

    @property
    def status(self) -> Status:
        """Converged once no tree would move, or a whole sweep gained no more than the tolerance."""
        return Status.CONVERGED if self.settled or not self.unsettled else Status.STOPPED

    @property
    def objective(self) -> float:
        """Where the climb stands, in float64; only tensors that moved since the last look are gone over."""
        for name in self.landscape.names:
            if name not in self.parts:
                self.parts[name] = self.landscape.part(self.current, name)
        return math.fsum(self.parts.values())

    def climb(self, *, sweeps: int, tolerance: float = 0.0, progress: Progress = silent) -> None:
        """Sweep over the unsettled trees in random order until none is left or ``sweeps`` are done.

        A sweep that raises the objective by no more than ``tolerance`` times its size ends the climb, too.

        The objective never falls: a step is taken only if it gains, in float64. A tree is solved again only after one
        of its neighbours has moved. Trees that share no tensor do not see each other's steps and are solved in threads;
        the outcome is that of one after the other.

        Args:
            sweeps: the most passes.
            tolerance: relative gain of a pass that ends the climb.
            progress: told of every tree; nobody knows how many sweeps it takes, so one more is expected until the end.
        """
        trees = self.landscape.trees
        self.history.append(self.objective)
        for sweep in range(sweeps):
            if not self.unsettled:
                return
            order = [trees[place] for place in torch.randperm(len(trees), generator=self.generator).tolist()]
            for level in self._levels(order):
                self._settle([tree for tree in level if tree.name in self.unsettled])
                done, told = len(trees) * (sweep + 1), ", ".join(tree.name for tree in level[:3])
                progress(done, done + 2 * len(trees), f"sweep {sweep + 1}: {told}")
            self.history.append(self.objective)
            self.settled = self.history[-1] - self.history[-2] <= tolerance * abs(self.history[-1])
            if self.settled and tolerance > 0:
                return

    def _levels(self, order: Sequence[Tree]) -> list[list[Tree]]:
        """The trees of a sweep as sets that may be solved at once, each after all neighbours that come before it."""
        level: dict[str, int] = {}
        for tree in order:
            before = [level[name] for name in self.landscape.neighbours[tree.name] if name in level]
            level[tree.name] = 1 + max(before, default=-1)
        return [[tree for tree in order if level[tree.name] == step] for step in range(max(level.values()) + 1)]

    def take(self, tree: Tree, indices: Mapping[str, Tensor]) -> None:
        """Do a step of one tree, whatever it gains."""
        step = Permutation(self.landscape.symmetry, indices)
        self.permutation = step.after(self.permutation)
        touched = self.landscape.tensors[tree.name]
        if isinstance(self.landscape.moving, Made):
            kept = self.current if isinstance(self.current, Made) else None
            self.current = self.landscape.moving.moved(self.permutation, like=kept, but=touched)
        else:
            self.current = {**self.current, **{name: step.moved(name, self.current[name]) for name in touched}}
        for name in touched:
            self.parts.pop(name, None)
        self.costs.moved(tree, step, alone=not tree.nested)

    def settle_only(self, names: Sequence[str], *, rounds: int = 100) -> None:
        """Improve single groups, each inside its own unit, until none of them gains; all others stay."""
        members = [(tree, g) for tree in self.landscape.trees for g in tree.members if g.name in set(names)]
        for _ in range(rounds):
            if sum(self._alone(tree, member) for tree, member in members) == 0:
                return

    def _settle(self, trees: Sequence[Tree]) -> None:
        """Solve trees that share no tensor, and note who has to be looked at again."""
        self.unsettled -= {tree.name for tree in trees}
        for tree in trees:
            self.costs.reserve(tree)  # here, in order: what is kept must not depend on which thread comes first
        proposals = in_threads(self._timed, trees, threads=_threads(trees, self.landscape.element_size))
        for tree, (indices, seconds) in zip(trees, proposals, strict=True):
            began = time.perf_counter()
            if indices:
                self.take(tree, indices)
            # Nested groups that share entries are arranged for each other's old places: one after the other is safe.
            if indices or (tree.nested and sum(self._alone(tree, member) for member in tree.members) > 0):
                self.unsettled |= self.landscape.neighbours[tree.name]
                if tree.nested or tree.name in self.landscape.quadratic:
                    self.unsettled.add(tree.name)
            self.seconds[tree.name] += seconds + time.perf_counter() - began

    def _timed(self, tree: Tree) -> tuple[Mapping[str, Tensor], float]:
        began = time.perf_counter()
        return self._proposed(tree), time.perf_counter() - began

    def _proposed(self, tree: Tree) -> Mapping[str, Tensor]:
        """The best step of one tree, if one gains; nothing is changed but the tree's own kept similarities."""
        if not tree.nested and tree.name not in self.landscape.quadratic:
            return self._best_of_flat(tree)
        similarity = self.landscape.similarity(self.current)
        indices = solve(self.landscape.symmetry, tree, similarity)
        if self._gains(tree, indices):
            return indices
        return {} if tree.nested else self._damped(tree)

    def _best_of_flat(self, tree: Tree) -> Mapping[str, Tensor]:
        """The exact best answer of one flat tree."""
        similarity = self.costs.similarity(tree, self.current)
        index = assign(similarity)
        indices = _moving(tree.name, index)
        if not indices:
            return {}
        gain = value(similarity, index) - float(similarity.diagonal().double().sum())
        sure = gain > _ROUNDING * self.landscape.norms[tree.name]
        return indices if sure or self._gains(tree, indices) else {}

    def _gains(self, tree: Tree, indices: Mapping[str, Tensor]) -> bool:
        """Whether a step raises the objective, in float64."""
        if not indices:
            return False
        names = self.landscape.tensors[tree.name]
        gain = self.landscape.gain(self.current, Permutation(self.landscape.symmetry, indices), names)
        return gain > _NOISE * self.landscape.scale

    def _damped(self, tree: Tree) -> Mapping[str, Tensor]:
        """Steps that favour staying: for a group on two axes of a tensor, similarities hold only near the identity."""
        full = self.landscape.similarity(self.current)([tree.root], [tree.root])[0, 0]
        reach = float(full.diagonal().abs().mean())
        for damping in _DAMPING:
            favoured = full + damping * reach * torch.eye(len(full), dtype=full.dtype, device=full.device)
            indices = _moving(tree.name, assign(favoured))
            if self._gains(tree, indices):
                return indices
        return {}

    def _alone(self, tree: Tree, member: UnitGroup) -> bool:
        similarity = self.landscape.similarity(self.current)([member], [member])[0, 0]
        indices = _moving(member.name, assign(similarity))
        gains = self._gains(tree, indices)
        if gains:
            self.take(tree, indices)
        return gains


def _moving(name: str, index: Tensor) -> dict[str, Tensor]:
    return {} if torch.equal(index, torch.arange(len(index))) else {name: index}


def _threads(trees: Sequence[Tree], size: int) -> int:
    """How many trees are solved at once: as many as PyTorch may use, if the work is worth a thread and fits."""
    largest = max((tree.root.size for tree in trees), default=0)
    if largest < _WORTH_A_THREAD:
        return 1
    return max(1, min(torch.get_num_threads(), _THREADED // (3 * size * largest**2)))
