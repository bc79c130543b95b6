"""What does the loss do on the way between solutions?"""

from isthmus.connect.barrier import Barrier, barrier
from isthmus.connect.layers import statistics_layers
from isthmus.connect.measures import expected_calibration_error
from isthmus.connect.normalisation import reestimate
from isthmus.connect.pairs import PairBarriers, barriers
from isthmus.connect.paths import Bezier, Line, Path, Plane, Polygon, Simplex
from isthmus.connect.repair import Repair, VarianceRatios, repair, variance_ratios

__all__ = [
    "Barrier",
    "Bezier",
    "Line",
    "PairBarriers",
    "Path",
    "Plane",
    "Polygon",
    "Repair",
    "Simplex",
    "VarianceRatios",
    "barrier",
    "barriers",
    "expected_calibration_error",
    "reestimate",
    "repair",
    "statistics_layers",
    "variance_ratios",
]
