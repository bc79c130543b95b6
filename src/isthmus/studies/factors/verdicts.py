"""What a study says about the claims that were written down before it ran."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from isthmus.core.record import Record
from isthmus.studies.factors.contrasts import Contrast, Interaction, contrast, interaction
from isthmus.studies.factors.design import Claim, Design
from isthmus.studies.factors.effects import Effects, FactorTrend, effects
from isthmus.studies.factors.table import Table, label
from isthmus.studies.factors.trends import holm

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
        measure: the column that the claim is about.
    """

    words: str
    outcome: str
    evidence: str
    p_corrected: float
    measure: str


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
    verdicts = tuple(
        _verdict(claim, test) for claim, test in zip(design.claims, _tests(design, table, found), strict=True)
    )
    return StudyResult(design.name, design.question, verdicts, found, table, provenance())


Test = FactorTrend | Contrast | Interaction


def _tests(design: Design, table: Table, found: Effects) -> list[Test | None]:
    """The test of each claim.

    Main effects and trends are those of the effects, corrected there. Simple effects and interactions are only made
    where a claim asks for them, and corrected for all that were asked of that kind about one measure.
    """
    tests = [_test(claim, design, table, found) for claim in design.claims]
    families: dict[tuple[str, bool], dict[int, float]] = {}
    for place, (claim, test) in enumerate(zip(design.claims, tests, strict=True)):
        if isinstance(test, Contrast | Interaction) and (claim.at or claim.depends_on):
            families.setdefault((claim.measure, bool(claim.depends_on)), {})[place] = test.p
    corrected = {
        place: p for family in families.values() for place, p in zip(family, holm(list(family.values())), strict=True)
    }
    return [
        dataclasses.replace(test, p_corrected=corrected[place]) if test and place in corrected else test
        for place, test in enumerate(tests)
    ]


def _test(claim: Claim, design: Design, table: Table, found: Effects) -> Test | None:
    if claim.measure not in table.measures:
        return None
    levels = design.factors[claim.factor].names
    ends = claim.between or (levels[0], levels[-1])
    if claim.depends_on:
        others = design.factors[claim.depends_on].names
        where = claim.where or (others[0], others[-1])
        return interaction(table, claim.measure, claim.factor, ends, depends_on=claim.depends_on, where=where)
    if claim.at:
        return contrast(table, claim.measure, claim.factor, ends, at=claim.at)
    trends = [t for t in found.trends if (t.measure, t.factor) == (claim.measure, claim.factor)]
    if claim.between is None and len(levels) > 2 and trends:
        return trends[0]
    for one in found.contrasts:
        if (one.measure, one.factor) == (claim.measure, claim.factor) and {one.first, one.second} == set(ends):
            forward = contrast(table, claim.measure, claim.factor, ends)  # in the claim's own direction
            return dataclasses.replace(forward, p_corrected=one.p_corrected)
    return None


def _verdict(claim: Claim, test: Test | None) -> Verdict:
    if test is None:
        return Verdict(claim.words, "not measured", "the two levels were not compared", math.nan, claim.measure)
    if isinstance(test, FactorTrend):
        sign = test.trend.statistic
        evidence = f"{test.trend.method}: {sign:.2f} over {test.trend.units} units"
    else:
        shown = test.difference
        sign, evidence = shown.estimate, f"{_compared(test)}: {shown} over {shown.networks} units, {shown.method}"
    p = test.p_corrected
    if math.isnan(sign):
        why = "a level has no value: its networks diverged, or none of them could be compared"
        return Verdict(claim.words, "not measured", why, p, claim.measure)
    tested = "too few units for a test" if math.isnan(p) else f"p = {p:.2g} after Holm"
    return Verdict(claim.words, _outcome(claim.direction, sign, p), f"{evidence}; {tested}", p, claim.measure)


def _compared(test: Contrast | Interaction) -> str:
    """What was subtracted from what."""
    difference = f"{test.second} minus {test.first}"
    if isinstance(test, Interaction):
        return f"({difference}) at {test.there} minus the same at {test.here}"
    return f"{difference} at {label(test.at)}" if test.at else difference


def _outcome(direction: str, sign: float, p: float) -> str:
    if math.isnan(p) or p >= ALPHA:
        return "undecided"
    if direction == "differs":
        return "supported"
    return "supported" if (sign > 0) == (direction == "rises") else "contradicted"
