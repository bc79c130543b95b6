"""One hidden layer, MNIST and Fashion-MNIST: the loss barrier against width, as trained and after matching.

    python reproductions/width/run.py --data mnist --data-dir FOLDER [--device cuda] -o reproductions/width/mnist.json

Trains the networks of a width together, matches every pair by weights and by activations, and measures the barrier of
the training loss above the line between the ends. Intervals are over networks.
"""

from __future__ import annotations

import argparse
import time

from torch import Tensor

from isthmus.core.files import write_text
from isthmus.core.network import Network
from isthmus.core.objective import Objective
from isthmus.core.provenance import provenance
from isthmus.core.record import to_json
from isthmus.discover import discover
from isthmus.studies.comparison import compare
from isthmus.train import Recipe, train
from isthmus.zoo import build, load_data


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--data", default="mnist")
    options.add_argument("--data-dir")
    options.add_argument("--device", default="cpu")
    options.add_argument("--widths", type=int, nargs="+", default=[16, 64, 256, 1024])
    options.add_argument("--networks", type=int, default=12)
    options.add_argument("--epochs", type=int, default=20)
    options.add_argument("--points", type=int, default=25)
    options.add_argument("--examples", type=int)
    options.add_argument("-o", "--output", required=True)
    given = options.parse_args()
    data = load_data(given.data, given.data_dir)
    data = (data.limited(given.examples) if given.examples else data).to(given.device)
    rows = []
    for width in given.widths:
        began = time.perf_counter()
        recipe = Recipe(
            network="mlp", settings={"inputs": list(data.shape), "classes": 10, "width": width, "depth": 1},
            data=given.data, rate=0.1, momentum=0.9, schedule="cosine", warmup=100, batch_size=128, epochs=given.epochs,
        )  # fmt: skip
        replicas = train(recipe.replicates(given.networks), data=data, module=build, device=given.device)
        trained = time.perf_counter() - began
        module = build(recipe)
        symmetry = discover(module, data.train_inputs[:2].cpu())
        network = Network.of(module.to(given.device))
        objective = Objective(network, data.train_inputs, data.train_targets, batch_size=20_000)
        found = compare(
            [replica.weights for replica in replicas if not replica.diverged], objective, symmetry=symmetry,
            inputs=data.train_inputs, points=given.points,
        )  # fmt: skip
        row = {
            "width": width,
            "test_error": [replica.test.error for replica in replicas if replica.test],
            "train_loss": [replica.train.loss for replica in replicas if replica.train],
            "engine": replicas[0].engine,
            "train_seconds": trained,
            "seconds": time.perf_counter() - began,
            "recipe": recipe.to_dict(),
            "barriers": {
                method: {
                    "intervals": each.intervals,
                    "loss_barrier": each.heights["loss_barrier"],
                    "pair_deviation": pair_deviation(each.heights["loss_barrier"]),
                }
                for method, each in found.barriers.items()
            },
        }
        rows.append(row)
        said = ", ".join(f"{method} {each.intervals['loss_barrier']}" for method, each in found.barriers.items())
        print(f"width {width}: {said}; trained in {trained:.0f} s, {row['seconds']:.0f} s in all", flush=True)
        write_text(given.output, to_json({"data": given.data, "rows": rows, "provenance": provenance()}))


def pair_deviation(heights: Tensor) -> float:
    """Standard deviation over pairs, the ± that the paper's table gives."""
    n = len(heights)
    values = [float(heights[i][j]) for i in range(n) for j in range(i + 1, n)]
    mean = sum(values) / len(values)
    return (sum((value - mean) ** 2 for value in values) / max(1, len(values) - 1)) ** 0.5


if __name__ == "__main__":
    main()
