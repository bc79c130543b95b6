"""Equal accuracy, one architecture, and no permutation connects them.

Two networks of two ReLU layers with two units each compute the same label, x < 0 and y
> 0, on the square. All four permutations are tried; at the best midpoint a quarter of
the square is wrong (Sharma et al., arXiv 2404.06498).
"""

import itertools

import torch
from torch import nn

import isthmus

axis = torch.linspace(-1, 1, 200)
inputs = torch.cartesian_prod(axis, axis)
labels = (inputs[:, 0] < 0) & (inputs[:, 1] > 0)

module = nn.Sequential(
    nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1, bias=False)
)
symmetry = isthmus.discover(module, inputs[:2])
network = isthmus.Network.of(module)


def weights(first, first_bias, second, second_bias, last):
    values = (first, first_bias, second, second_bias, last)
    return {
        name: torch.tensor(value)
        for name, value in zip(network.names, values, strict=True)
    }


A = weights(
    [[-1.0, 0.0], [0.0, -1.0]],
    [1.0, 0.0],
    [[-1.0, 0.0], [0.0, 1.0]],
    [1.0, 0.0],
    [[-1.0, -1.0]],
)
B = weights(
    [[1.0, 0.0], [0.0, 1.0]],
    [0.0, 1.0],
    [[1.0, 0.0], [0.0, -1.0]],
    [0.0, 1.0],
    [[-1.0, -1.0]],
)


def accuracy(solution):
    return float(((network(solution, inputs)[:, 0] >= 0) == labels).double().mean())


assert min(accuracy(A), accuracy(B)) > 0.99
groups = [group.name for group in symmetry.groups]
middles = []
for orders in itertools.product([(0, 1), (1, 0)], repeat=len(groups)):
    indices = {
        name: torch.tensor(order) for name, order in zip(groups, orders, strict=True)
    }
    permuted = isthmus.Permutation(symmetry, indices).apply(B)
    middles.append(accuracy({name: (A[name] + permuted[name]) / 2 for name in A}))
print(
    "accuracy of the midpoint for each permutation:",
    [round(middle, 3) for middle in middles],
)
assert max(middles) < 0.78
