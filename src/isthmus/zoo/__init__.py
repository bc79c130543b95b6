"""Networks and data that the questions are asked of, and the way to the user's own."""

from isthmus.zoo.data import Data
from isthmus.zoo.data import load as load_data
from isthmus.zoo.models import build, resolve
from isthmus.zoo.networks import network

__all__ = ["Data", "build", "load_data", "network", "resolve"]
