"""May these models be swapped, updated or merged? The evidence, the verdict and what would change it."""

from isthmus.studies.check.check import Check, check
from isthmus.studies.check.verdict import Thresholds

__all__ = ["Check", "Thresholds", "check"]
