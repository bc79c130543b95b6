"""Alignment against the published algorithm and against rebasin from PyPI: CPU seconds, sweeps, distance, peak memory.

    python benchmarks/alignment.py pair --model resnet18 resnet50
    python benchmarks/alignment.py planted --networks 100
    python benchmarks/alignment.py assign --units 1024 2048
    python benchmarks/alignment.py llama --layers 16 [--folder FOLDER]

``pair``: two torchvision networks with random weights (default initialisation, seeds 0 and 1, plus N(0, .2) on every
one-dimensional parameter); each system runs in a process of its own, on one thread. Needs torchvision, and
``rebasin`` with ``graphviz`` for the peer. ``planted``: how often a planted permutation comes back whole. ``assign``:
one assignment by SciPy, by lapx as it is, and by ours, which starts lapx near its dual solution. ``llama``: a
Llama-shaped pair in bfloat16, safetensors shards, read one tensor at a time.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from isthmus.align import FrankWolfe, WeightMatching
from isthmus.align.assignment import assign, value
from isthmus.core.checkpoint import save
from isthmus.core.lazy import LazyCheckpoint
from isthmus.core.randomness import child
from isthmus.core.symmetry import Parent, Site, Symmetry, UnitGroup
from isthmus.discover import discover

SYSTEMS = ("isthmus", "isthmus, to the end", "isthmus, Frank–Wolfe", "published algorithm", "rebasin")
TARGETS = {"resnet18": (1.2, 125.3), "resnet50": (10.0, 293.4)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    pair = commands.add_parser("pair")
    pair.add_argument("--model", nargs="+", default=["resnet18"])
    pair.add_argument("--systems", nargs="+", default=list(SYSTEMS))
    pair.add_argument("--here", help="run this one system in this process and print JSON")
    planted = commands.add_parser("planted")
    planted.add_argument("--networks", type=int, default=100)
    assigned = commands.add_parser("assign")
    assigned.add_argument("--units", nargs="+", type=int, default=[512, 1024, 2048])
    llama = commands.add_parser("llama")
    llama.add_argument("--layers", type=int, default=16)
    llama.add_argument("--sweeps", type=int, default=2)
    llama.add_argument("--folder", type=Path)
    given = parser.parse_args()
    if given.command == "pair" and given.here:
        print(json.dumps(run(given.here, given.model[0])))
    elif given.command == "pair":
        compare(given.model, given.systems)
    elif given.command == "planted":
        plant(given.networks)
    elif given.command == "assign":
        solve(given.units)
    else:
        with tempfile.TemporaryDirectory(dir=given.folder) as folder:
            scale(Path(folder), given.layers, given.sweeps)


def compare(models: list[str], systems: list[str]) -> None:
    """Each system on each pair, one process after the other."""
    for model in models:
        print(f"{model} (to reach: {TARGETS.get(model, ('–', '–'))} CPU s, L2)")
        for system in systems:
            command = [sys.executable, __file__, "pair", "--model", model, "--here", system]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                reason = (done.stderr.strip() or "?").splitlines()[-1]
                print(f"  {system:24} failed: {reason}", flush=True)
                continue
            r = json.loads(done.stdout.splitlines()[-1])
            sweeps = r["sweeps"] if r["sweeps"] >= 0 else "not told"
            print(
                f"  {system:24} CPU {r['cpu']:7.2f} s  wall {r['wall']:7.2f} s  L2 {r['before']:.2f} → {r['after']:.2f}"
                f"  sweeps {sweeps}  memory above the networks {r['memory']:.0f} MB",
                flush=True,
            )


def run(system: str, model: str) -> dict[str, Any]:
    """One system on one pair, in this process."""
    torch.set_num_threads(1)
    first, second = network(model, 0), network(model, 1)
    example = torch.randn(2, 3, 64, 64, generator=child(0, "example"))
    names = [name for name, _ in first.named_parameters()]
    moving, fixed = ({n: t.clone() for n, t in m.state_dict().items()} for m in (first, second))
    symmetry = None if system == "rebasin" else discover(first, example, verify=False)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    cpu, wall = time.process_time(), time.perf_counter()
    if symmetry is None:
        aligned, sweeps = rebasin(first, second, example)
    elif system == "published algorithm":
        aligned, sweeps = published(symmetry, moving, fixed)
    else:
        matchers = {
            "isthmus": WeightMatching(),
            "isthmus, to the end": WeightMatching(tolerance=0),
            "isthmus, Frank–Wolfe": FrankWolfe(iterations=10),
        }
        match = matchers[system](symmetry, moving, fixed, generator=child(0, "match"))
        aligned, sweeps = match.aligned(moving), match.sweeps
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {
        "cpu": cpu,
        "wall": wall,
        "before": distance(moving, fixed, names),
        "after": distance(aligned, fixed, names),
        "sweeps": sweeps,
        "memory": peak - before,
    }


def network(model: str, seed: int) -> nn.Module:
    """A torchvision network whose one-dimensional parameters are not all ones and zeros."""
    from symmetry import torchvision_here  # the file beside this one

    torchvision = torchvision_here()
    torch.manual_seed(seed)
    module = getattr(torchvision.models, model)().eval()
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.dim() == 1:
                parameter.add_(torch.randn(parameter.shape) * 0.2)
    return module


def published(symmetry: Symmetry, moving: dict[str, Tensor], fixed: dict[str, Tensor]) -> tuple[dict[str, Tensor], int]:
    """Git Re-Basin's algorithm 1: every group in every sweep, in random order, SciPy in float64, until none gains."""
    from scipy.optimize import linear_sum_assignment

    generator, current, sweeps = child(0, "order"), dict(moving), 0
    while True:
        gained = False
        sweeps += 1
        for place in torch.randperm(len(symmetry.groups), generator=generator).tolist():
            group = symmetry.groups[place]
            similarity = torch.zeros(group.size, group.size)
            for site in group.matched:
                sides = [
                    side[site.tensor]
                    .index_select(site.dim, site.index.reshape(-1))
                    .movedim(site.dim, 0)
                    .reshape(group.size, -1)
                    for side in (fixed, current)
                ]
                similarity += sides[0] @ sides[1].T
            _, index = linear_sum_assignment(similarity.double().numpy(), maximize=True)
            index = torch.from_numpy(index)
            gain = float((similarity[torch.arange(group.size), index] - similarity.diagonal()).double().sum())
            if gain > 1e-4:
                gained = True
                for site in group.sites:
                    gather = site.moved(symmetry.tensors[site.tensor][site.dim], index)
                    current[site.tensor] = current[site.tensor].index_select(site.dim, gather)
        if not gained:
            return current, sweeps


def rebasin(first: nn.Module, second: nn.Module, example: Tensor) -> tuple[dict[str, Tensor], int]:
    """The peer from PyPI; it permutes its second network to the first, so the roles are exchanged."""
    import rebasin as peer

    finder = peer.PermutationCoordinateDescent(second, first, example, logging_level="ERROR")
    finder.rebasin()
    sweeps = getattr(finder, "num_iterations", -1)
    return dict(first.state_dict()), sweeps


def distance(first: dict[str, Tensor], second: dict[str, Tensor], names: list[str]) -> float:
    return math.sqrt(sum(float((first[n].double() - second[n].double()).square().sum()) for n in names))


class Block(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, stream: Tensor) -> Tensor:
        return stream + self.down(torch.relu(self.up(stream)))


class Transformer(nn.Module):
    def __init__(self, width: int, heads: int, layers: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(32, width)
        layer = nn.TransformerEncoderLayer(width, heads, 2 * width, 0.0, batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 32)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.norm(self.layers(self.embed(tokens))))


def plant(networks: int) -> None:
    """How often a random permutation of random weights is found again, without and with 5 % noise."""
    builders: dict[str, tuple[Callable[[], nn.Module], Tensor]] = {
        f"residual MLP d={d} h={h} blocks={b}": (
            lambda d=d, h=h, b=b: nn.Sequential(nn.Linear(8, d), *(Block(d, h) for _ in range(b)), nn.Linear(d, 5)),
            torch.randn(2, 8),
        )
        for d, h, b in ((30, 50, 2), (64, 128, 4), (256, 512, 4))
    }
    builders["pre-norm transformer d=64, 4 heads, 3 layers"] = (
        lambda: Transformer(64, 4, 3).eval(),
        torch.arange(12).reshape(2, 6),
    )
    for name, (build, example) in builders.items():
        symmetry = discover(build(), example)
        for noise in (0.0, 0.05):
            found, began = 0, time.process_time()
            for seed in range(networks):
                torch.manual_seed(seed)
                moving = {n: t.detach().clone() for n, t in build().state_dict().items()}
                planted = symmetry.random(child(seed, "planted"))
                fixed = {
                    n: t + noise * t.std(unbiased=False) * torch.randn(t.shape)
                    for n, t in planted.apply(moving).items()
                }
                match = WeightMatching()(symmetry, moving, fixed, generator=child(seed, "match"))
                found += match.permutation.same_as(planted)
            seconds = (time.process_time() - began) / networks
            print(f"{name}, noise {noise:.0%}: {found} of {networks}, {seconds:.2f} CPU s each", flush=True)


def solve(sizes: list[int]) -> None:
    """CPU milliseconds for one assignment, single precision, on similarities of different kinds."""
    import lap
    from scipy.optimize import linear_sum_assignment

    torch.set_num_threads(1)
    for units in sizes:
        for kind in ("weights", "with gains", "heavy tails", "activations"):
            generator = child(units, kind)
            left, right = torch.randn(2, units, 500, generator=generator)
            if kind == "with gains":  # of a normalisation, around one: some columns are better for every row
                left[:, 0], right[:, 0] = 10.0, 2 * right[:, 0]
            elif kind == "heavy tails":
                left, right = (part * torch.rand(units, 1, generator=generator) ** 4 for part in (left, right))
            elif kind == "activations":
                left, right = left.relu(), right.relu()
            similarity = left @ right.T
            spent = []
            for solver in (
                lambda s: linear_sum_assignment(s.numpy(), maximize=True)[1],
                lambda s: lap.lapjvr((-s).numpy(), return_cost=False)[1],
                assign,
            ):
                began = time.process_time()
                index = torch.as_tensor(solver(similarity))
                spent.append((1000 * (time.process_time() - began), value(similarity, index)))
            told = ", ".join(
                f"{name} {ms:.0f}" for name, (ms, _) in zip(("SciPy", "lapjvr", "ours"), spent, strict=True)
            )
            same = max(reached for _, reached in spent) - min(reached for _, reached in spent)
            print(f"{units} units, {kind}: {told} ms; optima differ by {same / abs(spent[0][1]):.0e}", flush=True)


def scale(folder: Path, layers: int, sweeps: int) -> None:
    """A pair of Llama's shape, 2048 wide, 8192 hidden, 32 query and 8 key-value heads of 64."""
    symmetry = llama(layers)
    for seed, name in enumerate(("moving", "fixed")):
        (folder / name).mkdir()
        generator = child(seed, "llama")
        shards: dict[str, dict[str, Tensor]] = {}
        for tensor, shape in symmetry.tensors.items():
            parts = tensor.split(".")
            shard = parts[2] if parts[1] == "layers" else "rest"
            value = torch.empty(shape, dtype=torch.bfloat16).normal_(std=0.02, generator=generator)
            shards.setdefault(shard, {})[tensor] = value
        for shard, tensors in shards.items():
            save(tensors, folder / name / f"{shard}.safetensors")
    count = sum(math.prod(shape) for shape in symmetry.tensors.values())
    print(f"{count / 1e9:.2f} billion parameters, {len(symmetry.groups)} groups", flush=True)
    moving, fixed = (LazyCheckpoint(folder / name) for name in ("moving", "fixed"))
    cpu, wall = time.process_time(), time.perf_counter()
    match = WeightMatching(sweeps=sweeps)(
        symmetry,
        moving,
        fixed,
        generator=child(0, "match"),
        progress=lambda done, total, label="": print(f"  {time.perf_counter() - wall:.0f} s {label}", flush=True),
    )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
    print(
        f"CPU {time.process_time() - cpu:.0f} s, wall {time.perf_counter() - wall:.0f} s, peak {peak:.1f} GiB (mapped "
        f"files included), sweeps {match.sweeps}, {match.status.value}, similarity {match.identity_objective:.0f} → "
        f"{match.objective:.0f}"
    )
    for name, seconds in sorted(match.seconds.items(), key=lambda item: -item[1])[:8]:
        print(f"  {seconds:7.1f} s {name}")


def llama(layers: int, width: int = 2048, hidden: int = 8192, keys: int = 8, size: int = 64) -> Symmetry:
    """Llama's symmetry: the stream, each MLP, key-value heads; in them the value channels and the query heads."""
    queries = width // size // keys
    tensors: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (32000, width), "model.norm.weight": (width,)}
    stream = [Site("model.embed_tokens.weight", 1, _units(width)), Site("model.norm.weight", 0, _units(width))]
    groups: list[UnitGroup] = []
    for layer in range(layers):
        at = f"model.layers.{layer}"
        q, k, v, o = (f"{at}.self_attn.{part}_proj.weight" for part in "qkvo")
        gate, up, down = (f"{at}.mlp.{part}_proj.weight" for part in ("gate", "up", "down"))
        norms = [f"{at}.{part}_layernorm.weight" for part in ("input", "post_attention")]
        tensors |= {q: (width, width), k: (keys * size, width), v: (keys * size, width), o: (width, width)}
        tensors |= {gate: (hidden, width), up: (hidden, width), down: (width, hidden)}
        tensors |= dict.fromkeys(norms, (width,))
        stream += [Site(name, 1, _units(width)) for name in (q, k, v, gate, up)]
        stream += [Site(name, 0, _units(width)) for name in (o, down, *norms)]
        inner = tuple(Site(name, dim, _units(hidden)) for name, dim in ((gate, 0), (up, 0), (down, 1)))
        groups.append(UnitGroup(f"{at}.mlp", hidden, inner))
        shared, wide = torch.arange(keys * size).reshape(keys, size), torch.arange(width).reshape(keys, -1)
        heads = f"{at}.kv_heads"
        outer = (Site(q, 0, wide), Site(k, 0, shared), Site(v, 0, shared), Site(o, 1, wide))
        groups.append(UnitGroup(heads, keys, outer))
        for head in range(keys):
            own = wide[head].reshape(queries, size)
            groups.append(
                UnitGroup(
                    f"{heads}[{head}] queries",
                    queries,
                    (Site(q, 0, own), Site(o, 1, own)),
                    parent=Parent(heads, head, 0),
                )
            )
            values = (Site(v, 0, shared[head].unsqueeze(1)), Site(o, 1, own.T.contiguous()))
            groups.append(UnitGroup(f"{heads}[{head}] values", size, values, parent=Parent(heads, head, 1)))
    return Symmetry((UnitGroup("stream", width, tuple(stream)), *groups), tensors)


def _units(size: int) -> Tensor:
    return torch.arange(size).unsqueeze(1)


if __name__ == "__main__":
    main()
