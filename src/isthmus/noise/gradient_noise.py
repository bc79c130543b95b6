"""The noise in the gradient: how large, in which directions, in which layers, from which examples."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Mapping

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from isthmus.core.errors import DataError, WeightsError
from isthmus.core.objective import Objective
from isthmus.core.operator import Operator
from isthmus.core.randomness import child
from isthmus.core.record import Record
from isthmus.core.statistics import spearman
from isthmus.core.weights import Weights
from isthmus.noise.per_example import PerExampleGradients


@dataclasses.dataclass(frozen=True)
class LayerSignal(Record):
    """Signal and noise of the gradient in one layer.

    Attributes:
        gradient_norm: length of the mean gradient.
        variance: trace of the covariance of single gradients.
        signal_to_noise: squared length of the mean over its own variance, without the bias that noise adds to a length;
            0 where noise explains all of it, 1 where they are equal.
    """

    gradient_norm: float
    variance: float
    signal_to_noise: float


@dataclasses.dataclass(frozen=True)
class InEigenbasis(Record):
    """The noise seen in the Hessian's eigenbasis.

    Attributes:
        values: the Hessian's eigenvalues that were given.
        noise: C_i = q_iᵀ·C·q_i along each of their vectors.
        share: Σ C_i over the trace of C.
        inside: for each vector, the share of its square in the span of the covariance's leading vectors.
        expected_inside: that share for a random vector.
        rank_correlation: Spearman's between the eigenvalues and the noise; NaN for fewer than three. 1 says that noise
            grows with curvature, as label noise makes it.
    """

    values: Float[Tensor, " pairs"]
    noise: Float[Tensor, " pairs"]
    share: float
    inside: Float[Tensor, " pairs"]
    expected_inside: float
    rank_correlation: float


@dataclasses.dataclass(frozen=True)
class GradientNoise(Record):
    """What single examples disagree about.

    Attributes:
        total: the whole gradient's signal and noise.
        layers: the same by layer.
        noise_scale: trace of the covariance over the squared length of the true gradient, in examples: the batch size
            at which noise and signal are equal. Below it, doubling the batch nearly halves the steps; above it, it buys
            little. Infinite where the gradient cannot be told from zero (as at a minimum).
        values: leading eigenvalues of the covariance, descending.
        vectors: their unit vectors.
        eigenbasis: the noise in the Hessian's eigenbasis, if that was given.
        class_share: for labels, every class's share of the noise; ``None`` for other targets.
        example_share: every example's share of the noise; the mean is 1/examples.
        examples: how many there are.
    """

    total: LayerSignal
    layers: Mapping[str, LayerSignal]
    noise_scale: float
    values: Float[Tensor, " leading"]
    vectors: Float[Tensor, "size leading"] = dataclasses.field(metadata={"record": False}, repr=False)
    eigenbasis: InEigenbasis | None
    class_share: Float[Tensor, " classes"] | None
    example_share: Float[Tensor, " examples"]
    examples: int

    def loudest(self, most: int = 10) -> Int[Tensor, " most"]:
        """The examples with the largest shares, first the largest: whose labels to check first."""
        return self.example_share.argsort(descending=True, stable=True)[:most]


def gradient_noise(
    objective: Objective,
    weights: Weights,
    *,
    eigenbasis: tuple[Float[Tensor, " pairs"], Float[Tensor, "size pairs"]] | None = None,
    leading: int = 10,
    tensors: Collection[str] | None = None,
    dtype: torch.dtype | None = None,
    memory: int = 2**30,
) -> GradientNoise:
    """Measure the covariance of single examples' gradients: trace, leading vectors, layers, classes, examples.

    In evaluation mode: BatchNorm's statistics are fixed, so that an example has a gradient of its own.

    Args:
        objective: network, data and loss.
        weights: where.
        eigenbasis: eigenvalues and unit vectors (columns) of the Hessian at the same place and of the same ``tensors``.
        leading: how many vectors of the covariance to find.
        tensors: those that vary; all trainable ones by default.
        dtype: working precision; by default the weights' own, but at least float32.
        memory: bytes of gradients that may be kept; where they do not fit every product computes them again.

    Raises:
        DataError: fewer than two examples.
        WeightsError: vectors of another size.

    Cost: two passes of single gradients, and where they are not kept one pass for every Lanczos product (20 to 60).

    Reference: McCandlish et al., "An empirical model of large-batch training", arXiv 1812.06162, equation 2.8 (noise
        scale) and appendix A.1 (its bias); the leading vectors by ARPACK's Lanczos.

    Example:
        >>> from isthmus.core.network import Network
        >>> network = Network.of(torch.nn.Linear(2, 3))
        >>> objective = Objective(network, torch.randn(50, 2), torch.arange(50) % 3)
        >>> len(gradient_noise(objective, network.weights).loudest(5))
        5
    """
    if len(objective.targets) < 2:
        raise DataError("gradient noise needs at least 2 examples, got 1")
    gradients = PerExampleGradients.at(objective, weights, tensors=tensors, dtype=dtype, memory=memory)
    mean = gradients.mean()
    by_tensor = _squares(gradients, mean)
    each = by_tensor.sum(1)
    variance = by_tensor.sum(0) / (gradients.examples - 1)
    total = _signal(float(mean.square().sum()), float(variance.sum()), gradients.examples)
    covariance = gradients.covariance(mean)
    values, vectors = _leading(covariance, min(leading, gradients.examples - 1, gradients.size))
    found = None if eigenbasis is None else _in_eigenbasis(covariance, *eigenbasis, vectors, total.variance)
    shares = each / each.sum().clamp(min=1e-300)
    scale = gradients.examples / total.signal_to_noise if total.signal_to_noise > 0 else math.inf
    by_class = _by_class(objective.targets, shares)
    layers = _by_layer(gradients, mean, variance)
    return GradientNoise(total, layers, scale, values, vectors, found, by_class, shares, gradients.examples)


def _squares(gradients: PerExampleGradients, mean: Tensor) -> Float[Tensor, "examples tensors"]:
    """Squared deviations from the mean gradient, by example and tensor."""
    places = gradients.places().values()
    rows = []
    for chunk in gradients.chunks():
        square = (chunk.double() - mean).square()
        rows.append(torch.stack([square[:, part].sum(1) for part in places], 1))
    return torch.cat(rows).cpu()


def _by_layer(gradients: PerExampleGradients, mean: Tensor, variance: Tensor) -> dict[str, LayerSignal]:
    """Tensors joined to layers: names without their last part."""
    sums: dict[str, list[float]] = {}
    for (name, part), noise in zip(gradients.places().items(), variance.tolist(), strict=True):
        entry = sums.setdefault(name.rpartition(".")[0] or name, [0.0, 0.0])
        entry[0] += float(mean[part].square().sum())
        entry[1] += noise
    return {layer: _signal(square, noise, gradients.examples) for layer, (square, noise) in sums.items()}


def _signal(square: float, variance: float, examples: int) -> LayerSignal:
    """A mean of noisy gradients is longer than the true one by variance/examples, in the square."""
    noise = variance / examples
    ratio = max(0.0, square - noise) / noise if noise > 0 else (math.inf if square > 0 else 0.0)
    return LayerSignal(math.sqrt(square), variance, ratio)


def _leading(covariance: Operator, k: int) -> tuple[Tensor, Tensor]:
    """Leading eigenpairs by Lanczos; whole where the matrix is small."""
    if covariance.size <= max(2 * k + 1, 20):
        values, vectors = torch.linalg.eigh(covariance.dense().double().cpu())
        return values.flip(0)[:k], vectors.flip(1)[:, :k].to(covariance.device, covariance.dtype)
    from scipy.sparse.linalg import LinearOperator, eigsh

    def product(vector: np.ndarray) -> np.ndarray:
        column = torch.from_numpy(np.ascontiguousarray(vector.reshape(-1)))
        return (covariance @ column.to(covariance.device, covariance.dtype)).double().cpu().numpy()

    start = torch.randn(covariance.size, generator=child(0, "gradient noise"), dtype=torch.float64).numpy()
    if not product(start).any():
        return torch.zeros(k, dtype=torch.float64), torch.eye(covariance.size, k, dtype=covariance.dtype)
    matrix = LinearOperator((covariance.size,) * 2, matvec=product, dtype=np.float64)  # type: ignore[call-arg]
    # Singular values of noise decay smoothly: 1e-3 in the vector is 1e-6 in the value.
    options = {"k": k, "which": "LA", "v0": start, "tol": 1e-3}
    values, vectors = eigsh(matrix, **options)  # pyright: ignore[reportArgumentType]
    order = np.argsort(values)[::-1].copy()
    found = torch.from_numpy(vectors[:, order].copy()).to(covariance.device, covariance.dtype)
    return torch.from_numpy(values[order].copy()), found


def _in_eigenbasis(
    covariance: Operator, values: Tensor, vectors: Tensor, leading: Tensor, variance: float
) -> InEigenbasis:
    if vectors.dim() != 2 or vectors.shape != (covariance.size, len(values)):
        given = f"{tuple(vectors.shape)} for {len(values)} values"
        raise WeightsError(f"the Hessian's vectors must be columns of {covariance.size} entries, got {given}")
    columns = vectors.to(covariance.device, covariance.dtype)
    noise = (columns * (covariance @ columns)).double().sum(0).cpu()
    inside = (leading.T @ columns).double().square().sum(0).cpu()
    share = float(noise.sum()) / variance if variance > 0 else 0.0
    correlation = spearman(values.tolist(), noise.tolist()) if len(values) > 2 else math.nan
    return InEigenbasis(values.double().cpu(), noise, share, inside, leading.shape[1] / covariance.size, correlation)


def _by_class(targets: Tensor, shares: Tensor) -> Tensor | None:
    if targets.is_floating_point() or targets.dim() != 1 or int(targets.min()) < 0:
        return None
    return torch.bincount(targets.cpu().long(), weights=shares)
