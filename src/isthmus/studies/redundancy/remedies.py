"""Which remedy against redundancy removes the barrier between seeds, and at what price, at matched parameters.

Reference: Glukhov, "Permutative redundancy and uncertainty of the objective in deep learning", arXiv 2411.07008, names
    the remedies; frozen constants follow Lim et al., arXiv 2405.20231.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from isthmus.core.errors import SettingError, listed
from isthmus.core.progress import Progress, silent, within
from isthmus.core.provenance import provenance
from isthmus.core.record import Record
from isthmus.studies.redundancy.candidates import REMEDIES, has_width, left_out
from isthmus.studies.redundancy.judgement import Claim, Scaling, claims, judged, scaling
from isthmus.studies.redundancy.trials import Bench, Trial
from isthmus.train import Recipe
from isthmus.zoo.data import Data

USUAL = tuple(name for name in REMEDIES if name not in ("hermite", "modular-grown"))  # one of each kind
RECIPE = Recipe(
    network="mlp", optimiser="sgd", rate=0.1, momentum=0.9, schedule="cosine", batch_size=64, warmup=20, epochs=15
)  # steady, as aligning by weights needs it
STABLE = 0.02  # the error barrier below which Frankle et al. (arXiv 1912.05671) call a pair stable


@dataclasses.dataclass(frozen=True)
class Remedies(Record):
    """All trials.

    Attributes:
        trials: by label noise, size and remedy.
        scaling: by label noise and remedy.
        claims: the known surprise, held against these trials.
        target: test accuracy that ``steps`` counts to.
        threshold: error barrier that counts as removed.
        method: of aligning.
        points: on each path.
        model: the user's model; None for our own network.
        matched: whether remedies were made as wide as brings their parameters to the plain network's; a model without a
            width keeps its size, so that what is held at constants is not made up for.
        left_out: remedies that could not be tried on the model, and why.
        recipe: of the training; network, label noise and seeds vary.
        provenance: versions, machine, data.
    """

    trials: tuple[Trial, ...]
    scaling: tuple[Scaling, ...]
    claims: tuple[Claim, ...]
    target: float
    threshold: float
    method: str
    points: int
    model: str | None
    matched: bool
    left_out: Mapping[str, str]
    recipe: Mapping[str, Any]
    provenance: Mapping[str, Any]


def try_remedies(
    data: Data,
    recipe: Recipe,
    *,
    model: str | None = None,
    remedies: Sequence[str] = USUAL,
    widths: Sequence[int] = (16, 64),
    label_noise: Sequence[float] = (0.0, 0.2),
    solutions: int = 4,
    method: str = "weights",
    points: int = 7,
    target: float = 0.9,
    threshold: float = STABLE,
    seed: int = 0,
    device: str = "cpu",
    progress: Progress = silent,
) -> Remedies:
    """Train every remedy and the plain network at matched parameters, and measure what each removes and costs.

    The plain network is an MLP with two hidden layers, or ``model``. Every other network is made as wide as brings its
    trainable entries closest to the plain one's; a model without a width keeps its size. Masks and constants are the
    same for all networks of a remedy; networks differ in initialisation, order and augmentation.

    Args:
        data: to train and test on.
        recipe: how to train; its network is set here.
        model: specification of another model, see :func:`isthmus.zoo.models.resolve`. Remedies that change a module are
            tried on it through its symmetry; those that cannot be are left out and named.
        remedies: some of :data:`isthmus.studies.redundancy.candidates.REMEDIES`; ``plain`` is always there.
        widths: of the plain network.
        label_noise: shares of wrong training labels.
        solutions: of each kind; at least 2, and 4 for intervals.
        method: ``weights`` or ``activations``.
        points: on each path.
        target: test accuracy.
        threshold: error barrier that counts as removed.
        seed: of masks, constants and aligning.
        device: where to train.
        progress: told after every step.

    Raises:
        SettingError: an unknown remedy, fewer than two networks, or fewer than two that did not diverge.

    Cost: remedies × widths × noise levels × solutions trainings, and as many times (solutions − 1)/2 × points
        evaluations.
    """
    _check(remedies, solutions, target)
    wide = model is None or has_width(model)
    missing = left_out(remedies, data, model, seed=seed)
    chosen = ["plain", *(name for name in remedies if name != "plain" and name not in missing)]
    found: list[Trial] = []
    jobs = [(noise, size) for noise in label_noise for size in (widths if wide else (None,))]
    for place, (noise, size) in enumerate(jobs):
        noisy = dataclasses.replace(recipe, label_noise=noise)
        bench = Bench(data, noisy, size, solutions, method, points, target, seed, device, model)
        cells = []
        for index, name in enumerate(chosen):
            done, what = place * len(chosen) + index, f"{name}, {size or model}, noise {noise:g}"
            told = within(progress, done, len(jobs) * len(chosen), label=what)
            cells.append(bench.trial(REMEDIES[name], told))
        found += [judged(cell, cells[0], threshold) for cell in cells]
    made_by = {**provenance(), "data": data.fingerprint}
    powers = tuple(scaling(found, name, noise) for noise in label_noise for name in chosen)
    return Remedies(
        tuple(found),
        powers,
        claims(found),
        target,
        threshold,
        method,
        points,
        model,
        wide,
        missing,
        recipe.to_dict(),
        made_by,
    )


def _check(remedies: Sequence[str], solutions: int, target: float) -> None:
    if unknown := [name for name in remedies if name not in REMEDIES]:
        raise SettingError(f"remedies must be some of {listed(REMEDIES, 20)}, got {unknown[0]}")
    if solutions < 2:
        raise SettingError(f"solutions must be at least 2 to have a pair, got {solutions}")
    if not 0 < target <= 1:
        raise SettingError(f"target must be an accuracy above 0 and at most 1, got {target}")
