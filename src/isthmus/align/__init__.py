"""Which permutation brings one solution to another, or many together?"""

from isthmus.align import claims
from isthmus.align.activation_matching import ActivationMatching
from isthmus.align.frank_wolfe import FrankWolfe
from isthmus.align.many import ManyMatch, to_mean, to_reference
from isthmus.align.match import Match, Matcher
from isthmus.align.simplex import SimplexStraightThrough
from isthmus.align.sinkhorn_matching import SinkhornMatching
from isthmus.align.straight_through import StraightThrough
from isthmus.align.swaps import SwapRefinement
from isthmus.align.trajectories import super_alignment
from isthmus.align.universe import CycleConsistent
from isthmus.align.weight_matching import WeightMatching

__all__ = [
    "ActivationMatching",
    "CycleConsistent",
    "FrankWolfe",
    "ManyMatch",
    "Match",
    "Matcher",
    "SimplexStraightThrough",
    "SinkhornMatching",
    "StraightThrough",
    "SwapRefinement",
    "WeightMatching",
    "claims",
    "super_alignment",
    "to_mean",
    "to_reference",
]
