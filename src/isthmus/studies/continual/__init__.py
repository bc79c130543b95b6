"""What survives a merge of networks that learned one thing after another, or side by side."""

from isthmus.studies.continual.archive import Archive
from isthmus.studies.continual.continual import Continual, Curriculum, continual
from isthmus.studies.continual.halves import Kept, Wish
from isthmus.studies.continual.protection import Protected, protect
from isthmus.studies.continual.stream import Merges, merges

__all__ = [
    "Archive",
    "Continual",
    "Curriculum",
    "Kept",
    "Merges",
    "Protected",
    "Wish",
    "continual",
    "merges",
    "protect",
]
