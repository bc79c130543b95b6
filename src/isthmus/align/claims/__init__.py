"""Three claims about sets of solutions, tested: do permutations connect pairs, whole trainings, or all at once?

Every claim is measured beside two controls: a random permutation (must not connect) and a planted one (a network
against its own permuted copy: must connect). Heights of barriers come from the caller, so that any path, convention
and treatment of running statistics can be used. Intervals are over networks.

Reference: Sharma et al., "Simultaneous linear connectivity of neural networks modulo permutation", arXiv 2404.06498.
"""

from isthmus.align.claims.cycles import Cycles, cycles
from isthmus.align.claims.heights import EPSILON, Height, Heights
from isthmus.align.claims.simultaneous import SimultaneousClaim, simultaneous
from isthmus.align.claims.strong import StrongClaim, strong
from isthmus.align.claims.weak import WeakClaim, weak

__all__ = [
    "EPSILON",
    "Cycles",
    "Height",
    "Heights",
    "SimultaneousClaim",
    "StrongClaim",
    "WeakClaim",
    "cycles",
    "simultaneous",
    "strong",
    "weak",
]
