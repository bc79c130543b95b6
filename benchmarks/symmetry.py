"""Whose symmetry of twelve torchvision classifiers keeps the function? isthmus, rebasin and Torch-Pruning.

For each system: its own automatic specification, a random permutation of everything in it, random weights and running
statistics in float64, 96×96 images (224×224 where the network insists). *kept*: relative error below 1e-5; *broken*:
above;
*refused*: the system says no, crashes or takes longer than the limit. Each pair runs in a process of its own. *Seconds*
are of the processor, on one thread; *memory* is what the process needs at most on top of what it held before the system
was called (with all imports done), and that as a share of the network's own tensors.

    python benchmarks/symmetry.py [--limit 120] [--only resnet18,swin_t] [--systems isthmus,rebasin,torch-pruning]
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import importlib
import json
import math
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

NETWORKS = [
    "resnet18",
    "resnet50",
    "vgg16_bn",
    "densenet121",
    "mobilenet_v3_small",
    "efficientnet_b0",
    "shufflenet_v2_x1_0",
    "convnext_tiny",
    "vit_b_16",
    "swin_t",
    "regnet_y_400mf",
    "googlenet",
]
SYSTEMS = ("isthmus", "rebasin", "torch-pruning")


def torchvision_here() -> Any:
    """torchvision; where its compiled operators do not fit this torch, two are named so that it can be imported."""
    import torch

    with contextlib.suppress(RuntimeError):
        return importlib.import_module("torchvision")
    for name in ("nms", "qnms"):
        torch.library.define(f"torchvision::{name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return importlib.import_module("torchvision")


def randomised(module: Any, seed: int) -> Any:
    """The module in float64 with random weights and running statistics of a trained network's scale."""
    import torch

    from isthmus.discover.verify import random_weights

    weights = random_weights(module.state_dict(), torch.Generator().manual_seed(seed), torch.float64)
    module = module.double().eval()
    module.load_state_dict(weights)
    return module


def by_isthmus(module: Any, image: Any, generator: Any) -> tuple[int, float]:
    """Ours, without its own proof: the benchmark checks it as it checks the others."""
    import isthmus

    symmetry = isthmus.discover(module, image, verify=False)
    module.load_state_dict(symmetry.random(generator).apply(module.state_dict()))
    return len(symmetry.groups), symmetry.log10_size


def by_rebasin(module: Any, image: Any, generator: Any) -> tuple[int, float]:
    """rebasin's specification from hooks; what it holds as the identity stays."""
    import copy

    import torch
    from rebasin import PermutationCoordinateDescent

    found = PermutationCoordinateDescent(copy.deepcopy(module), module, image)
    sizes = []
    for permutation, _ in found.pinit.model_graph.permutation_to_info:
        sizes.append(len(permutation.perm_indices))
        permutation.perm_indices = torch.randperm(sizes[-1], generator=generator)
    found.apply_permutations()
    return len(sizes), sum(math.lgamma(size + 1) for size in sizes) / math.log(10)


def by_torch_pruning(module: Any, image: Any, generator: Any) -> tuple[int, float]:
    """Torch-Pruning's dependency groups, permuted instead of pruned (glue of this benchmark); outputs are ignored."""
    import torch
    import torch_pruning
    from torch import nn

    graph = torch_pruning.DependencyGraph().build_dependency(module, example_inputs=image)
    last = [part for part in module.modules() if isinstance(part, nn.Linear)][-1:]
    sizes = []
    for group in list(graph.get_all_groups(ignored_layers=last)):
        size = 1 + max(max(item.root_idxs) for item in group.items)
        sizes.append(size)
        order = torch.randperm(size, generator=generator)
        for item in group.items:
            places: dict[int, list[int]] = {}
            for at, root in zip(item.idxs, item.root_idxs, strict=True):
                places.setdefault(int(root), []).append(int(at))
            target, source = [], []
            for root in places:  # noqa: PLC0206
                target += places[root]
                source += places[int(order[root])]
            _permute(item.dep, graph.is_out_channel_pruning_fn(item.dep.handler), target, source)
    return len(sizes), sum(math.lgamma(size + 1) for size in sizes) / math.log(10)


def _permute(dependency: Any, outward: bool, target: list[int], source: list[int]) -> None:
    import torch
    from torch import nn

    part = dependency.target.module
    if not isinstance(part, nn.Module):
        tensors, dim = [part], next(d for d, size in enumerate(part.shape) if size == max(target) + 1)
    elif outward or not isinstance(part, (nn.Linear, nn.modules.conv._ConvNd)):
        tensors, dim = [*part.parameters(recurse=False), *part.buffers(recurse=False)], 0
    else:
        tensors, dim = [part.weight], 1
    with torch.no_grad():
        for tensor in tensors:
            if tensor.dim() > dim and tensor.shape[dim] > max(target):
                moved = tensor.clone()
                moved.index_copy_(dim, torch.tensor(target), tensor.index_select(dim, torch.tensor(source)))
                tensor.copy_(moved)


RUNS: dict[str, Callable[[Any, Any, Any], tuple[int, float]]] = {
    "isthmus": by_isthmus,
    "rebasin": by_rebasin,
    "torch-pruning": by_torch_pruning,
}


def one(system: str, network: str) -> dict[str, Any]:
    """One system on one network, in this process."""
    import torch

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    torchvision = torchvision_here()
    size = 224 if network == "vit_b_16" else 96
    options = {"init_weights": True} if network == "googlenet" else {}
    module = randomised(torchvision.models.get_model(network, weights=None, **options), 0)
    generator = torch.Generator().manual_seed(1)
    image = torch.randn(2, 3, size, size, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        before = module(image)
    warmed(system, generator)
    held = forgotten_peak()
    start = time.process_time()
    groups, log10 = RUNS[system](module, image, generator)
    seconds = time.process_time() - start
    more = peak() - held
    own = sum(tensor.numel() * tensor.element_size() for tensor in module.state_dict().values())
    with torch.no_grad():
        error = float((module(image) - before).abs().max() / before.abs().max())
    verdict = "kept" if error < 1e-5 and groups else "broken"
    return {
        "verdict": verdict,
        "groups": groups,
        "log10": log10,
        "error": error,
        "seconds": seconds,
        "memory": more / 2**20,
        "share": more / own,
    }


def warmed(system: str, generator: Any) -> None:
    """The system run once on next to nothing, so that what it imports counts neither as time nor as memory."""
    import torch
    from torch import nn

    tiny = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4, 2)).double().eval()
    with contextlib.suppress(Exception):
        RUNS[system](tiny, torch.zeros(1, 3, 3, 3, dtype=torch.float64), generator)


def forgotten_peak() -> int:
    """Bytes that this process holds now; its record of the most it ever held begins anew (on Linux)."""
    gc.collect()
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return _status("VmRSS")


def peak() -> int:
    """The most that this process held since."""
    return _status("VmHWM")


def _status(field: str) -> int:
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith(field):
                return 1024 * int(line.split()[1])
    return 0


def measured(system: str, network: str, limit: float) -> dict[str, Any]:
    """One system on one network, in a process of its own."""
    command = [sys.executable, __file__, "--child", system, network]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit, env=environment, check=False)
    except subprocess.TimeoutExpired:
        return {"verdict": "refused", "why": f"over {limit:.0f} s"}
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or not lines:
        errors = [line for line in done.stderr.splitlines() if line.strip()]
        return {"verdict": "refused", "why": errors[-1][:90] if errors else "no result"}
    return json.loads(lines[-1])


def main() -> None:
    """Print one row for each network and system, and the count of what was kept."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limit", type=float, default=120.0, help="seconds for one system on one network")
    parser.add_argument("--only", default=",".join(NETWORKS))
    parser.add_argument("--systems", default=",".join(SYSTEMS))
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(one(*arguments.child)))
        return
    kept: dict[str, int] = {}
    networks = arguments.only.split(",")
    print(
        f"{'network':20s} {'system':14s} {'verdict':8s} {'groups':>6s} {'log10':>11s} {'error':>8s} {'seconds':>7s} "
        f"{'memory MiB':>10s} {'share':>5s}"
    )
    for network in networks:
        for system in arguments.systems.split(","):
            row = measured(system, network, arguments.limit)
            kept[system] = kept.get(system, 0) + (row["verdict"] == "kept")
            if "why" in row:
                print(f"{network:20s} {system:14s} {row['verdict']:8s} {row['why']}", flush=True)
                continue
            print(
                f"{network:20s} {system:14s} {row['verdict']:8s} {row['groups']:6d} {row['log10']:11.1f} "
                f"{row['error']:8.1e} {row['seconds']:7.1f} {row['memory']:10.0f} {row['share']:5.2f}",
                flush=True,
            )
    print(", ".join(f"{system} kept {count} of {len(networks)}" for system, count in kept.items()))


if __name__ == "__main__":
    main()
