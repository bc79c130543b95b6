"""Wider networks are easier to connect: the barrier after matching falls with the width.

Two networks of one hidden layer from two seeds, at three widths; barrier of the loss on
digits, before and after weight matching (which is exact for one hidden layer).
"""

import torch

import isthmus
from isthmus.train import Recipe, train

data = isthmus.load_data("digits")
heights = {}
for width in (8, 32, 128):
    recipe = Recipe(
        network=f"mlp-{width}x1",
        settings={"inputs": [1, 8, 8]},
        epochs=8,
        rate=0.05,
        batch_size=64,
    )
    first, second = (
        replica.weights
        for replica in train(
            recipe.replicates(2),
            data=data,
            module=isthmus.build,
            engine="sequential",
            scores="never",
        )
    )
    module = isthmus.build(recipe)
    symmetry = isthmus.discover(module, data.train_inputs[:2])
    match = isthmus.WeightMatching()(
        symmetry, second, first, generator=torch.Generator().manual_seed(0)
    )
    objective = isthmus.Objective(
        isthmus.Network.of(module), data.test_inputs, data.test_targets
    )
    heights[width] = [
        isthmus.barrier(isthmus.Line(first, other), objective, points=7).loss_barrier
        for other in (second, match.permutation.apply(second))
    ]
    print(
        f"width {width:3}: {heights[width][0]:.3f} nats as trained, {heights[width][1]:.3f} after matching"
    )

assert all(after < before for before, after in heights.values())
assert heights[128][1] < heights[32][1] < heights[8][1]
