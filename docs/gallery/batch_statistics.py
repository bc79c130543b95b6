"""An average of BatchNorm networks fails by its statistics alone.

Two networks that share their first epoch lie in one basin. With averaged running statistics the midpoint
still looks worse than it is; with statistics estimated anew the barrier is what it is.
"""

import isthmus
from isthmus.train import Recipe, train

data = isthmus.load_data("digits")
recipe = Recipe(
    network="mlp-48x3", settings={"inputs": [1, 8, 8], "norm": "batch"}, epochs=6, spawn=40, batch_size=64, rate=0.05
)
replicas = train(
    recipe.replicates(2, vary=("spawn",)), data=data, module=isthmus.build, engine="sequential", scores="never"
)
first, second = (replica.weights for replica in replicas)
network = isthmus.Network.of(isthmus.build(recipe))
assert network.has_batch_statistics
objective = isthmus.Objective(network, data.test_inputs, data.test_targets)
line = isthmus.Line(first, second)
stale = isthmus.barrier(line, objective, points=3, normalisation="interpolate")
anew = isthmus.barrier(line, objective, points=3, data=data.train_inputs)
print(f"midpoint: {stale.middle.loss:.3f} nats with averaged statistics, {anew.middle.loss:.3f} with its own")
assert anew.middle.loss < stale.middle.loss
