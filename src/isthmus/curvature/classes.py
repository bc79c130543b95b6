"""Where the outliers of a classifier's spectrum come from: means of gradients by class, and by class and rival."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from isthmus.core.errors import DataError
from isthmus.core.losses import answers, check_labels
from isthmus.core.objective import Objective
from isthmus.core.record import Record
from isthmus.core.weights import Weights
from isthmus.curvature.eigen import EigenPairs
from isthmus.curvature.hessian import split
from isthmus.curvature.kept import Point, pulled

_MOST_CLASSES = 64  # classes² gradients are held at once


@dataclasses.dataclass(frozen=True)
class ClassStructure(Record):
    """The two coarse levels of the Gauss–Newton matrix of cross-entropy.

    With p the predicted probabilities, g(i, c′) the gradient of −log p(c′) at example i of class c, and p(i, c′) its
    weight, the matrix is the weighted mean of g·gᵀ. Means of g over the examples of class c for one rival c′ ≠ c give
    δ(c, c′), and their means over rivals δ(c). What is between the classes and between the rivals of a class splits off
    exactly.

    Attributes:
        class_values: eigenvalues of Σ w(c)·δ(c)δ(c)ᵀ, descending: the large outliers, as many as classes.
        rival_values: eigenvalues of the part between rivals of a class, descending, the non-zero ones.
        class_overlap: for every given eigenvector, the share of its square in the span of δ(c), between 0 and 1.
        rival_overlap: the further share in the span of all δ(c, c′).
        nearest: for every given eigenvector, the class whose δ(c) lies nearest to its line.
        nearest_share: the squared cosine between the two: 1 where the outlier is that class's alone.
        class_weights: w(c), the mean probability that goes to wrong classes, by true class.
        examples: how many there were.
    """

    class_values: Float[Tensor, " classes"]
    rival_values: Float[Tensor, " values"]
    class_overlap: Float[Tensor, " pairs"]
    rival_overlap: Float[Tensor, " pairs"]
    nearest: Int[Tensor, " pairs"]
    nearest_share: Float[Tensor, " pairs"]
    class_weights: Float[Tensor, " classes"]
    examples: int


def class_structure(
    objective: Objective,
    weights: Weights,
    *,
    outliers: EigenPairs | None = None,
    tensors: Collection[str] | None = None,
    dtype: torch.dtype | None = None,
) -> ClassStructure:
    """Explain a classifier's outliers by the means of its gradients over classes.

    Args:
        objective: a network with one score for each class, (examples, classes). The structure is that of cross-entropy,
            whatever the objective's own loss; in evaluation mode.
        weights: where.
        outliers: eigenpairs of the Hessian or the Gauss–Newton matrix at the same place and of the same ``tensors``,
            largest first, to be named.
        tensors: those that vary.
        dtype: working precision, as in ``hessian``.

    Raises:
        DataError: outputs that are not one score for each class, labels out of range, or more than 64 classes.

    Cost: classes² backward passes over the data and as many gradients of memory.

    Reference: Papyan, "Measurements of three-level hierarchical structure in the outliers in the spectrum of deepnet
        Hessians" (ICML 2019), section 4.
    """
    point = Point.of(objective, weights, tensors=tensors, dtype=dtype)
    sums, mass, examples = _rival_sums(point)
    mass = mass / examples
    classes = len(mass)
    means = sums / examples / mass.clamp(min=torch.finfo(mass.dtype).tiny)[..., None]
    shares = mass.clone().fill_diagonal_(0)
    weight = shares.sum(1)
    centres = torch.einsum("cr,crn->cn", shares / weight.clamp(min=torch.finfo(mass.dtype).tiny)[:, None], means)
    spread = (shares.sqrt()[..., None] * (means - centres[:, None])).reshape(classes**2, -1)
    classwise = weight.sqrt()[:, None] * centres
    vectors = torch.zeros(point.size, 0) if outliers is None else outliers.vectors
    vectors = vectors.to(classwise)
    first = _inside(classwise, vectors)
    both = _inside(torch.cat([classwise, spread]), vectors)
    units = centres / centres.norm(dim=1, keepdim=True).clamp(min=torch.finfo(centres.dtype).tiny)
    alone = ((units @ vectors).square() / vectors.square().sum(0)).max(0)
    return ClassStructure(
        _gram_values(classwise),
        _gram_values(spread)[: classes * max(classes - 2, 0)],
        first.cpu(),
        (both - first).clamp(min=0).cpu(),
        alone.indices.cpu(),
        alone.values.clamp(max=1).cpu(),
        weight.cpu(),
        examples,
    )


@torch.enable_grad()
def _rival_sums(point: Point) -> tuple[Tensor, Tensor, int]:
    """Σ p·g by true class and rival (classes, classes, size), Σ p (classes, classes), and the number of examples."""
    sums = mass = torch.zeros(())
    examples = 0
    for inputs, targets in point.objective.batches():
        scores = _scores(point.outputs(inputs), targets)
        classes = scores.shape[1]
        check_labels(targets, classes)
        probability = scores.detach().softmax(1)
        member = torch.nn.functional.one_hot(targets.long(), classes).to(probability)
        # The gradient of −log p(r) in the scores is p − e(r), for every example.
        slope = probability[:, None, :] - torch.eye(classes, dtype=scores.dtype, device=scores.device)
        pulls = torch.einsum("nc,nr,nrk->crnk", member, probability, slope)
        part = pulled(scores, point.leaves, pulls.reshape(classes**2, -1)).view(classes, classes, -1).double()
        sums = sums.to(part) + part
        mass = mass.to(part) + torch.einsum("nc,nr->cr", member, probability).double()
        examples += len(targets)
    return sums, mass, examples


def _scores(outputs: Any, targets: Tensor) -> Tensor:
    vector, _, rebuilt = split(answers(outputs))
    scores = rebuilt if isinstance(rebuilt, Tensor) else None
    if scores is None or scores.dim() != 2 or targets.dim() != 1 or not vector.requires_grad:
        given = tuple(scores.shape) if scores is not None else type(outputs).__name__
        raise DataError(f"class structure needs outputs (examples, classes) and one label an example, got {given}")
    if scores.shape[1] > _MOST_CLASSES:
        raise DataError(
            f"class structure holds classes² gradients; at most {_MOST_CLASSES} classes, got {scores.shape[1]}"
        )
    return vector.view(scores.shape)


def _gram_values(rows: Tensor) -> Tensor:
    """The non-zero eigenvalues of rowsᵀ·rows, descending, from the small Gram matrix."""
    return torch.linalg.eigvalsh(rows @ rows.T).flip(0).clamp(min=0).cpu()


def _inside(rows: Tensor, vectors: Tensor) -> Tensor:
    """For every column the share of its square in the span of the rows."""
    values, basis = torch.linalg.eigh(rows @ rows.T)
    # Directions below a millionth of the largest are rounding in the gradients, not structure.
    keep = values > 1e-12 * values.max()
    span = (rows.T @ basis[:, keep]) / values[keep].sqrt()
    return ((span.T @ vectors).square().sum(0) / vectors.square().sum(0)).clamp(max=1)
