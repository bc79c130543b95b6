"""Replicas together against the plain PyTorch loop that trains one network after another.

    python benchmarks/replicas.py [--device cpu|cuda] [--case NAME ...] [--engines NAME ...] [--replicas K]

The plain loop is written out below: a module, ``torch.optim`` (the fastest of the default and the fused form, and for
convolutions in bfloat16 of both memory layouts), data already on the device, batches by index; TensorFloat-32 is
allowed to both sides or to none. Both sides take steps in turns, several times; the ratio is replica-steps per second
against replica-steps per second, from each side's fastest round. Where the fastest loop is one with channels last, the
ratio to the fastest of the others is printed, too. A round of ours includes drawing the order of its epoch. Times are
CPU time of the one thread without a GPU, wall-clock time with one. Setting up (capture, compilation) is not in the
ratio and is printed beside it.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import itertools
import json
import platform
import time
from collections.abc import Callable

import torch
from torch import nn

from isthmus.train import Recipe
from isthmus.train.batches import Batches
from isthmus.train.choice import _ALL, choose
from isthmus.train.engines import Engine, Stretch
from isthmus.train.task import State, Task, prepare
from isthmus.zoo import Data, build

LONG = 10**7  # steps: long enough for every engine to be considered


@dataclasses.dataclass(frozen=True)
class Case:
    name: str
    network: str
    inputs: tuple[int, ...]
    examples: int
    batch: int
    replicas: int
    goal: float
    engines: tuple[str, ...]
    precision: str = "float32"
    settings: tuple[tuple[str, object], ...] = ()
    optimiser: str = "sgd"


CPU = ("vectorised", "compiled")
FLAT = ("graph", "compiled graph")
IMAGES = ("graphs", "compiled graphs", "folded graph", "kernel graph", "kernel graphs")
NARROW = Case("ResNet-20 width 16, bf16, batch 128", "resnet20", (3, 32, 32), 50_000, 128, 16, 12.0, IMAGES, "bfloat16")
WIDE = Case("ResNet-20 width 64, bf16, batch 128", "resnet20-x4", (3, 32, 32), 50_000, 128, 4, 4.5, IMAGES, "bfloat16")
CASES = {
    "cpu": [
        Case("MLP 64, batch 32", "mlp-64x1", (1, 8, 8), 1437, 32, 16, 10.0, CPU),
        Case("MLP 64-64, batch 32", "mlp-64x2", (1, 8, 8), 1437, 32, 16, 10.0, CPU),
        Case("MLP 256, batch 32", "mlp-256x1", (1, 8, 8), 1437, 32, 16, 1.7, CPU),
        Case("MLP 256-256, batch 32", "mlp-256x2", (1, 8, 8), 1437, 32, 16, 1.7, CPU),
        Case("CNN 8-16, batch 32", "vgg-8-16", (1, 8, 8), 1437, 32, 16, 2.3, CPU, settings=(("norm", "none"),)),
        Case("MLP 1024-1024, batch 32", "mlp-1024x2", (1, 8, 8), 1437, 32, 16, 0.95, CPU[:1]),
        Case(
            "CNN 16-32, batch 128", "vgg-16-32", (1, 8, 8), 1437, 128, 16, 0.95, CPU[:1], settings=(("norm", "none"),)
        ),
        Case("MLP 64-64, batch 32, Adam", "mlp-64x2", (1, 8, 8), 1437, 32, 16, 0.95, CPU[:1], optimiser="adam"),
    ],
    "cuda": [
        Case("MLP 784-64³-10, batch 500", "mlp-64x3", (1, 28, 28), 60_000, 500, 128, 250.0, FLAT),
        Case(
            "MLP 784-64³-10, TF32, batch 500", "mlp-64x3", (1, 28, 28), 60_000, 500, 128, 250.0, FLAT, "tensorfloat32"
        ),
        Case("MLP 784-512³-10, batch 500", "mlp-512x3", (1, 28, 28), 60_000, 500, 32, 30.0, FLAT),
        Case(
            "MLP 784-512³-10, TF32, batch 500", "mlp-512x3", (1, 28, 28), 60_000, 500, 32, 30.0, FLAT, "tensorfloat32"
        ),
        NARROW,
        *(
            dataclasses.replace(NARROW, name=f"ResNet-20 width 16, {short}, batch 128", precision=precision, goal=0.95)
            for short, precision in (("TF32", "tensorfloat32"), ("float32", "float32"))
        ),
        *(dataclasses.replace(WIDE, replicas=count) for count in (4, 16)),
    ],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--case", nargs="*", help="only cases whose name holds one of these")
    parser.add_argument("--engines", nargs="*", default=["auto"], help="auto, every, or engines by name")
    parser.add_argument("--replicas", type=int, help="so many in every case")
    parser.add_argument("--seconds", type=float, default=1.0, help="length of one timed round")
    parser.add_argument("--json")
    given = parser.parse_args()
    torch.set_num_threads(1)
    device = torch.device(given.device)
    chip = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    print(f"{datetime.date.today()}  torch {torch.__version__}  python {platform.python_version()}  {chip}, one thread")
    rows = []
    for known in CASES[device.type]:
        if given.case and not any(part in known.name for part in given.case):
            continue
        case = dataclasses.replace(known, replicas=given.replicas or known.replicas)
        wanted = ["auto", *case.engines] if given.engines == ["every"] else given.engines
        rows += measure(case, device, wanted=wanted, seconds=given.seconds)
    if given.json:
        with open(given.json, "w", encoding="utf-8") as file:
            json.dump({"torch": torch.__version__, "chip": chip, "rows": rows}, file, indent=1, ensure_ascii=False)


def measure(case: Case, device: torch.device, *, wanted: list[str], seconds: float) -> list[dict[str, object]]:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(case.examples, *case.inputs, generator=generator)
    targets = torch.randint(0, 10, (case.examples,), generator=generator)
    data = Data(inputs, targets, inputs[:10], targets[:10], 10, "random").to(device)
    recipe = Recipe(
        network=case.network, settings={"inputs": list(case.inputs), **dict(case.settings)}, batch_size=case.batch,
        precision=case.precision, rate=0.001, optimiser=case.optimiser, last_batch="drop",
    )  # fmt: skip
    recipes = recipe.replicates(case.replicas)
    batches = Batches.of(recipes, data, device=device)
    task, state = prepare(recipes, build, batches.inputs[:2], classes=10, device=device)
    plain = {name: Plain(case, data, task, **how) for name, how in variants(case).items()}
    length = recipe.steps_in_epoch(case.examples)
    stretch = Stretch(batches, batches.plan(0, apart=False), 0, length, 0, torch.full((length,), 0.001, device=device))
    engines = {
        name: (lambda: choose(task, state, stretch, steps=LONG, engine="auto"))
        if name == "auto"
        else (lambda name=name: (_ALL[name](task), ()))
        for name in wanted
    }
    rows = []
    for name, make in engines.items():
        try:
            row = compare(case, name, make, plain, state, stretch, seconds=seconds)
        except Exception as problem:
            print(f"{case.name} [{name}]: {type(problem).__name__}: {str(problem)[:300]}", flush=True)
            continue
        rows.append(row)
        show(row)
    return rows


def compare(
    case: Case,
    name: str,
    make: Callable[[], tuple[Engine, tuple[str, ...]]],
    plain: dict[str, Plain],
    state: State,
    stretch: Stretch,
    *,
    seconds: float,
) -> dict[str, object]:
    before, begin = reserved(), time.perf_counter()
    engine, notes = make()
    own = state.clone()
    advance(engine, own, stretch.to(2))
    setup, memory = time.perf_counter() - begin, reserved() - before
    steps = paced(lambda count: advance(engine, own, stretch.to(count)), most=stretch.last, seconds=seconds)
    fastest = {key: float("inf") for key in (*plain, "ours")}
    counts = {key: paced(loop.run, most=10**6, seconds=seconds / len(plain)) for key, loop in plain.items()}
    for _ in range(3):
        for key, loop in plain.items():
            fastest[key] = min(fastest[key], loop.run(counts[key]) / counts[key])
        fastest["ours"] = min(fastest["ours"], advance(engine, own, stretch.to(steps)) / steps)
    best = min(fastest[key] for key in plain)
    contiguous = min(fastest[key] for key in plain if "channels last" not in key)
    return {
        "case": case.name,
        "replicas": case.replicas,
        "asked": name,
        "engine": engine.name,
        "notes": list(notes),
        "plain": {key: 1 / fastest[key] for key in plain},
        "ours": case.replicas / fastest["ours"],
        "ratio": case.replicas * best / fastest["ours"],
        "ratio_contiguous": case.replicas * contiguous / fastest["ours"],
        "memory": memory,
        "goal": case.goal,
        "setup": setup,
    }


def paced(run: Callable[[int], float], *, most: int, seconds: float) -> int:
    """How many steps fill a round."""
    run(2)
    taken = run(3) / 3
    return max(3, min(most, int(seconds / taken)))


def advance(engine: Engine, state: State, stretch: Stretch) -> float:
    synchronise()
    begin = now()
    plan = stretch.batches.plan(1, apart=False)  # a new order for every round, as for every epoch
    engine.advance(state, dataclasses.replace(stretch, plan=plan))
    synchronise()
    return now() - begin


def now() -> float:
    """Wall-clock time with a GPU; without one, the process's CPU time, which other work disturbs less."""
    return time.perf_counter() if torch.cuda.is_available() else time.process_time()


def reserved() -> int:
    """Bytes that the library holds on the GPU."""
    if not torch.cuda.is_available():
        return 0
    torch.cuda.empty_cache()
    return torch.cuda.memory_reserved()


def synchronise() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def variants(case: Case) -> dict[str, dict[str, bool]]:
    layouts = (False, True) if case.precision == "bfloat16" else (False,)
    return {
        f"{'fused' if fused else 'default'}{', channels last' if last else ''}": {"fused": fused, "last": last}
        for fused, last in itertools.product((False, True), layouts)
    }


class Plain:
    """The loop that anyone would write."""

    def __init__(self, case: Case, data: Data, task: Task, *, fused: bool, last: bool) -> None:
        self.data, self.batch, self.device, self.arithmetic = data, case.batch, task.device, task.arithmetic
        self.autocast = case.precision == "bfloat16"
        self.module = build(task.recipe).to(task.device).train()
        self.inputs = data.train_inputs
        if last:
            self.module = self.module.to(memory_format=torch.channels_last)
            self.inputs = self.inputs.contiguous(memory_format=torch.channels_last)
        parameters = self.module.parameters()
        self.optimiser = (
            torch.optim.Adam(parameters, lr=0.001, fused=fused)
            if case.optimiser == "adam"
            else torch.optim.SGD(parameters, lr=0.001, momentum=0.9, fused=fused)
        )

    def run(self, steps: int) -> float:
        """Seconds for so many steps of one network."""
        with self.arithmetic():
            return self._run(steps)

    def _run(self, steps: int) -> float:
        module, optimiser, targets = self.module, self.optimiser, self.data.train_targets
        whole = len(targets) // self.batch
        synchronise()
        begin = now()
        self.order = torch.randperm(len(targets), device=self.device)
        for step in range(steps):
            chosen = self.order[(step % whole) * self.batch : (step % whole + 1) * self.batch]
            inputs, labels = self.inputs[chosen], targets[chosen]
            optimiser.zero_grad()
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.autocast):
                loss = nn.functional.cross_entropy(module(inputs), labels)
            loss.backward()
            optimiser.step()
        synchronise()
        return now() - begin


def show(row: dict[str, object]) -> None:
    plain = ", ".join(f"{name} {rate:,.0f}" for name, rate in row["plain"].items())  # type: ignore[attr-defined]
    verdict = "ok" if row["ratio"] >= row["goal"] else "BELOW"  # type: ignore[operator]
    other = f", {row['ratio_contiguous']:.2f}× contiguous" if row["ratio_contiguous"] != row["ratio"] else ""
    held = f"; holds {row['memory'] / 2**30:.1f} GiB" if row["memory"] else ""  # type: ignore[operator]
    print(
        f"{row['case']}, K={row['replicas']} [{row['asked']} → {row['engine']}]: "
        f"{row['ours']:,.0f} replica-steps/s against {plain}: "
        f"{row['ratio']:.2f}×{other} (goal {row['goal']}×, {verdict}; set up in {row['setup']:.0f} s{held})"
        + "".join(f"\n    note: {note}" for note in row["notes"]),  # type: ignore[attr-defined]
        flush=True,
    )


if __name__ == "__main__":
    main()
