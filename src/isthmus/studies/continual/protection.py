"""Merging under conditions: which capabilities must remain, what merges can keep of them, and whether it holds.

The share that remains is *accuracy of the merge / accuracy of the expert*, on the same examples; the expert is the
model that is best at the capability (or the one that is named), so a floor of .98 allows two in a hundred of what it
gets right to be lost. Every set of examples is divided once: merges are chosen on its one half and judged on the other.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from isthmus.connect import reestimate
from isthmus.core.network import Network
from isthmus.core.progress import Progress, silent, within
from isthmus.core.provenance import provenance
from isthmus.core.record import Record
from isthmus.core.weights import Weights
from isthmus.merge.family import families, layerwise
from isthmus.merge.fisher import diagonal_fisher
from isthmus.merge.front import Family, Front, Trial, search
from isthmus.studies.continual.halves import Capability, Kept, Wish, capabilities

# Examples for statistics of BatchNorm and for the Fisher information: both are means that settle early.
_STATISTICS, _INFORMATION = 2000, 256
# Of the tries, so many are spent on whole-model mergers before the weights of layers are varied.
_FIRST_SHARE = 0.6


@dataclasses.dataclass(frozen=True, eq=False)
class Protected(Record):
    """A merge under conditions.

    Attributes:
        models: names of what was merged.
        base: name of what they were trained from, if it was given.
        kept: one for each wish.
        front: every merge that was tried, and which of them none other beats, by what they retain of the examples for
            selection.
        best: the merge that was taken.
        met: whether it reaches every floor on both halves of the examples.
        alone: names of the models that reach every floor by themselves, on the examples for selection.
        merges: how many networks were made and measured.
        passed: examples that went through a network in the search, statistics included.
        seed: of the division and of the search.
        provenance: versions, machine, command.
    """

    models: tuple[str, ...]
    base: str | None
    kept: tuple[Kept, ...]
    front: Front
    best: Trial
    met: bool
    alone: tuple[str, ...]
    merges: int
    passed: int
    seed: int
    provenance: Mapping[str, Any]


def protect(
    network: Network,
    solutions: Mapping[str, Weights],
    wishes: Sequence[Wish],
    *,
    base: Weights | None = None,
    base_name: str = "the base",
    tries: int = 200,
    seed: int = 0,
    progress: Progress = silent,
) -> tuple[Protected, Weights]:
    """Search for a merge that keeps what is wished for, and verify it; gives the account and the merged weights.

    Mergers, their coefficients and densities, weights of layers, and hybrids that average what is shared and hand over
    what is specific are tried, all on one half of each wish's examples. The best is measured on the other half, once:
    what it keeps there was not chosen for. Running statistics of merged networks are estimated anew on the first half.

    Args:
        network: whose weights are merged.
        solutions: by name, at least two.
        wishes: what must remain, the most important first.
        base: what the solutions were trained from; without it, mergers of task vectors are not tried.
        base_name: what it is called.
        tries: most networks that are made and measured.
        seed: of the division and of the search.
        progress: told after every merge.

    Raises:
        SettingError: an impossible floor, a wish twice, an unknown expert.
        DataError: examples that the network does not take, labels outside its outputs, too few examples, or a
            capability that no model has.

    Cost: ``tries`` passes over half of all examples, and the gradients of 256 examples for each solution.
    """
    bench = _Bench(network, capabilities(network, wishes, solutions, seed=seed), list(solutions.values()))
    aims = [one.aim for one in bench.capabilities]
    importances = [bench.information(place, name) for place, name in enumerate(solutions)]
    made = families(bench.solutions, base=base, importances=importances, seed=seed)
    first = max(1, round(_FIRST_SHARE * tries))
    front = search(made, bench.retained, aims, tries=first, seed=seed, progress=within(progress, 0, tries, share=first))
    if tries > first:
        made = [*made, layerwise(bench.solutions, _start(front, base), base=base)]
        front = search(
            made[-1:], bench.retained, aims, tries=tries - first, known=front.trials, seed=seed,
            progress=within(progress, first, tries, share=tries - first),
        )  # fmt: skip
    best = front.trials[front.best]
    weights = bench.usable(_made(made, best))
    kept = tuple(one.kept(weights) for one in bench.capabilities)
    names = tuple(solutions)
    alone = [t.family for t in front.trials if t.family.startswith(_MODEL) and t.meets(aims)]
    return Protected(
        models=names,
        base=base_name if base is not None else None,
        kept=kept,
        front=front,
        best=best,
        met=all(one.met for one in kept),
        alone=tuple(names[int(family.removeprefix(_MODEL)) - 1] for family in alone),
        merges=bench.merges,
        passed=bench.passed,
        seed=seed,
        provenance=provenance(),
    ), weights


_MODEL = "model "


class _Bench:
    """What merges retain, measured and counted."""

    def __init__(self, network: Network, found: Sequence[Capability], solutions: Sequence[Weights]) -> None:
        self._network, self.capabilities, self.solutions = network, found, solutions
        self.merges = self.passed = 0
        self._examples = sum(len(one.selection.targets) for one in found)
        each = max(1, _STATISTICS // len(found))
        parts = [one.selection.parts[0][:each] for one in found]
        self._statistics = torch.cat(parts) if network.has_batch_statistics else None

    def usable(self, weights: Weights) -> Weights:
        """Merged weights with running statistics of their own; a solution as it is keeps its own."""
        if self._statistics is None or any(all(weights[n] is own[n] for n in own) for own in self.solutions):
            return weights
        self.passed += len(self._statistics)
        return reestimate(self._network, weights, self._statistics)

    def retained(self, weights: Weights) -> dict[str, float]:
        """The share of every capability that remains."""
        ready = self.usable(weights)
        self.merges += 1
        self.passed += self._examples
        return {one.wish.name: one.retained(ready) for one in self.capabilities}

    def information(self, place: int, name: str) -> dict[str, Tensor]:
        """The diagonal Fisher information of a solution on what it is the expert of; if on nothing, on everything."""
        own = [one for one in self.capabilities if one.expert == name] or self.capabilities
        total: dict[str, Tensor] = {}
        for one in own:
            found = diagonal_fisher(
                one.selection, self.solutions[place], labels="sampled" if one.sampled else "data",
                examples=max(8, _INFORMATION // len(own)),
            )  # fmt: skip
            total = {key: total[key] + tensor if key in total else tensor for key, tensor in found.items()}
        return total


def _start(front: Front, base: Weights | None) -> Mapping[str, float] | None:
    """Coefficients of the best whole-model merge of the same form, for the layers to begin with."""
    wanted = "linear" if base is None else "task_arithmetic"
    found = [place for place, trial in enumerate(front.trials) if trial.family == wanted]
    if not found:
        return None
    return min((front.trials[place] for place in found), key=lambda trial: trial.shortfall(front.aims)).settings


def _made(made: Sequence[Family], trial: Trial) -> Weights:
    return next(family for family in made if family.name == trial.family).make(trial.settings)
