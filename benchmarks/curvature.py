"""Curvature against the full float64 Hessian and against curvlinops (>=3,<4), on two digits networks.

    python benchmarks/curvature.py [--device cpu|cuda] [--examples 500] [--skip-exact] [--json FILE]

Top-5 eigenvalues: seconds (median of three) and the largest relative error. Spectral density: Wasserstein-1 distance to
the exact one. PyHessian's own figure at tolerance 1e-6 is taken too where it is installed.
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import json
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from isthmus.core.network import Network
from isthmus.core.objective import Objective
from isthmus.core.randomness import child
from isthmus.curvature import density, eigenpairs, hessian


def digits(examples: int, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    from sklearn.datasets import load_digits

    data = load_digits()
    images = torch.tensor(data.data / 16, dtype=torch.float32).view(-1, 1, 8, 8)
    return images[:examples].to(device), torch.tensor(data.target)[:examples].to(device)


def trained(first: int, second: int, images: torch.Tensor, labels: torch.Tensor) -> nn.Module:
    """Two convolutions and a linear layer: 1,790 parameters for 6 and 8 channels, 9,930 for 16 and 32."""
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(1, first, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(first, second, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(16 * second, 10),
    ).to(images.device)
    optimiser = torch.optim.Adam(module.parameters(), 3e-3)
    for _ in range(15):
        for part in torch.randperm(len(labels)).split(64):
            optimiser.zero_grad()
            nn.functional.cross_entropy(module(images[part]), labels[part]).backward()
            optimiser.step()
    return module


def timed(run: Callable[[], np.ndarray], device: str, repeats: int = 3) -> tuple[float, np.ndarray]:
    times, values = [], np.empty(0)
    for _ in range(repeats):
        if device == "cuda":
            torch.cuda.synchronize()
        begun = time.perf_counter()
        values = run()
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - begun)
    return statistics.median(times), values


def by_curvlinops(module: nn.Module, images: torch.Tensor, labels: torch.Tensor, tolerance: float) -> np.ndarray:
    from curvlinops import HessianLinearOperator
    from scipy.sparse.linalg import eigsh

    parameters = list(module.parameters())
    operator = HessianLinearOperator(
        module, nn.CrossEntropyLoss(), parameters, [(images, labels)], check_deterministic=False
    )
    return np.sort(eigsh(operator.to_scipy(), k=5, which="LA", tol=tolerance)[0])[::-1]


def by_pyhessian(module: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> np.ndarray:
    from pyhessian import hessian as peer

    values, _ = peer(module, nn.CrossEntropyLoss(), data=(images, labels), cuda=images.is_cuda).eigenvalues(
        maxIter=1000, tol=1e-6, top_n=5
    )
    return np.array(values)


def measured(name: str, module: nn.Module, images: torch.Tensor, labels: torch.Tensor, options: argparse.Namespace):
    network = Network.of(module)
    objective = Objective(network, images, labels, batch_size=len(labels))
    size = sum(tensor.numel() for tensor in module.parameters())
    exact = None
    if size < 5000 and not options.skip_exact:
        begun = time.perf_counter()
        exact = torch.linalg.eigvalsh(hessian(objective, network.weights, dtype=torch.float64).dense()).flip(0).cpu()
        print(f"{name}: the full Hessian in float64 took {time.perf_counter() - begun:.0f} s")
    truth = exact
    if truth is None:
        pairs = eigenpairs(hessian(objective, network.weights, dtype=torch.float64), 5, tolerance=1e-8)
        truth = pairs.values
    top = truth[:5].numpy()
    runs = {
        "isthmus": lambda: eigenpairs(hessian(objective, network.weights), 5).values.numpy(),  # noqa: PLW0108
        "curvlinops, eigsh at 1e-4": lambda: by_curvlinops(module, images, labels, 1e-4),
        "curvlinops, eigsh at its default": lambda: by_curvlinops(module, images, labels, 0),
    }
    if importlib.util.find_spec("pyhessian"):
        runs["pyhessian at 1e-6"] = functools.partial(by_pyhessian, module, images, labels)
    rows = []
    for method, run in runs.items():
        if options.device == "cuda":
            run()  # a first call pays for kernels
        seconds, values = timed(run, options.device)
        error = float((np.abs(values - top) / np.abs(top)).max())
        rows.append({"network": name, "parameters": size, "method": method, "seconds": seconds, "error": error})
        print(f"{name:>6}  {method:<34} {seconds:8.3f} s   relative error {error:.1e}")
    if exact is not None:
        begun = time.perf_counter()
        found = density(hessian(objective, network.weights), generator=child(0, "density"))
        seconds, distance = time.perf_counter() - begun, found.distance(exact)
        rows.append({"network": name, "method": "density", "seconds": seconds, "w1": distance})
        print(f"{name:>6}  density ({found.products} products) {seconds:8.1f} s   W1 {distance:.4f}")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--examples", type=int, default=500)
    parser.add_argument("--skip-exact", action="store_true", help="no full Hessian, no density")
    parser.add_argument("--json", help="write the rows here")
    options = parser.parse_args()
    images, labels = digits(options.examples, options.device)
    rows = []
    for name, channels in (("small", (6, 8)), ("large", (16, 32))):
        rows += measured(name, trained(*channels, images, labels), images, labels, options)
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(rows, file, indent=2)


if __name__ == "__main__":
    main()
