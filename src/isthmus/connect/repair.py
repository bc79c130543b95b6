"""REPAIR: give a mixed network's hidden units the statistics that they would have without collapse.

The average of two units with equal deviation σ and correlation ρ has variance σ²(1+ρ)/2. Where units agree only in
part, activations of a merged network shrink, more with every layer, until its outputs no longer depend on its inputs.

Reference: Jordan, Sedghi, Saukh, Entezari and Neyshabur, "REPAIR: REnormalizing Permuted Activations for Interpolation
Repair", arXiv 2211.08403, equations 3 and 4. Different here: works on any module by rescaling its own weights and
biases, inserts no layers, and layers with running statistics get these estimated anew instead.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from isthmus.connect.known import Known
from isthmus.connect.layers import Inputs, Writer, called, hidden_writers, statistics_layers
from isthmus.connect.layers import writer as writer_of
from isthmus.connect.normalisation import Goal, Moments, moments_of, settle
from isthmus.core.errors import SettingError
from isthmus.core.network import Network
from isthmus.core.record import Record
from isthmus.core.weights import Weights


@dataclasses.dataclass(frozen=True, eq=False)
class Repair:
    """A repair made ready for any mixture of the same parents: their statistics are measured once.

    Made by :meth:`between`; called with mixed weights and the parents' shares in them.
    """

    network: Network
    inputs: Inputs
    writers: tuple[Writer, ...]
    moments: tuple[Mapping[str, Moments], ...]
    rescale_only: bool
    batch_size: int
    sequential: bool

    @classmethod
    def between(
        cls,
        network: Network,
        parents: Sequence[Weights],
        inputs: Inputs,
        *,
        layers: Sequence[str] | None = None,
        rescale_only: bool = False,
        batch_size: int = 1000,
        sequential: bool = False,
        known: Known | None = None,
    ) -> Repair:
        """Measure the parents' preactivations, if they are not known. For the other arguments see :func:`repair`.

        Raises:
            SettingError: no parents.
        """
        if not parents:
            raise SettingError("a repair needs at least one parent, got none")
        known = known or Known()
        writers = known("writers", parents[0], lambda: hidden_writers(network, parents[0], inputs, layers))
        moments = tuple(
            known("moments", weights, lambda w=weights: moments_of(network, w, inputs, writers, batch_size=batch_size))
            for weights in parents
        )
        return cls(network, inputs, writers, moments, rescale_only, batch_size, sequential)

    @property
    def layers(self) -> tuple[str, ...]:
        """What is treated: repaired layers and layers whose running statistics are estimated anew."""
        treated = {*(writer.name for writer in self.writers), *statistics_layers(self.network)}
        return tuple(name for name in self.network.modules() if name in treated)

    def __call__(self, weights: Weights, shares: Sequence[float]) -> dict[str, Tensor]:
        """The repaired weights of a mixture with these shares of the parents."""
        goals: dict[Writer, Goal] = {}
        for writer in self.writers:
            mean, deviation = (
                torch.stack(
                    [share * getattr(m[writer.name], part) for share, m in zip(shares, self.moments, strict=True)]
                )
                for part in ("mean", "deviation")
            )
            goals[writer] = (None if self.rescale_only else mean.sum(0), deviation.sum(0))
        return settle(self.network, weights, self.inputs, goals, batch_size=self.batch_size, sequential=self.sequential)


def repair(
    network: Network,
    merged: Weights,
    parents: Sequence[Weights],
    inputs: Inputs,
    *,
    shares: Sequence[float] | None = None,
    layers: Sequence[str] | None = None,
    rescale_only: bool = False,
    batch_size: int = 1000,
    sequential: bool = False,
) -> dict[str, Tensor]:
    """Give each hidden unit of merged weights the mix of its parents' preactivation mean and deviation.

    The correction is folded into each layer's own weight and bias, so the result is an ordinary state dict. Layers
    without a bias are only rescaled: their mean cannot be moved. Running statistics are estimated anew in the same
    pass.

    Args:
        network: any module with linear or convolutional layers.
        merged: the weights to repair.
        parents: what was merged, aligned as it was for merging.
        inputs: training inputs, examples first.
        shares: the parents' shares; equal by default.
        layers: which layers; by default every hidden one (see :func:`isthmus.connect.layers.hidden_writers`).
        rescale_only: leave the means and correct the deviations only: preactivations are multiplied by one factor.
        batch_size: examples at once.
        sequential: layer after layer, exact for any batch size; one pass treats all layers by their batch's statistics
            and is exact when all inputs are one batch.

    Raises:
        SettingError: shares do not fit, or a named layer cannot be repaired.

    Cost: one pass over ``inputs`` for each parent and one for the merged weights (``sequential``: one for each layer).

    Example:
        >>> from isthmus.connect import Line
        >>> make = lambda: torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
        >>> network, other = Network.of(make()), Network.of(make())
        >>> middle = Line(network.weights, other.weights)(0.5)
        >>> fixed = repair(network, middle, [network.weights, other.weights], torch.randn(50, 3))
        >>> torch.equal(fixed["0.weight"], middle["0.weight"]), torch.equal(fixed["2.weight"], middle["2.weight"])
        (False, True)
    """
    shares = [1 / len(parents)] * len(parents) if shares is None else list(shares)
    if len(shares) != len(parents) or abs(sum(shares) - 1.0) > 1e-6:
        raise SettingError(f"shares must be one for each of {len(parents)} parents and sum to 1, got {shares}")
    made = Repair.between(
        network,
        parents,
        inputs,
        layers=layers,
        rescale_only=rescale_only,
        batch_size=batch_size,
        sequential=sequential,
    )
    return made(merged, shares)


@dataclasses.dataclass(frozen=True, eq=False)
class VarianceRatios(Record):
    """Why an average collapsed: how much of its parents' variance each layer keeps.

    Attributes:
        layers: linear and convolutional layers in the order of their calls.
        ratio: variance of the preactivations of the merged network over its parents' mean variance, both summed over
            units: 1 where nothing collapses, ½ where two parents' units are uncorrelated in this layer alone.
    """

    layers: tuple[str, ...]
    ratio: Float[Tensor, " layers"]


def variance_ratios(
    network: Network,
    merged: Weights,
    parents: Sequence[Weights],
    inputs: Inputs,
    *,
    shares: Sequence[float] | None = None,
    batch_size: int = 1000,
) -> VarianceRatios:
    """Compare the variance of preactivations, layer by layer, with the parents'.

    Running statistics are taken as they stand in ``merged``.

    Reference: Jordan et al., arXiv 2211.08403, figure 2.
    """
    shares = [1 / len(parents)] * len(parents) if shares is None else list(shares)
    names = [name for name in network.modules() if name and writer_of(network, name) is not None]
    writers = [writer_of(network, name) for name in called(network, merged, inputs, names)]
    known = [writer for writer in writers if writer is not None]
    now = moments_of(network, merged, inputs, known, batch_size=batch_size)
    before = [moments_of(network, weights, inputs, known, batch_size=batch_size) for weights in parents]
    ratios = [
        now[writer.name].variance.sum()
        / sum(share * m[writer.name].variance.sum() for share, m in zip(shares, before, strict=True))
        for writer in known
    ]
    ratio = torch.stack([torch.as_tensor(value) for value in ratios]) if ratios else torch.empty(0)
    return VarianceRatios(tuple(writer.name for writer in known), ratio)
