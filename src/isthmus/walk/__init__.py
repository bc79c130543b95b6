"""Walks in weight space: what does the landscape look like to a walker?"""

from isthmus.walk.autocorrelation import (
    EffectiveSamples,
    Ruggedness,
    autocorrelation,
    effective_samples,
    ruggedness,
)
from isthmus.walk.descent import Descent
from isthmus.walk.displacement import Displacement, displacement
from isthmus.walk.langevin import Langevin
from isthmus.walk.metropolis import LevelSet, Metropolis
from isthmus.walk.permutation_walk import (
    PermutationBarriers,
    PermutationWalk,
    partial_permutation,
    permutation_barriers,
)
from isthmus.walk.random_walk import RandomWalk
from isthmus.walk.returns import Returns, returns
from isthmus.walk.walk import Walk, Walker

__all__ = [
    "Descent",
    "Displacement",
    "EffectiveSamples",
    "Langevin",
    "LevelSet",
    "Metropolis",
    "PermutationBarriers",
    "PermutationWalk",
    "RandomWalk",
    "Returns",
    "Ruggedness",
    "Walk",
    "Walker",
    "autocorrelation",
    "displacement",
    "effective_samples",
    "partial_permutation",
    "permutation_barriers",
    "returns",
    "ruggedness",
]
