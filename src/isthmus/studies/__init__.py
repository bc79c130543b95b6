"""Many recipes to one table: study files, a store that loses nothing, engines, and what the factors do."""

from isthmus.studies.factors.cells import Cell, Comparison, Place
from isthmus.studies.factors.contrasts import Contrast, Interaction, TwoWay
from isthmus.studies.factors.design import Claim, Combination, Design, Factor, StudyError
from isthmus.studies.factors.effects import Effects, MatchingError, effects
from isthmus.studies.factors.engines import Engine, Here
from isthmus.studies.factors.local import Local
from isthmus.studies.factors.outlook import Outlook, describe, outlook, probe_seconds
from isthmus.studies.factors.reading import parse_design, read_design
from isthmus.studies.factors.run import run_study
from isthmus.studies.factors.study import Study
from isthmus.studies.factors.table import Observation, Table
from isthmus.studies.factors.trends import Trend, holm, jonckheere, matched_trend
from isthmus.studies.factors.verdicts import StudyResult, Verdict, judge
from isthmus.studies.store.kept import Run, StoreError, Trained
from isthmus.studies.store.rows import Row
from isthmus.studies.store.store import Store
from isthmus.studies.store.upkeep import Collected, Verification, collect, unused, verify

__all__ = [
    "Cell",
    "Claim",
    "Collected",
    "Combination",
    "Comparison",
    "Contrast",
    "Design",
    "Effects",
    "Engine",
    "Factor",
    "Here",
    "Interaction",
    "Local",
    "MatchingError",
    "Observation",
    "Outlook",
    "Place",
    "Row",
    "Run",
    "Store",
    "StoreError",
    "Study",
    "StudyError",
    "StudyResult",
    "Table",
    "Trained",
    "Trend",
    "TwoWay",
    "Verdict",
    "Verification",
    "collect",
    "describe",
    "effects",
    "holm",
    "jonckheere",
    "judge",
    "matched_trend",
    "outlook",
    "parse_design",
    "probe_seconds",
    "read_design",
    "run_study",
    "unused",
    "verify",
]
