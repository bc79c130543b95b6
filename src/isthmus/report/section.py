"""From a result to a section of a page, by the result's kind.

Results come as dataclasses from this process or as plain values from a ``results.json``; both carry their kind, so one
table serves both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from isthmus.core.errors import SettingError
from isthmus.core.record import Record
from isthmus.report.between import paths_section, repaired_section, surface_section
from isthmus.report.check import check_section
from isthmus.report.claims import claims_section
from isthmus.report.connectivity import barrier_section, comparison_section, pair_barriers_section
from isthmus.report.continual import continual_section, merges_section
from isthmus.report.counting import counting_section
from isthmus.report.glass import glass_section
from isthmus.report.history import history_section
from isthmus.report.landscape import flatness_section, generalisation_section
from isthmus.report.merging import appraisal_section, prediction_section
from isthmus.report.page import Section
from isthmus.report.protection import protected_section
from isthmus.report.redundancy import symmetry_section
from isthmus.report.remedies import remedies_section
from isthmus.report.spectrum import spectrum_section
from isthmus.report.stationary import stationary_section
from isthmus.report.studied import study_section
from isthmus.report.uncertainty import uncertainty_section
from isthmus.report.walks import walk_section
from isthmus.report.words import Words, words_for

Builder = Callable[[Mapping[str, Any], Words], Section]

SECTIONS: dict[str, Builder] = {
    "Barrier": barrier_section,
    "Check": check_section,
    "Claims": claims_section,
    "Comparison": comparison_section,
    "Continual": continual_section,
    "Merges": merges_section,
    "Flatness": flatness_section,
    "Generalisation": generalisation_section,
    "Spectrum": spectrum_section,
    "Walks": walk_section,
    "Appraisal": appraisal_section,
    "Glass": glass_section,
    "History": history_section,
    "Paths": paths_section,
    "Prediction": prediction_section,
    "Protected": protected_section,
    "Redundancies": counting_section,
    "Remedies": remedies_section,
    "Repaired": repaired_section,
    "StationaryLaws": stationary_section,
    "StudyResult": study_section,
    "Surface": surface_section,
    "PairBarriers": pair_barriers_section,
    "SymmetrySummary": symmetry_section,
    "Uncertainty": uncertainty_section,
}


def section(result: Record | Mapping[str, Any], *, language: str = "en") -> Section:
    """Draw one result.

    Args:
        result: a result of the library, or the plain values that its ``to_dict()`` gave.
        language: of the words.

    Raises:
        SettingError: the kind is not one that is drawn.
    """
    values = result.to_dict() if isinstance(result, Record) else result
    kind = values.get("kind") if isinstance(values, Mapping) else None
    if kind not in SECTIONS:
        raise SettingError(f"a result that is drawn must be one of {', '.join(SECTIONS)}, got {kind}")
    return SECTIONS[kind](values, words_for(language))
