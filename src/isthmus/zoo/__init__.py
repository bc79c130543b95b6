"""Networks and data that the questions are asked of, and the way to the user's own."""

from isthmus.zoo.cues import Cue, cued
from isthmus.zoo.data import Data
from isthmus.zoo.data import load as load_data
from isthmus.zoo.examples import Examples, load_examples
from isthmus.zoo.models import build, resolve
from isthmus.zoo.modular import Modular, grown
from isthmus.zoo.networks import network
from isthmus.zoo.ortho_polynomial import OrthoPolynomial, with_polynomials
from isthmus.zoo.remedies import anchored, free_parameters, masked, ordered, sorted_units
from isthmus.zoo.streams import Stream, from_avalanche, stream
from isthmus.zoo.text import characters, suited

__all__ = [
    "Cue",
    "Data",
    "Examples",
    "Modular",
    "OrthoPolynomial",
    "Stream",
    "anchored",
    "build",
    "characters",
    "cued",
    "free_parameters",
    "from_avalanche",
    "grown",
    "load_data",
    "load_examples",
    "masked",
    "network",
    "ordered",
    "resolve",
    "sorted_units",
    "stream",
    "suited",
    "with_polynomials",
]
