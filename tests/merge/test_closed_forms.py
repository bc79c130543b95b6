"""Every merger against a closed form, a result worked out by hand, or a second way to the same number."""

import itertools
import math

import numpy as np
import pytest
import torch
from tests.merge.by_hand import one
from torch import nn

from isthmus.core.errors import SettingError, WeightsError
from isthmus.core.network import Network
from isthmus.core.score import Score
from isthmus.core.status import Status
from isthmus.merge import (
    DARE,
    EMA,
    LAWA,
    SLERP,
    SWA,
    TIES,
    AdaMerging,
    Aligned,
    Fisher,
    GreedySoup,
    KnOTS,
    MagnitudeMax,
    Mean,
    ModelBreadcrumbs,
    TaskArithmetic,
    Weighted,
)


def drawn(seed: int, *shape: int, dtype=torch.float64) -> dict[str, torch.Tensor]:
    return {"w": torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)}


def test_weighted_mean_by_hand():
    found = Weighted((1.0, 3.0))([one(1, 0), one(5, 4)])["w"]
    assert found.tolist() == [4.0, 3.0]
    assert Weighted((1.0, 3.0), normalise=False)([one(1, 0), one(5, 4)])["w"].tolist() == [16.0, 12.0]
    with pytest.raises(SettingError, match="one for each of 2 solutions, got 1"):
        Weighted((1.0,))([one(1), one(2)])
    with pytest.raises(SettingError, match="sum to zero"):
        Weighted((1.0, -1.0))([one(1), one(2)])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_rounded_once(dtype):
    solutions = [drawn(seed, 1000, dtype=dtype) for seed in range(5)]
    exact = torch.stack([solution["w"].double() for solution in solutions]).mean(0)
    found = Mean()(solutions)["w"]
    # Rounding once leaves half a unit; rounding at each of five additions would leave more.
    unit = torch.finfo(dtype).eps * exact.abs()
    assert bool(((found.double() - exact).abs() <= 0.5001 * unit).all())


def test_slerp_halfway_between_orthogonal_vectors():
    found = SLERP(0.5)([one(1, 0), one(0, 1)])["w"]
    torch.testing.assert_close(found, torch.tensor([math.sqrt(0.5)] * 2, dtype=torch.float64))


def test_slerp_keeps_length_and_turns_evenly():
    start, end = drawn(0, 50)["w"], drawn(1, 50)["w"]
    start, end = start / start.norm(), end / end.norm()
    angle = torch.acos(start @ end)
    for t in (0.0, 0.2, 0.7, 1.0):
        found = SLERP(t)([{"w": start}, {"w": end}])["w"]
        assert float(found.norm()) == pytest.approx(1)
        assert float(torch.acos((found @ start).clamp(-1, 1))) == pytest.approx(float(t * angle), abs=1e-7)


def test_slerp_of_nearly_parallel_ends_is_the_straight_line():
    start, end = one(1, 1e-3), one(1, 2e-3)
    torch.testing.assert_close(SLERP(0.25)([start, end])["w"], 0.75 * start["w"] + 0.25 * end["w"])


def test_slerp_has_one_angle_for_the_model_or_one_for_each_tensor():
    start = {"a": torch.tensor([1.0, 0.0]), "b": torch.tensor([1.0, 0.0])}
    end = {"a": torch.tensor([0.0, 1.0]), "b": torch.tensor([1.0, 0.0])}
    apart, together = SLERP(0.5)([start, end]), SLERP(0.5, scope="model")([start, end])
    assert apart["b"].tolist() == [1.0, 0.0]
    # All four coordinates: cosine 1/2, so both coefficients are sin(30°)/sin(60°).
    share = math.sin(math.pi / 6) / math.sin(math.pi / 3)
    torch.testing.assert_close(together["b"], torch.tensor([2 * share, 0.0]))
    with pytest.raises(WeightsError, match="exactly two solutions, got 3"):
        SLERP()([one(1), one(2), one(3)])


def test_running_averages_by_hand():
    path = [one(value) for value in (0.0, 4.0, 8.0, 16.0)]
    assert float(EMA(0.5)(path)["w"]) == 0.5 * (0.5 * (0.5 * 0 + 2) + 4) + 8
    shares = [0.5**3, 0.5**2, 0.5, 1.0]
    expected = sum(s * float(w["w"]) for s, w in zip(shares, path, strict=True)) / sum(shares)
    assert float(EMA(0.5, debias=True)(path)["w"]) == pytest.approx(expected)
    assert float(EMA(0.0)(iter(path))["w"]) == 16
    assert float(LAWA(2)(iter(path))["w"]) == 12
    assert float(SWA(0.5)(path)["w"]) == 12
    assert float(SWA(0.25, every=2)(path)["w"]) == 10


def test_greedy_soup_takes_what_helps():
    # The loss of a scalar is its distance from 0: of −1, 2 and 8 the soup takes −1 (best), then 2 (mean .5), not 8.
    def objective(weights):
        return Score(abs(float(weights["w"])), {"error": 0.0}, 1)

    soup = GreedySoup(objective, by="loss")
    solutions = [one(8.0), one(2.0), one(-1.0)]
    assert soup.choose(solutions) == (2, 1)
    assert float(soup(solutions)["w"]) == 0.5
    with pytest.raises(SettingError, match="by must be loss or one of error, got accuracy"):
        GreedySoup(objective, by="accuracy")(solutions)


def test_task_arithmetic_adds_and_forgets():
    base = one(1, 1)
    assert TaskArithmetic(0.5)([one(3, 1), one(1, 5)], base=base)["w"].tolist() == [2.0, 3.0]
    assert TaskArithmetic(-1.0)([one(3, 1)], base=base)["w"].tolist() == [-1.0, 1.0]
    assert TaskArithmetic(weights=(2.0, 1.0))([one(3, 1), one(1, 5)], base=base)["w"].tolist() == [5.0, 5.0]
    # An analogy: what one solution learned in place of what another did. The weights may sum to zero.
    assert TaskArithmetic(weights=(1.0, -1.0))([one(3, 1), one(1, 5)], base=base)["w"].tolist() == [3.0, -3.0]


def test_weights_of_ties_weigh_the_election_and_the_mean_of_those_who_won():
    """Changes (4, 2), (−1, 5) and (1, −9) with weights 1, 3 and 2: 4 − 3 + 2 and 2 + 15 − 18 elect plus and minus."""
    base = one(1.0, 1.0)
    merged = TIES(density=1.0, weights=(1.0, 3.0, 2.0))([one(5.0, 3.0), one(0.0, 6.0), one(2.0, -8.0)], base=base)
    assert merged["w"].tolist() == pytest.approx([1 + (1 * 4 + 2 * 1) / (1 + 2), 1 - 9])


def plain_ties(solutions, base, density):
    """A second implementation, one entry at a time, in plain Python."""
    vectors = [(solution["w"] - base["w"]).tolist() for solution in solutions]
    size = len(vectors[0])
    kept = max(1, int(density * size))
    for vector in vectors:
        order = sorted(range(size), key=lambda i, v=vector: (-abs(v[i]), i))
        for place in order[kept:]:
            vector[place] = 0.0
    merged = []
    for entries in zip(*vectors, strict=True):
        sign = 1 if sum(entries) >= 0 else -1
        agreeing = [entry for entry in entries if entry * sign > 0]
        merged.append(sum(agreeing) / len(agreeing) if agreeing else 0.0)
    return base["w"] + torch.tensor(merged, dtype=torch.float64)


@pytest.mark.parametrize("density", [0.01, 0.2, 0.5, 1.0])
@pytest.mark.parametrize("count", [1, 2, 5])
def test_ties_against_a_second_implementation(density, count):
    base, solutions = drawn(0, 301), [drawn(1 + seed, 301) for seed in range(count)]
    found = TIES(density)(solutions, base=base)["w"]
    torch.testing.assert_close(found, plain_ties(solutions, base, density), rtol=1e-13, atol=1e-13)


def test_ties_keeps_the_first_of_equal_magnitudes():
    found = TIES(0.5)([one(1, -1, 1, 1)], base=one(0, 0, 0, 0))["w"]
    assert found.tolist() == [1.0, -1.0, 0.0, 0.0]


def test_ties_over_the_model_compares_tensors_with_each_other():
    base = {"a": torch.zeros(2), "b": torch.zeros(2)}
    solution = {"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([30.0, 40.0])}
    assert TIES(0.5)([solution], base=base)["a"].tolist() == [0.0, 2.0]
    whole = TIES(0.5, scope="model")([solution], base=base)
    assert whole["a"].tolist() == [0.0, 0.0]
    assert whole["b"].tolist() == [30.0, 40.0]


def test_dare_keeps_the_mean_and_thins_out():
    base, solution = one(*[0.0] * 20_000), one(*[1.0] * 20_000)
    found = DARE(0.25, seed=1)([solution], base=base)["w"]
    assert set(found.unique().tolist()) == {0.0, 4.0}
    # The mean of n draws of 4·Bernoulli(1/4) has deviation √(3/n): 4.5 of them are crossed 7 times in a million.
    assert float(found.mean()) == pytest.approx(1.0, abs=4.5 * math.sqrt(3 / 20_000))
    again, other = DARE(0.25, seed=1)([solution], base=base)["w"], DARE(0.25, seed=2)([solution], base=base)["w"]
    assert torch.equal(found, again)
    assert not torch.equal(found, other)


def test_dare_ties_averages_what_agrees():
    base = one(0, 0)
    found = DARE(1.0, then="ties")([one(4, 1), one(2, -3)], base=base)["w"]
    assert found.tolist() == [3.0, -3.0]


def test_magnitude_max_by_hand():
    found = MagnitudeMax()([one(1, -5, 2), one(-3, 4, -2)], base=one(0, 0, 0))["w"]
    assert found.tolist() == [-3.0, -5.0, 0.0]  # equal and opposite: their mean


def test_breadcrumbs_drop_both_ends():
    values = [float(v) for v in (5, -1, 3, 10, -7, 2, 9, -4, 6, 8)]
    found = ModelBreadcrumbs(0.5, 0.2)([one(*values)], base=one(*[0.0] * 10))["w"]
    assert found.tolist() == [5.0, 0.0, 0.0, 0.0, -7.0, 0.0, 0.0, -4.0, 6.0, 8.0]


def test_knots_without_trimming_or_election_is_task_arithmetic():
    base = {"w": drawn(0, 6, 5)["w"], "conv": drawn(9, 4, 2, 3, 3)["w"], "b": drawn(1, 6)["w"]}
    solutions = [
        {name: t + drawn(10 * s + i, *t.shape)["w"] for i, (name, t) in enumerate(base.items())} for s in (1, 2)
    ]
    ours = KnOTS(elect=False, scale=0.7)(solutions, base=base)
    for name, tensor in TaskArithmetic(0.7)(solutions, base=base).items():
        torch.testing.assert_close(ours[name], tensor)


def test_knots_of_one_rank_keeps_the_leading_direction():
    base = drawn(0, 6, 5)
    solutions = [{"w": base["w"] + drawn(seed, 6, 5)["w"]} for seed in (1, 2)]
    found = KnOTS(elect=False, rank=1)(solutions, base=base)["w"] - base["w"]
    joined = torch.cat([solution["w"] - base["w"] for solution in solutions], dim=1).numpy()
    u, s, v = np.linalg.svd(joined, full_matrices=False)
    leading = s[0] * np.outer(u[:, 0], v[0])
    np.testing.assert_allclose(found.numpy(), leading[:, :5] + leading[:, 5:], atol=1e-12)


def test_knots_elects_in_the_shared_basis():
    # Rotating the outputs rotates the basis along: in contrast to TIES, the merge turns with it.
    base, solutions = {"w": torch.zeros(5, 4, dtype=torch.float64)}, [drawn(seed, 5, 4) for seed in (1, 2)]
    turn = torch.linalg.qr(drawn(3, 5, 5)["w"])[0]
    turned = [{"w": turn @ solution["w"]} for solution in solutions]
    torch.testing.assert_close(KnOTS()(turned, base=base)["w"], turn @ KnOTS()(solutions, base=base)["w"])
    assert not torch.allclose(TIES(1.0)(turned, base=base)["w"], turn @ TIES(1.0)(solutions, base=base)["w"])


def test_learned_coefficients_lower_the_entropy_and_match_a_grid():
    class Scale(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.zeros(2))

        def forward(self, x):
            return torch.stack([x @ self.w, torch.zeros(len(x))], 1)

    # One direction separates the inputs, the other adds what cancels it: entropy is lowest with the first alone.
    inputs = torch.tensor([[1.0, 0.0], [-1.0, 0.0]]).repeat(20, 1)
    network = Network.of(Scale())
    base, solutions = {"w": torch.zeros(2)}, [{"w": torch.tensor([1.0, 0.0])}, {"w": torch.tensor([-0.5, 0.0])}]
    merger = AdaMerging(network, inputs, per="solution", steps=60, rate=0.05)
    found = merger.learn(solutions, base=base)
    assert found.status is Status.STOPPED
    assert found.entropy_after < found.entropy_before
    assert found.values[0, 0] > 0.3 > found.values[0, 1]
    slope = float(found.values[0, 0] - 0.5 * found.values[0, 1])
    p = 1 / (1 + math.exp(-slope))
    assert found.entropy_after == pytest.approx(-p * math.log(p) - (1 - p) * math.log(1 - p), rel=1e-5)
    merged = merger.apply(found, solutions, base=base)["w"]
    assert merged.tolist() == pytest.approx([slope, 0.0], rel=1e-5)


def test_aligning_first_undoes_a_permutation():
    fixed = drawn(0, 6)
    order = torch.randperm(6, generator=torch.Generator().manual_seed(0))
    moving = {"w": fixed["w"][order]}
    calls = []

    def aligner(weights, reference):
        calls.append(reference is moving)
        return {"w": weights["w"][[int((weights["w"] == value).nonzero()) for value in reference["w"]]]}

    found = Aligned(Mean(), aligner, reference=1)([fixed, moving])["w"]
    torch.testing.assert_close(found, moving["w"])
    assert calls == [True]
    with pytest.raises(SettingError, match=r"0 … 1, got 2"):
        Aligned(Mean(), aligner, reference=2)([fixed, moving])


def test_settings_out_of_range_are_refused():
    for make in (lambda: TIES(0.0), lambda: TIES(1.5), lambda: DARE(0.0), lambda: SLERP(1.1), lambda: EMA(1.0),
                 lambda: LAWA(0), lambda: SWA(1.0), lambda: KnOTS(rank=0), lambda: TIES(0.5, scope="layer"),
                 lambda: DARE(0.5, then="sum"), lambda: ModelBreadcrumbs(0.5, 2.0)):  # fmt: skip
        with pytest.raises(SettingError):
            make()


def test_mean_of_a_quadratics_minima_is_what_algebra_says():
    # Two quadratics with Hessians A and B: the minimum of their sum is the Fisher mean when both are diagonal.
    a, b = torch.tensor([1.0, 9.0], dtype=torch.float64), torch.tensor([3.0, 1.0], dtype=torch.float64)
    x, y = one(0.0, 1.0), one(2.0, 5.0)
    found = Fisher([], floor=1e-14).weighted([x, y], [{"w": a}, {"w": b}], [1.0, 1.0])["w"]
    torch.testing.assert_close(found, (a * x["w"] + b * y["w"]) / (a + b))
    grid = [
        torch.tensor(p, dtype=torch.float64) for p in itertools.product(np.linspace(0, 2, 41), np.linspace(1, 5, 41))
    ]
    losses = [float((a * (p - x["w"]) ** 2 + b * (p - y["w"]) ** 2).sum()) for p in grid]
    assert torch.allclose(grid[int(np.argmin(losses))], found, atol=0.06)
