"""Do all engines of a device give the same weights? Prints the relative distance to the plain loop's, in float64.

python benchmarks/agreement.py [--device cpu|cuda] [--engines NAME ...] [--networks NAME ...]
"""

from __future__ import annotations

import argparse

import torch

from isthmus.train import Recipe, train
from isthmus.train.choice import CPU_ENGINES, CUDA_ENGINES
from isthmus.zoo import Data, build

CASES = [
    ("mlp-32x2", {"nesterov": True, "weight_decay": 1e-3, "schedule": "cosine", "warmup": 3}),
    ("mlp-32x2", {"optimiser": "adamw", "rate": 1e-3, "weight_decay": 0.1, "sparsity": 0.5}),
    ("mlp-32x2", {"optimiser": "sam"}),
    ("resnet20-x0.5", {"augmentation": ["crop", "flip", "cutout"], "rate": 0.01}),
    ("vit-16x1", {"optimiser": "adam", "rate": 1e-3}),
]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--compiled", action="store_true", help="also the compiled engines, which take minutes")
    parser.add_argument("--engines", nargs="*", help="only these")
    parser.add_argument("--networks", nargs="*", help="only these")
    given = parser.parse_args()
    generator = torch.Generator().manual_seed(0)
    inputs, targets = torch.randn(200, 3, 16, 16, generator=generator), torch.arange(200) % 10
    data = Data(inputs, targets, inputs[:50], targets[:50], 10, "random")
    names = CPU_ENGINES if given.device == "cpu" else ("vectorised", *CUDA_ENGINES)
    for network, settings in CASES:
        if given.networks and network not in given.networks:
            continue
        for precision in ("float64", "float32"):
            recipe = Recipe(
                network=network, settings={"inputs": [3, 16, 16]}, epochs=2, precision=precision, **settings
            )
            right = None
            for engine in ("sequential", *(given.engines or names)):
                if ("compiled" in engine or engine == "chunks") and not given.compiled:
                    continue
                if "kernel" in engine and precision == "float64":  # theirs are float32 and below
                    continue
                replicas = train(recipe.replicates(3), data=data, module=build, device=given.device, engine=engine)
                parts = [t.flatten().double() for r in replicas for t in r.weights.values()]
                vector = torch.cat(parts)
                right = vector if right is None else right
                error = float((vector - right).norm() / right.norm())
                notes = "; ".join(replicas[0].notes)
                print(f"{network} {recipe.optimiser} {precision} {replicas[0].engine}: {error:.1e} {notes}", flush=True)


if __name__ == "__main__":
    main()
