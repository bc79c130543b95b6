"""How far a measured objective can be trusted: its spread under other samples, other labels, other views."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from isthmus.core.errors import DataError, SettingError
from isthmus.core.losses import IGNORED, counted
from isthmus.core.objective import Objective
from isthmus.core.record import Record
from isthmus.core.weights import Weights

RESAMPLED, AUGMENTED = "other examples", "augmented inputs"  # names of sources

Augment = Callable[[tuple[Tensor, ...], torch.Generator], tuple[Tensor, ...]]


@dataclasses.dataclass(frozen=True)
class Spread(Record):
    """How one number varies under one source of uncertainty.

    Attributes:
        source: what was varied.
        measure: ``loss`` or a metric's name.
        value: without variation.
        mean: over the draws; away from ``value`` the source shifts the number, it does not only blur it.
        deviation: standard deviation over the draws.
        low: lower end of the central 95 % of the draws.
        high: upper end.
        draws: how many.
    """

    source: str
    measure: str
    value: float
    mean: float
    deviation: float
    low: float
    high: float
    draws: int


@dataclasses.dataclass(frozen=True)
class MetricChoice(Record):
    """Whether loss and metrics agree on which solution is better.

    Attributes:
        measures: their names; all are costs, smaller is better.
        best: for each, the place of its best solution.
        agreement: Kendall's τ between every two over solutions, on all data.
        stability: for each, how often resampled data choose the same best solution, between 0 and 1.
    """

    measures: tuple[str, ...]
    best: tuple[int, ...]
    agreement: Float[Tensor, "measures measures"]
    stability: tuple[float, ...]


def under_resampling(
    objective: Objective, weights: Weights, *, generator: torch.Generator, draws: int = 1000
) -> tuple[Spread, ...]:
    """Loss and metrics over examples drawn anew with replacement (bootstrap over examples).

    Args:
        objective: network, data, loss, metrics.
        weights: of one solution.
        generator: draws the samples.
        draws: how many, at least 2.

    Raises:
        SettingError: fewer than two draws.

    Cost: one pass over the data.

    Example:
        >>> from isthmus.core.network import Network
        >>> network = Network.of(torch.nn.Linear(2, 3))
        >>> objective = Objective(network, torch.randn(50, 2), torch.arange(50) % 3)
        >>> [s.measure for s in under_resampling(objective, network.weights, generator=torch.Generator(), draws=10)]
        ['loss', 'error']
    """
    check_draws(draws)
    names, sums, counts = by_example(objective, weights)
    drawn = (_drawn(len(sums), generator) for _ in range(draws))
    means = torch.stack([_mean(sums[places], counts[places]) for places in drawn])
    return spreads(RESAMPLED, names, _mean(sums, counts), means)


def under_label_noise(
    objective: Objective,
    weights: Weights,
    *,
    share: float,
    classes: int,
    generator: torch.Generator,
    draws: int = 100,
) -> tuple[Spread, ...]:
    """Loss and metrics where a share of the labels, drawn anew each time, is replaced by a uniform other class.

    Args:
        objective: whose targets are labels 0 … classes − 1.
        weights: of one solution.
        share: of labels that are wrong, between 0 and 1.
        classes: how many there are, at least 2.
        generator: draws which and what.
        draws: how many, at least 2.

    Raises:
        SettingError: fewer than two draws or classes, or a share outside [0, 1].

    Cost: one forward pass, then ``draws`` evaluations of the loss on stored outputs.
    """
    check_draws(draws)
    outputs = _outputs(objective, weights)

    def means(targets: Tensor) -> Tensor:
        parts = zip(outputs, targets.split(objective.batch_size), strict=True)
        columns = zip(*(_values(objective, output, part) for output, part in parts), strict=True)
        return _mean(*(torch.cat(column) for column in columns))

    names = ("loss", *objective.metrics)
    clean = means(objective.targets)
    noisy = [means(flipped(objective.targets, share, classes=classes, generator=generator)) for _ in range(draws)]
    return spreads(wrong_labels(share), names, clean, torch.stack(noisy))


def under_augmentation(
    objective: Objective, weights: Weights, augment: Augment, *, generator: torch.Generator, draws: int = 20
) -> tuple[Spread, ...]:
    """Loss and metrics where every draw shows the inputs another way.

    Args:
        objective: network, data, loss, metrics.
        weights: of one solution.
        augment: a batch's inputs and a generator → inputs of the same number.
        generator: draws the views.
        draws: how many, at least 2.

    Raises:
        SettingError: fewer than two draws.

    Cost: ``draws`` + 1 passes over the data.
    """
    check_draws(draws)
    names, *clean = by_example(objective, weights)
    rows = [_mean(*by_example(viewed(objective, augment, generator), weights)[1:]) for _ in range(draws)]
    return spreads(AUGMENTED, names, _mean(*clean), torch.stack(rows))


def metric_choice(
    objective: Objective, solutions: Sequence[Weights], *, generator: torch.Generator, draws: int = 500
) -> MetricChoice:
    """Whether the loss and the metrics choose the same solution, and whether other data would.

    A solution with NaN in any measure is not the best by any: of its outputs some class is named all the same.

    Args:
        objective: network, data, loss, metrics (costs: smaller is better).
        solutions: at least two.
        generator: draws resampled data, the same for all solutions.
        draws: how many, at least 2.

    Raises:
        DataError: fewer than two solutions.
        SettingError: fewer than two draws.
    """
    check_draws(draws)
    if len(solutions) < 2:
        raise DataError(f"a choice needs at least 2 solutions, got {len(solutions)}")
    rows = [by_example(objective, weights) for weights in solutions]
    names, sums, counts = rows[0][0], torch.stack([row[1] for row in rows]), torch.stack([row[2] for row in rows])
    sums[sums.isnan().any(2).any(1)] = torch.inf
    means = _mean(sums, counts)
    best = means.argmin(0)
    agreement = torch.eye(len(names), dtype=torch.float64)
    for i in range(len(names)):
        for j in range(i):
            agreement[i, j] = agreement[j, i] = _kendall(means[:, i], means[:, j])
    drawn = (_drawn(sums.shape[1], generator) for _ in range(draws))
    chosen = torch.stack([_mean(sums[:, places], counts[:, places]).argmin(0) for places in drawn])
    stability = (chosen == best).double().mean(0)
    return MetricChoice(names, tuple(best.tolist()), agreement, tuple(stability.tolist()))


def by_example(
    objective: Objective, weights: Weights
) -> tuple[tuple[str, ...], Float[Tensor, "examples measures"], Float[Tensor, "examples measures"]]:
    """The loss and every metric of each example, in float64.

    Returns:
        Their names; their sums over each example's values (tokens), without ignored labels; how many values those are.
    """
    parts = zip(_outputs(objective, weights), objective.targets.split(objective.batch_size), strict=True)
    sums, counts = zip(*(_values(objective, *part) for part in parts), strict=True)
    return ("loss", *objective.metrics), torch.cat(sums), torch.cat(counts)


def flipped(targets: Tensor, share: float, *, classes: int, generator: torch.Generator) -> Tensor:
    """Labels of which a share, drawn one by one, is replaced by a uniform other class; labels of −100 stay.

    Raises:
        SettingError: a share outside 0 … 1, fewer than two classes.
    """
    if not 0 <= share <= 1 or classes < 2:
        raise SettingError(f"label noise needs a share in 0 … 1 and at least 2 classes, got {share} and {classes}")
    wrong = torch.rand(targets.shape, generator=generator, device=generator.device) < share
    step = torch.randint(1, classes, targets.shape, generator=generator, device=generator.device)
    changed = wrong.to(targets.device) & (targets != IGNORED)
    return torch.where(changed, (targets + step.to(targets.device)) % classes, targets)


def wrong_labels(share: float) -> str:
    """The name of label noise as a source."""
    return f"{share:.3g} of labels wrong"


def viewed(objective: Objective, augment: Augment, generator: torch.Generator) -> Objective:
    """The same objective with its inputs seen another way."""
    parts = [augment(inputs, generator) for inputs, _ in objective.batches()]
    joined = tuple(torch.cat(column) for column in zip(*parts, strict=True))
    return dataclasses.replace(objective, inputs=joined if isinstance(objective.inputs, tuple) else joined[0])


def _outputs(objective: Objective, weights: Weights) -> list:
    return [outputs for outputs, _ in objective.outputs(weights)]


def _values(objective: Objective, outputs, targets: Tensor) -> tuple[Tensor, Tensor]:
    """For each example of a batch the sums of the loss and the metrics, and how many values they are over."""
    functions: Mapping[str, Callable[..., Tensor]] = {"loss": objective.loss, **objective.metrics}
    found = {name: function(outputs, targets).double() for name, function in functions.items()}
    counts = counted(found["loss"], targets)
    sums, numbers = [], []
    for values in found.values():
        own = counts if values.shape == counts.shape else torch.ones_like(values, dtype=torch.bool)
        sums.append(torch.where(own, values, 0.0).reshape(len(targets), -1).sum(1))
        numbers.append(own.reshape(len(targets), -1).sum(1).double())
    return torch.stack(sums, 1).cpu(), torch.stack(numbers, 1).cpu()


def _mean(
    sums: Float[Tensor, "*solutions examples measures"], counts: Float[Tensor, "*solutions examples measures"]
) -> Float[Tensor, "*solutions measures"]:
    """Over all values, as the objective takes it: examples of many tokens weigh more than those of few."""
    return sums.sum(-2) / counts.sum(-2).clamp_min(1)


def _kendall(first: Tensor, second: Tensor) -> float:
    """Kendall's τ_b; NaN where one side ties everything."""
    one, two = ((values[:, None] - values).sign() for values in (first, second))
    return float((one * two).sum() / (one.square().sum() * two.square().sum()).sqrt())


def _drawn(count: int, generator: torch.Generator) -> Tensor:
    return torch.randint(count, (count,), generator=generator, device=generator.device).cpu()


def spreads(
    source: str, names: Sequence[str], values: Float[Tensor, " measures"], draws: Float[Tensor, "draws measures"]
) -> tuple[Spread, ...]:
    """What some draws say of each measure, beside its value without variation."""
    low, high = torch.quantile(draws, torch.tensor([0.025, 0.975], dtype=draws.dtype), dim=0)
    columns = zip(names, values.tolist(), draws.mean(0).tolist(), draws.std(0).tolist(), low, high, strict=True)
    return tuple(
        Spread(source, name, value, mean, deviation, float(bottom), float(top), len(draws))
        for name, value, mean, deviation, bottom, top in columns
    )


def check_draws(draws: int) -> None:
    """A spread needs two draws.

    Raises:
        SettingError: fewer.
    """
    if draws < 2:
        raise SettingError(f"draws must be at least 2 to see a spread, got {draws}")
