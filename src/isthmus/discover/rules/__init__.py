"""Rules: what each family of operations demands of the units that reach it."""

from isthmus.discover.rules import (
    attention,
    contraction,
    convolution,
    creation,
    elementwise,
    joining,
    lookup,
    matrices,
    movement,
    normalisation,
    ordering,
    recurrent,
    reduction,
    sampling,
    spectral,
    writing,
)
from isthmus.discover.rules.registry import CHOOSING, RULES, Rule

__all__ = [
    "CHOOSING",
    "RULES",
    "Rule",
    "attention",
    "contraction",
    "convolution",
    "creation",
    "elementwise",
    "joining",
    "lookup",
    "matrices",
    "movement",
    "normalisation",
    "ordering",
    "recurrent",
    "reduction",
    "sampling",
    "spectral",
    "writing",
]
