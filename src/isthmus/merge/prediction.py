"""What a merge will cost one of its solutions: scores from the weights alone, and from little unlabelled data.

A *holder* is a solution that has a capability; the others may not. All scores are larger where more of the capability
is expected to be lost. None sees a label. With h the holder, o the other solution, b the base that both came from, m
the merged weights and τ = h − b the holder's task vector:

- ``distance``: ‖h − o‖, the naive baseline: networks far apart should lose more.
- ``displacement``: ‖m − h‖ / ‖τ‖, how far the holder is moved, in lengths of what it learned.
- ``angle``: 1 − cos(τ, o − b) (Ilharco et al., arXiv 2212.04089, figure 5, for the cosine of task vectors).
- ``dilution``: 1 − ⟨m − b, τ⟩ / ‖τ‖², the share of what was learned that the merge leaves out.
- ``sign_conflict``: the share of Σ|τ| in entries whose sign differs in o − b (the interference that TIES removes: Yadav
  et al., arXiv 2306.01708, section 3).
- ``curvature``: ½ E[Var_p(J(m − h))], the second-order rise of KL(holder ‖ merged) on unlabelled inputs; p is the
  holder's distribution over classes, J the Jacobian of its logits at h (the quadratic form of the Fisher information;
  Matena and Raffel, arXiv 2111.09832, equation 4, for the expansion).
- ``linear_disagreement``: the share of unlabelled inputs whose most likely class changes in h's logits + J(m − h).
- ``disagreement``: the share whose class changes from h to m: a trial merge, still without labels (Nakkiran and Bansal,
  arXiv 2009.08092, for agreement as a stand-in for accuracy).

A tensor that is stored under two names counts once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from isthmus.core.errors import SettingError, WeightsError
from isthmus.core.losses import answers
from isthmus.core.network import Network
from isthmus.core.record import Record
from isthmus.core.weights import Weights, check_alike, lerp

FROM_WEIGHTS = ("distance", "displacement", "angle", "dilution", "sign_conflict")
FROM_INPUTS = ("curvature", "linear_disagreement", "disagreement")
SCORES = (*FROM_WEIGHTS, *FROM_INPUTS)
NAIVE = "distance"

# The defaults ranked best with what was lost, over three cue studies on digits (colour and noise, position and
# frequency, texture and noise; six seeds, four arms, merges near α = .25, .5 and .75): Spearman .76, .87 and .72 for
# dilution, .97, .95 and .96 for disagreement, .48, .50 and .38 for the naive distance; both lead it in every study,
# with intervals over seeds above zero. Displacement is as good (.71, .87, .80); dilution also counts a merge's turns.
BEST_FROM_WEIGHTS = "dilution"
BEST_FROM_INPUTS = "disagreement"

# Half of the central difference along m − h. Small against the curvature of smooth units, large against float32's
# rounding (1e-7 / 1e-2); kinks of ReLU units are averaged over this width.
_STEP = 1e-2


@dataclasses.dataclass(frozen=True)
class Prediction(Record):
    """Which solution's capabilities a merge is expected to cost most.

    Attributes:
        names: of the solutions, the most endangered first.
        by: the score that orders them.
        scores: of each, in the same order.
    """

    names: tuple[str, ...]
    by: str
    scores: tuple[Mapping[str, float], ...]


def predict(
    solutions: Mapping[str, Weights],
    merged: Weights,
    *,
    base: Weights,
    network: Network | None = None,
    inputs: Tensor | None = None,
    by: str | None = None,
) -> Prediction:
    """Order solutions by how much of what they learned a merge is expected to lose.

    Args:
        solutions: by name, at least two; mappings that read from disk will do.
        merged: their merge.
        base: what all were trained from.
        network: for scores that need inputs.
        inputs: unlabelled inputs of the kind that matters.
        by: one of :data:`SCORES`; by default ``disagreement`` where there are inputs, else ``dilution``: validated by
            rank correlation with what was lost, against the naive ``distance`` (``isthmus continual`` repeats that).

    Raises:
        SettingError: fewer than two solutions, or a score that needs inputs without any.
        WeightsError: weights do not fit each other, or a solution equals the base.

    Cost: as :func:`loss_scores` for each solution, one tensor of each in memory at a time from disk without inputs.

    Example:
        >>> base = {"w": torch.zeros(2)}
        >>> ends = {"a": {"w": torch.tensor([3.0, 0.0])}, "b": {"w": torch.tensor([1.0, 1.0])}}
        >>> predict(ends, {"w": torch.tensor([2.0, 0.5])}, base=base).names
        ('a', 'b')
    """
    if len(solutions) < 2:
        raise SettingError(f"a merge has at least 2 solutions whose loss can be compared, got {len(solutions)}")
    chosen = by or (BEST_FROM_WEIGHTS if inputs is None else BEST_FROM_INPUTS)
    known = FROM_WEIGHTS if inputs is None else SCORES
    if chosen not in known:
        raise SettingError(f"by must be one of {', '.join(known)}, got {chosen}")
    found = {
        name: loss_scores(
            holder, merged, other=_Mean([other for key, other in solutions.items() if key != name]), base=base,
            network=network, inputs=inputs,
        )
        for name, holder in solutions.items()
    }  # fmt: skip
    order = sorted(found, key=lambda name: -found[name][chosen])
    return Prediction(tuple(order), chosen, tuple(found[name] for name in order))


class _Mean(Mapping[str, Tensor]):
    """The average of some solutions, made tensor by tensor when asked for."""

    def __init__(self, solutions: Sequence[Weights]) -> None:
        self._solutions = solutions

    def __getitem__(self, name: str) -> Tensor:
        parts = [weights[name] for weights in self._solutions]
        if not parts[0].is_floating_point():
            return parts[0]
        return torch.stack([part.double() for part in parts]).mean(0)

    def __iter__(self) -> Iterator[str]:
        return iter(self._solutions[0])

    def __len__(self) -> int:
        return len(self._solutions[0])


def loss_scores(
    holder: Weights,
    merged: Weights,
    *,
    other: Weights,
    base: Weights,
    network: Network | None = None,
    inputs: Tensor | None = None,
    batch_size: int = 500,
) -> dict[str, float]:
    """Every score of this module for one holder; those that need inputs only where they are given.

    Args:
        holder: the solution whose capability is at stake.
        merged: what it would be replaced by.
        other: the solution that it is merged with; of several, their mean.
        base: what both were trained from.
        network: the function, for the scores that need inputs; a classifier.
        inputs: unlabelled inputs on which the capability shows, examples first; a few hundred are enough.
        batch_size: of the passes over them.

    Raises:
        WeightsError: the weights differ in names or shapes, or the holder has not moved from the base.
        SettingError: inputs without a network.

    Cost: one pass over the weights; with inputs four passes of the network over them.

    Example:
        >>> base = {"w": torch.zeros(2)}
        >>> holder, other = {"w": torch.tensor([2.0, 0.0])}, {"w": torch.tensor([0.0, 2.0])}
        >>> scores = loss_scores(holder, lerp(holder, other, 0.5), other=other, base=base)
        >>> scores["angle"], scores["dilution"]
        (1.0, 0.5)
    """
    scores = _from_weights(holder, merged, other, base)
    if inputs is None:
        return scores
    if network is None:
        raise SettingError("scores from inputs need the network, got none")
    return scores | _from_inputs(holder, merged, network, inputs, batch_size)


def _from_weights(holder: Weights, merged: Weights, other: Weights, base: Weights) -> dict[str, float]:
    for weights, what in ((merged, "merged"), (other, "other"), (base, "base")):
        check_alike(holder, weights, what=f"holder and {what}")
    names = [name for name in holder if not _statistic(name)]
    alike: dict[tuple[object, ...], list[str]] = {}
    sums: dict[str, float] = {}
    for name in names:
        own = holder[name]
        if not own.is_floating_point():
            continue
        h, m, o, b = (tensor.to(own.device).double() for tensor in (own, merged[name], other[name], base[name]))
        tau, rival = h - b, o - b
        found = {
            "tau": float(tau.square().sum()),
            "rival": float(rival.square().sum()),
            "cross": float((tau * rival).sum()),
            "apart": float((h - o).square().sum()),
            "moved": float((m - h).square().sum()),
            "left": float(((m - b) * tau).sum()),
            "mass": float(tau.abs().sum()),
            "conflict": float((tau.abs() * (tau * rival < 0)).sum()),
        }
        # One tensor under two names moves the network once.
        earlier = alike.setdefault((own.shape, *found.values()), [])
        if any(all(torch.equal(one[name], one[first]) for one in (holder, merged, other, base)) for first in earlier):
            continue
        earlier.append(name)
        sums = {key: sums.get(key, 0.0) + value for key, value in found.items()}
    if sums.get("tau", 0.0) == 0.0:
        raise WeightsError("a holder must differ from its base, or it has learned nothing that could be lost")
    lengths = (sums["tau"] * sums["rival"]) ** 0.5
    return {
        "distance": sums["apart"] ** 0.5,
        "displacement": (sums["moved"] / sums["tau"]) ** 0.5,
        "angle": 1 - (sums["cross"] / lengths if lengths else 0.0),
        "dilution": 1 - sums["left"] / sums["tau"],
        "sign_conflict": sums["conflict"] / sums["mass"],
    }


@torch.no_grad()
def _from_inputs(
    holder: Weights, merged: Weights, network: Network, inputs: Tensor, batch_size: int
) -> dict[str, float]:
    names = network.parameter_names
    here = {name: _wide(tensor) for name, tensor in holder.items()}
    # The holder keeps its own running statistics along the derivative: they are no parameters.
    there = {**here, **{name: _wide(merged[name]).to(here[name].device) for name in names}}
    ahead, behind = lerp(here, there, _STEP), lerp(here, there, -_STEP)
    whole = {name: _wide(tensor) for name, tensor in merged.items()}
    like = next(here[name] for name in names)
    totals = torch.zeros(3, dtype=torch.float64)
    for batch in inputs.split(batch_size):
        moved = batch.to(like) if batch.is_floating_point() else batch.to(like.device)
        now = _logits(network(here, moved))
        slope = (_logits(network(ahead, moved)) - _logits(network(behind, moved))) / (2 * _STEP)
        shares = now.softmax(1)
        variance = (shares * slope.square()).sum(1) - (shares * slope).sum(1).square()
        before = now.argmax(1)
        totals += torch.stack([
            0.5 * variance.sum().double().cpu(),
            ((now + slope).argmax(1) != before).sum().double().cpu(),
            (_logits(network(whole, moved)).argmax(1) != before).sum().double().cpu(),
        ])  # fmt: skip
    return dict(zip(FROM_INPUTS, (totals / len(inputs)).tolist(), strict=True))


def _logits(outputs: Any) -> Tensor:
    found = answers(outputs)
    if not isinstance(found, Tensor) or found.dim() != 2:
        given = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise SettingError(f"scores from inputs need outputs of shape (examples, classes), got {given}; give no inputs")
    return found.float() if found.dtype in (torch.float16, torch.bfloat16) else found


def _wide(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def _statistic(name: str, endings: Collection[str] = ("running_mean", "running_var")) -> bool:
    return name.rpartition(".")[2] in endings
