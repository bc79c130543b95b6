"""May models be swapped, updated or merged? One verdict over several, with its evidence and what would change it.

Reference: Sharma et al., arXiv 2404.06498; Jordan et al. (REPAIR), arXiv 2211.08403; Frankle et al., arXiv 1912.05671,
for the threshold of 2 %; Hess et al., arXiv 2507.23311, for retention by capability.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from isthmus.core.errors import SettingError
from isthmus.core.network import Network
from isthmus.core.objective import Objective
from isthmus.core.progress import Progress, silent
from isthmus.core.provenance import provenance
from isthmus.core.record import Record
from isthmus.core.weights import Weights
from isthmus.studies.check.bench import Bench
from isthmus.studies.check.checklist import Item, Origin, checklist
from isthmus.studies.check.doubt import Doubt
from isthmus.studies.check.verdict import Change, Effort, Model, Pair, Thresholds, Verdict, Way, changes, worst
from isthmus.zoo.data import Data


@dataclasses.dataclass(frozen=True, eq=False)
class Check(Record):
    """The answer.

    Attributes:
        verdict: one of :data:`VERDICTS`: what the pair that is hardest to connect needs.
        compatible: whether models may be swapped or merged: the verdict is not ``apart``, every model knows more than
            the most frequent class, and the floors hold.
        established: whether the intervals of all pairs lie on one side of the threshold.
        models: each by itself.
        pairs: each pair.
        changes: what would change the verdict.
        ways: forward, with costs.
        doubt: how far the objective that decides can be trusted itself.
        items: the checklist.
        thresholds: that decided.
        effort: that was spent.
        log10_copies: of the architecture; ``None`` if no symmetry could be found.
        obstacles: what was pinned, or why there is no symmetry.
        examples: labels that the models were judged on; ignored ones do not count.
        classes: how many.
        provenance: versions, machine, command.
    """

    verdict: Verdict
    compatible: bool
    established: bool
    models: tuple[Model, ...]
    pairs: tuple[Pair, ...]
    changes: tuple[Change, ...]
    ways: tuple[Way, ...]
    doubt: Doubt
    items: tuple[Item, ...]
    thresholds: Thresholds
    effort: Effort
    log10_copies: float | None
    obstacles: tuple[str, ...]
    examples: int
    classes: int
    provenance: Mapping[str, Any]


def check(
    module: nn.Module,
    solutions: Sequence[Weights],
    data: Data,
    *,
    names: Sequence[str] | None = None,
    origins: Sequence[Origin] | None = None,
    capabilities: Mapping[str, tuple[Tensor, Tensor]] | None = None,
    thresholds: Thresholds | None = None,
    effort: Effort | None = None,
    split: Literal["test", "train"] = "test",
    fingerprint: str | None = None,
    batch_size: int = 250,
    distil_epochs: int = 30,
    seed: int = 0,
    progress: Progress = silent,
) -> Check:
    """Judge whether models may be swapped, updated or merged.

    Args:
        module: their architecture, a classifier.
        solutions: weights of at least two models.
        data: judged on its ``split``; training inputs serve for statistics, activations and flatness.
        names: what the models are called.
        origins: what is recorded of each model's making.
        capabilities: further inputs and labels by name; by default every class is a capability.
        thresholds: what counts as good enough.
        effort: how much to spend.
        split: that the models are judged on.
        fingerprint: of the whole data set, to be compared with the models' records; by default that of ``data``.
        batch_size: examples at once.
        distil_epochs: passes over the training data that a distillation is reckoned with.
        seed: of matching, resampling and directions.
        progress: told along the way.

    Raises:
        SettingError: fewer than two models, another split, or a floor for what is no capability.
        WeightsError: the module is no classifier.

    Cost: for each of the n(n−1)/2 pairs four paths (as they are, two alignments, repaired), each ``points`` passes over
    ``path_examples`` and over ``statistics_examples``.
    """
    if len(solutions) < 2:
        raise SettingError(f"a check must have at least 2 models, got {len(solutions)}")
    if split not in ("test", "train"):
        raise SettingError(f"split must be test or train, got {split}")
    called = tuple(names) if names is not None else tuple(str(place) for place in range(len(solutions)))
    known = tuple(origins) if origins is not None else tuple(Origin() for _ in solutions)
    rule, whole = thresholds or Thresholds(), fingerprint or data.fingerprint
    bench = _bench(
        module, data, split, batch_size, solutions=tuple(solutions), names=called, suites=dict(capabilities or {}),
        thresholds=rule, effort=effort or Effort(), seed=seed,
    )  # fmt: skip
    models = bench.models(known, progress)
    if unknown := [name for name in rule.floors if name not in ("all", *models[0].capabilities)]:
        raise SettingError(f"floors must name a capability ({', '.join(models[0].capabilities)}), got {unknown[0]}")
    targets = bench.views[0].targets
    doubt = bench.doubt(unseen=split == "test")
    pairs = bench.pairs(progress)
    verdict = worst(pairs)
    items = _items(models, known, rule, targets, fingerprint=whole, held_out=split == "test")
    passed = {item.point: item.passed for item in items}
    sound = passed["chance"] and (passed["floors"] or not rule.floors)
    return Check(
        verdict=verdict,
        compatible=verdict != "apart" and sound,
        established=all(pair.established for pair in pairs),
        models=models,
        pairs=pairs,
        changes=changes(pairs, verdict, rule),
        ways=bench.ways(pairs, verdict if sound else "apart", distil_epochs, len(data.train_targets)),
        doubt=doubt,
        items=items,
        thresholds=rule,
        effort=bench.effort,
        log10_copies=bench.log10_copies,
        obstacles=bench.obstacles,
        examples=len(targets),
        classes=data.classes,
        provenance={**provenance(), "data": whole, "split": split, "seed": seed},
    )


def _bench(module: nn.Module, data: Data, split: str, batch_size: int, **asked: Any) -> Bench:
    """Everything that is measured on: the loss on the split, and that on the training examples."""
    network = Network.of(module)
    training = Objective(network, data.train_inputs, data.train_targets, batch_size=batch_size)
    judged = (data.test_inputs, data.test_targets) if split == "test" else (data.train_inputs, data.train_targets)
    objective = Objective(network, *judged, batch_size=batch_size)
    return Bench(module=module, objective=objective, training=training, classes=data.classes, **asked)


def _items(
    models: Sequence[Model], origins: Sequence[Origin], rule: Thresholds, targets: Tensor, **known: Any
) -> tuple[Item, ...]:
    """The checklist; the accuracy to beat is that of always naming the most frequent class."""
    baseline = float(torch.bincount(targets).max()) / len(targets)
    return checklist(
        tuple(model.name for model in models),
        origins,
        accuracies={model.name: model.accuracy for model in models},
        baseline=baseline,
        floors=rule.floors,
        capabilities={model.name: {"all": model.accuracy.estimate, **model.capabilities} for model in models},
        **known,
    )
