"""Does a merge pay? Its ends, the merge and their ensemble on the user's own data, and a card that says so."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from isthmus.core.errors import WeightsError
from isthmus.core.files import write_text
from isthmus.core.losses import answers, cross_entropy
from isthmus.core.network import Network
from isthmus.core.objective import Objective
from isthmus.core.record import Record, to_json
from isthmus.core.score import Score
from isthmus.core.weights import Weights


@dataclasses.dataclass(frozen=True)
class Appraisal(Record):
    """What was gained or lost.

    Attributes:
        metric: the number that decides; smaller is better.
        ends: the solutions' scores, by name.
        merged: the merge's score.
        ensemble: the score of the solutions' mean prediction, at as many times the cost of one network.
        gain: best end's metric − merged's; above 0 the merge is better than every end.
        gain_over_mean: mean of the ends' metrics − merged's.
        ensemble_gain: best end's metric − the ensemble's.
        error_of_gain: standard deviation of ``gain`` that the number of examples alone allows (for error rates; 0 for
            other metrics): a gain below twice of it is not established.
        verdict: one sentence.
    """

    metric: str
    ends: Mapping[str, Score]
    merged: Score
    ensemble: Score
    gain: float
    gain_over_mean: float
    ensemble_gain: float
    error_of_gain: float
    verdict: str

    def card(self) -> str:
        """The verdict as Markdown."""
        names = ["loss", *self.merged.metrics]
        rows = [(name, score) for name, score in self.ends.items()]
        rows += [("**merged**", self.merged), (f"ensemble of {len(self.ends)}", self.ensemble)]
        lines = ["# What the merge gained or lost", "", self.verdict, ""]
        lines += ["| solution | " + " | ".join(names) + " |", "| --- |" + " ---: |" * len(names)]
        lines += [f"| {name} | " + " | ".join(f"{_value(s, n):.4f}" for n in names) + " |" for name, s in rows]
        return "\n".join([*lines, "", f"{self.merged.examples} examples; smaller is better in every column.", ""])

    def save(self, output: str | Path) -> tuple[Path, Path]:
        """Write the card beside a merge (inside, if it is a folder), as JSON and as Markdown."""
        target = Path(output)
        folder, stem = (target, "verdict") if target.is_dir() else (target.parent, f"{target.stem}.verdict")
        files = (folder / f"{stem}.json", folder / f"{stem}.md")
        write_text(files[0], to_json(self) + "\n")
        write_text(files[1], self.card())
        return files


def appraise(
    merged: Weights,
    solutions: Mapping[str, Weights] | Sequence[Weights],
    objective: Objective,
    *,
    by: str | None = None,
) -> Appraisal:
    """Measure the ends, their merge and their ensemble.

    The ensemble's prediction is the mean of the class probabilities where the loss is cross-entropy, else the mean
    of the outputs.

    Args:
        merged: the merge.
        solutions: what was merged, with names if they have any.
        objective: data that neither training nor merging has seen.
        by: which number decides: ``loss`` or a metric; ``error`` by default where there is one.

    Raises:
        WeightsError: no solutions, or no such metric.

    Cost: 2n + 1 passes over the data for n solutions.
    """
    if not isinstance(solutions, Mapping):
        solutions = {f"solution {place}": weights for place, weights in enumerate(solutions)}
    if not solutions:
        raise WeightsError("a verdict compares a merge with its ends, got none")
    ends = {name: objective(weights) for name, weights in solutions.items()}
    score = objective(merged)
    metric = by or ("error" if "error" in score.metrics else "loss")
    if metric != "loss" and metric not in score.metrics:
        raise WeightsError(f"by must be loss or one of {', '.join(score.metrics)}, got {metric}")
    together = ensemble(objective, list(solutions.values()))
    values = {name: _value(end, metric) for name, end in ends.items()}
    # An end that diverged is no best end, wherever it stands: NaN is neither smaller nor larger than anything.
    best = min((value for value in values.values() if not math.isnan(value)), default=math.nan)
    gain = best - _value(score, metric)
    error = _counting_error(best, _value(score, metric), score.examples) if metric == "error" else 0.0
    over_mean = sum(values.values()) / len(values) - _value(score, metric)
    ensemble_gain = best - _value(together, metric)
    sentence = _sentence(metric, gain, error, over_mean, ensemble_gain)
    surer = min((end.loss for end in ends.values() if not math.isnan(end.loss)), default=math.nan)
    if metric != "loss" and score.loss > 1.1 * surer:  # a tenth more shows in a table; confidence went, not answers
        sentence += (
            f" Its loss is {score.loss:.3g} where the best end's is {surer:.3g}: it is less sure of its answers."
        )
    return Appraisal(metric, ends, score, together, gain, over_mean, ensemble_gain, error, sentence)


class _Ensemble:
    """A network that has its weights built in; stands in for one in an objective."""

    def __init__(
        self, network: Network, solutions: Sequence[Weights], *, probabilities: bool, places: torch.Size
    ) -> None:
        self.network, self.solutions, self.probabilities, self.places = network, solutions, probabilities, places
        self.parameter_names, self.batch_dependent = network.parameter_names, network.batch_dependent
        self.weights, self.modules = network.weights, network.modules

    def __call__(self, weights: Weights, *inputs: Any) -> Tensor:
        outputs = [self.network(own, *inputs) for own in self.solutions]
        logits = [answers(output) for output in outputs]
        wide = [part.float() if part.dtype in (torch.float16, torch.bfloat16) else part for part in logits]
        stacked = torch.stack(wide)
        if not self.probabilities:
            return stacked.mean(0)
        # The logarithm of a mean of probabilities, without leaving the logarithms.
        # Classes come last, or, as in images, before the places that have one each.
        axis = -1 if stacked.shape[2:-1] == self.places else 2
        return stacked.log_softmax(axis).logsumexp(0) - math.log(len(wide))


def ensemble(objective: Objective, solutions: Sequence[Weights]) -> Score:
    """Score the mean of the solutions' answers: of class probabilities under a cross-entropy, else of outputs."""
    network: Any = _Ensemble(
        objective.network, solutions, probabilities=objective.loss is cross_entropy, places=objective.targets.shape[1:]
    )
    return dataclasses.replace(objective, network=network)(solutions[0])


def _value(score: Score, metric: str) -> float:
    return score.loss if metric == "loss" else score.metrics[metric]


def _counting_error(first: float, second: float, examples: int) -> float:
    """Binomial standard deviation of a difference of two error rates, as if independent: an upper estimate."""
    return ((first * (1 - first) + second * (1 - second)) / examples) ** 0.5


def _sentence(metric: str, gain: float, error: float, over_mean: float, ensemble_gain: float) -> str:
    if abs(gain) <= 2 * error:
        change = f"{abs(gain):.4f} {'below' if gain > 0 else 'above'}" if round(gain, 4) else "the same"
        start = f"The merge is as good as its best end within the noise of the data ({metric} {change})."
    elif gain > 0:
        start = f"The merge pays: its {metric} is {gain:.4f} below that of its best end."
    elif over_mean > 0:
        start = (
            f"The merge lies between its ends: {metric} {-gain:.4f} above the best, {over_mean:.4f} below their mean."
        )
    else:
        start = f"The merge does not pay: its {metric} is {-gain:.4f} above that of its best end."
    rest = f"The ensemble would gain {ensemble_gain:.4f}" if ensemble_gain > 0 else "The ensemble would gain nothing"
    return f"{start} {rest} over the best end."
