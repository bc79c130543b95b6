"""25 points of the line between two networks: isthmus, loss-landscapes from PyPI, and the loop that anyone would write.

    python benchmarks/line.py [--here SYSTEM] [--examples 2000]

Each system runs in a process of its own on one thread and prints the curve, so what it evaluates can be compared: the
loss at the two ends is known.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from torch import Tensor, nn

SYSTEMS = ("isthmus", "loss-landscapes", "plain loop")
POINTS = 25


def case(examples: int) -> tuple[nn.Module, nn.Module, Tensor, Tensor]:
    """Two networks 784-512-512-10 and random examples."""
    made = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        made.append(
            nn.Sequential(nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10)).eval()
        )
    torch.manual_seed(2)
    return *made, torch.randn(examples, 784), torch.randint(10, (examples,))


def by_isthmus(first: nn.Module, second: nn.Module, inputs: Tensor, targets: Tensor) -> list[float]:
    import isthmus

    objective = isthmus.Objective(isthmus.Network.of(first), inputs, targets, metrics={})
    ends = ({name: tensor.detach() for name, tensor in module.state_dict().items()} for module in (first, second))
    return isthmus.barrier(isthmus.Line(*ends), objective, points=POINTS).loss.tolist()


def by_loss_landscapes(first: nn.Module, second: nn.Module, inputs: Tensor, targets: Tensor) -> list[float]:
    import loss_landscapes
    from loss_landscapes.metrics import Loss

    with torch.no_grad():
        metric = Loss(nn.CrossEntropyLoss(), inputs, targets)
        return loss_landscapes.linear_interpolation(first, second, metric, POINTS, deepcopy_model=True).tolist()


def by_loop(first: nn.Module, second: nn.Module, inputs: Tensor, targets: Tensor) -> list[float]:
    found, module = [], copy.deepcopy(first)
    start, end = first.state_dict(), second.state_dict()
    with torch.no_grad():
        for t in torch.linspace(0, 1, POINTS).tolist():
            module.load_state_dict({name: (1 - t) * start[name] + t * end[name] for name in start})
            found.append(float(nn.functional.cross_entropy(module(inputs), targets)))
    return found


RUNS: dict[str, Callable[..., list[float]]] = {
    "isthmus": by_isthmus, "loss-landscapes": by_loss_landscapes, "plain loop": by_loop,
}  # fmt: skip


def one(system: str, examples: int) -> dict[str, object]:
    """One system, in this process: CPU seconds of its second run, and how far its ends are from the truth."""
    torch.set_num_threads(1)
    given = case(examples)
    with torch.no_grad():
        ends = [float(nn.functional.cross_entropy(module(given[2]), given[3])) for module in given[:2]]
    RUNS[system](*given)
    begin = time.process_time()
    curve = RUNS[system](*given)
    seconds = time.process_time() - begin
    off = max(abs(curve[0] - ends[0]), abs(curve[-1] - ends[1]))
    return {"seconds": seconds, "curve": curve, "ends_off": off}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--here", choices=SYSTEMS, help="run this one system in this process and print JSON")
    parser.add_argument("--examples", type=int, default=2000)
    asked = parser.parse_args()
    if asked.here:
        print(json.dumps(one(asked.here, asked.examples)))
        return
    for system in SYSTEMS:
        command = [sys.executable, __file__, "--here", system, "--examples", str(asked.examples)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            print(f"{system:16} failed: {(done.stderr.strip() or '?').splitlines()[-1]}")
            continue
        row = json.loads(done.stdout.splitlines()[-1])
        print(f"{system:16} {row['seconds']:.3f} CPU s; loss at the ends off by {row['ends_off']:.1e}")


if __name__ == "__main__":
    main()
