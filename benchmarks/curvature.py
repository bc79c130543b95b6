"""Curvature beside curvlinops (>=3,<4): the digits CNNs and a ResNet-20, on a CPU or a GPU.

    python benchmarks/curvature.py [--device cpu|cuda] [--networks small,large,resnet20] [--examples 500] ...

For each network: one product, a block of 16 products, the five largest eigenvalues (both through SciPy's ``eigsh``;
their error is against a float64 truth) and, for the small one, the spectral density's Wasserstein-1 distance to the
exact one. Convolutions keep full float32 for both (no TF32). Seconds are those of the fastest of three runs: wall-clock
on a GPU, CPU time of all threads on a CPU. On a CPU PyHessian's figure at tolerance 1e-6 is taken too.

Needs torch, numpy, scipy, safetensors and jaxtyping, and curvlinops with what it imports. Digits come from
scikit-learn; without it images of the same shape are drawn, and the output says so.
"""

from __future__ import annotations

import argparse
import copy
import functools
import importlib.metadata
import importlib.util
import json
import platform
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from isthmus.core.network import Network
from isthmus.core.objective import Objective
from isthmus.core.randomness import child
from isthmus.curvature import density, eigenpairs, hessian
from isthmus.zoo.networks import network

PAIRS, BLOCK = 5, 16


def digits(examples: int) -> tuple[Tensor, Tensor, str]:
    """Images of 8 × 8 pixels."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        return *drawn(examples, (1, 8, 8)), "drawn images of 8 × 8 pixels"
    data: Any = load_digits()
    images = torch.tensor(data.data / 16, dtype=torch.float32).view(-1, 1, 8, 8)
    return images[:examples], torch.tensor(data.target)[:examples], "digits"


def drawn(examples: int, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Ten smooth patterns under noise: a task that a network learns, of the size of a real one."""
    draw = child(0, "patterns", *shape)
    coarse = torch.randn(10, shape[0], shape[1] // 4, shape[2] // 4, generator=draw)
    patterns = nn.functional.interpolate(coarse, size=shape[1:], mode="bilinear", align_corners=False)
    targets = torch.randint(10, (examples,), generator=draw)
    return patterns[targets] + 0.7 * torch.randn(examples, *shape, generator=draw), targets


def cnn(first: int, second: int) -> nn.Module:
    """Two convolutions and a linear layer: 1,790 parameters for 6 and 8 channels, 9,930 for 16 and 32."""
    return nn.Sequential(
        nn.Conv2d(1, first, 3, padding=1), nn.ReLU(), nn.Conv2d(first, second, 3, padding=1), nn.ReLU(),
        nn.MaxPool2d(2), nn.Flatten(), nn.Linear(16 * second, 10),
    )  # fmt: skip


def subject(name: str, examples: int, device: str) -> tuple[nn.Module, Tensor, Tensor, str]:
    """A trained network in evaluation mode, its examples, and what they are."""
    torch.manual_seed(0)
    if name == "resnet20":
        images, labels = drawn(examples, (3, 32, 32))
        made, said, epochs, rate = network("resnet20", inputs=(3, 32, 32), classes=10), "drawn 3 × 32 × 32", 4, 1e-3
    else:
        images, labels, said = digits(examples)
        made, epochs, rate = cnn(*((6, 8) if name == "small" else (16, 32))), 15, 3e-3
    images, labels, made = images.to(device), labels.to(device), made.to(device).train()
    optimiser = torch.optim.Adam(made.parameters(), rate)
    for _ in range(epochs):
        for part in torch.randperm(len(labels)).to(device).split(64):
            optimiser.zero_grad()
            nn.functional.cross_entropy(made(images[part]), labels[part]).backward()
            optimiser.step()
    if name == "resnet20":
        settle(made, images)
    return made.eval(), images, labels, said


def settle(module: nn.Module, images: Tensor) -> None:
    """Running statistics of these weights and these images, not of the weights on the way to them."""
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.reset_running_stats()
            layer.momentum = None
    with torch.no_grad():
        module(images)


class Clock:
    """Seconds and peak memory of a piece of work."""

    def __init__(self, device: str, repeats: int) -> None:
        self.device, self.repeats = device, repeats
        self.tick = time.process_time if device == "cpu" else time.perf_counter

    def time(self, run: Callable[[], Any], *, repeats: int | None = None) -> tuple[float, float, Any]:
        """Least seconds, peak MiB beyond what was there (nan on a CPU), and the last answer."""
        before, times, answer = 0, [], None
        if self.device != "cpu":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
        for _ in range(repeats or self.repeats):
            self._settle()
            begun = self.tick()
            answer = run()
            self._settle()
            times.append(self.tick() - begun)
        peak = float("nan") if self.device == "cpu" else (torch.cuda.max_memory_allocated() - before) / 2**20
        return min(times), peak, answer

    def _settle(self) -> None:
        if self.device != "cpu":
            torch.cuda.synchronize()


def peer_operator(module: nn.Module, images: Tensor, labels: Tensor) -> Any:
    from curvlinops import HessianLinearOperator

    return HessianLinearOperator(
        module, nn.CrossEntropyLoss(), list(module.parameters()), [(images, labels)], check_deterministic=False
    )


def by_curvlinops(module: nn.Module, images: Tensor, labels: Tensor, tolerance: float) -> np.ndarray:
    from scipy.sparse.linalg import eigsh

    operator = peer_operator(module, images, labels).to_scipy()
    # SciPy's stubs call the tolerance an int.
    return np.sort(eigsh(operator, k=PAIRS, which="LA", tol=tolerance)[0])[::-1]  # pyright: ignore[reportArgumentType]


def by_pyhessian(module: nn.Module, images: Tensor, labels: Tensor) -> np.ndarray:
    from pyhessian import hessian as peer

    values, _ = peer(module, nn.CrossEntropyLoss(), data=(images, labels), cuda=images.is_cuda).eigenvalues(
        maxIter=1000, tol=1e-6, top_n=PAIRS
    )
    return np.array(values)


def peer_density(module: nn.Module, images: Tensor, labels: Tensor, exact: Tensor) -> float:
    """The W1 distance of curvlinops' density, as it comes, to the exact one."""
    from curvlinops import lanczos_approximate_spectrum

    torch.manual_seed(0)
    grid, heights = lanczos_approximate_spectrum(peer_operator(module, images, labels), 80, num_repeats=10)
    grid, heights = torch.as_tensor(grid).double().cpu(), torch.as_tensor(heights).double().cpu()
    step = grid[1] - grid[0]
    share = (heights * step).cumsum(0)
    fine = torch.cat([grid, exact.double().cpu()]).sort().values
    here = share[torch.searchsorted(grid, fine, right=True).sub(1).clamp_min(0)] * (fine >= grid[0])
    there = torch.searchsorted(exact.double().cpu().sort().values, fine, right=True).double() / len(exact)
    return float(((here - there).abs()[:-1] * fine.diff()).sum())


def measured(name: str, options: argparse.Namespace, clock: Clock) -> list[dict[str, Any]]:
    module, images, labels, said = subject(name, options.examples, options.device)
    made = Network.of(module)
    objective = Objective(made, images, labels, batch_size=len(labels))
    size = sum(tensor.numel() for tensor in module.parameters())
    loss = objective(made.weights).loss
    print(f"\n{name}: {size:,} parameters, {len(labels)} examples ({said}), loss {loss:.3f}", flush=True)
    rows: list[dict[str, Any]] = []

    def row(work: str, method: str, seconds: float, peak: float, **further: float) -> None:
        rows.append({"network": name, "parameters": size, "work": work, "method": method, "seconds": seconds,
                     "peak_mib": peak, **further})  # fmt: skip
        more = "   ".join(f"{key} {value:.1e}" for key, value in further.items())
        memory = "" if peak != peak else f"   peak {peak:7.0f} MiB"
        print(f"  {work:<22} {method:<26} {seconds:9.4f} s{memory}   {more}", flush=True)

    own, peer = hessian(objective, made.weights), peer_operator(module, images, labels)
    for count in (1, BLOCK):
        columns = torch.randn(size, count, generator=child(0, "columns")).to(options.device)
        work = "one product" if count == 1 else f"{count} products together"
        answers = {}
        for method, operator in (("isthmus", own), ("curvlinops", peer)):
            vectors = columns if count > 1 else columns[:, 0]
            answers[method] = operator @ vectors  # kernels, and for isthmus the graph that is kept
            seconds, peak, answers[method] = clock.time(functools.partial(operator.__matmul__, vectors))
            row(work, method, seconds, peak)
        apart = float((answers["isthmus"] - answers["curvlinops"]).norm() / answers["isthmus"].norm())
        print(f"  {'':<22} they differ by {apart:.1e}")
    del own, peer
    truth, exact = truths(module, images, labels, objective, options)
    runs: dict[str, Callable[[], np.ndarray]] = {
        "isthmus": lambda: eigenpairs(hessian(objective, made.weights), PAIRS).values.numpy(),  # noqa: PLW0108
        "curvlinops, tol 1e-4": lambda: by_curvlinops(module, images, labels, 1e-4),
    }
    if size < 20_000:
        runs["curvlinops, default tol"] = lambda: by_curvlinops(module, images, labels, 0)
    if importlib.util.find_spec("pyhessian") and options.device == "cpu" and size < 20_000:
        runs["pyhessian, tol 1e-6"] = lambda: by_pyhessian(module, images, labels)
    for method, run in runs.items():
        few = 1 if size > 20_000 and method != "isthmus" else None  # a slow peer is timed once
        seconds, peak, values = clock.time(run, repeats=few)
        row("top 5", method, seconds, peak, error=float((np.abs(values - truth) / np.abs(truth)).max()))
    if exact is not None:
        operator = hessian(objective, made.weights)
        seconds, peak, found = clock.time(lambda: density(operator, generator=child(0, "density")), repeats=1)
        row("density", f"isthmus, {found.products} products", seconds, peak, w1=found.distance(exact))
        seconds, peak, far = clock.time(lambda: peer_density(module, images, labels, exact), repeats=1)
        row("density", "curvlinops, as it comes", seconds, peak, w1=far)
    return rows


def truths(
    module: nn.Module, images: Tensor, labels: Tensor, objective: Objective, options: argparse.Namespace
) -> tuple[np.ndarray, Tensor | None]:
    """The five largest eigenvalues in float64: of the full Hessian where it is small, else curvlinops' in float64."""
    size = sum(tensor.numel() for tensor in module.parameters())
    if size < 5000 and not options.skip_exact:
        whole = hessian(objective, objective.network.weights, dtype=torch.float64).dense()
        exact = torch.linalg.eigvalsh(whole).flip(0).cpu()
        return exact[:PAIRS].numpy(), exact
    twin = copy.deepcopy(module).double()
    return by_curvlinops(twin, images.double(), labels, 1e-8), None


def ratios(rows: list[dict[str, Any]]) -> None:
    """How many times as long the peer takes."""
    print("\nseconds of the peer over isthmus'")
    mine = {(row["network"], row["work"]): row["seconds"] for row in rows if row["method"].startswith("isthmus")}
    for row in rows:
        if not row["method"].startswith("isthmus"):
            ratio = row["seconds"] / mine[row["network"], row["work"]]
            print(f"  {row['network']:<9} {row['work']:<22} {row['method']:<26} {ratio:6.2f}")


def versions(device: str) -> dict[str, str]:
    chip = platform.processor() or platform.machine()
    found = {"device": chip if device == "cpu" else torch.cuda.get_device_name(), "python": platform.python_version()}
    for name in ("torch", "numpy", "scipy", "curvlinops-for-pytorch", "pyhessian"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--networks", help="small, large and resnet20, some of them with commas")
    parser.add_argument("--examples", type=int, default=500)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--skip-exact", action="store_true", help="no full Hessian, no density")
    parser.add_argument("--json", help="write the rows here")
    options = parser.parse_args()
    torch.backends.cudnn.allow_tf32 = False
    about = versions(options.device)
    print(", ".join(f"{name} {version}" for name, version in about.items()), flush=True)
    rows: list[dict[str, Any]] = []
    begun = time.perf_counter()
    names = options.networks or ("small,large" if options.device == "cpu" else "small,resnet20")
    for name in names.split(","):
        rows += measured(name, options, Clock(options.device, options.repeats))
    ratios(rows)
    print(f"\n{time.perf_counter() - begun:.0f} s in all")
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump({**about, "examples": options.examples, "rows": rows}, file, indent=2)


if __name__ == "__main__":
    main()
