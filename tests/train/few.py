"""Sixty small images, and a recipe that trains on them in a moment."""

import torch

from isthmus.train import Recipe, train
from isthmus.zoo import Data, build

BASE = Recipe(
    network="mlp-10x1", settings={"inputs": [1, 6, 6], "classes": 3}, batch_size=16, steps=9, precision="float64"
)


def images(examples: int = 60) -> Data:
    generator = torch.Generator().manual_seed(3)
    inputs = torch.randn(examples, 1, 6, 6, generator=generator, dtype=torch.float64)
    return Data(inputs[:-10], torch.arange(examples - 10) % 3, inputs[-10:], torch.arange(10) % 3, 3, "random")


def run(*recipes: Recipe, **settings):
    return train(list(recipes), data=images(), module=build, **{"engine": "vectorised", **settings})
