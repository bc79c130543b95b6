"""One trial of a remedy: networks trained, aligned, and measured."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

import isthmus.discover as discovery
from isthmus.connect.pairs import PairBarriers
from isthmus.core.network import Network
from isthmus.core.objective import Objective
from isthmus.core.progress import Progress, within
from isthmus.core.record import Record
from isthmus.core.statistics import Interval, over_networks, over_pairs
from isthmus.studies.comparison import compare
from isthmus.studies.redundancy.candidates import REMEDIES, Candidate, matched
from isthmus.studies.redundancy.training import Trained, trained
from isthmus.train import Recipe
from isthmus.zoo.data import Data
from isthmus.zoo.remedies import sorted_units


@dataclasses.dataclass(frozen=True)
class Heights(Record):
    """Barriers over all pairs of one set of networks, above the line between the ends.

    Attributes:
        loss: of the test cross-entropy, in nats.
        error: of the test error.
    """

    loss: Interval
    error: Interval


@dataclasses.dataclass(frozen=True)
class Trial(Record):
    """One remedy at one size and level of label noise.

    Attributes:
        remedy: its name; ``plain`` is the network without any.
        size: width of the plain network whose parameters are matched; for a model without a width, its parameters.
        label_noise: share of wrong training labels.
        width: of this network; None for a model without one.
        parameters: what training may change.
        groups: groups of exchangeable units that discovery found.
        log10_copies: log10 of the number of equivalent networks.
        networks: how many were trained without diverging.
        diverged: how many were not.
        accuracy: on the test set.
        cost: the plain network's accuracy less this one's (Welch's interval); None for the plain one.
        deviation: of the accuracy from seed to seed.
        disagreement: share of test examples that two networks put into different classes.
        steps: to the target, over the networks that reached it; None if none did.
        reached: how many did.
        slowdown: mean steps over those of the plain network.
        naive: barriers as the networks are.
        aligned: after aligning; None where there is nothing to exchange.
        remaining: the naive loss barrier over the plain network's, with Welch's interval of the logarithms; None for
            the plain one.
        remaining_aligned: the same of the barrier after aligning; for the plain network what aligning alone leaves.
        verdict: ``removes`` (the whole interval of the naive error barrier lies below the threshold), ``lowers`` (the
            whole interval of ``remaining`` lies below 1), ``does not`` or, without an interval, ``unknown``.
        verdict_aligned: the same after aligning.
    """

    remedy: str
    size: int
    label_noise: float
    width: int | None
    parameters: int
    groups: int
    log10_copies: float
    networks: int
    diverged: int
    accuracy: Interval
    cost: Interval | None
    deviation: float
    disagreement: Interval
    steps: Interval | None
    reached: int
    slowdown: float | None
    naive: Heights
    aligned: Heights | None
    remaining: Interval | None = None
    remaining_aligned: Interval | None = None
    verdict: str = "unknown"
    verdict_aligned: str | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Bench:
    """One size and noise level: trains each kind of network once and measures it.

    Attributes:
        data: to train and test on.
        recipe: how to train, label noise included.
        size: width of the plain network; None for a model without a width.
        networks: of each kind.
        method: of aligning.
        points: on each path.
        target: test accuracy that steps are counted to.
        seed: of masks, constants and aligning.
        device: where to train.
        model: specification of a user's model; None for our own network.
        made: the trained networks by remedy.
    """

    data: Data
    recipe: Recipe
    size: int | None
    networks: int
    method: str
    points: int
    target: float
    seed: int
    device: str
    model: str | None = None
    made: dict[str, Trained] = dataclasses.field(default_factory=dict, repr=False)

    def trial(self, candidate: Candidate, progress: Progress) -> Trial:
        """Train (unless another remedy needed the same networks) and measure."""
        source = candidate.trained_as or candidate.name
        if source not in self.made:
            fit = matched(REMEDIES[source], self.data, size=self.size, seed=self.seed, model=self.model)
            self.made[source] = trained(
                fit, self.recipe, self.data, networks=self.networks, device=self.device,
                progress=within(progress, 0, 1, share=0.7),
            )  # fmt: skip
        return self._measured(candidate, self.made[source], progress)

    def _measured(self, candidate: Candidate, made: Trained, progress: Progress) -> Trial:
        module = made.module.to(self.device)
        network = Network.of(module)
        symmetry = discovery.discover(module, self.data.train_inputs[:2])
        solutions = [{name: t.to(self.device) for name, t in weights.items()} for weights in made.solutions]
        if candidate.canonical:
            solutions = [sorted_units(symmetry, weights) for weights in solutions]
        objective = Objective(network, self.data.test_inputs, self.data.test_targets)
        exchange = bool(symmetry.permutable) and not candidate.canonical
        found = compare(
            solutions, objective, symmetry=symmetry, inputs=self.data.train_inputs, points=self.points, seed=self.seed,
            methods=("naive", self.method) if exchange else ("naive",),  # type: ignore[arg-type]
            progress=within(progress, 0.7, 1, share=0.3),
        ).barriers  # fmt: skip
        accuracy = [1 - objective(weights).error for weights in solutions]
        classes = torch.stack([_classes(network, weights, self.data.test_inputs) for weights in solutions])
        differing = (classes[:, None] != classes).double().mean(2)
        steps = [step for history in made.histories if (step := _first(history, self.target)) is not None]
        return Trial(
            remedy=candidate.name,
            size=self.made["plain"].parameters if self.size is None else self.size,
            label_noise=self.recipe.label_noise,
            width=made.width,
            parameters=made.parameters,
            groups=len(symmetry.permutable),
            log10_copies=symmetry.log10_size,
            networks=len(solutions),
            diverged=made.diverged,
            accuracy=over_networks(accuracy),
            cost=None,
            deviation=float(torch.tensor(accuracy, dtype=torch.float64).std()),
            disagreement=over_pairs(differing),
            steps=over_networks(steps) if steps else None,
            reached=len(steps),
            slowdown=None,
            naive=_heights(found["naive"]),
            aligned=_heights(found[self.method]) if exchange else None,
        )


def _heights(found: PairBarriers) -> Heights:
    return Heights(found.intervals["loss_barrier"], found.intervals["error_barrier"])


@torch.no_grad()
def _classes(network: Network, weights: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
    return torch.cat([network(weights, part).argmax(1).cpu() for part in inputs.split(500)])


def _first(history: Sequence[tuple[int, float]], target: float) -> int | None:
    """Steps at the end of the first epoch with the target's accuracy."""
    return next((steps for steps, accuracy in history if accuracy >= target), None)
