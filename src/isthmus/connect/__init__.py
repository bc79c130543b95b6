"""What does the loss do on the way between solutions?"""

from isthmus.connect.barrier import Barrier, barrier
from isthmus.connect.normalisation import reestimate, statistics_layers
from isthmus.connect.pairs import PairBarriers, barriers
from isthmus.connect.paths import Bezier, Line, Path, Plane, Polygon, Simplex

__all__ = [
    "Barrier",
    "Bezier",
    "Line",
    "PairBarriers",
    "Path",
    "Plane",
    "Polygon",
    "Simplex",
    "barrier",
    "barriers",
    "reestimate",
    "statistics_layers",
]
