"""A study file: factors × levels × replicates, which pairs are compared, what is measured, and what is claimed."""

from __future__ import annotations

from collections.abc import Mapping
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
            fields that it sets (and ``differ``, to set what differs between the members of a replicate). A factor that
            :class:`Combination` s speak of may have any name: its levels are then plain words.
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


class Combination(_Strict):
    """What levels of several factors set only together, such as the network of one cell of a two-way table.

    Attributes:
        of: factor → level. All combinations over the same factors together must name each cell once.
        set: the recipe fields.
    """

    of: dict[str, Level]
    set: dict[str, Any]


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
        at: levels of other factors at which they are compared; averaged over the others' levels by default.
        depends_on: the claim is about the interaction: the difference between the two levels of ``factor`` is itself
            higher (``rises``), lower or other at the second of ``where`` than at the first.
        where: the two levels of ``depends_on``; needed where it has more than two.
    """

    words: str
    measure: str
    factor: str
    direction: Literal["rises", "falls", "differs"] = "differs"
    between: tuple[Level, Level] | None = None
    at: dict[str, Level] = {}
    depends_on: str | None = None
    where: tuple[Level, Level] | None = None


class Design(_Strict):
    """A whole study.

    Attributes:
        name: names the study in the store; letters, digits, ``-`` and ``_``.
        question: what it asks, in words.
        recipe: fields of :class:`isthmus.train.Recipe` that all cells share; the network's ``inputs`` and ``classes``
            follow from the data.
        factors: what is varied; every combination of levels is a cell.
        combinations: what levels of several factors set together.
        replicates: how many networks each cell has, and what differs between them.
        measures: what is measured on them.
        matching: how near the cells' training losses must lie.
        claims: what is expected, fixed before the study runs.
        seed: of the study; all other seeds are derived from it.
        together: how many networks of a cell are trained as one group; part of the design because sums of another
            grouping round differently.
        engine: how a group is trained; ``auto`` asks a short probe once and remembers the answer in the store.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]
    question: str = ""
    recipe: dict[str, Any] = {}
    factors: dict[str, Factor]
    combinations: list[Combination] = []
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
