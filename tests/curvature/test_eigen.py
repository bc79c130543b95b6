import pytest
import torch

from isthmus.core.errors import SettingError
from isthmus.core.operator import Operator
from isthmus.core.status import Status
from isthmus.curvature import eigenpairs, hessian


@pytest.mark.parametrize(("which", "places"), [("largest", [-1, -2, -3]), ("smallest", [2, 1, 0])])
def test_an_end_of_a_known_spectrum(spread, which, places):
    operator, values = spread
    pairs = eigenpairs(operator, 3, which, tolerance=1e-6)
    assert torch.allclose(pairs.values, values[places], rtol=1e-7, atol=1e-7)
    assert pairs.status is Status.CONVERGED
    assert (pairs.residuals <= 1e-3).all()


def test_both_ends_in_one_go(spread):
    operator, values = spread
    pairs = eigenpairs(operator, 2, "both", tolerance=1e-6)
    assert torch.allclose(pairs.values, values[[-1, -2, 1, 0]], rtol=1e-7, atol=1e-7)


def test_residuals_are_what_they_say_and_bound_the_error(spread):
    operator, values = spread
    pairs = eigenpairs(operator, 3, tolerance=0.3)
    truth = (operator @ pairs.vectors - pairs.vectors * pairs.values).norm(dim=0)
    assert torch.allclose(pairs.residuals, truth)
    nearest = (values[None] - pairs.values[:, None]).abs().min(1).values
    assert (nearest <= pairs.residuals + 1e-12).all()
    assert torch.allclose(pairs.vectors.norm(dim=0), torch.ones(3, dtype=torch.float64))


def test_a_good_start_saves_products(spread):
    operator, _ = spread
    cold = eigenpairs(operator, 1, "smallest")
    warm = eigenpairs(operator, 1, "smallest", start=cold.vectors[:, 0])
    assert warm.products < cold.products


def test_small_matrices_are_decomposed_whole(classifier, exact):
    operator = hessian(classifier, classifier.network.weights, tensors=["4.bias"])
    pairs = eigenpairs(operator, 3, "both")
    assert len(pairs.values) == 3
    assert torch.allclose(pairs.values, torch.linalg.eigvalsh(operator.dense().double()).flip(0))


def test_a_network(classifier, exact):
    truth = torch.linalg.eigvalsh(exact.hessian(classifier, classifier.network.weights)).flip(0)
    pairs = eigenpairs(hessian(classifier, classifier.network.weights), 4)
    assert torch.allclose(pairs.values, truth[:4], rtol=1e-5)
    assert pairs.vectors.dtype == torch.float32


def test_stopping_early_is_said_and_only_settled_pairs_are_given(spread):
    operator, _ = spread
    pairs = eigenpairs(operator, 5, "smallest", tolerance=1e-12, restarts=1)
    assert pairs.status is Status.STOPPED
    assert len(pairs.values) < 5
    assert len(pairs.values) == pairs.vectors.shape[1] == len(pairs.residuals)


def test_the_record_holds_no_vectors(spread):
    record = eigenpairs(spread[0], 1).to_dict()
    assert {"values", "residuals", "which", "products", "status"} <= set(record)
    assert "vectors" not in record


def test_what_is_refused(spread):
    with pytest.raises(SettingError, match="between 1 and the operator's size 600, got 0"):
        eigenpairs(spread[0], 0)
    with pytest.raises(SettingError, match="one of largest, smallest, both"):
        eigenpairs(spread[0], 1, "middle")  # type: ignore[arg-type]
    broken = Operator(40, lambda vectors: vectors * torch.nan)
    with pytest.raises(SettingError, match="must be finite"):
        eigenpairs(broken, 1)
