"""What does the loss do on the way between solutions?"""

from isthmus.connect.barrier import Barrier, barrier
from isthmus.connect.fit import Fit, bend, fit
from isthmus.connect.known import Known
from isthmus.connect.layers import statistics_layers
from isthmus.connect.layerwise import LayerBarriers, layer_barriers
from isthmus.connect.measures import expected_calibration_error
from isthmus.connect.normalisation import reestimate
from isthmus.connect.pairs import PairBarriers, barriers
from isthmus.connect.paths import Bezier, Line, Path, Plane, Polygon, Simplex
from isthmus.connect.planes import Marked, Surface, plane_through, principal_plane, random_plane, surface
from isthmus.connect.repair import Repair, VarianceRatios, repair, variance_ratios
from isthmus.connect.simplex import SimplexBarrier, simplex_barrier

__all__ = [
    "Barrier",
    "Bezier",
    "Fit",
    "Known",
    "LayerBarriers",
    "Line",
    "Marked",
    "PairBarriers",
    "Path",
    "Plane",
    "Polygon",
    "Repair",
    "Simplex",
    "SimplexBarrier",
    "Surface",
    "VarianceRatios",
    "barrier",
    "barriers",
    "bend",
    "expected_calibration_error",
    "fit",
    "layer_barriers",
    "plane_through",
    "principal_plane",
    "random_plane",
    "reestimate",
    "repair",
    "simplex_barrier",
    "statistics_layers",
    "surface",
    "variance_ratios",
]
