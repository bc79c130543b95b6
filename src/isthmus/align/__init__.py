"""Which permutation brings one solution to another, or many together?"""

from isthmus.align.activation_matching import ActivationMatching
from isthmus.align.match import Match, Matcher
from isthmus.align.weight_matching import WeightMatching

__all__ = ["ActivationMatching", "Match", "Matcher", "WeightMatching"]
