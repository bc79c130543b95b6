"""The landscape around solutions: flatness, spectra and walks of one, the arrangement of many."""

from isthmus.studies.landscape.flatness import FlatnessVerdict, flatness
from isthmus.studies.landscape.generalisation import Generalisation, Grid, generalisation
from isthmus.studies.landscape.glass import Arrangement, Glass, glass, symmetry_with_scale
from isthmus.studies.landscape.solution import Flatness, Spectrum, flatness_of, spectrum_of
from isthmus.studies.landscape.walks import Manner, Walks, permuted_copies, walk_from

__all__ = [
    "Arrangement",
    "Flatness",
    "FlatnessVerdict",
    "Generalisation",
    "Glass",
    "Grid",
    "Manner",
    "Spectrum",
    "Walks",
    "flatness",
    "flatness_of",
    "generalisation",
    "glass",
    "permuted_copies",
    "spectrum_of",
    "symmetry_with_scale",
    "walk_from",
]
