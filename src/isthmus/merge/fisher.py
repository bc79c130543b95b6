"""Averaging in which every entry counts as much as its solution is sure of it: the diagonal Fisher information."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

from isthmus.core.errors import DataError, SettingError, WeightsError
from isthmus.core.losses import IGNORED, answers
from isthmus.core.objective import Objective
from isthmus.core.randomness import child
from isthmus.core.weights import Weights
from isthmus.merge.merger import average, check_solutions, check_weights, merge_tensors

Labels = Literal["data", "sampled", "expected"]


@dataclasses.dataclass(frozen=True, eq=False)
class Fisher:
    """Σ wᵢ·Fᵢ·solutionᵢ / Σ wᵢ·Fᵢ, entry by entry, with Fᵢ the diagonal Fisher information of solution i.

    Attributes:
        objectives: the data of each solution, in the same order (one for all is allowed).
        labels: what the gradients' labels are; see :func:`diagonal_fisher`.
        examples: how many examples of each objective are used at most.
        weights: one for each solution; all 1 by default.
        floor: added to every Fᵢ, relative to the mean of all; where no solution is sure, the plain average comes out.
        seed: of sampled labels.

    Buffers and tensors without gradient are averaged.

    Reference: Matena and Raffel, "Merging models with Fisher-weighted averaging" (2111.09832). The floor is
        relative, so that the scale of the loss does not matter.

    Cost: one backward pass for each example (and class, for expected labels) of each solution.
    """

    objectives: Objective | Sequence[Objective]
    labels: Labels = "expected"
    examples: int = 1024
    weights: tuple[float, ...] | None = None
    floor: float = 1e-6
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.floor > 0:
            raise SettingError(f"floor must be above 0, or entries that nobody uses are 0/0, got {self.floor}")

    def __call__(self, solutions: Sequence[Weights]) -> dict[str, Tensor]:
        """Merge."""
        check_solutions(solutions)
        shares = check_weights(self.weights, solutions, normalised=False)
        informations = [
            diagonal_fisher(objective, weights, labels=self.labels, examples=self.examples, seed=self.seed)
            for objective, weights in zip(each_objective(self.objectives, solutions), solutions, strict=True)
        ]
        return self.weighted(solutions, informations, shares)

    def weighted(
        self, solutions: Sequence[Weights], informations: Sequence[Mapping[str, Tensor]], shares: Sequence[float]
    ) -> dict[str, Tensor]:
        """Merge with given diagonals: one non-negative tensor for each parameter."""
        # One floor for all, or the plain average would not be what is left where nobody is sure.
        floor = max(self.floor * sum(_mean(information) for information in informations) / len(informations), 1e-30)

        def rule(name: str, tensors: list[Tensor]) -> Tensor:
            if name not in informations[0]:
                return average(tensors, shares)
            factors = [
                share * (information[name].to(tensor) + floor)
                for tensor, information, share in zip(tensors, informations, shares, strict=True)
            ]
            total = torch.stack([tensor * factor for tensor, factor in zip(tensors, factors, strict=True)]).sum(0)
            return total / torch.stack(factors).sum(0)

        return merge_tensors(solutions, rule)


def diagonal_fisher(
    objective: Objective, weights: Weights, *, labels: Labels = "expected", examples: int = 1024, seed: int = 0
) -> dict[str, Tensor]:
    """The mean over examples of the squared gradient of the loss, entry by entry, in at least float32.

    Args:
        objective: network, data and a loss that is a negative log-likelihood.
        weights: where.
        labels: ``expected`` takes the network's own distribution over all classes, exactly; ``sampled`` draws one label
            from it; ``data`` takes the data's labels (the empirical Fisher, which is another matrix).
        examples: the first so many are used; of these, ones whose labels are all −100 count nowhere.
        seed: of drawn labels.

    Raises:
        SettingError: class distributions are asked of a network whose output is not (examples, classes).
        DataError: no label counts.

    Reference: Kunstner et al., "Limitations of the empirical Fisher approximation" (1905.12558), for the difference.
    """
    if labels not in ("data", "sampled", "expected"):
        raise SettingError(f"labels must be data, sampled or expected, got {labels}")
    limited = objective.limited(examples)
    wide = {
        name: tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor
        for name, tensor in weights.items()
    }
    generator = child(seed, "fisher")
    total: dict[str, Tensor] = {}
    count = 0
    like = next(tensor for tensor in wide.values() if tensor.is_floating_point())
    for inputs, targets in limited.batches():
        counting = _counting(targets)
        targets = targets[counting].to(like.device)  # noqa: PLW2901
        if not len(targets):
            continue
        parts = tuple(part[counting] for part in inputs)
        parts = tuple(part.to(like) if part.is_floating_point() else part.to(like.device) for part in parts)
        for labelled, shares in _labelled(limited, wide, (parts, targets), labels, generator):
            squares = _squared_gradients(limited, wide, parts, labelled, shares)
            total = {name: total[name] + square if name in total else square for name, square in squares.items()}
        count += len(targets)
    if not count:
        raise DataError("a Fisher information needs at least one label that counts, but all are −100")
    return {name: square / count for name, square in total.items()}


def each_objective(objectives: Objective | Sequence[Objective], solutions: Sequence[Weights]) -> list[Objective]:
    """One objective for each solution.

    Raises:
        WeightsError: another number.
    """
    found = [objectives] * len(solutions) if isinstance(objectives, Objective) else list(objectives)
    if len(found) != len(solutions):
        raise WeightsError(f"data must be given for each of {len(solutions)} solutions, got {len(found)}")
    return found


def _counting(targets: Tensor) -> Tensor:
    """Which examples have a label that counts."""
    if targets.is_floating_point():
        return torch.ones(len(targets), dtype=torch.bool, device=targets.device)
    return (targets.reshape(len(targets), -1) != IGNORED).any(1)


def _labelled(
    objective: Objective,
    weights: Weights,
    batch: tuple[tuple[Tensor, ...], Tensor],
    labels: Labels,
    generator: torch.Generator,
) -> list[tuple[Tensor, Tensor]]:
    """Labels for one batch, and the probability that each example's counts with."""
    inputs, targets = batch
    ones = torch.ones(len(targets), device=targets.device)
    if labels == "data":
        return [(targets, ones)]
    with torch.no_grad():
        logits = answers(objective.network(weights, *inputs))
    classes = targets.dim() == 1 and not targets.is_floating_point()
    if not classes or not isinstance(logits, Tensor) or logits.dim() != 2:
        given = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise SettingError(
            f"expected or sampled labels need outputs of shape (examples, classes) and one class for each example, got "
            f"{given} and targets {tuple(targets.shape)} of {targets.dtype}; use labels='data'"
        )
    probabilities = logits.to(torch.promote_types(logits.dtype, torch.float32)).softmax(1)
    if labels == "sampled":
        drawn = torch.multinomial(probabilities.cpu(), 1, generator=generator).squeeze(1)
        return [(drawn.to(targets.device), ones)]
    return [(torch.full_like(targets, c), probabilities[:, c]) for c in range(probabilities.shape[1])]


def _squared_gradients(
    objective: Objective, weights: Weights, inputs: tuple[Tensor, ...], targets: Tensor, shares: Tensor
) -> dict[str, Tensor]:
    """Σ over examples of share·gradient²."""
    names = objective.network.parameter_names
    chosen = {name: weights[name].detach() for name in names}
    fixed = {name: tensor.detach() for name, tensor in weights.items() if name not in chosen}

    def loss(parameters: dict[str, Tensor], example: tuple[Tensor, ...], target: Tensor) -> Tensor:
        outputs = objective.network({**fixed, **parameters}, *(part[None] for part in example))
        return objective.loss(outputs, target[None]).sum()

    gradient = torch.func.grad(loss)
    sums = {name: torch.zeros_like(tensor) for name, tensor in chosen.items()}
    # As many examples at once as keep their gradients within about 64 million entries.
    step = max(1, int(6.4e7 // max(1, sum(tensor.numel() for tensor in chosen.values()))))
    for first in range(0, len(targets), step):
        part = slice(first, first + step)
        examples = tuple(tensor[part] for tensor in inputs)
        try:
            many = torch.func.vmap(gradient, in_dims=(None, 0, 0))(chosen, examples, targets[part])
        except (RuntimeError, NotImplementedError):  # a module that cannot be vectorised
            each = [
                gradient(chosen, tuple(tensor[i] for tensor in examples), targets[part][i])
                for i in range(len(targets[part]))
            ]
            many = {name: torch.stack([one[name] for one in each]) for name in names}
        for name, gradients in many.items():
            sums[name] += torch.einsum("e,e...->...", shares[part].to(gradients), gradients.square())
    return sums


def _mean(information: Mapping[str, Tensor]) -> float:
    entries = sum(tensor.numel() for tensor in information.values())
    return sum(float(tensor.double().sum()) for tensor in information.values()) / max(1, entries)
