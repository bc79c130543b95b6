"""Solutions as a spin glass: overlaps, P(q), hierarchy, groups and disconnectivity."""

from isthmus.cluster.disconnectivity import Disconnectivity, disconnectivity, minimax
from isthmus.cluster.distribution import FiniteSize, OverlapDistribution, distribution, finite_size
from isthmus.cluster.hierarchy import NullTest, Verdict, hierarchy
from isthmus.cluster.overlap import Overlaps, distances, function_overlaps, overlaps
from isthmus.cluster.solutions import LeftOut
from isthmus.cluster.states import Recovery, States, recovery, states
from isthmus.cluster.surrogates import Planted, gaussian_solutions, planted_tree
from isthmus.cluster.ultrametric import cophenetic_correlation, ultrametric_gap

__all__ = [
    "Disconnectivity",
    "FiniteSize",
    "LeftOut",
    "NullTest",
    "OverlapDistribution",
    "Overlaps",
    "Planted",
    "Recovery",
    "States",
    "Verdict",
    "cophenetic_correlation",
    "disconnectivity",
    "distances",
    "distribution",
    "finite_size",
    "function_overlaps",
    "gaussian_solutions",
    "hierarchy",
    "minimax",
    "overlaps",
    "planted_tree",
    "recovery",
    "states",
    "ultrametric_gap",
]
