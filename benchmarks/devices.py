"""Does a GPU give the CPU's answers, and how much sooner? One row for each kind of work.

    python benchmarks/devices.py [--device cuda] [--quick]

Prints the largest relative difference between the two devices' answers and the seconds on each, after one warm-up.
"""

from __future__ import annotations

import argparse
import dataclasses
import platform
import time
import traceback
from collections.abc import Callable
from typing import Any

import torch

import isthmus
from isthmus.align import ActivationMatching, WeightMatching
from isthmus.cluster import overlaps
from isthmus.connect import Line, barrier, bend, fit, plane_through, reestimate, repair, surface
from isthmus.core.network import Network
from isthmus.core.objective import Objective
from isthmus.core.randomness import child
from isthmus.core.weights import stack, to
from isthmus.curvature import density, eigenpairs, hessian, trace
from isthmus.walk import Langevin, Metropolis, RandomWalk
from isthmus.zoo import network

Case = Callable[[str], Any]


@dataclasses.dataclass(frozen=True)
class Bench:
    """Two networks of one kind with random data, on any device."""

    name: str
    settings: dict[str, Any]
    examples: int

    def on(self, device: str) -> tuple[Any, Objective, list[dict[str, torch.Tensor]], torch.Tensor]:
        shape = tuple(self.settings["inputs"])
        draw = child(0, "data", self.name)
        inputs = torch.randn(self.examples, *shape, generator=draw)
        targets = torch.randint(10, (self.examples,), generator=draw)
        modules = [network(self.name, seed=seed, **self.settings) for seed in range(3)]
        solutions = [to(module.state_dict(), device=device) for module in modules]
        objective = Objective(Network.of(modules[0].to(device)), inputs.to(device), targets.to(device), batch_size=2000)
        return modules[0], objective, solutions, inputs.to(device)


def cases(quick: bool) -> dict[str, Case]:
    small = 200 if quick else 5000
    mlp = Bench("mlp", {"inputs": (1, 28, 28), "classes": 10, "width": 256, "depth": 1}, small)
    resnet = Bench("resnet20", {"inputs": (3, 32, 32), "classes": 10, "width": 0.25 if quick else 1.0}, small)
    cnn = Bench("vgg", {"inputs": (1, 8, 8), "classes": 10, "channels": (8, 16)}, 100 if quick else 1000)
    steps, walkers, points = (5, 4, 5) if quick else (200, 64, 25)

    def walked(walker: Any) -> Case:
        def run(device: str) -> Any:
            _, objective, (start, *_), _ = mlp.on(device)
            found = walker(
                objective.limited(500), start, steps=steps, walkers=walkers, every=5, generator=child(0, "walk")
            )
            return found.loss[:, -1].mean()

        return run

    def many(device: str) -> Any:
        _, objective, solutions, _ = mlp.on(device)
        return objective.many(stack(solutions * 8)).loss

    def line(bench: Bench) -> Case:
        def run(device: str) -> Any:
            _, objective, (start, end, _), inputs = bench.on(device)
            return barrier(Line(start, end), objective, points=points, inputs=inputs[:2000]).loss

        return run

    def matched(matcher: str) -> Case:
        def run(device: str) -> Any:
            module, objective, (fixed, moving, _), inputs = resnet.on(device)
            symmetry = isthmus.discover(module, inputs[:2])
            method = WeightMatching() if matcher == "weights" else ActivationMatching(objective.network, inputs[:1000])
            return method(symmetry, moving, fixed, generator=child(0, "align")).objective

        return run

    def repaired(device: str) -> Any:
        _, objective, (start, end, _), inputs = resnet.on(device)
        average = {name: (start[name] + end[name]) / 2 for name in start if start[name].is_floating_point()}
        whole = {**start, **average}
        fixed = repair(objective.network, whole, (start, end), inputs[:1000])
        again = reestimate(objective.network, whole, inputs[:1000])
        return torch.tensor([objective(fixed).loss, objective(again).loss])

    def curve(device: str) -> Any:
        _, objective, (start, end, _), _ = mlp.on(device)
        return fit(bend(start, end), objective, steps=steps, generator=child(0, "curve")).losses[-10:].mean()

    def plane(device: str) -> Any:
        _, objective, solutions, _ = mlp.on(device)
        names = objective.network.parameter_names
        return surface(plane_through(*solutions, tensors=names), objective, points=max(3, points // 2)).loss

    def spectrum(device: str) -> Any:
        _, objective, (start, *_), _ = cnn.on(device)
        operator = hessian(objective, start)
        top = eigenpairs(operator, 5)
        shares = density(operator, generator=child(0, "density"), probes=3, steps=20, outliers=top)
        total = trace(operator, generator=child(0, "trace"), products=30)
        return torch.cat([top.values.cpu(), torch.tensor([total.interval.estimate]), shares.outliers[:1].cpu()])

    def pairwise(device: str) -> Any:
        module, _, solutions, inputs = mlp.on(device)
        symmetry = isthmus.discover(module, inputs[:2])

        def align(moving: Any, fixed: Any) -> Any:
            return WeightMatching()(symmetry, moving, fixed, generator=child(0, "align"))

        return overlaps(solutions, alignment="pairwise", aligner=align).q

    return {
        "scores of 24 networks": many,
        "barrier, MLP": line(mlp),
        "barrier, ResNet-20 with re-estimation": line(resnet),
        "weight matching, ResNet-20": matched("weights"),
        "activation matching, ResNet-20": matched("activations"),
        "REPAIR and re-estimation, ResNet-20": repaired,
        "learned curve": curve,
        "plane": plane,
        "spectrum, CNN": spectrum,
        "pairwise overlaps": pairwise,
        "random walk": walked(RandomWalk(step=0.02)),
        "Metropolis walk": walked(Metropolis(step=0.01, temperature=1e-3)),
        "Langevin walk": walked(Langevin(temperature=1e-4, rate=1e-3)),
    }


def timed(case: Case, device: str) -> tuple[torch.Tensor, float]:
    began = time.perf_counter()
    answer = torch.as_tensor(case(device), dtype=torch.float64).cpu()
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return answer, time.perf_counter() - began


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--device", default="cuda")
    options.add_argument("--quick", action="store_true")
    given = options.parse_args()
    name = torch.cuda.get_device_name(0) if given.device.startswith("cuda") else platform.processor()
    print(f"torch {torch.__version__}, {name}, {torch.get_num_threads()} CPU threads")
    print(f"{'work':40} {'difference':>11} {'CPU s':>8} {given.device + ' s':>8} {'ratio':>7}")
    for title, case in cases(given.quick).items():
        try:
            slow, cpu = timed(case, "cpu")
            if not given.quick:
                cases(True)[title](given.device)  # warm-up: kernels are loaded and handles made
            fast, gpu = timed(case, given.device)
            error = float((slow - fast).abs().max() / slow.abs().max().clamp_min(1e-30))
            print(f"{title:40} {error:11.1e} {cpu:8.2f} {gpu:8.2f} {cpu / gpu:7.1f}", flush=True)
        except Exception as problem:
            last = traceback.extract_tb(problem.__traceback__)[-1]
            print(
                f"{title:40} FAILED {type(problem).__name__}: {str(problem)[:160]} ({last.filename}:{last.lineno})",
                flush=True,
            )


if __name__ == "__main__":
    main()
