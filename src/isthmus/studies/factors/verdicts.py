"""What a study says about the claims that were written down before it ran."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from isthmus.core.record import Record
from isthmus.studies.factors.design import Claim, Design
from isthmus.studies.factors.effects import Effects, effects
from isthmus.studies.factors.table import Table

# The chance of a false finding that a study accepts, after correction for all tests of a measure.
ALPHA = 0.05


@dataclasses.dataclass(frozen=True)
class Verdict(Record):
    """One claim and what became of it.

    Attributes:
        words: the claim.
        outcome: ``supported``, ``contradicted`` (the opposite direction is found), ``undecided`` (the data allow both),
            or ``not measured``.
        evidence: the test in words, with its numbers.
        p_corrected: of that test.
    """

    words: str
    outcome: str
    evidence: str
    p_corrected: float


@dataclasses.dataclass(frozen=True)
class StudyResult(Record):
    """A study with its answers.

    Attributes:
        study: its name.
        question: what it asked.
        verdicts: what became of its claims.
        effects: means, contrasts, trends and two-way tables.
        table: every value.
        provenance: versions, machine and command of the process that put this together.
    """

    study: str
    question: str
    verdicts: tuple[Verdict, ...]
    effects: Effects
    table: Table
    provenance: Mapping[str, Any]


def judge(design: Design, table: Table) -> StudyResult:
    """Estimate a study's effects and decide on its claims.

    Raises:
        MatchingError: the study requires matched training losses and has none.
    """
    from isthmus.core.provenance import provenance

    rule = design.matching
    found = effects(table, tolerance=rule.tolerance, require_matching=rule.required)
    verdicts = tuple(_verdict(claim, design, found) for claim in design.claims)
    return StudyResult(design.name, design.question, verdicts, found, table, provenance())


def _verdict(claim: Claim, design: Design, found: Effects) -> Verdict:
    factor = design.factors[claim.factor]
    trends = [t for t in found.trends if t.measure == claim.measure and t.factor == claim.factor]
    if claim.between is None and len(factor.names) > 2 and trends:
        test = trends[0]
        sign, p = test.trend.statistic, test.p_corrected
        evidence = f"{test.trend.method}: {sign:.2f} over {test.trend.units} units"
    else:
        levels = list(factor.names)
        ends = claim.between or (levels[0], levels[-1])
        contrast = next(
            (
                c
                for c in found.contrasts
                if (c.measure, c.factor) == (claim.measure, claim.factor) and {c.first, c.second} == set(ends)
            ),
            None,
        )
        if contrast is None:
            return Verdict(claim.words, "not measured", "the two levels were not compared", math.nan)
        turn = 1 if contrast.first == ends[0] else -1
        sign, p = turn * contrast.difference.estimate, contrast.p_corrected
        shown = contrast.difference
        evidence = f"{contrast.second} minus {contrast.first}: {shown} over {shown.networks} units, {shown.method}"
    return Verdict(claim.words, _outcome(claim.direction, sign, p), f"{evidence}; p = {p:.2g} after Holm", p)


def _outcome(direction: str, sign: float, p: float) -> str:
    if math.isnan(p) or p >= ALPHA:
        return "undecided"
    if direction == "differs":
        return "supported"
    return "supported" if (sign > 0) == (direction == "rises") else "contradicted"
