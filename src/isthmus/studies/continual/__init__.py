"""What survives a merge of networks that learned one thing after another, or side by side."""

from isthmus.studies.continual.continual import Continual, Curriculum, continual
from isthmus.studies.continual.stream import Merges, merges

__all__ = ["Continual", "Curriculum", "Merges", "continual", "merges"]
