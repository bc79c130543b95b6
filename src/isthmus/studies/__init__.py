"""Many recipes to one table: study files, a store that loses nothing, engines, and what the factors do."""

from isthmus.studies.cells import Cell, Comparison, Place
from isthmus.studies.design import Claim, Design, Factor, StudyError, parse_design, read_design
from isthmus.studies.effects import Effects, MatchingError, effects
from isthmus.studies.engines import Engine, Here
from isthmus.studies.kept import Run, StoreError, Trained
from isthmus.studies.local import Local
from isthmus.studies.outlook import Outlook, describe, outlook, probe_seconds
from isthmus.studies.rows import Row
from isthmus.studies.run import run_study
from isthmus.studies.store import Store
from isthmus.studies.study import Study
from isthmus.studies.table import Observation, Table
from isthmus.studies.trends import Trend, holm, jonckheere, matched_trend
from isthmus.studies.upkeep import Collected, Verification, collect, unused, verify
from isthmus.studies.verdicts import StudyResult, Verdict, judge

__all__ = [
    "Cell",
    "Claim",
    "Collected",
    "Comparison",
    "Design",
    "Effects",
    "Engine",
    "Factor",
    "Here",
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
