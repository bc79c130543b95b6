"""Networks and data that the questions are asked of, and the way to the user's own."""

from isthmus.zoo.data import Data
from isthmus.zoo.data import load as load_data
from isthmus.zoo.models import build, resolve
from isthmus.zoo.modular import Modular, grown
from isthmus.zoo.networks import network
from isthmus.zoo.ortho_polynomial import OrthoPolynomial, with_polynomials
from isthmus.zoo.remedies import anchored, free_parameters, masked, ordered, sorted_units

__all__ = [
    "Data",
    "Modular",
    "OrthoPolynomial",
    "anchored",
    "build",
    "free_parameters",
    "grown",
    "load_data",
    "masked",
    "network",
    "ordered",
    "resolve",
    "sorted_units",
    "with_polynomials",
]
