"""Do flatter solutions generalise better? Rank correlations over trained networks, whatever they turn out to say."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Hashable, Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float

from isthmus.core.errors import DataError, SettingError
from isthmus.core.record import Record
from isthmus.core.statistics import Interval, jackknife, ranks
from isthmus.studies.factors.trends import holm

Statistic = Callable[[np.ndarray], float]

_LEAST = 5


@dataclasses.dataclass(frozen=True)
class FlatnessCorrelation(Record):
    """One measure of sharpness against the generalisation gap.

    Attributes:
        measure: its name.
        plain: Spearman's correlation over networks; positive where sharper networks have larger gaps.
        partial: the same after what the ranks of the training loss (and of further controls) explain is removed from
            both; the plain one if there are no controls.
        within: the same between networks of one setting only, ranks taken within each setting: what is left when rate
            and batch size are held fixed. NaN without settings.
        p: two-sided, of the partial correlation, by permutation of what the controls leave: the means of whole settings
            are dealt out anew, and networks within each. (Networks dealt out across settings would call 23 % of grids
            of nine settings of three seeds, without any connection, significant at 5 %.)
        p_corrected: Holm's correction over all measures asked for together.
    """

    measure: str
    plain: Interval
    partial: Interval
    within: Interval
    p: float
    p_corrected: float


@dataclasses.dataclass(frozen=True)
class FlatnessVerdict(Record):
    """What the networks say about flatness and generalisation.

    Attributes:
        sentence: the verdict in words, also where it contradicts the expectation that flat is good.
        correlations: one for each measure.
        controls: what was controlled for.
        networks: how many were used.
        unmatched: networks left out because their training loss lies outside the matched range.
        loss_range: lowest and highest training loss among those used.
        left_out: networks left out because a number was not finite.
        level: nominal coverage of the intervals.
    """

    sentence: str
    correlations: tuple[FlatnessCorrelation, ...]
    controls: tuple[str, ...]
    networks: int
    unmatched: int
    loss_range: tuple[float, float]
    left_out: int
    level: float


def flatness(
    sharpness: Mapping[str, Sequence[float]],
    gap: Sequence[float],
    training_loss: Sequence[float],
    *,
    generator: torch.Generator,
    settings: Sequence[Hashable] | None = None,
    controls: Mapping[str, Sequence[float]] | None = None,
    matched: tuple[float, float] | None = None,
    level: float = 0.95,
    draws: int = 2000,
) -> FlatnessVerdict:
    """Rank correlation of sharpness and generalisation gap, controlling for the training loss.

    Args:
        sharpness: for each measure (larger is sharper) one number for each network.
        gap: test minus training loss or error, one for each network.
        training_loss: one for each network.
        generator: for the permutations.
        settings: the recipe of each network without its seed, such as (rate, batch size); networks of one setting are
            left out together, because they are not independent of each other where the setting moves both numbers.
        controls: further numbers to control for, by name.
        matched: use only networks whose training loss lies in this range.
        level: nominal coverage.
        draws: permutations.

    Raises:
        DataError: numbers that are not one for each network, or measures that never change.
        SettingError: fewer than five networks left.

    Reference: Jiang et al., "Fantastic generalization measures and where to find them" (2020), for ranking within
        settings; Freedman and Lane (1983) for the permutation.
    """
    if not sharpness:
        raise SettingError("flatness needs at least one measure of sharpness, got none")
    given = {**(controls or {}), "training loss": training_loss}
    columns = {**{f"measure {k}": v for k, v in sharpness.items()}, "gap": gap, **given}
    table = {name: _column(name, values, len(gap)) for name, values in columns.items()}
    if settings is not None and len(settings) != len(gap):
        raise DataError(f"settings must be one for each of {len(gap)} networks, got {len(settings)}")
    finite = np.all([np.isfinite(column) for column in table.values()], axis=0)
    loss = table["training loss"]
    low, high = matched or (-math.inf, math.inf)
    use = finite & (loss >= low) & (loss <= high)
    if use.sum() < _LEAST:
        raise SettingError(f"flatness needs at least {_LEAST} networks with finite numbers, got {int(use.sum())}")
    groups = _numbered(settings, use)
    held = np.stack([table[name][use] for name in given], axis=1)
    found = [
        _correlation(
            name,
            table[f"measure {name}"][use],
            table["gap"][use],
            held,
            groups=groups,
            generator=generator,
            level=level,
            draws=draws,
        )
        for name in sharpness
    ]
    corrected = holm([each.p for each in found])
    found = [dataclasses.replace(each, p_corrected=p) for each, p in zip(found, corrected, strict=True)]
    return FlatnessVerdict(
        sentence=_sentence(found, level),
        correlations=tuple(found),
        controls=tuple(given),
        networks=int(use.sum()),
        unmatched=int((finite & ~use).sum()),
        loss_range=(float(loss[use].min()), float(loss[use].max())),
        left_out=int((~finite).sum()),
        level=level,
    )


def _correlation(
    name: str,
    sharp: np.ndarray,
    gap: np.ndarray,
    held: Float[np.ndarray, "networks controls"],
    *,
    groups: np.ndarray | None,
    generator: torch.Generator,
    level: float,
    draws: int,
) -> FlatnessCorrelation:
    for what, values in ((f"measure {name}", sharp), ("gap", gap)):
        if np.ptp(values) == 0:
            raise DataError(f"{what} must differ between networks, got {values[0]:.6g} for all")

    def interval(statistic: Statistic) -> Interval:
        return _over_settings(statistic, len(gap), groups, level=level)

    plain = interval(lambda i: _pearson(ranks(sharp[i]), ranks(gap[i])))
    partial = interval(lambda i: _pearson(*_left(sharp[i], gap[i], held[i])))
    if groups is None:
        within = Interval(math.nan, math.nan, math.nan, level, len(gap), "none: no settings were given")
    else:
        one, other = (_ranked_within(values, groups) for values in (sharp, gap))
        within = interval(lambda i: _pearson(one[i], other[i]))
    first, second = _left(sharp, gap, held)
    # What was dealt out anew has a part that the controls explain, and that is removed again as it was from the gap.
    dealt = _unexplained(_dealt(second, groups, draws, generator).T, held).T
    chance = np.array([_pearson(first, other) for other in dealt])
    extreme = int((np.abs(chance) >= abs(partial.estimate) - 1e-12).sum())
    return FlatnessCorrelation(name, plain, partial, within, (1 + extreme) / (1 + draws), math.nan)


def _over_settings(statistic: Statistic, networks: int, groups: np.ndarray | None, *, level: float) -> Interval:
    """A correlation's interval over networks, or over whole settings where there are several networks to a setting."""
    if groups is None or len(set(groups.tolist())) == networks:
        return jackknife(statistic, networks, level=level, correlation=True)
    members = [np.flatnonzero(groups == group) for group in sorted(set(groups.tolist()))]

    def kept(chosen: np.ndarray) -> float:
        return statistic(np.concatenate([members[index] for index in chosen]))

    made = jackknife(kept, len(members), level=level, correlation=True)
    method = made.method.replace("over networks", f"over {len(members)} settings of {networks} networks")
    return dataclasses.replace(made, method=method)


def _dealt(
    values: np.ndarray, groups: np.ndarray | None, draws: int, generator: torch.Generator
) -> Float[np.ndarray, "draws networks"]:
    """Values whose settings' means, and what is left of networks within each setting, were dealt out anew."""
    members = np.arange(len(values)) if groups is None else groups
    sizes = np.bincount(members)
    means = np.bincount(members, values) / sizes
    settings = torch.rand(draws, len(sizes), generator=generator).argsort(1).numpy()
    networks = torch.rand(draws, len(values), generator=generator).numpy()
    # Sorted by setting and then at random; read where the networks lie sorted by setting alone.
    mixed, in_order = (
        np.lexsort((networks, np.broadcast_to(members, networks.shape))),
        np.argsort(members, kind="stable"),
    )
    rest = np.empty((draws, len(values)))
    rest[:, in_order] = (values - means[members])[mixed]
    return means[settings][:, members] + rest


def _left(sharp: np.ndarray, gap: np.ndarray, held: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What the ranks of the controls do not explain of the ranks of both."""
    rest = _unexplained(np.column_stack([ranks(sharp), ranks(gap)]), held)
    return rest[:, 0], rest[:, 1]


def _unexplained(columns: np.ndarray, held: np.ndarray) -> Float[np.ndarray, "networks columns"]:
    """Columns without their mean and what is linear in the ranks of the controls."""
    design = np.column_stack([np.ones(len(held)), *(ranks(column) for column in held.T)])
    return columns - design @ np.linalg.lstsq(design, columns, rcond=None)[0]


def _ranked_within(values: np.ndarray, groups: np.ndarray) -> Float[np.ndarray, " networks"]:
    """Ranks taken, and centred, within each setting."""
    found = np.zeros(len(values))
    for group in set(groups.tolist()):
        inside = groups == group
        own = ranks(values[inside])
        found[inside] = own - own.mean()
    return found


def _pearson(first: np.ndarray, second: np.ndarray) -> float:
    first, second = first - first.mean(), second - second.mean()
    length = math.sqrt(float(first @ first) * float(second @ second))
    return float(first @ second) / length if length > 1e-9 * len(first) else math.nan


def _column(name: str, values: Sequence[float], networks: int) -> np.ndarray:
    column = np.asarray(values, dtype=float)
    if column.shape != (networks,):
        raise DataError(f"{name} must be one number for each of {networks} networks, got shape {column.shape}")
    return column


def _numbered(settings: Sequence[Hashable] | None, use: np.ndarray) -> np.ndarray | None:
    if settings is None:
        return None
    kept = [setting for setting, inside in zip(settings, use, strict=True) if inside]
    numbers = {setting: number for number, setting in enumerate(dict.fromkeys(kept))}
    return np.array([numbers[setting] for setting in kept])


def _sentence(found: Sequence[FlatnessCorrelation], level: float) -> str:
    parts = []
    for each in found:
        estimate = each.partial
        if each.p_corrected > 1 - level or not estimate.low * estimate.high > 0:
            says = "no connection with the gap is shown"
        elif estimate.estimate > 0:
            says = "flatter networks generalise better"
        else:
            says = "sharper networks generalise better, against the expectation"
        parts.append(f"{each.measure}: {says} (partial rank correlation {estimate}, p = {each.p_corrected:.3g})")
    return "; ".join(parts) + "."
