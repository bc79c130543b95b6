"""Further measures of a path's points: calibration and function distance to both ends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

from isthmus.core.errors import SettingError
from isthmus.core.losses import IGNORED, class_scores
from isthmus.core.objective import Objective
from isthmus.core.weights import Weights

Measure = Literal["calibration", "distance", "disagreement"]


def expected_calibration_error(
    probabilities: Float[Tensor, "examples classes"], targets: Int[Tensor, " examples"], *, bins: int = 15
) -> float:
    """Σ over bins of (share of examples) · |accuracy − mean confidence|, in [0, 1].

    Bins of equal width over the confidence of the most likely class; 15 is the usual number.

    Reference: Guo et al., arXiv 1706.04599, equation 3.
    """
    confidence, predicted = probabilities.double().max(1)
    place = (confidence * bins).ceil().long().clamp(1, bins) - 1
    gap = torch.zeros(bins, dtype=torch.float64, device=place.device)
    gap.index_add_(0, place, (predicted == targets).double() - confidence)
    return float(gap.abs().sum()) / len(targets)


class Measures:
    """Further measures of a path's points, with what the ends predict kept for comparison.

    ``calibration`` is the expected calibration error. ``distance`` to an end is the mean total variation distance
    between predicted distributions, ½ Σ|p − q|, in [0, 1]; ``disagreement`` the share of examples with another most
    likely class. Ignored labels (−100) count in none.

    Cost: a pass of its own over the objective's data for each point; memory for two ends' class probabilities.
    """

    def __init__(self, objective: Objective, ends: tuple[Weights, Weights], wanted: Sequence[Measure]) -> None:
        if unknown := [name for name in wanted if name not in get_args(Measure)]:
            raise SettingError(f"further measures must be among {', '.join(get_args(Measure))}, got {unknown[0]}")
        self.objective, self.wanted = objective, tuple(dict.fromkeys(wanted))
        compared = {"distance", "disagreement"} & set(self.wanted)
        self.ends = [self._predictions(weights)[0] for weights in ends] if compared else []

    def __call__(self, weights: Weights) -> dict[str, float]:
        """The measures of one point by name: ``ece``, ``distance_to_start``, ``distance_to_end``, and so on."""
        if not self.wanted:
            return {}
        probabilities, targets = self._predictions(weights)
        found: dict[str, float] = {}
        if "calibration" in self.wanted:
            found["ece"] = expected_calibration_error(probabilities, targets)
        for end, other in zip(("start", "end"), self.ends, strict=False):
            if "distance" in self.wanted:
                found[f"distance_to_{end}"] = float((probabilities - other).abs().sum(1).double().mean()) / 2
            if "disagreement" in self.wanted:
                changed = probabilities.argmax(1) != other.argmax(1)
                found[f"disagreement_with_{end}"] = float(changed.double().mean())
        return found

    def _predictions(self, weights: Weights) -> tuple[Tensor, Tensor]:
        """Class probabilities of every example (or token) whose label is not ignored, and the labels."""
        parts = []
        for outputs, targets in self.objective.outputs(weights):
            scores, labels = class_scores(outputs, targets)
            wide = scores.to(torch.promote_types(scores.dtype, torch.float32))
            known = labels.flatten().to(scores.device)
            counts = known != IGNORED
            parts.append((wide.softmax(1).movedim(1, -1).flatten(0, -2)[counts], known[counts]))
        return torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])
