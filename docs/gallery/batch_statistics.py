"""Stale BatchNorm statistics double the loss of an average.

Two networks from different seeds are matched and averaged. With averaged running
statistics the midpoint looks bad; with statistics estimated anew, on training data, it
is nearly as good as its ends.
"""

import torch

import isthmus
from isthmus.train import Recipe, train

data = isthmus.load_data("digits")
recipe = Recipe(
    network="mlp-64x5",
    settings={"inputs": [1, 8, 8], "norm": "batch"},
    epochs=6,
    batch_size=64,
    rate=0.1,
)
replicas = train(
    recipe.replicates(2),
    data=data,
    module=isthmus.build,
    engine="sequential",
    scores="never",
)
first, second = (replica.weights for replica in replicas)
module = isthmus.build(recipe)
network = isthmus.Network.of(module)
symmetry = isthmus.discover(module, data.train_inputs[:2])
matching = isthmus.ActivationMatching(network, data.train_inputs)
match = matching(symmetry, second, first, generator=torch.Generator().manual_seed(0))

objective = isthmus.Objective(network, data.test_inputs, data.test_targets)
line = isthmus.Line(first, match.permutation.apply(second))
stale = isthmus.barrier(line, objective, points=7, normalisation="interpolate")
anew = isthmus.barrier(line, objective, points=7, inputs=data.train_inputs)
print(
    f"midpoint: {stale.middle.loss:.3f} nats with averaged statistics, {anew.middle.loss:.3f} with its own"
)
assert anew.middle.loss < 0.75 * stale.middle.loss
