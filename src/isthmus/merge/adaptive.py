"""Merging coefficients learned without labels: those that make the merged network sure of its answers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from isthmus.core.errors import SettingError
from isthmus.core.losses import answers
from isthmus.core.network import Network
from isthmus.core.progress import Progress, silent
from isthmus.core.randomness import child
from isthmus.core.record import Record
from isthmus.core.status import Status
from isthmus.core.weights import Weights, to
from isthmus.merge.fitting import running_statistic
from isthmus.merge.merger import check_solutions, merge_tensors, tied


@dataclasses.dataclass(frozen=True)
class Coefficients(Record):
    """What was learned.

    Attributes:
        values: the factor of each solution's task vector in each tensor, shape (tensors, solutions).
        tensors: the tensors' names, of tied ones the first; the single entry ``*`` where one factor holds for all.
        entropy_before: mean entropy of the predictions in nats with the first coefficients.
        entropy_after: with the learned ones.
        status: DIVERGED where the entropy did not stay finite; otherwise STOPPED, as the number of steps is fixed.
    """

    values: Tensor
    tensors: tuple[str, ...]
    entropy_before: float
    entropy_after: float
    status: Status


@dataclasses.dataclass(frozen=True, eq=False)
class AdaMerging:
    """base + Σ λᵢ,ₗ(solutionᵢ − base) in tensor l, with the λ that make the predictions on unlabelled inputs surest.

    Low entropy is not accuracy: a collapsed network that always gives one class has the lowest of all. Check the result
    on held-out labels.

    Attributes:
        network: what the weights are of; its outputs are class scores, classes last.
        inputs: unlabelled examples, first axis; a tuple for networks of several inputs.
        per: one coefficient for each ``tensor`` and solution, or one for each ``solution``.
        start: the first value of every coefficient.
        steps: of Adam.
        rate: its learning rate.
        batch_size: examples for one step.
        seed: of the batches.

    Reference: Yang et al., "AdaMerging: adaptive model merging for multi-task learning" (2310.02575): task-wise and
        layer-wise coefficients, with its start of 0.3; one for each tensor here. The coefficients are free, where the
        authors' code clips them to [0, 1]; its loss is the sum over tasks of the mean entropy on each one's own inputs,
        which is this one where ``inputs`` hold equally many of each task.

    Cost: one forward and backward pass for each step; all solutions and the base in memory.
    """

    network: Network
    inputs: Tensor | tuple[Tensor, ...]
    per: Literal["tensor", "solution"] = "tensor"
    start: float = 0.3
    steps: int = 200
    rate: float = 1e-2
    batch_size: int = 128
    seed: int = 0

    def __post_init__(self) -> None:
        if self.per not in ("tensor", "solution"):
            raise SettingError(f"per must be tensor or solution, got {self.per}")
        if self.steps < 1 or self.batch_size < 1:
            raise SettingError(f"steps and batch_size must be at least 1, got {self.steps} and {self.batch_size}")

    def __call__(self, solutions: Sequence[Weights], *, base: Weights) -> dict[str, Tensor]:
        """Merge."""
        return self.apply(self.learn(solutions, base=base), solutions, base=base)

    def apply(self, found: Coefficients, solutions: Sequence[Weights], *, base: Weights) -> dict[str, Tensor]:
        """Merge with coefficients that were learned already."""
        check_solutions(solutions, base=base)
        rows = {name: found.values[place] for place, name in enumerate(found.tensors)}

        def rule(name: str, tensors: list[Tensor]) -> Tensor:
            *wide, origin = tensors
            factors = rows.get(name, rows.get("*"))
            assert factors is not None
            return torch.stack([origin, *(f * (t - origin) for f, t in zip(factors.tolist(), wide, strict=True))]).sum(
                0
            )

        return merge_tensors(solutions, rule, base=base)

    def learn(self, solutions: Sequence[Weights], *, base: Weights, progress: Progress = silent) -> Coefficients:
        """Learn the coefficients."""
        check_solutions(solutions, base=base)
        twice = tied(*solutions, base)
        names = [n for n, t in base.items() if t.is_floating_point() and not running_statistic(n) and n not in twice]
        kind = {name: torch.promote_types(base[name].dtype, torch.float32) for name in names}
        origin = {name: base[name].detach().to(kind[name]) for name in names}
        vectors = {n: torch.stack([s[n].detach().to(origin[n]) - origin[n] for s in solutions]) for n in names}
        rest = [{n: t for n, t in s.items() if n not in origin and n not in twice} for s in solutions]
        # Of one precision with the parameters, or no batch normalisation takes them.
        fixed = to(merge_tensors(rest, _first_mean), dtype=next(iter(kind.values())))
        rows = len(names) if self.per == "tensor" else 1
        like = next(iter(origin.values()))
        values = torch.full(
            (rows, len(solutions)), self.start, dtype=like.dtype, device=like.device, requires_grad=True
        )

        def factors(row: int, name: str) -> Tensor:
            return values[row if rows > 1 else 0].to(vectors[name])

        def entropy(batch: tuple[Tensor, ...]) -> Tensor:
            merged = {
                name: origin[name] + torch.einsum("s,s...->...", factors(row, name), vectors[name])
                for row, name in enumerate(names)
            }
            merged |= {name: merged[first] for name, first in twice.items()}
            return _entropy(self.network({**fixed, **merged}, *batch))

        parts = self.inputs if isinstance(self.inputs, tuple) else (self.inputs,)
        parts = tuple(part.to(like) if part.is_floating_point() else part.to(like.device) for part in parts)
        before = self._over_all(entropy, parts)
        optimiser = torch.optim.Adam([values], lr=self.rate)
        generator = child(self.seed, "adaptive merging")
        for step in range(self.steps):
            drawn = torch.randint(len(parts[0]), (self.batch_size,), generator=generator).to(like.device)
            optimiser.zero_grad()
            entropy(tuple(part[drawn] for part in parts)).backward()
            optimiser.step()
            progress(step + 1, self.steps, "coefficients")
        after = self._over_all(entropy, parts)
        status = Status.STOPPED if bool(values.isfinite().all()) else Status.DIVERGED
        tensors = tuple(names) if self.per == "tensor" else ("*",)
        return Coefficients(values.detach(), tensors, before, after, status)

    def _over_all(self, entropy: Callable[[tuple[Tensor, ...]], Tensor], parts: tuple[Tensor, ...]) -> float:
        total = 0.0
        with torch.no_grad():
            for first in range(0, len(parts[0]), self.batch_size):
                batch = tuple(part[first : first + self.batch_size] for part in parts)
                total += float(entropy(batch)) * len(batch[0])
        return total / len(parts[0])


def _entropy(outputs: Any) -> Tensor:
    """Mean entropy of the class distributions, in nats."""
    logits = answers(outputs)
    logarithms = logits.float().log_softmax(-1) if logits.dtype != torch.float64 else logits.log_softmax(-1)
    return -(logarithms.exp() * logarithms).sum(-1).mean()


def _first_mean(_: str, tensors: list[Tensor]) -> Tensor:
    return torch.stack(tensors).mean(0)
