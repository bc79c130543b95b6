"""How time grows with size: parameters, width, number of networks; a fitted exponent, and the limit beside it.

    python benchmarks/growth.py [--quick] [--only NAME ...] [--json FILE]

For each kind of work the CPU seconds of one thread over several sizes, the slope of their logarithms with its 95 %
interval (Student's t), and the *limit*: the bytes that must be moved or the operations that must be done at the largest
size, in seconds at the rate that this machine reaches on a plain copy or a plain matrix product. ``above`` says how
many times the limit the measurement is.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from torch import nn

import isthmus
from isthmus.core.randomness import child
from isthmus.core.statistics import student_quantile


@dataclasses.dataclass(frozen=True)
class Growth:
    """One kind of work.

    Attributes:
        sizes: what grows.
        quick: fewer and smaller ones.
        prepare: from a size to the work, which is then timed.
        limit: from a size to bytes (``"bytes"``) or multiply-adds (``"operations"``) that no method can avoid.
    """

    name: str
    of: str
    sizes: Sequence[int]
    quick: Sequence[int]
    prepare: Callable[[int], Callable[[], Any]]
    limit: Callable[[int], tuple[float, str]]


def mlp(width: int, hidden: int = 1, *, inputs: int = 784) -> nn.Module:
    layers: list[nn.Module] = [nn.Linear(inputs, width), nn.ReLU()]
    for _ in range(hidden - 1):
        layers += [nn.Linear(width, width), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(width, 10))


def weights_of(module: nn.Module, seed: int) -> dict[str, torch.Tensor]:
    generator = child(seed, "weights")
    return {name: torch.randn(t.shape, generator=generator) / 28 for name, t in module.state_dict().items()}


def matching(width: int) -> Callable[[], Any]:
    module = mlp(width)
    symmetry = isthmus.discover(module, torch.randn(2, 784))
    first, second = weights_of(module, 0), weights_of(module, 1)
    return lambda: isthmus.WeightMatching()(symmetry, second, first, generator=child(0, "match"))


def merging(parameters: int) -> Callable[[], Any]:
    from isthmus.merge import Configuration, merge_files

    folder = tempfile.TemporaryDirectory(prefix="growth-")
    side = math.isqrt(parameters // 16)
    files = []
    for name in "ab":
        weights = {f"{place}": torch.randn(side, side, generator=child(place, name)) for place in range(16)}
        files.append(isthmus.save(weights, Path(folder.name) / f"{name}.safetensors"))
    plan = Configuration.of(
        {"merge_method": "linear", "models": [{"model": str(f), "parameters": {"weight": 0.5}} for f in files]}
    )
    runs = iter(range(10**6))
    return lambda: merge_files(plan, Path(folder.name) / f"merged-{next(runs)}", threads=1) and folder


def barrier(parameters: int) -> Callable[[], Any]:
    width = max(8, round((-804 + math.sqrt(804**2 + 4 * parameters)) / 2))  # 784 w + w² + 20 w or so
    module = mlp(width, 2)
    objective = isthmus.Objective(isthmus.Network.of(module), torch.randn(500, 784), torch.randint(10, (500,)))
    line = isthmus.Line(weights_of(module, 0), weights_of(module, 1))
    return lambda: isthmus.barrier(line, objective, points=11)


def products(parameters: int) -> Callable[[], Any]:
    width = max(8, round((-804 + math.sqrt(804**2 + 4 * parameters)) / 2))
    module = mlp(width, 2)
    objective = isthmus.Objective(isthmus.Network.of(module), torch.randn(200, 784), torch.randint(10, (200,)))
    matrix = isthmus.hessian(objective, weights_of(module, 0))
    vector = torch.randn(matrix.size)
    return lambda: [matrix @ vector for _ in range(5)]


def overlaps(networks: int) -> Callable[[], Any]:
    module = mlp(256)
    solutions = [weights_of(module, seed) for seed in range(networks)]
    return lambda: isthmus.overlaps(solutions, threads=1)


def pairs(networks: int) -> Callable[[], Any]:
    module = mlp(64)
    objective = isthmus.Objective(isthmus.Network.of(module), torch.randn(200, 784), torch.randint(10, (200,)))
    solutions = [weights_of(module, seed) for seed in range(networks)]
    return lambda: isthmus.barriers(solutions, objective, points=5)


def training(replicas: int) -> Callable[[], Any]:
    from isthmus.train import Recipe, train

    data = isthmus.load_data("digits")
    recipe = Recipe(network="mlp-64x2", settings={"inputs": [1, 8, 8]}, epochs=1)
    return lambda: train(
        recipe.replicates(replicas), data=data, module=isthmus.build, engine="vectorised", scores="never"
    )


WORK = [
    Growth(
        "weight matching, one hidden layer", "width", (128, 256, 512, 1024, 2048), (64, 128, 256), matching,
        lambda width: (width * width * 795.0, "operations"),  # the table of similarities; the assignment comes on top
    ),
    Growth(
        "merging two files", "parameters", (2**22, 2**24, 2**26, 2**27), (2**18, 2**20, 2**22), merging,
        lambda parameters: (3 * 4.0 * parameters, "bytes"),  # two read, one written
    ),
    Growth(
        "barrier, 11 points, 500 examples", "parameters", (2**17, 2**19, 2**21, 2**22), (2**15, 2**16, 2**17), barrier,
        lambda parameters: (11 * 500 * parameters, "operations"),
    ),
    Growth(
        "5 Hessian products, 200 examples", "parameters", (2**17, 2**19, 2**21, 2**22), (2**15, 2**16, 2**17), products,
        lambda parameters: (5 * 4 * 200 * parameters, "operations"),  # two passes, each with its reverse
    ),
    Growth(
        "raw overlaps, 0.2 million parameters", "networks", (8, 16, 32, 64, 128), (4, 8, 16), overlaps,
        lambda networks: (networks * networks / 2 * 203530.0, "operations"),
    ),
    Growth(
        "barriers of all pairs, 5 points", "networks", (4, 8, 16, 24), (3, 4, 6), pairs,
        lambda networks: (networks * (networks - 1) / 2 * 3 * 200 * 50826.0, "operations"),  # ends are known
    ),
    Growth(
        "training replicas together, one epoch", "networks", (2, 4, 8, 16, 32), (1, 2, 4), training,
        lambda networks: (3 * 1437 * networks * 8896.0, "operations"),  # forward, and two products back
    ),
]  # fmt: skip


def rates() -> dict[str, float]:
    """Bytes and multiply-adds a second that one thread of this machine reaches, best of five."""
    block, one, two = torch.randn(2**24), torch.randn(1024, 1024), torch.randn(1024, 1024)
    target = torch.empty_like(block)
    copy = min(timed(lambda: target.copy_(block)) for _ in range(5))
    product = min(timed(lambda: one @ two) for _ in range(5))
    return {"bytes": 2 * 4 * 2**24 / copy, "operations": 1024**3 / product}


def timed(work: Callable[[], Any]) -> float:
    """CPU seconds of the process: what else runs on the machine disturbs them least."""
    begin = time.process_time()
    work()
    return time.process_time() - begin


def fitted(sizes: Sequence[int], seconds: Sequence[float]) -> tuple[float, float, float]:
    """Slope of log seconds over log size, and the ends of its 95 % interval."""
    x = torch.tensor([math.log(size) for size in sizes], dtype=torch.float64)
    y = torch.tensor([math.log(max(second, 1e-9)) for second in seconds], dtype=torch.float64)
    x, y = x - x.mean(), y - y.mean()
    slope = float((x * y).sum() / x.square().sum())
    if len(sizes) < 3:
        return slope, math.nan, math.nan
    spread = float((y - slope * x).square().sum() / (len(sizes) - 2) / x.square().sum()) ** 0.5
    reach = student_quantile(0.975, len(sizes) - 2) * spread
    return slope, slope - reach, slope + reach


def measured(work: Growth, reached: dict[str, float], *, quick: bool) -> dict[str, Any]:
    sizes = list(work.quick if quick else work.sizes)
    seconds = []
    for size in sizes:
        run = work.prepare(size)
        run()  # what is made once and kept is not growth
        seconds.append(min(timed(run) for _ in range(2)))
    slope, low, high = fitted(sizes, seconds)
    amount, kind = work.limit(sizes[-1])
    limit = amount / reached[kind]
    return {
        "name": work.name, "of": work.of, "sizes": sizes, "seconds": seconds, "slope": slope, "low": low, "high": high,
        "limit": limit, "limit_kind": kind, "limit_amount": amount, "above": seconds[-1] / limit,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small sizes: whether it runs, not what it says")
    parser.add_argument("--only", nargs="*", help="kinds of work whose name holds one of these")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    reached = rates()
    print(f"one thread: {reached['bytes'] / 1e9:.1f} GB/s copied, {reached['operations'] / 1e9:.1f} G multiply-adds/s")
    rows = []
    for work in WORK:
        if asked.only and not any(part in work.name for part in asked.only):
            continue
        row = measured(work, reached, quick=asked.quick)
        rows.append(row)
        print(
            f"{row['name']:42} ∝ {row['of']}^{row['slope']:.2f} [{row['low']:.2f}, {row['high']:.2f}]  "
            f"{row['seconds'][-1]:.3g} s at {row['sizes'][-1]}; limit {row['limit']:.3g} s "
            f"({row['limit_amount']:.2g} {row['limit_kind']}), {row['above']:.1f} times that",
            flush=True,
        )
    if asked.json:
        asked.json.write_text(json.dumps({"rates": reached, "rows": rows}, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
