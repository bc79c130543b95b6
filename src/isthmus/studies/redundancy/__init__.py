"""Redundancy counted, the objective's uncertainty measured, and each remedy tried and priced."""

from isthmus.studies.redundancy.counting import Redundancies, count
from isthmus.studies.redundancy.remedies import Remedies, try_remedies
from isthmus.studies.redundancy.risk import Risks, before_training
from isthmus.studies.redundancy.stationary import StationaryLaws, Walking, on_network, on_quadratics
from isthmus.studies.redundancy.uncertainty import Uncertainty, assess

__all__ = [
    "Redundancies",
    "Remedies",
    "Risks",
    "StationaryLaws",
    "Uncertainty",
    "Walking",
    "assess",
    "before_training",
    "count",
    "on_network",
    "on_quadratics",
    "try_remedies",
]
