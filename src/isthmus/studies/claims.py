"""The three claims about linear connectivity modulo permutation, tested on freshly trained networks or on a user's own.

Reference: Sharma et al., "Simultaneous linear connectivity of neural networks modulo permutation", arXiv 2404.06498.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

import isthmus.discover as discovery
from isthmus.align import claims
from isthmus.align.match import Matcher
from isthmus.connect import Line, barrier, reestimate
from isthmus.connect.pairs import beside
from isthmus.core.errors import SettingError
from isthmus.core.network import Network
from isthmus.core.objective import Objective
from isthmus.core.progress import Progress, silent, within
from isthmus.core.provenance import provenance
from isthmus.core.randomness import child
from isthmus.core.record import Record
from isthmus.core.symmetry import Symmetry
from isthmus.core.weights import Weights, stack
from isthmus.studies.comparison import threads_for
from isthmus.studies.matchers import matcher
from isthmus.train import Recipe, Replica, train
from isthmus.zoo.data import Data
from isthmus.zoo.models import build

CLAIMS = ("weak", "strong", "cycles", "times", "sparsity")


@dataclasses.dataclass(frozen=True, eq=False)
class Tested(Record):
    """The claims of one set of networks by one method; what was not asked for is ``None``.

    Attributes:
        label: which networks, such as their width.
        method: how they were matched: ``weights`` or ``activations``.
        networks: how many.
        accuracy: of each network.
        weak: a permutation for every pair.
        strong: one permutation for each network.
        cycles: permutations composed along paths.
        times: one permutation for all checkpoints of two trainings.
        sparsity: one permutation for all levels of two prunings (the dense one moves the masks).
    """

    label: str
    method: str
    networks: int
    accuracy: tuple[float, ...]
    weak: claims.WeakClaim | None
    strong: claims.StrongClaim | None
    cycles: claims.Cycles | None
    times: claims.SimultaneousClaim | None
    sparsity: claims.SimultaneousClaim | None


@dataclasses.dataclass(frozen=True, eq=False)
class Claims(Record):
    """All tested sets; ``threshold`` is the error barrier up to which a pair counts as connected."""

    tested: tuple[Tested, ...]
    threshold: float
    points: int
    provenance: Mapping[str, Any]


@dataclasses.dataclass(frozen=True, eq=False)
class Networks:
    """Networks whose claims are tested.

    Attributes:
        label: what sets them apart from other sets.
        module: their architecture.
        solutions: at least two.
        trajectories: checkpoints of each, at the same steps; empty if there are none.
        steps: names of these checkpoints.
        prunings: weights of each at every level of sparsity, zeros where pruned; empty if there are none.
        densities: names of these levels.
    """

    label: str
    module: nn.Module
    solutions: Sequence[Weights]
    trajectories: Sequence[Sequence[Weights]] = ()
    steps: tuple[str, ...] = ()
    prunings: Sequence[Sequence[Weights]] = ()
    densities: tuple[str, ...] = ()


def trained(
    recipe: Recipe,
    data: Data,
    *,
    label: str,
    solutions: int,
    checkpoints: int = 0,
    levels: int = 0,
    device: str = "cpu",
    progress: Progress = silent,
) -> Networks:
    """Train the networks of one set.

    Args:
        recipe: of all; seeds are numbered from 0.
        data: to train on.
        label: names the set.
        solutions: how many networks.
        checkpoints: how many checkpoints to keep of each, at steps that double, for the claim about times.
        levels: rounds of iterative magnitude pruning, for the claim about sparsity.
        device: where to train.
        progress: told after every step.

    Raises:
        SettingError: fewer than two networks trained without diverging.
    """
    total = recipe.total_steps(recipe.subset or len(data.train_targets))
    steps = tuple(sorted({max(1, total >> power) for power in range(checkpoints)}))
    base = dataclasses.replace(recipe, checkpoints=steps)

    def half(name: str, place: int) -> Progress:
        return within(progress, place, 2 if levels else 1, label=f"{label} {name}")

    replicas = _kept(
        train(base.replicates(solutions), data=data, module=build, device=device, progress=half("training", 0))
    )
    prunings: list[list[Weights]] = []
    densities: tuple[str, ...] = ()
    if levels:
        pruned = dataclasses.replace(recipe, pruning_levels=levels)
        rounds = _kept(
            train(pruned.replicates(solutions), data=data, module=build, device=device, progress=half("pruning", 1))
        )
        prunings = [[level.weights for level in replica.levels] for replica in rounds]
        densities = tuple(f"{level.density:.2f}" for level in rounds[0].levels)
    return Networks(
        label=label,
        module=build(recipe).to(device),
        solutions=[replica.weights for replica in replicas],
        trajectories=[[replica.checkpoints[step] for step in steps] for replica in replicas] if steps else [],
        steps=tuple(str(step) for step in steps),
        prunings=prunings,
        densities=densities,
    )


def check_claims(
    networks: Sequence[Networks],
    data: Data,
    *,
    methods: Sequence[str] = ("weights", "activations"),
    wanted: Sequence[str] = ("weak", "strong", "cycles"),
    points: int = 11,
    threshold: float = claims.EPSILON,
    seed: int = 0,
    batch_size: int = 1000,
    together: int | None = None,
    progress: Progress = silent,
) -> Claims:
    """Test the claims on every set of networks by every method; heights are error barriers on the test set.

    Args:
        networks: the sets.
        data: test examples to measure on, training examples for activations and normalisation statistics.
        methods: ``weights``, ``activations``.
        wanted: some of :data:`CLAIMS`; what a set has no checkpoints or prunings for is left out of it.
        points: on each path.
        threshold: error barrier that still counts as connected.
        seed: of the matching and the controls.
        batch_size: examples that go through a network at once where it is measured; statistics are exact where all of
            theirs go at once.
        together: points of a path at once, as :func:`isthmus.connect.barrier` takes it; 1 for convolutions on a GPU.
        progress: told after every pair.

    Raises:
        SettingError: an unknown claim or method, or too few networks for a claim.
    """
    if unknown := [name for name in wanted if name not in CLAIMS]:
        raise SettingError(f"claims must be some of {', '.join(CLAIMS)}, got {unknown[0]}")
    if unknown := [name for name in methods if name not in ("weights", "activations")]:
        raise SettingError(f"methods must be weights or activations, got {unknown[0]}")
    found = []
    jobs = [(group, method) for group in networks for method in methods]
    for place, (group, method) in enumerate(jobs):
        # On the CPU: an example's trace is many small calls, which a GPU is slow at.
        symmetry = discovery.discover(copy.deepcopy(group.module).cpu(), data.train_inputs[:2].cpu())
        network = Network.of(group.module)
        objective = Objective(network, data.test_inputs, data.test_targets, batch_size=batch_size)
        # Replicas come back from training on the CPU, where threads match small ones best; a network runs where the
        # data are.
        here = _placed(group, objective) if method == "activations" else group
        bench = _Bench(here, symmetry, objective, data.train_inputs, points, threshold, seed, method, together)
        matching = matcher(method, network, data.train_inputs)
        found.append(bench.tested(matching, wanted, within(progress, place, len(jobs), label=group.label)))
    made_by = {**provenance(), "data": data.fingerprint}
    return Claims(tuple(found), threshold, points, made_by)


@dataclasses.dataclass(frozen=True, eq=False)
class _Bench:
    """One set of networks ready to be judged by one method."""

    group: Networks
    symmetry: Symmetry
    objective: Objective
    inputs: Tensor
    points: int
    threshold: float
    seed: int
    method: str
    together: int | None

    def tested(self, matching: Matcher, wanted: Sequence[str], progress: Progress) -> Tested:
        solutions, group = self.group.solutions, self.group
        has = {
            "weak": len(solutions) >= 2,
            "strong": len(solutions) >= 3,
            "cycles": len(solutions) >= 3,
            "times": len(group.trajectories) >= 2,
            "sparsity": len(group.prunings) >= 2,
        }
        found: dict[str, Any] = dict.fromkeys(CLAIMS)
        chosen = [name for name in CLAIMS if name in wanted and has[name]]
        for place, name in enumerate(chosen):
            told = within(progress, place, len(chosen), label=name)
            settings = {"generator": child(self.seed, "claims", name, self.method), "progress": told}
            found[name] = self._claim(name)(matching, settings)
        accuracy = tuple(1 - self.objective(beside(weights, self.objective)).error for weights in solutions)
        return Tested(group.label, self.method, len(solutions), accuracy, **found)

    def _claim(self, name: str) -> Callable[[Matcher, dict[str, Any]], Any]:
        group, solutions = self.group, self.group.solutions
        ruled = {"threshold": self.threshold}
        return {
            "weak": lambda m, s: claims.weak(self.symmetry, solutions, m, self.height, **ruled, **s),
            "strong": lambda m, s: claims.strong(
                self.symmetry, solutions, m, self.height, loss=self.loss, **ruled, **s
            ),
            "cycles": lambda m, s: claims.cycles(
                self.symmetry, solutions, m, self.height, lengths=range(1, min(5, len(solutions))), **s
            ),
            "times": lambda m, s: self._simultaneous(group.trajectories, group.steps, m, {**ruled, **s}),
            "sparsity": lambda m, s: self._simultaneous(group.prunings, group.densities, m, {**ruled, **s}),
        }[name]

    def _simultaneous(
        self, trainings: Sequence[Sequence[Weights]], labels: Sequence[str], matching: Matcher, settings: dict[str, Any]
    ) -> claims.SimultaneousClaim:
        # Matching whole trainings at once stacks their weights; activations have no such form.
        together = self.method == "weights"
        largest = stack(trainings[0]) if together else trainings[0][0]
        on_cpu = next(iter(largest.values())).device.type == "cpu"  # threads would take turns at launching on a GPU
        threads = threads_for(largest, len(trainings) // 2 * len(labels)) if on_cpu else 1
        settings = {**settings, "labels": labels, "together": together, "threads": threads}
        return claims.simultaneous(self.symmetry, trainings, matching, self.height, **settings)

    def height(self, start: Weights, end: Weights) -> float:
        """The error barrier of the straight line."""
        line = Line(beside(start, self.objective), beside(end, self.objective))
        settings: dict[str, Any] = {"points": self.points, "inputs": self.inputs, "together": self.together}
        return barrier(line, self.objective, **settings).error_barrier

    def loss(self, weights: Weights) -> float:
        """The loss of one network, with statistics of its own."""
        network, weights = self.objective.network, beside(weights, self.objective)
        if network.has_batch_statistics:
            weights = reestimate(network, weights, self.inputs, batch_size=self.objective.batch_size)
        return self.objective(weights).loss


def _placed(group: Networks, objective: Objective) -> Networks:
    """The same networks where the data are (see :func:`beside`)."""

    def there(runs: Sequence[Sequence[Weights]]) -> list[list[Weights]]:
        return [[beside(weights, objective) for weights in run] for run in runs]

    solutions = there([group.solutions])[0]
    return dataclasses.replace(
        group, solutions=solutions, trajectories=there(group.trajectories), prunings=there(group.prunings)
    )


def _kept(replicas: Sequence[Replica]) -> list[Replica]:
    kept = [replica for replica in replicas if not replica.diverged]
    if len(kept) < 2:
        raise SettingError(f"at least 2 networks must train without diverging, got {len(kept)}; lower the rate")
    return kept
