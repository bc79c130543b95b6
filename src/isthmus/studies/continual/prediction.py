"""How well scores made before a merge rank what is lost in it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np

from isthmus.core.record import Record
from isthmus.core.statistics import Interval, jackknife, spearman
from isthmus.merge.prediction import NAIVE, SCORES


@dataclasses.dataclass(frozen=True)
class Observed(Record):
    """One capability in one merge.

    Attributes:
        replica: the seed; merges of one seed are not independent of each other.
        arm: which ends were mixed.
        capability: of the holder.
        position: α of the merge.
        lost: share of it that was lost, 1 − retention.
        scores: made before, by name.
    """

    replica: int
    arm: str
    capability: str
    position: float
    lost: float
    scores: Mapping[str, float]


@dataclasses.dataclass(frozen=True)
class Ranking(Record):
    """One score's Spearman correlation with what was lost.

    Attributes:
        score: by name.
        correlation: over all merges; the interval leaves out seeds, not merges.
        over_naive: its lead over the distance of the ends, on the same seeds.
    """

    score: str
    correlation: Interval
    over_naive: Interval


@dataclasses.dataclass(frozen=True)
class Forecast(Record):
    """The scores in the order of their correlation, best first, with everything that was observed."""

    rankings: tuple[Ranking, ...]
    observed: tuple[Observed, ...]
    naive: str = NAIVE

    @property
    def best(self) -> str:
        """The name of the best score."""
        return self.rankings[0].score


def validated(observed: Sequence[Observed]) -> Forecast:
    """Rank the scores by their rank correlation with what was lost."""
    replicas = sorted({entry.replica for entry in observed})
    of = {replica: [entry for entry in observed if entry.replica == replica] for replica in replicas}

    def correlation(name: str, drawn: np.ndarray) -> float:
        chosen = [entry for place in drawn for entry in of[replicas[int(place)]]]
        return spearman([entry.scores[name] for entry in chosen], [entry.lost for entry in chosen])

    rankings = []
    for name in (score for score in SCORES if all(score in entry.scores for entry in observed)):
        found = jackknife(lambda kept, n=name: correlation(n, kept), len(replicas), correlation=True)
        lead = jackknife(lambda kept, n=name: correlation(n, kept) - correlation(NAIVE, kept), len(replicas))
        rankings.append(Ranking(name, found, lead))
    known = [ranking for ranking in rankings if math.isfinite(ranking.correlation.estimate)]
    unknown = [ranking for ranking in rankings if not math.isfinite(ranking.correlation.estimate)]
    known.sort(key=lambda ranking: -ranking.correlation.estimate)
    return Forecast((*known, *unknown), tuple(observed))
