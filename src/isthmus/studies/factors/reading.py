"""From a study file to a design: what is wrong is named, with its place and what was probably meant."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pydantic
from pydantic import BaseModel

from isthmus.core.errors import near
from isthmus.studies.factors.design import (
    Claim,
    Combination,
    Design,
    Factor,
    Level,
    MatchingRule,
    Measures,
    Replicates,
    StudyError,
)


def read_design(path: str | Path) -> Design:
    """Read a study from a TOML or YAML file.

    Raises:
        StudyError: the file is missing, cannot be parsed, or holds something unknown or impossible; says where, and
            what was probably meant.
    """
    file = Path(path)
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        reason = problem.strerror.lower() if isinstance(problem, OSError) and problem.strerror else "not UTF-8 text"
        raise StudyError(f"a study must be a TOML or YAML file, but {file} cannot be read: {reason}") from problem
    return parse_design(_parsed(text, file), where=str(file))


def parse_design(content: Any, *, where: str = "the study") -> Design:
    """A design from plain values.

    Raises:
        StudyError: see :func:`read_design`.
    """
    try:
        design = Design.model_validate(content)
    except pydantic.ValidationError as problem:
        raise StudyError(f"{where}: {_first_complaint(problem)}") from None
    _check(design, where)
    return design


def _parsed(text: str, file: Path) -> Any:
    if file.suffix == ".toml":
        try:
            return tomllib.loads(text)
        except tomllib.TOMLDecodeError as problem:
            raise StudyError(f"{file} must be TOML, but: {problem}") from problem
    if file.suffix in (".yaml", ".yml"):
        import yaml

        try:
            return yaml.safe_load(text)
        except yaml.YAMLError as problem:
            raise StudyError(f"{file} must be YAML, but: {' '.join(str(problem).split())}") from problem
    raise StudyError(f"a study must be a .toml, .yaml or .yml file, got {file}")


def _check(design: Design, where: str) -> None:
    """What the types cannot say."""
    if not design.factors:
        raise StudyError(f"{where}: a study needs at least one factor, got none")
    for name, factor in design.factors.items():
        if not factor.levels:
            raise StudyError(f"{where}: factors.{name} needs at least one level, got none")
        if len(set(map(str, factor.names))) < len(factor.names):
            raise StudyError(f"{where}: factors.{name} must have different levels, got {list(factor.names)}")
    replicates = design.replicates
    if replicates.pairs == "across" and replicates.count < 2:
        raise StudyError(
            f"{where}: pairs across replicates need replicates.count of at least 2, got {replicates.count}"
        )
    for combination in design.combinations:
        _check_levels(design, combination.of, f"{where}: combinations.of")
    for claim in design.claims:
        _check_claim(design, claim, where)


def _check_claim(design: Design, claim: Claim, where: str) -> None:
    """A claim names factors and levels of the study, and says what is compared."""
    for factor in [claim.factor, *([claim.depends_on] if claim.depends_on else [])]:
        if factor not in design.factors:
            raise StudyError(
                f"{where}: claims must name a factor of the study, got {factor!r}{near(factor, design.factors)}"
            )
    _check_levels(design, claim.at, f"{where}: claims.at")
    if claim.factor in (claim.depends_on, *claim.at):
        raise StudyError(f"{where}: a claim about {claim.factor} cannot hold it at a level or depend on it")
    _check_pair(design, claim.factor, claim.between, where, "between", ordered=not (claim.at or claim.depends_on))
    if claim.depends_on:
        _check_pair(design, claim.depends_on, claim.where, where, "where", ordered=False)


def _check_pair(
    design: Design, factor: str, pair: tuple[Level, Level] | None, where: str, name: str, *, ordered: bool
) -> None:
    """Two levels are named, or follow from there being two, or an order makes a trend of them."""
    names = design.factors[factor].names
    if pair is not None:
        if wrong := [level for level in pair if level not in names]:
            raise StudyError(f"{where}: claims.{name} must name levels of {factor}, got {wrong[0]!r}")
    elif len(names) != 2 and not (ordered and design.factors[factor].has_order):
        raise StudyError(
            f"{where}: a claim about {factor} must say {name} which two levels, or the factor must be ordered"
        )


def _check_levels(design: Design, levels: dict[str, Level], what: str) -> None:
    for factor, level in levels.items():
        if factor not in design.factors:
            raise StudyError(f"{what} must name factors of the study, got {factor!r}{near(factor, design.factors)}")
        if level not in (names := design.factors[factor].names):
            raise StudyError(f"{what} must name levels of {factor}, got {level!r}{near(str(level), names)}")


def _first_complaint(problem: pydantic.ValidationError) -> str:
    """The first thing that is wrong, where it is, and how many more there are."""
    errors = problem.errors(include_url=False)
    first = min(errors, key=lambda error: error["type"] != "extra_forbidden")
    location = [str(part) for part in first["loc"] if not str(part).startswith(("list[", "dict["))]
    place = ".".join(location)
    if first["type"] == "extra_forbidden":
        known = _fields_at(location[:-1])
        text = f"{place} is unknown{near(location[-1], known)}" + (f" (known: {', '.join(known)})" if known else "")
    elif first["type"] == "missing":
        text = f"{place} is required"
    elif first["type"] in ("model_type", "dict_type"):
        known = _fields_at(location)
        keys = f" with keys of {', '.join(known)}" if known else ""
        text = f"{place or 'a study'} must be a table{keys}, got {str(first['input'])[:80]!r}"
    else:
        message = first["msg"][0].lower() + first["msg"][1:]
        text = f"{place or 'a study'} must fit: {message}, got {str(first['input'])[:80]!r}"
    more = len(errors) - 1
    return text + (f" (and {more} more problem{'s' if more > 1 else ''})" if more else "")


def _fields_at(location: list[str]) -> list[str]:
    """The keys that are known at a place in a study file."""
    tables: dict[str, type[BaseModel]] = {
        "factors": Factor,
        "combinations": Combination,
        "replicates": Replicates,
        "measures": Measures,
        "matching": MatchingRule,
        "claims": Claim,
    }
    model = tables.get(location[0]) if location else Design
    return list(model.model_fields) if model else []
