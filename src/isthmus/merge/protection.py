"""Keep what is shared, protect what is specific: average most entries, hand some over whole."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor

from isthmus.core.weights import Weights
from isthmus.merge.fitting import running_statistic
from isthmus.merge.kernels import kept_of
from isthmus.merge.merger import average, check_share, check_solutions, check_weights, merge_tensors, tied
from isthmus.merge.task_vectors import largest_entries, widened


@dataclasses.dataclass(frozen=True, eq=False)
class ProtectSpecific:
    """The mean change everywhere, but for the entries that one solution cannot do without: these it keeps.

    An entry of solution i is *specific* if its saliency sᵢ = Fᵢ·τᵢ² is among the largest ``protected`` share of that
    solution's entries, over the whole model: to second order ½·sᵢ is what the solution's loss rises by if the entry
    goes back to the base. An entry that is specific to one solution takes that solution's change whole; where several
    claim it, the mean of their changes weighted by saliency; all others take scale·Σ wᵢτᵢ / Σ wᵢ.

    Attributes:
        protected: share of each solution's entries that is protected, 0 to 1.
        scale: factor of the mean change in all other entries.
        weights: of the mean, one for each solution; all 1 by default.
        importances: the diagonal Fᵢ of each solution's Fisher information (see :func:`diagonal_fisher`), or ``None``
            for Fᵢ = 1: then the largest changes are protected.

    Without a base the changes are seen from the solutions' mean; the shared part is then that mean.

    Reference: LeCun, Denker and Solla, "Optimal brain damage" (1990), for the saliency; Matena and Raffel (2111.09832)
        for the Fisher information as a task's curvature; He et al., "Localize-and-stitch" (2408.13656), for handing
        over small sets of entries whole. That the other entries are averaged, not left out, is ours.

    Cost: a sort of each solution's entries.

    Example:
        >>> base = {"w": torch.zeros(4)}
        >>> one, other = {"w": torch.tensor([8.0, 1.0, 2.0, 0.0])}, {"w": torch.tensor([0.0, 1.0, 2.0, 6.0])}
        >>> ProtectSpecific(protected=0.25)([one, other], base=base)["w"]
        tensor([8., 1., 2., 6.])
    """

    protected: float = 0.1
    scale: float = 1.0
    weights: tuple[float, ...] | None = None
    importances: Sequence[Mapping[str, Tensor]] | None = None

    def __post_init__(self) -> None:
        check_share("protected", self.protected, zero=True)

    def __call__(self, solutions: Sequence[Weights], *, base: Weights | None = None) -> dict[str, Tensor]:
        """Merge."""
        check_solutions(solutions, base=base)
        shares = check_weights(self.weights, solutions, normalised=True)
        origin = _middle(solutions) if base is None else base
        twice = tied(*solutions, origin)
        saliencies = [self._saliency(place, weights, origin, twice) for place, weights in enumerate(solutions)]

        def rule(name: str, tensors: list[Tensor]) -> Tensor:
            *wide, start = tensors
            changes = [tensor - start for tensor in wide]
            shared = start + self.scale * average(changes, shares)
            if name not in saliencies[0]:
                return shared
            claims = torch.stack([saliency[name].to(start) for saliency in saliencies])
            total = claims.sum(0)
            own = (claims * torch.stack(changes)).sum(0) / torch.where(total > 0, total, 1.0)
            return torch.where(total > 0, start + own, shared)

        return merge_tensors(solutions, rule, base=origin)

    def _saliency(self, place: int, weights: Weights, origin: Weights, twice: Collection[str]) -> dict[str, Tensor]:
        """Saliencies of the protected entries, zero for all others; only of tensors that have any importance."""
        known = None if self.importances is None else self.importances[place]
        found = {}
        for name, tensor in weights.items():
            if not tensor.is_floating_point() or running_statistic(name) or name in twice:
                continue
            if known is not None and name not in known:
                continue
            squares = (widened(tensor) - widened(origin[name]).to(tensor.device)).square()
            found[name] = squares if known is None else squares * known[name].to(squares)
        if not found:
            return found
        flat = torch.cat([saliency.flatten() for saliency in found.values()])
        flat = (
            flat * largest_entries(flat, kept_of(flat.numel(), self.protected))
            if self.protected
            else torch.zeros_like(flat)
        )
        parts = flat.split([saliency.numel() for saliency in found.values()])
        return {name: part.view_as(found[name]) for name, part in zip(found, parts, strict=True)}


def _middle(solutions: Sequence[Weights]) -> dict[str, Tensor]:
    """The solutions' mean, not rounded to their own precision: changes from it are small beside it."""
    return {
        name: average([widened(weights[name]).to(first.device) for weights in solutions])
        if first.is_floating_point()
        else first
        for name, first in solutions[0].items()
    }
