"""Matrices between permutations: Sinkhorn's rows and columns."""

import torch

from isthmus.align.soft import sinkhorn
from isthmus.core.randomness import child


def test_sinkhorn_is_doubly_stochastic_and_scales_rows_and_columns_alone():
    logits = torch.randn(7, 7, generator=child(0, "logits"), dtype=torch.float64)
    found = sinkhorn(logits, iterations=200)
    ones = torch.ones(7, dtype=torch.float64)
    assert torch.allclose(found.sum(0), ones, atol=1e-12)
    assert torch.allclose(found.sum(1), ones, atol=1e-12)
    # Factors of rows and columns leave the double ratios of entries, as a doubly stochastic scaling must.
    change = found.log() - logits
    assert torch.allclose(change - change[:1] - change[:, :1] + change[0, 0], torch.zeros(7, 7).double(), atol=1e-10)
