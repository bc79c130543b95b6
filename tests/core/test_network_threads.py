"""One network called from several threads at once gives each thread its own weights' output."""

from __future__ import annotations

import time

import torch
from torch import nn

from isthmus.core.network import Network
from isthmus.core.threads import in_threads


class _Slow(nn.Module):
    """Reads its weight after a pause, so that a thread that swaps tensors meanwhile would be seen."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        time.sleep(0.005)
        return inputs * self.weight


def test_threads_do_not_see_each_others_weights():
    network = Network.of(_Slow())
    values = [float(value) for value in range(12)]
    outputs = in_threads(
        lambda value: (
            float(network({"weight": torch.tensor(value)}, torch.ones(()))),
            float(network.training({"weight": torch.tensor(value)}, torch.ones(()))[0]),
        ),
        values,
        threads=4,
    )
    assert outputs == [(value, value) for value in values]
