"""Every merger under one table: a new method is one row.

``identical``: merging copies of one solution gives it back. ``symmetric``: the order of the solutions does not matter.
``data``: the merger needs a network and examples, so it is tried on those instead of on arbitrary tensors.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from isthmus.core.errors import WeightsError
from isthmus.core.network import Network
from isthmus.core.objective import Objective
from isthmus.merge import (
    DARE,
    EMA,
    LAWA,
    SLERP,
    SWA,
    TIES,
    AdaMerging,
    Aligned,
    BatchStatisticsWarning,
    Fisher,
    GreedySoup,
    KnOTS,
    MagnitudeMax,
    Mean,
    ModelBreadcrumbs,
    OrthogonalProjection,
    ProtectSpecific,
    RegMean,
    TaskArithmetic,
    UniformSoup,
    Weighted,
)


@dataclasses.dataclass(frozen=True)
class Row:
    name: str
    make: Callable[[Objective], Any]
    count: int = 3
    base: bool = False
    identical: bool = True
    symmetric: bool = True


ROWS = [
    Row("mean", lambda _: Mean()),
    Row("weighted", lambda _: Weighted((1.0, 2.0, 3.0)), symmetric=False),
    Row("uniform soup", lambda _: UniformSoup()),
    Row("greedy soup", lambda objective: GreedySoup(objective, by="loss")),
    Row("slerp", lambda _: SLERP(), count=2),
    Row("slerp of models", lambda _: SLERP(scope="model"), count=2),
    Row("ema", lambda _: EMA(0.5), symmetric=False),
    Row("ema, debiased", lambda _: EMA(0.5, debias=True), symmetric=False),
    Row("lawa", lambda _: LAWA(2), symmetric=False),
    Row("swa", lambda _: SWA(0.0)),
    Row("task arithmetic", lambda _: TaskArithmetic(1 / 3), base=True),
    Row("ties", lambda _: TIES(1.0), base=True),
    Row("ties, trimmed", lambda _: TIES(0.4), base=True, identical=False),
    Row("ties, trimmed over the model", lambda _: TIES(0.4, scope="model"), base=True, identical=False),
    Row("dare", lambda _: DARE(1.0, scale=1 / 3), base=True),
    Row("dare, thinned", lambda _: DARE(0.5), base=True, identical=False, symmetric=False),
    Row("dare ties", lambda _: DARE(1.0, then="ties"), base=True),
    Row("magnitude max", lambda _: MagnitudeMax(), base=True),
    Row("breadcrumbs", lambda _: ModelBreadcrumbs(1.0, 0.0, scale=1 / 3), base=True),
    Row("breadcrumbs, trimmed", lambda _: ModelBreadcrumbs(0.5, 0.1), base=True, identical=False),
    Row("fisher", lambda objective: Fisher(objective)),
    Row("fisher, empirical", lambda objective: Fisher(objective, labels="data")),
    Row("regmean", lambda objective: RegMean(objective)),
    Row("knots", lambda _: KnOTS(), base=True),
    Row("orthogonal projection", lambda _: OrthogonalProjection(), base=True, symmetric=False),
    Row("protect what is specific", lambda _: ProtectSpecific(0.2), base=True),
    Row("protect what is specific, from the mean", lambda _: ProtectSpecific(0.2)),
    Row("knots, trimmed", lambda _: KnOTS(0.5), base=True, identical=False),
    Row(
        "coefficients learned without labels",
        lambda objective: AdaMerging(objective.network, objective.inputs, steps=2, start=1 / 3),
        base=True,
        identical=False,
    ),
    Row("align, then mean", lambda _: Aligned(Mean(), lambda moving, fixed: dict(moving))),
]
EXACT = {torch.bfloat16: 0.0, torch.float16: 0.0, torch.float32: 2e-7, torch.float64: 1e-14}


def with_id(rows):
    return [pytest.param(row, id=row.name) for row in rows]


class Small(nn.Module):
    """A layer of each kind that mergers treat differently, and a counter."""

    def __init__(self, seed: int, dtype: torch.dtype) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.body = nn.Sequential(nn.Conv2d(1, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(12, 5), nn.LayerNorm(5))
            self.head = nn.Linear(5, 3)
            self.register_buffer("steps", torch.tensor(seed, dtype=torch.int64))
            self.register_buffer("table", torch.arange(4))
        self.to(dtype)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(inputs).relu())


def setting(row: Row, dtype: torch.dtype, *, same: bool = False):
    """A merger as a function of solutions, the solutions, and the base."""
    modules = [Small(7 if same else 1 + place, dtype) for place in range(row.count)]
    solutions = [{name: t.clone() for name, t in module.state_dict().items()} for module in modules]
    base = {name: t.clone() for name, t in Small(0, dtype).state_dict().items()}
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(12, 1, 3, 3, generator=generator)
    objective = Objective(Network.of(modules[0]), inputs, torch.arange(12) % 3, batch_size=5)
    merger = row.make(objective)

    def merge(chosen, origin=base):
        return merger(chosen, base=origin) if row.base else merger(chosen)

    return merge, solutions, base


def close(ours, theirs, dtype):
    for name, tensor in theirs.items():
        tolerance = EXACT[dtype] * max(1.0, float(tensor.abs().max()))
        torch.testing.assert_close(ours[name], tensor, rtol=0, atol=tolerance, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("row", with_id(ROWS))
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_inputs_are_left_as_they_are_and_not_shared(row, dtype):
    merge, solutions, base = setting(row, dtype)
    before = [{name: t.clone() for name, t in weights.items()} for weights in [*solutions, base]]
    merged = merge(solutions)
    for tensor in merged.values():
        tensor.fill_(1)
    for weights, copy in zip([*solutions, base], before, strict=True):
        for name in weights:
            assert torch.equal(weights[name], copy[name]), name


@pytest.mark.parametrize("row", with_id(ROWS))
@pytest.mark.parametrize("dtype", list(EXACT), ids=str)
def test_names_shapes_and_precision_are_kept(row, dtype):
    merge, solutions, _ = setting(row, dtype)
    merged = merge(solutions)
    assert list(merged) == list(solutions[0])
    for name, tensor in solutions[0].items():
        assert merged[name].shape == tensor.shape
        assert merged[name].dtype == tensor.dtype
        assert not merged[name].requires_grad
        assert bool(torch.isfinite(merged[name]).all())


@pytest.mark.parametrize("row", with_id(row for row in ROWS if row.identical))
@pytest.mark.parametrize("dtype", list(EXACT), ids=str)
def test_copies_of_one_solution_merge_to_it(row, dtype):
    merge, solutions, _ = setting(row, dtype, same=True)
    close(merge(solutions), solutions[0], dtype)


@pytest.mark.parametrize("row", with_id(row for row in ROWS if row.symmetric))
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_order_does_not_matter(row, dtype):
    merge, solutions, _ = setting(row, dtype)
    one, other = merge(solutions), merge(solutions[::-1])
    # float32 sums in another order may round once differently at the end; learned coefficients pass through Adam.
    for name, tensor in one.items():
        loose = 1e-2 if dtype == torch.bfloat16 else 1e-6
        torch.testing.assert_close(other[name], tensor, rtol=loose, atol=loose)


@pytest.mark.parametrize("row", with_id(row for row in ROWS if not row.symmetric))
def test_order_matters_where_the_table_says_so(row):
    merge, solutions, _ = setting(row, torch.float32)
    one, other = merge(solutions), merge(solutions[::-1])
    assert any(not torch.allclose(one[name], other[name]) for name in one)


@pytest.mark.parametrize("row", with_id(ROWS))
def test_counters_become_the_largest_and_tables_stay(row):
    merge, solutions, _ = setting(row, torch.float32)
    merged = merge(solutions)
    last = row.count
    assert int(merged["steps"]) == (last if row.name != "greedy soup" else int(merged["steps"]))
    assert torch.equal(merged["table"], torch.arange(4))


@pytest.mark.parametrize("row", with_id(ROWS))
def test_other_shapes_are_refused_in_one_line(row):
    merge, solutions, _ = setting(row, torch.float32)
    solutions[-1]["head.weight"] = torch.zeros(4, 5)
    with pytest.raises(WeightsError, match=r"head\.weight is \(3, 5\) and \(4, 5\)") as caught:
        merge(solutions)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("row", with_id(ROWS))
def test_a_missing_tensor_other_precision_nan_and_differing_tables_are_refused(row):
    merge, solutions, _ = setting(row, torch.float32)
    whole = solutions[-1]
    solutions[-1] = {name: t for name, t in whole.items() if name != "head.bias"}
    with pytest.raises(WeightsError, match=r"lacks head\.bias"):
        merge(solutions)
    solutions[-1] = {**whole, "head.bias": whole["head.bias"].double()}
    with pytest.raises(WeightsError, match=r"must have one precision, but head\.bias"):
        merge(solutions)
    solutions[-1] = {**whole, "head.bias": whole["head.bias"] * math.nan}
    with pytest.raises(WeightsError, match=r"NaN or Inf in head\.bias"):
        merge(solutions)
    if row.name != "lawa":
        solutions[-1] = {**whole, "table": torch.arange(4) * 2}
        with pytest.raises(WeightsError, match=r"table .* differs"):
            merge(solutions)


@pytest.mark.parametrize("row", with_id(ROWS))
def test_nothing_to_merge_is_refused(row):
    merge, _, _ = setting(row, torch.float32)
    with pytest.raises(WeightsError):
        merge([])


@pytest.mark.parametrize("row", with_id(row for row in ROWS if row.base))
def test_a_base_of_another_shape_is_refused(row):
    merge, solutions, base = setting(row, torch.float32)
    with pytest.raises(WeightsError, match=r"head\.weight"):
        merge(solutions, {**base, "head.weight": torch.zeros(4, 5)})


def with_statistics(seed: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3))
        module[1].running_var.uniform_(0.5, 2)
        module[1].running_mean.normal_()
        module[1].num_batches_tracked.fill_(seed)
    return module.eval()


@pytest.mark.parametrize("row", with_id(row for row in ROWS if row.name not in ("ema", "greedy soup")))
def test_running_statistics_are_never_averaged_without_a_word(row):
    modules = [with_statistics(1 + place) for place in range(row.count)]
    solutions = [dict(module.state_dict()) for module in modules]
    base = dict(with_statistics(0).state_dict())
    inputs = torch.randn(30, 4, generator=torch.Generator().manual_seed(0))
    merger = row.make(Objective(Network.of(modules[0]), inputs, torch.arange(30) % 3))
    with pytest.warns(BatchStatisticsWarning, match=r"1\.running_mean.*estimate them anew"):
        merged = merger(solutions, base=base) if row.base else merger(solutions)
    assert bool((merged["1.running_var"] > 0).all())
