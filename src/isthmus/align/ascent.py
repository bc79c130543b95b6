"""Coordinate ascent: one tree of groups at a time takes its best answer to where all others stand, until none moves."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from isthmus.align.assignment import assign
from isthmus.align.landscape import Landscape
from isthmus.align.trees import Tree, solve
from isthmus.core.progress import Progress, silent
from isthmus.core.status import Status
from isthmus.core.symmetry import Permutation, UnitGroup

_NOISE = 1e-12
"""Gains below this share of ‖moving‖·‖fixed‖ are rounding: taking them could make the ascent run in circles."""
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
    """

    landscape: Landscape
    generator: torch.Generator
    permutation: Permutation
    current: dict[str, Tensor]
    unsettled: set[str]
    seconds: dict[str, float]
    history: list[float]

    @classmethod
    def at(cls, landscape: Landscape, start: Permutation, *, generator: torch.Generator) -> Ascent:
        """A climb that begins at a permutation."""
        current = {name: start.moved(name, landscape.moving[name]) for name in landscape.names}
        names = {tree.name for tree in landscape.trees}
        return cls(landscape, generator, start, current, names, dict.fromkeys(sorted(names), 0.0), [])

    @property
    def status(self) -> Status:
        """Converged once no tree would move."""
        return Status.STOPPED if self.unsettled else Status.CONVERGED

    def climb(self, *, sweeps: int, progress: Progress = silent) -> None:
        """Sweep over the unsettled trees in random order until none is left or ``sweeps`` are done.

        The objective never falls: a step is taken only if it gains, in float64. A tree is solved again only after one
        of its neighbours has moved.
        """
        trees = self.landscape.trees
        self.history.append(self.landscape.objective(self.current))
        for sweep in range(sweeps):
            if not self.unsettled:
                return
            for place in torch.randperm(len(trees), generator=self.generator).tolist():
                if trees[place].name in self.unsettled:
                    self._settle(trees[place])
            self.history.append(self.landscape.objective(self.current))
            progress(sweep + 1, sweeps, f"sweep {sweep + 1}: {len(self.unsettled)} groups would still move")

    def take(self, indices: Mapping[str, Tensor], tensors: Iterable[str]) -> None:
        """Do a step, whatever it gains."""
        step = Permutation(self.landscape.symmetry, indices)
        for name in tensors:
            self.current[name] = step.moved(name, self.current[name])
        self.permutation = step.after(self.permutation)

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
        similarity = self.landscape.similarity(self.current)
        if self._try(tree, solve(self.landscape.symmetry, tree, similarity)):
            return True
        if tree.name in self.landscape.quadratic and not tree.nested:
            return self._damped(tree)
        # Nested groups that share entries are arranged for each other's old places: one after the other is safe.
        return tree.nested and sum(self._alone(tree, member) for member in tree.members) > 0

    def _try(self, tree: Tree, indices: Mapping[str, Tensor]) -> bool:
        if not indices:
            return False
        names = self.landscape.tensors[tree.name]
        gain = self.landscape.gain(self.current, Permutation(self.landscape.symmetry, indices), names)
        if gain <= _NOISE * self.landscape.scale:
            return False
        self.take(indices, names)
        return True

    def _damped(self, tree: Tree) -> bool:
        """Steps that favour staying: for a group on two axes of a tensor the similarities hold only near the identity."""
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
