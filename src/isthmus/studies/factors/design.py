"""A study file: factors × levels × replicates, which pairs are compared, what is measured, and what is claimed."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import pydantic
from pydantic import BaseModel, ConfigDict, Field

from isthmus.core.errors import SettingError

Level = str | int | float | bool
Seed = Literal["initialisation", "order", "augmentation", "label_noise", "subset", "mask", "spawn"]
SEEDS: tuple[str, ...] = get_args(Seed)


class StudyError(SettingError):
    """A study file is wrong."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Factor(_Strict):
    """One thing that is varied.

    Attributes:
        levels: values of the recipe field that the factor is named after; or named levels, each a table of the recipe
            fields that it sets (and ``differ``, to set what differs between the members of a replicate).
        ordered: whether the levels have an order, so that a trend can be asked for; numbers have one.
    """

    levels: list[Level] | dict[str, dict[str, Any]]
    ordered: bool | None = None

    @property
    def names(self) -> tuple[Level, ...]:
        """What the levels are called."""
        return tuple(self.levels)

    @property
    def has_order(self) -> bool:
        """Whether the levels have an order, said or understood."""
        if self.ordered is not None:
            return self.ordered
        return all(isinstance(level, int | float) and not isinstance(level, bool) for level in self.levels)

    def settings(self, name: str, level: Level) -> Mapping[str, Any]:
        """The recipe fields that a level sets."""
        return self.levels[str(level)] if isinstance(self.levels, dict) else {name: level}


class Replicates(_Strict):
    """How often each cell is repeated, and how the networks of one repetition differ.

    Attributes:
        count: independent sets of seeds; every cell uses the same ones, so that cells can be compared seed by seed.
        members: networks in each replicate.
        differ: the seeds that differ between the members of a replicate; all others they share.
        pairs: ``within`` compares the members of each replicate, ``across`` the first members of different replicates.
    """

    count: Annotated[int, Field(ge=1)] = 6
    members: Annotated[int, Field(ge=1)] = 2
    differ: list[Seed] = ["order", "augmentation"]
    pairs: Literal["within", "across"] = "within"


class Measures(_Strict):
    """What is measured on each network and on each pair.

    Attributes:
        columns: names such as ``error_barrier``, ``loss_barrier``, ``overlap``, ``test_error``; see
            ``isthmus.studies.factors.measures``. The training loss is always measured.
        points: size of the grid on a path.
        on: the examples that losses and errors along paths are means over.
        examples: how many of them, the first ones; all by default.
        statistics_examples: training examples from which running statistics are estimated anew on the way.
    """

    columns: list[str] = ["loss_barrier", "error_barrier", "overlap", "test_error"]
    points: Annotated[int, Field(ge=3)] = 25
    on: Literal["test", "training"] = "test"
    examples: Annotated[int, Field(ge=1)] | None = None
    statistics_examples: Annotated[int, Field(ge=1)] = 1000


class MatchingRule(_Strict):
    """Whether cells must have reached the same training loss (nats) for the study to say anything about them."""

    tolerance: Annotated[float, Field(gt=0)] = 0.05
    required: bool = False


class Claim(_Strict):
    """A claim, with its direction fixed before the study runs.

    Attributes:
        words: the claim as a sentence.
        measure: the column that it is about.
        factor: the factor that matters.
        direction: ``rises`` or ``falls`` along the factor's levels (or from the first of ``between`` to the second),
            ``differs`` where no direction is claimed.
        between: two levels to compare; needed where the factor has no order and more than two levels.
    """

    words: str
    measure: str
    factor: str
    direction: Literal["rises", "falls", "differs"] = "differs"
    between: tuple[Level, Level] | None = None


class Design(_Strict):
    """A whole study.

    Attributes:
        name: names the study in the store; letters, digits, ``-`` and ``_``.
        question: what it asks, in words.
        recipe: fields of :class:`isthmus.train.Recipe` that all cells share; the network's ``inputs`` and ``classes``
            follow from the data.
        factors: what is varied; every combination of levels is a cell.
        seed: of the study; all other seeds are derived from it.
        together: how many networks of a cell are trained as one group; part of the design because sums of another
            grouping round differently.
        engine: how a group is trained; ``auto`` asks a short probe once and remembers the answer in the store.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]
    question: str = ""
    recipe: dict[str, Any] = {}
    factors: dict[str, Factor]
    replicates: Replicates = Replicates()
    measures: Measures = Measures()
    matching: MatchingRule = MatchingRule()
    claims: list[Claim] = []
    seed: int = 0
    together: Annotated[int, Field(ge=1)] = 16
    engine: str = "auto"

    @pydantic.field_validator("factors", mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        """``rate = [0.1, 0.3]`` is short for ``rate.levels = [0.1, 0.3]``."""
        if not isinstance(value, dict):
            return value
        return {name: {"levels": entry} if isinstance(entry, list) else entry for name, entry in value.items()}

    @pydantic.field_validator("measures", mode="before")
    @classmethod
    def _columns_only(cls, value: Any) -> Any:
        return {"columns": value} if isinstance(value, list) else value


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
    for claim in design.claims:
        if claim.factor not in design.factors:
            raise StudyError(
                f"{where}: claims must name a factor of the study, got {claim.factor!r}"
                f"{near(claim.factor, design.factors)}"
            )
        names = design.factors[claim.factor].names
        if claim.between is not None:
            if wrong := [level for level in claim.between if level not in names]:
                raise StudyError(f"{where}: claims.between must name levels of {claim.factor}, got {wrong[0]!r}")
        elif len(names) != 2 and not design.factors[claim.factor].has_order:
            raise StudyError(
                f"{where}: a claim about {claim.factor} must say between which two levels, "
                "or the factor must be ordered"
            )


def near(word: str, known: Any) -> str:
    """A suggestion for an unknown word, or nothing."""
    close = difflib.get_close_matches(str(word), [str(entry) for entry in known], n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""


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
    else:
        message = first["msg"][0].lower() + first["msg"][1:]
        text = f"{place or 'a study'} must fit: {message}, got {str(first['input'])[:80]!r}"
    more = len(errors) - 1
    return text + (f" (and {more} more problems)" if more else "")


def _fields_at(location: list[str]) -> list[str]:
    """The keys that are known at a place in a study file."""
    tables: dict[str, type[BaseModel]] = {
        "factors": Factor,
        "replicates": Replicates,
        "measures": Measures,
        "matching": MatchingRule,
        "claims": Claim,
    }
    model = tables.get(location[0]) if location else Design
    return list(model.model_fields) if model else []
