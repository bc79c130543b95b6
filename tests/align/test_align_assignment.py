"""The assignment solver against SciPy's, and what it refuses."""

from __future__ import annotations

import pytest
import torch
from scipy.optimize import linear_sum_assignment

from isthmus.align.assignment import assign, assign_many, value
from isthmus.core.errors import WeightsError
from isthmus.core.randomness import child


def _problem(kind: str, size: int, seed: int) -> torch.Tensor:
    generator = child(seed, kind)
    features = torch.randn(2, size, 40, generator=generator, dtype=torch.float64)
    if kind == "noise":
        return torch.randn(size, size, generator=generator, dtype=torch.float64)
    if kind == "products":
        return features[0] @ features[1].T
    if kind == "near ties":  # a common mean, as raw products of activations have
        return (features[0] + 30) @ (features[1] + 30).T
    return torch.randint(0, 3, (size, size), generator=generator).double()


@pytest.mark.parametrize("kind", ["noise", "products", "near ties", "exact ties"])
@pytest.mark.parametrize("size", [1, 2, 7, 64, 150])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_optimum_is_scipys(kind: str, size: int, dtype: torch.dtype) -> None:
    similarity = _problem(kind, size, seed=size).to(dtype)
    index = assign(similarity)
    assert sorted(index.tolist()) == list(range(size))
    rows, columns = linear_sum_assignment(similarity.double().numpy(), maximize=True)
    best = float(similarity.double().numpy()[rows, columns].sum())
    assert value(similarity, index) == pytest.approx(best, rel=1e-6 if dtype == torch.float32 else 1e-12)


def test_nothing_moves_where_staying_is_best_for_every_unit() -> None:
    assert assign(torch.ones(5, 5)).tolist() == [0, 1, 2, 3, 4]


def test_half_precision_and_batches() -> None:
    problems = torch.stack([_problem("noise", 6, seed) for seed in range(4)])
    together = assign_many(problems)
    assert all(torch.equal(row, assign(problem)) for row, problem in zip(together, problems, strict=True))
    half = problems[0].to(torch.bfloat16)
    assert value(half, assign(half)) == value(half.float(), assign(half.float()))
    assert assign_many(torch.zeros(0, 3, 3)).shape == (0, 3)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_is_refused(bad: float) -> None:
    similarity = torch.zeros(3, 3)
    similarity[1, 2] = bad
    with pytest.raises(WeightsError, match="finite"):
        assign(similarity)


def test_an_older_lapx_gives_the_same_optimum(monkeypatch: pytest.MonkeyPatch) -> None:
    import lap

    problem = _problem("products", 40, seed=0)
    new = value(problem, assign(problem))
    monkeypatch.delattr(lap, "lapjvr")
    assert value(problem, assign(problem)) == pytest.approx(new, rel=1e-12)
