import dataclasses

import pytest
import torch

from isthmus.core.errors import DataError
from isthmus.core.network import Network
from isthmus.core.objective import Objective
from isthmus.core.weights import flatten, unflatten
from isthmus.curvature import class_structure, eigenpairs, gauss_newton
from isthmus.curvature.classes import _inside
from isthmus.studies.landscape.solution import spectrum_of


@pytest.fixture
def parts(classifier):
    """The levels by their definition: one gradient of −log p for every example and class."""
    network, names = classifier.network, classifier.network.parameter_names
    weights = {n: t.double() for n, t in network.weights.items()}
    inputs, targets = classifier.inputs.double(), classifier.targets

    def surprise(vector):
        return -network(unflatten(vector, weights, tensors=names), inputs).log_softmax(1)

    start = flatten(weights, tensors=names)
    gradients = torch.autograd.functional.jacobian(surprise, start)
    p = network(weights, inputs).softmax(1)
    means = torch.zeros(3, 3, len(start), dtype=torch.float64)
    mass = torch.zeros(3, 3, dtype=torch.float64)
    for c in range(3):
        for r in range(3):
            share = p[targets == c, r]
            mass[c, r] = share.sum() / len(targets)
            means[c, r] = (share[:, None] * gradients[targets == c, r]).sum(0) / share.sum()
    return gradients, p, means, mass


def test_the_levels_are_what_their_definition_says(classifier, parts):
    _, _, means, mass = parts
    classes, rivals = torch.zeros(2, means.shape[-1], means.shape[-1], dtype=torch.float64)
    for c in range(3):
        others = [r for r in range(3) if r != c]
        weight = sum(mass[c, r] for r in others)
        centre = sum(mass[c, r] * means[c, r] for r in others) / weight
        classes += weight * torch.outer(centre, centre)
        for r in others:
            rivals += mass[c, r] * torch.outer(means[c, r] - centre, means[c, r] - centre)
    found = class_structure(classifier, classifier.network.weights, dtype=torch.float64)
    assert torch.allclose(found.class_values, torch.linalg.eigvalsh(classes).flip(0)[:3], rtol=1e-9)
    assert torch.allclose(found.rival_values, torch.linalg.eigvalsh(rivals).flip(0)[:3], rtol=1e-9)
    assert torch.allclose(found.class_weights, mass.sum(1) - mass.diagonal())
    assert found.examples == 23


def test_what_is_explained_is_a_part_of_the_gauss_newton_matrix(classifier, parts, exact):
    gradients, p, _, _ = parts
    truth = exact.gauss_newton(classifier, classifier.network.weights)
    assert torch.allclose(torch.einsum("nr,nrp,nrq->pq", p, gradients, gradients) / 23, truth, atol=1e-12)
    found = class_structure(classifier, classifier.network.weights, dtype=torch.float64)
    assert float(found.class_values.sum() + found.rival_values.sum()) < float(truth.trace())


def test_vectors_inside_and_outside_the_span(classifier, parts):
    _, _, means, mass = parts
    others = mass.clone().fill_diagonal_(0)
    centres = torch.einsum("cr,crn->cn", others / others.sum(1, keepdim=True), means)
    outside = torch.randn(means.shape[-1], dtype=torch.float64)
    span = torch.linalg.qr(means[~torch.eye(3, dtype=torch.bool)].T).Q
    outside -= span @ (span.T @ outside)
    between = means[0, 1] - means[0, 2]
    between -= torch.linalg.qr(centres.T).Q @ (torch.linalg.qr(centres.T).Q.T @ between)
    pairs = eigenpairs(gauss_newton(classifier, classifier.network.weights, dtype=torch.float64), 3)
    pairs = dataclasses.replace(pairs, vectors=torch.stack([centres[1], between, outside], 1))
    found = class_structure(classifier, classifier.network.weights, outliers=pairs, dtype=torch.float64)
    assert found.class_overlap.tolist() == pytest.approx([1, 0, 0], abs=1e-9)
    assert found.rival_overlap.tolist() == pytest.approx([0, 1, 0], abs=1e-9)
    assert int(found.nearest[0]) == 1
    assert float(found.nearest_share[0]) == pytest.approx(1, abs=1e-9)
    assert found.nearest_share[1:].tolist() == pytest.approx([0, 0], abs=1e-9)


def test_batches_do_not_matter(classifier):
    weights = classifier.network.weights
    one = class_structure(classifier, weights, dtype=torch.float64)
    other = class_structure(dataclasses.replace(classifier, batch_size=100), weights, dtype=torch.float64)
    assert torch.allclose(one.class_values, other.class_values, rtol=1e-12)


def test_what_is_refused(classifier):
    weights = classifier.network.weights
    with pytest.raises(DataError, match=r"labels must lie in 0 … 2"):
        class_structure(dataclasses.replace(classifier, targets=classifier.targets + 1), weights)
    with pytest.raises(DataError, match="one label an example"):
        class_structure(dataclasses.replace(classifier, targets=torch.zeros(23, 2).long()), weights)


class Wrapped(torch.nn.Module):
    """Scores inside a mapping, as models of others return them."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, inputs):
        return {"logits": self.inner(inputs), "hidden": inputs}


def objective_of(module, classes):
    inputs = torch.randn(6, 2, generator=torch.Generator().manual_seed(0))
    return Objective(Network.of(module), inputs, torch.arange(6) % classes)


def test_scores_inside_what_a_model_returns():
    """Models that return a mapping with their logits were refused."""
    inner = torch.nn.Linear(2, 3)
    found, plain = (
        class_structure(objective, objective.network.weights, dtype=torch.float64)
        for objective in (objective_of(Wrapped(inner), 3), objective_of(inner, 3))
    )
    assert torch.allclose(found.class_values, plain.class_values, rtol=1e-12)


def test_a_spectrum_without_its_classes_where_these_are_too_many():
    """The whole spectrum was refused."""
    objective = objective_of(torch.nn.Linear(2, 70), 70)
    found = spectrum_of(objective.network.weights, objective, name="wide", pairs=1, probes=2, steps=4)
    assert found.classes is None
    assert float(found.largest.values[0]) > 0


def test_small_gradients_have_the_same_span():
    """A network that is nearly done has gradients of 1e-8: what counts as rounding is relative to them."""
    rows = torch.randn(3, 10, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    vectors = torch.stack([rows[0] + rows[2], torch.linalg.svd(rows).Vh[5]], dim=1)
    for scale in (1e-10, 1.0, 1e10):
        assert torch.allclose(_inside(scale * rows, vectors), torch.tensor([1.0, 0.0]).double(), atol=1e-9)
