"""The assignment solver against SciPy's, and what it refuses."""

from __future__ import annotations

import pytest
import torch
from scipy.optimize import linear_sum_assignment

from isthmus.align.assignment import _eased, assign, assign_many, value
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
    if kind == "heavy tails":  # a few units of trained networks have most of the weight
        lengths = torch.rand(2, size, 1, generator=generator, dtype=torch.float64) ** 6 * 100
        return (features[0] * lengths[0]) @ (features[1] * lengths[1]).T
    if kind == "offsets":  # gains of a normalisation: some columns are best for every row
        return features[0] @ features[1].T + 50 * features[1][:, 0]
    if kind in ("huge", "tiny"):
        return (features[0] @ features[1].T) * (1e30 if kind == "huge" else 1e-30)
    return torch.randint(0, 3, (size, size), generator=generator).double()


KINDS = ["noise", "products", "near ties", "exact ties", "heavy tails", "offsets", "huge", "tiny"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [1, 2, 7, 64, 150, 300])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_optimum_is_scipys(kind: str, size: int, dtype: torch.dtype) -> None:
    similarity = _problem(kind, size, seed=size).to(dtype)
    index = assign(similarity)
    assert sorted(index.tolist()) == list(range(size))
    rows, columns = linear_sum_assignment(similarity.double().numpy(), maximize=True)
    best = float(similarity.double().numpy()[rows, columns].sum())
    assert value(similarity, index) == pytest.approx(best, rel=1e-6 if dtype == torch.float32 else 1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_easing_a_problem_leaves_its_optimum(kind: str) -> None:
    """Potentials of rows and columns change every assignment alike; what is left is nearly the dual solution."""
    cost = -_problem(kind, 300, seed=5)
    eased = _eased(cost)
    rows, columns = linear_sum_assignment(eased.numpy())
    best = float(cost.numpy()[linear_sum_assignment(cost.numpy())].sum())
    assert float(cost.numpy()[rows, columns].sum()) == pytest.approx(best, rel=1e-12)
    change = eased - cost
    torch.testing.assert_close(change - change[:1], (change - change[:1])[:, :1].expand_as(change))
    if kind != "exact ties":
        before, after = (len(problem.argmin(1).unique()) for problem in (cost, eased))
        assert after > min(1.9 * before, 0.7 * len(cost))  # rows with a best column of their own: the solver's work


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
    rows, columns = linear_sum_assignment(problem.numpy(), maximize=True)
    monkeypatch.delattr(lap, "lapjvr", raising=False)  # the lowest version that is allowed lacks it anyway
    assert value(problem, assign(problem)) == pytest.approx(float(problem.numpy()[rows, columns].sum()), rel=1e-12)
