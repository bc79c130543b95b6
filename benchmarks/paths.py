"""How fast 25 points of a line are evaluated: reused memory, fresh memory, all points at once.

Run with ``python benchmarks/paths.py [device]``. Prints milliseconds (best of five) and checks that all ways agree.
"""

from __future__ import annotations

import itertools
import sys
import time

import torch
from torch import nn

from isthmus.connect import Line, barrier
from isthmus.core import weights as algebra
from isthmus.core.network import Network
from isthmus.core.objective import Objective

CASES = {
    "MLP 64-64-10, 500 examples": ([64, 64, 10], 500),
    "MLP 784-512-512-10, 2,000 examples": ([784, 512, 512, 10], 2000),
    "MLP 784-512-512-10, 10,000 examples": ([784, 512, 512, 10], 10000),
}


def network(widths: list[int], seed: int) -> Network:
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    for wide, narrow in itertools.pairwise(widths):
        layers += [nn.Linear(wide, narrow), nn.ReLU()]
    return Network.of(nn.Sequential(*layers[:-1]))


def best_of(function, device: str, repeats: int = 5) -> tuple[float, torch.Tensor]:
    times, result = [], torch.empty(0)
    for _ in range(repeats):
        begin = time.perf_counter()
        result = function()
        if device != "cpu":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - begin)
    return 1000 * min(times), result


def main(device: str = "cpu") -> None:
    for name, (widths, examples) in CASES.items():
        first, second = (network(widths, seed) for seed in (0, 1))
        inputs, targets = torch.randn(examples, widths[0]), torch.randint(widths[-1], (examples,))
        objective = Objective(first, inputs, targets, batch_size=10000).to(device)
        line = Line(first.weights, second.weights).to(device=device)
        grid = torch.linspace(0, 1, 25).tolist()

        def fresh(line=line, objective=objective, grid=grid) -> torch.Tensor:
            return torch.tensor([objective(algebra.lerp(line.start, line.end, t)).loss for t in grid])

        ways = {
            "as the library chooses": lambda line=line, objective=objective: barrier(line, objective).loss,
            "one by one": lambda line=line, objective=objective: barrier(line, objective, together=1).loss,
            "all at once": lambda line=line, objective=objective: barrier(line, objective, together=25).loss,
            "one by one in fresh memory": fresh,
        }
        found = {way: best_of(function, device) for way, function in ways.items()}
        losses = [result.double() for _, result in found.values()]
        assert all(torch.allclose(loss, losses[0], rtol=1e-4) for loss in losses)
        print(name, *(f"{way}: {milliseconds:.1f} ms" for way, (milliseconds, _) in found.items()), sep="\n  ")


if __name__ == "__main__":
    main(*sys.argv[1:])
