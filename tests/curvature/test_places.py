import dataclasses

import pytest
import torch
from torch import nn

from isthmus.core.network import Network
from isthmus.core.objective import Objective
from isthmus.core.weights import lerp
from isthmus.curvature import Probe, along_path, by_layer, eigenpairs, gauss_newton, hessian, layers, over_plane


@pytest.fixture
def classifier(classifier):
    """In one batch: batches are tested elsewhere, and here thousands of products are taken."""
    return dataclasses.replace(classifier, batch_size=100)


@pytest.fixture
def ends(classifier):
    start = classifier.network.weights
    torch.manual_seed(8)
    return start, {name: tensor + 0.3 * torch.randn_like(tensor) for name, tensor in start.items()}


def test_layers_are_named_by_their_modules(classifier):
    assert layers(classifier.network) == {str(i): (f"{i}.weight", f"{i}.bias") for i in (0, 2, 4)}


def test_every_layer_has_its_block(classifier, exact):
    truth = exact.hessian(classifier, classifier.network.weights)
    found = by_layer(classifier, classifier.network.weights, lambda b: eigenpairs(b, 1).values, dtype=torch.float64)
    first = 0
    for layer, size in (("0", 30), ("2", 35), ("4", 18)):
        block = truth[first : first + size, first : first + size]
        assert float(found[layer]) == pytest.approx(float(torch.linalg.eigvalsh(block)[-1]), rel=1e-7)
        first += size


def test_along_a_path(classifier, exact, ends):
    probe = Probe(dtype=torch.float64, tolerance=1e-4, trace_products=200)
    found = along_path(classifier, lambda t: lerp(*ends, t), positions=[0.0, 0.4, 1.0], probe=probe)
    for place, position in enumerate((0.0, 0.4, 1.0)):
        weights = lerp(*ends, position)
        values = torch.linalg.eigvalsh(exact.hessian(classifier, weights))
        assert float(found.largest[place]) == pytest.approx(float(values[-1]), rel=1e-7)
        assert float(found.smallest[place]) == pytest.approx(float(values[0]), abs=1e-6)
        assert float(found.trace[place]) == pytest.approx(float(values.sum()), rel=1e-9)
        assert float(found.loss[place]) == pytest.approx(classifier(weights).loss, rel=1e-6)
    assert not found.trace_reach.any()


def test_over_a_plane_every_point_stands_in_its_place(classifier, ends):
    start, end = ends
    base = {name: torch.zeros_like(tensor) for name, tensor in start.items()}

    def plane(x, y):
        return {name: base[name] + x * start[name] + y * end[name] for name in base}

    first, second = [0.2, 0.6, 1.0], [0.0, 0.5]
    probe = Probe(matrix=gauss_newton, dtype=torch.float64)
    found = over_plane(classifier, plane, first=first, second=second, probe=probe)
    assert found.largest.shape == (3, 2)
    for i, x in enumerate(first):
        for j, y in enumerate(second):
            operator = gauss_newton(classifier, plane(x, y), dtype=torch.float64)
            assert float(found.largest[i, j]) == pytest.approx(float(eigenpairs(operator, 1).values), rel=1e-6)
            assert float(found.loss[i, j]) == pytest.approx(classifier(plane(x, y)).loss, rel=1e-6)
    assert (found.trace_reach > 0).all()


def test_batch_statistics_can_be_estimated_anew_at_every_point():
    torch.manual_seed(0)
    network = Network.of(nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 2)))
    objective = Objective(network, torch.randn(30, 4), torch.randint(2, (30,)))
    stale = {**network.weights, "1.running_mean": torch.full((6,), 9.0)}

    def anew(weights):
        values = objective.inputs @ weights["0.weight"].T + weights["0.bias"]
        return {**weights, "1.running_mean": values.mean(0), "1.running_var": values.var(0)}

    found = along_path(objective, lambda t: stale, positions=[0.5], probe=Probe(prepare=anew))
    fresh = eigenpairs(hessian(objective, anew(stale)), 1).values
    assert float(found.largest) == pytest.approx(float(fresh), rel=1e-4)
    without = along_path(objective, lambda t: stale, positions=[0.5])
    assert float(without.largest) != pytest.approx(float(fresh), rel=0.1)
