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

_NOISE = 1e-12
"""Gains below this share of ‖moving‖·‖fixed‖ are rounding: taking them could make the ascent run in circles."""
_ROUNDING = 1e-6
"""A single-precision gain above this share of ‖moving‖·‖fixed‖ is no rounding; smaller ones are checked in float64."""
_DAMPING = (0.25, 1.0, 4.0)
"""How much staying is favoured when a full step does not gain: in units of the mean absolute diagonal similarity."""


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
        """A climb that begins at a permutation."""
        current = moved(landscape.moving, start)
        names = {tree.name for tree in landscape.trees}
        return cls(
            landscape, generator, start, current, names, dict.fromkeys(sorted(names), 0.0), [], Costs(landscape), {}
        )

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
        of its neighbours has moved.
        """
        trees = self.landscape.trees
        self.history.append(self.objective)
        for sweep in range(sweeps):
            if not self.unsettled:
                return
            for place in torch.randperm(len(trees), generator=self.generator).tolist():
                if trees[place].name in self.unsettled:
                    self._settle(trees[place])
            self.history.append(self.objective)
            self.settled = self.history[-1] - self.history[-2] <= tolerance * abs(self.history[-1])
            if self.settled and tolerance > 0:
                return
            progress(sweep + 1, sweeps, f"sweep {sweep + 1}: {len(self.unsettled)} groups would still move")

    def take(self, tree: Tree, indices: Mapping[str, Tensor]) -> None:
        """Do a step of one tree, whatever it gains."""
        step = Permutation(self.landscape.symmetry, indices)
        self.permutation = step.after(self.permutation)
        touched = self.landscape.tensors[tree.name]
        if isinstance(self.landscape.moving, Made):
            self.current = moved(self.landscape.moving, self.permutation)
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

    def _settle(self, tree: Tree) -> None:
        """Solve one tree and note who has to be looked at again."""
        began = time.perf_counter()
        self.unsettled.discard(tree.name)
        if self._improve(tree):
            self.unsettled |= self.landscape.neighbours[tree.name]
            if tree.nested or tree.name in self.landscape.quadratic:
                self.unsettled.add(tree.name)
        self.seconds[tree.name] += time.perf_counter() - began

    def _improve(self, tree: Tree) -> bool:
        """Take the best step of one tree that gains; say whether there was one."""
        if not tree.nested and tree.name not in self.landscape.quadratic:
            return self._try_flat(tree)
        similarity = self.landscape.similarity(self.current)
        if self._try(tree, solve(self.landscape.symmetry, tree, similarity)):
            return True
        if not tree.nested:
            return self._damped(tree)
        # Nested groups that share entries are arranged for each other's old places: one after the other is safe.
        return tree.nested and sum(self._alone(tree, member) for member in tree.members) > 0

    def _try_flat(self, tree: Tree) -> bool:
        """The exact best answer of one flat tree."""
        similarity = self.costs.similarity(tree, self.current)
        index = assign(similarity)
        gain = value(similarity, index) - float(similarity.diagonal().double().sum())
        if gain > _ROUNDING * self.landscape.norms[tree.name]:
            self.take(tree, _moving(tree.name, index))
            return True
        return self._try(tree, _moving(tree.name, index))

    def _try(self, tree: Tree, indices: Mapping[str, Tensor]) -> bool:
        if not indices:
            return False
        names = self.landscape.tensors[tree.name]
        gain = self.landscape.gain(self.current, Permutation(self.landscape.symmetry, indices), names)
        if gain <= _NOISE * self.landscape.scale:
            return False
        self.take(tree, indices)
        return True

    def _damped(self, tree: Tree) -> bool:
        """Steps that favour staying: for a group on two axes of a tensor, similarities hold only near the identity."""
        full = self.landscape.similarity(self.current)([tree.root], [tree.root])[0, 0]
        reach = float(full.diagonal().abs().mean())
        for damping in _DAMPING:
            favoured = full + damping * reach * torch.eye(len(full), dtype=full.dtype, device=full.device)
            if self._try(tree, _moving(tree.name, assign(favoured))):
                return True
        return False

    def _alone(self, tree: Tree, member: UnitGroup) -> bool:
        similarity = self.landscape.similarity(self.current)([member], [member])[0, 0]
        return self._try(tree, _moving(member.name, assign(similarity)))


def _moving(name: str, index: Tensor) -> dict[str, Tensor]:
    return {} if torch.equal(index, torch.arange(len(index))) else {name: index}
