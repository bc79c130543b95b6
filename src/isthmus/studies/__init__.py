"""Many recipes to one table: study files, a store that loses nothing, engines, and what the factors do.

Names are imported on first use: a command that only compares two checkpoints must not wait for studies and stores.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from isthmus.studies.factors.cells import Cell as Cell
    from isthmus.studies.factors.cells import Comparison as Comparison
    from isthmus.studies.factors.cells import Place as Place
    from isthmus.studies.factors.contrasts import Contrast as Contrast
    from isthmus.studies.factors.contrasts import Interaction as Interaction
    from isthmus.studies.factors.contrasts import TwoWay as TwoWay
    from isthmus.studies.factors.design import Claim as Claim
    from isthmus.studies.factors.design import Combination as Combination
    from isthmus.studies.factors.design import Design as Design
    from isthmus.studies.factors.design import Factor as Factor
    from isthmus.studies.factors.design import StudyError as StudyError
    from isthmus.studies.factors.effects import Effects as Effects
    from isthmus.studies.factors.effects import MatchingError as MatchingError
    from isthmus.studies.factors.effects import effects as effects
    from isthmus.studies.factors.engines import Engine as Engine
    from isthmus.studies.factors.engines import Here as Here
    from isthmus.studies.factors.local import Local as Local
    from isthmus.studies.factors.outlook import Outlook as Outlook
    from isthmus.studies.factors.outlook import describe as describe
    from isthmus.studies.factors.outlook import outlook as outlook
    from isthmus.studies.factors.outlook import probe_seconds as probe_seconds
    from isthmus.studies.factors.reading import parse_design as parse_design
    from isthmus.studies.factors.reading import read_design as read_design
    from isthmus.studies.factors.run import run_study as run_study
    from isthmus.studies.factors.study import Study as Study
    from isthmus.studies.factors.table import Observation as Observation
    from isthmus.studies.factors.table import Table as Table
    from isthmus.studies.factors.trends import Trend as Trend
    from isthmus.studies.factors.trends import holm as holm
    from isthmus.studies.factors.trends import jonckheere as jonckheere
    from isthmus.studies.factors.trends import matched_trend as matched_trend
    from isthmus.studies.factors.verdicts import StudyResult as StudyResult
    from isthmus.studies.factors.verdicts import Verdict as Verdict
    from isthmus.studies.factors.verdicts import judge as judge
    from isthmus.studies.store.kept import Run as Run
    from isthmus.studies.store.kept import StoreError as StoreError
    from isthmus.studies.store.kept import Trained as Trained
    from isthmus.studies.store.rows import Row as Row
    from isthmus.studies.store.store import Store as Store
    from isthmus.studies.store.upkeep import Collected as Collected
    from isthmus.studies.store.upkeep import Verification as Verification
    from isthmus.studies.store.upkeep import collect as collect
    from isthmus.studies.store.upkeep import unused as unused
    from isthmus.studies.store.upkeep import verify as verify

_PLACES = {
    "factors.cells": ("Cell", "Comparison", "Place"),
    "factors.contrasts": ("Contrast", "Interaction", "TwoWay"),
    "factors.design": ("Claim", "Combination", "Design", "Factor", "StudyError"),
    "factors.effects": ("Effects", "MatchingError", "effects"),
    "factors.engines": ("Engine", "Here"),
    "factors.local": ("Local",),
    "factors.outlook": ("Outlook", "describe", "outlook", "probe_seconds"),
    "factors.reading": ("parse_design", "read_design"),
    "factors.run": ("run_study",),
    "factors.study": ("Study",),
    "factors.table": ("Observation", "Table"),
    "factors.trends": ("Trend", "holm", "jonckheere", "matched_trend"),
    "factors.verdicts": ("StudyResult", "Verdict", "judge"),
    "store.kept": ("Run", "StoreError", "Trained"),
    "store.rows": ("Row",),
    "store.store": ("Store",),
    "store.upkeep": ("Collected", "Verification", "collect", "unused", "verify"),
}
_PUBLIC = {name: module for module, names in _PLACES.items() for name in names}

__all__ = list(_PUBLIC)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'isthmus.studies' has no attribute {name!r}")
    return getattr(importlib.import_module(f"isthmus.studies.{_PUBLIC[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
