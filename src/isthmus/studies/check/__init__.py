"""May these models be swapped, updated or merged? The evidence, the verdict and what would change it."""

from isthmus.studies.check.check import Check, check
from isthmus.studies.check.checklist import Origin
from isthmus.studies.check.verdict import Effort, Thresholds

__all__ = ["Check", "Effort", "Origin", "Thresholds", "check"]
