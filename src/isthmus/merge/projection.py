"""Merging one solution after the other: of each change only what is new, seen from the changes merged before."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from isthmus.core.weights import Weights
from isthmus.merge.fitting import running_statistic
from isthmus.merge.merger import check_share, check_solutions, merge_tensors, tied


@dataclasses.dataclass(frozen=True)
class OrthogonalProjection:
    """Add each task vector without its part in the subspace of those merged before it.

    With M = U·S·Vᵀ the merged change of a matrix so far and r the number of its singular directions whose values make
    up ``share`` of their sum, a new change τ loses its components on uᵢvⱼᵀ for i, j ≤ r and on uᵢvᵢᵀ for all i. The sum
    is then scaled, over the whole model, to the mean length of the task vectors seen so far, so that many merges do not
    carry the network away. The order of the solutions matters: the first is kept as it is.

    Attributes:
        share: of the sum of singular values whose directions are protected, α in the paper; larger values protect more
            of what was merged before and let less of what is new in. r is the fewest whose values reach it; the
            authors' code stops one direction before.
        scale: factor of the merged task vector (λ).

    Reference: Tang et al., "Merging models on the fly without retraining" (2501.09522), sections 4.1 and 4.2. There
        only the weights of linear layers are projected; here all matrices are (kernels with one row for each output
        channel), and vectors count as matrices of one column, so that merging a solution with itself gives it back.

    Cost: one singular value decomposition of each matrix for every solution after the first.

    Example:
        >>> base = {"w": torch.zeros(2, 2)}
        >>> first, second = {"w": torch.tensor([[4.0, 0.0], [0.0, 0.0]])}, {"w": torch.tensor([[1.0, 0.0], [0.0, 4.0]])}
        >>> OrthogonalProjection()([first, second], base=base)["w"]  # only the second's new direction is added
        tensor([[2.8720, 0.0000],
                [0.0000, 2.8720]])
    """

    share: float = 0.5
    scale: float = 1.0

    def __post_init__(self) -> None:
        check_share("share", self.share)

    def __call__(self, solutions: Sequence[Weights], *, base: Weights) -> dict[str, Tensor]:
        """Merge."""
        changes = self.change(solutions, base=base)
        return merge_tensors(
            solutions,
            lambda name, tensors: tensors[-1] + self.scale * changes[name].to(tensors[-1]),
            base=base,
        )

    def change(self, solutions: Sequence[Weights], *, base: Weights) -> dict[str, Tensor]:
        """The merged task vector before ``scale``, in float64 where the device has it."""
        check_solutions(solutions, base=base)
        twice = tied(*solutions, base)
        names = [n for n, t in base.items() if t.is_floating_point() and not running_statistic(n) and n not in twice]
        vectors = [{name: _difference(weights[name], base[name]) for name in names} for weights in solutions]
        total, factor, lengths = vectors[0], 1.0, [_length(vectors[0])]
        for vector in vectors[1:]:
            # The scale of the earlier merges is taken back before the new change is added, as in the paper.
            sums = {name: factor * total[name] + self._new(vector[name], total[name]) for name in names}
            lengths.append(_length(vector))
            aim, length = sum(lengths) / len(lengths), _length(sums)
            factor = length / aim if aim > 0 and length > 0 else 1.0
            total = {name: tensor / factor for name, tensor in sums.items()}
        return {**total, **{name: total[first] for name, first in twice.items()}}

    def _new(self, vector: Tensor, merged: Tensor) -> Tensor:
        """What of a change lies outside the subspace of the merged one."""
        if vector.numel() == 0 or not bool(merged.any()):
            return vector
        matrix, before = (tensor.reshape(len(tensor), -1) if tensor.dim() else tensor.reshape(1, 1)
                          for tensor in (vector, merged))  # fmt: skip
        left, values, right = torch.linalg.svd(before, full_matrices=False)
        inside = left.mT @ matrix @ right.mT
        rank = _rank(values, self.share)
        removed = torch.diag(inside.diagonal())
        removed[:rank, :rank] = inside[:rank, :rank]
        # Directions that the merged change does not have are no subspace of it, whatever their singular vectors say.
        held = values > values[0] * max(before.shape) * torch.finfo(values.dtype).eps
        removed *= held[:, None] * held[None, :]
        return (matrix - left @ removed @ right).reshape(vector.shape)


def _rank(values: Tensor, share: float) -> int:
    """How many of the largest singular values make up a share of their sum."""
    sums = values.cumsum(0) / values.sum()
    return min(len(values), int((sums < share - 1e-12).sum()) + 1)


def _difference(tensor: Tensor, origin: Tensor) -> Tensor:
    # Singular vectors of what is nearly zero are noise in single precision.
    kind = torch.float32 if tensor.device.type == "mps" else torch.float64
    return tensor.detach().to(kind) - origin.detach().to(device=tensor.device, dtype=kind)


def _length(vector: Mapping[str, Tensor]) -> float:
    return math.sqrt(sum(float(tensor.square().sum()) for tensor in vector.values()))
