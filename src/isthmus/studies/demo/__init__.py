"""The main job in one function: train, find the symmetry, align, measure, merge, and say what it means."""

from isthmus.studies.demo.demonstration import Demo, demonstrate
from isthmus.studies.demo.settings import Settings

__all__ = ["Demo", "Settings", "demonstrate"]
