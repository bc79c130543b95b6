import pytest
import torch

from isthmus.core.errors import SettingError
from isthmus.core.operator import Operator
from isthmus.curvature import diagonal, trace


def test_intervals_of_the_trace_cover_the_truth_as_often_as_they_say(spread):
    """100 intervals of 90 %: fewer than 80 covered has a chance of 1e-3 if the level is kept."""
    operator, values = spread
    truth = float(values.sum())
    generator = torch.Generator().manual_seed(0)
    intervals = [trace(operator, generator=generator, products=30, level=0.9).interval for _ in range(100)]
    covered = sum(i.low <= truth <= i.high for i in intervals)
    assert covered >= 80


def test_the_sketch_takes_out_the_outliers(spread):
    operator, values = spread
    found = trace(operator, generator=torch.Generator().manual_seed(0), products=60)
    assert found.captured > 0.9 * float(values[-8:].sum())
    assert abs(found.estimate - float(values.sum())) < 0.05 * float(values.sum())
    assert found.products == 60


def test_enough_products_are_exact(spread):
    operator, values = spread
    found = trace(operator, generator=torch.Generator().manual_seed(0), products=600)
    assert found.estimate == pytest.approx(float(values.sum()), rel=1e-12)
    assert found.interval.low == found.interval.high


def test_the_diagonal_exact_and_drawn(spread):
    operator, _ = spread
    truth = operator.dense().diagonal()
    assert torch.allclose(diagonal(operator).values, truth, rtol=1e-12)
    drawn = diagonal(operator, probes=60, generator=torch.Generator().manual_seed(0))
    z = (drawn.values - truth) / drawn.errors
    # 600 standardised errors, nearly normal: their mean square is 1 within .06, one of its standard errors.
    assert 0.85 < float(z.square().mean()) < 1.2


def test_a_diagonal_matrix_has_no_sampling_error():
    matrix = torch.diag(torch.arange(70.0))
    operator = Operator(70, lambda vectors: matrix @ vectors)
    drawn = diagonal(operator, probes=2, generator=torch.Generator().manual_seed(0))
    assert torch.equal(drawn.values, matrix.diagonal())
    assert not drawn.errors.any()
    assert torch.equal(diagonal(operator).values, matrix.diagonal())


def test_what_is_refused(spread):
    with pytest.raises(SettingError, match="at least 6"):
        trace(spread[0], generator=torch.Generator(), products=5)
    with pytest.raises(SettingError, match="at least 2 probes and a generator"):
        diagonal(spread[0], probes=4)
