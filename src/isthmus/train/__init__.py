"""From recipes to trained replicas, many at once."""

from isthmus.train.batches import Examples
from isthmus.train.group import Level, Replica
from isthmus.train.recipe import Recipe
from isthmus.train.replicas import train
from isthmus.train.run import Epoch

__all__ = ["Epoch", "Examples", "Level", "Recipe", "Replica", "train"]
