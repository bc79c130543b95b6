"""How flat is it here: Hessian and Gauss–Newton products, spectra, traces, and sharpness that no rescaling can fake."""

from isthmus.curvature.classes import ClassStructure, class_structure
from isthmus.curvature.density import Density, density
from isthmus.curvature.eigen import EigenPairs, eigenpairs
from isthmus.curvature.hessian import gauss_newton, hessian
from isthmus.curvature.places import PathCurvature, PlaneCurvature, Probe, along_path, by_layer, layers, over_plane
from isthmus.curvature.sharpness import Sharpness, adaptive_worst_case, random_sharpness, worst_case
from isthmus.curvature.trace import Diagonal, Trace, diagonal, trace

__all__ = [
    "ClassStructure",
    "Density",
    "Diagonal",
    "EigenPairs",
    "PathCurvature",
    "PlaneCurvature",
    "Probe",
    "Sharpness",
    "Trace",
    "adaptive_worst_case",
    "along_path",
    "by_layer",
    "class_structure",
    "density",
    "diagonal",
    "eigenpairs",
    "gauss_newton",
    "hessian",
    "layers",
    "over_plane",
    "random_sharpness",
    "trace",
    "worst_case",
]
