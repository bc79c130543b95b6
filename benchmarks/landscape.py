"""Overlaps with pairwise alignment, and many walkers, on networks 784-256-10.

    python benchmarks/landscape.py [--networks 64] [--walkers 64] [--steps 200] [--examples 500] [--device cpu] ...

The aligner is written out below: for one hidden layer a single assignment is exact. Times are wall-clock; the CPU time
of all threads stands beside them, because on a busy machine only that can be compared. The goals are 60 s for each row
with the defaults on two cores.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lap
import torch
from torch import nn

from isthmus.cluster import gaussian_solutions, hierarchy, overlaps
from isthmus.core.network import Network
from isthmus.core.objective import Objective
from isthmus.core.randomness import child
from isthmus.core.symmetry import Permutation, Site, Symmetry, UnitGroup
from isthmus.core.weights import Weights
from isthmus.walk import Langevin, Metropolis, RandomWalk

INPUTS, HIDDEN, CLASSES = 784, 256, 10
UNITS = torch.arange(HIDDEN)[:, None]
SHAPES = {
    "0.weight": (HIDDEN, INPUTS),
    "0.bias": (HIDDEN,),
    "2.weight": (CLASSES, HIDDEN),
    "2.bias": (CLASSES,),
}
SITES = (Site("0.weight", 0, UNITS), Site("0.bias", 0, UNITS), Site("2.weight", 1, UNITS))
SYMMETRY = Symmetry((UnitGroup("0.weight", HIDDEN, SITES),), SHAPES)
GOAL = 60.0


def aligner(moving: Weights, fixed: Weights) -> Permutation:
    """The permutation of hidden units that maximises the overlap: exact for one hidden layer."""
    gain = fixed["0.weight"] @ moving["0.weight"].T + fixed["2.weight"].T @ moving["2.weight"]
    gain = gain + torch.outer(fixed["0.bias"], moving["0.bias"])
    _, columns = lap.lapjvr((gain.max() - gain).numpy(), return_cost=False)
    return Permutation(SYMMETRY, {"0.weight": torch.as_tensor(columns, dtype=torch.int64)})


def objective(examples: int, device: str) -> Objective:
    module = nn.Sequential(nn.Linear(INPUTS, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, CLASSES)).to(device)
    inputs = torch.randn(examples, INPUTS, generator=child(0, "inputs")).to(device)
    targets = torch.randint(CLASSES, (examples,), generator=child(0, "targets")).to(device)
    return Objective(Network.of(module), inputs, targets, batch_size=examples)


def timed(name: str, work: Callable[[], Any], device: str) -> tuple[dict[str, Any], Any]:
    wall, cpu = time.perf_counter(), time.process_time()
    answer = work()
    if device != "cpu":
        torch.cuda.synchronize()
    row = {"name": name, "wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
    print(f"{name:<58} {row['wall']:8.1f} s wall {row['cpu']:8.1f} s CPU", flush=True)
    return row, answer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", type=int, default=64)
    parser.add_argument("--walkers", type=int, default=64)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--examples", type=int, default=500)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--only", choices=("overlaps", "walks"))
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    rows = []
    if asked.only != "walks":
        like = {name: torch.zeros(shape) for name, shape in SHAPES.items()}
        solutions = gaussian_solutions(asked.networks, generator=child(0, "solutions"), like=like)
        row, raw = timed(f"overlaps of {asked.networks} networks, raw", lambda: overlaps(solutions), "cpu")
        rows.append(row)
        row, aligned = timed(
            f"overlaps of {asked.networks} networks, pairwise-aligned",
            lambda: overlaps(solutions, alignment="pairwise", aligner=aligner),
            "cpu",
        )
        rows.append(row)
        assert bool((aligned.q >= raw.q - 1e-9).all()), "an exact aligner cannot lower an overlap"
        row, _ = timed("the verdict on hierarchy", lambda: hierarchy(aligned, generator=child(0, "verdict")), "cpu")
        rows.append(row)
    if asked.only != "overlaps":
        ground = objective(asked.examples, asked.device)
        for walker, every in (
            (RandomWalk(), 10),
            (Metropolis(temperature=1e-3), 1),
            (Langevin(temperature=1e-5, rate=1e-2), 1),
        ):
            name = f"{type(walker).__name__}, {asked.walkers} walkers, {asked.steps} steps, a look every {every}"

            def walk(walker: Any = walker, every: int = every) -> Any:
                return walker(
                    ground, ground.network.weights, steps=asked.steps, generator=child(0, "walk"),
                    walkers=asked.walkers, every=every,
                )  # fmt: skip

            rows.append(timed(name, walk, asked.device)[0])
    slow = [row["name"] for row in rows if row["wall"] > GOAL]
    print(f"{'all within' if not slow else 'not within: ' + '; '.join(slow) + ';'} {GOAL:.0f} s")
    if asked.json is not None:
        device = torch.cuda.get_device_name() if asked.device != "cpu" else platform.processor() or platform.machine()
        about = {"torch": torch.__version__, "threads": torch.get_num_threads(), "device": device}
        asked.json.write_text(json.dumps({**about, "settings": {**vars(asked), "json": None}, "rows": rows}, indent=2))


if __name__ == "__main__":
    main()
