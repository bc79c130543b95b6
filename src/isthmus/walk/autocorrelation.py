"""How rugged the way was, and how many independent looks it is worth."""

from __future__ import annotations

import dataclasses
import math

import torch
from jaxtyping import Float
from torch import Tensor

from isthmus.core.errors import SettingError
from isthmus.core.record import Record
from isthmus.core.statistics import Interval, over_networks
from isthmus.walk.walk import Walk


def autocorrelation(values: Float[Tensor, "walkers looks"]) -> Float[Tensor, "walkers looks"]:
    """Autocorrelation of each row at all lags, 1 at lag 0; NaN for rows that do not change.

    The sums are divided by the number of looks, not by the number of products, which keeps far lags small.
    """
    covariance = _autocovariance(values)
    return covariance / covariance[:, :1].where(covariance[:, :1] > 0, torch.nan)


@dataclasses.dataclass(frozen=True)
class Ruggedness(Record):
    """How fast a walk forgets the loss.

    Attributes:
        autocorrelation: of the loss, mean over walkers, at lags in looks.
        lags: in steps.
        length: the lag in steps at which the autocorrelation falls below 1/e, mean over walkers: short is rugged. A
            walk whose correlation never falls so far counts with the longest lag.
        skipped: looks left out at the beginning.
    """

    autocorrelation: Float[Tensor, " lags"]
    lags: Float[Tensor, " lags"]
    length: Interval
    skipped: int


def ruggedness(walk: Walk, *, skip: int = 0, level: float = 0.95) -> Ruggedness:
    """Autocorrelation of the loss along the walk.

    A walk that starts at a minimum first only climbs; ``skip`` leaves out those looks, or the length measures that.

    Args:
        walk: at least 8 looks after the skipped ones.
        skip: looks to leave out.
        level: nominal coverage of the interval over walkers.

    Raises:
        SettingError: too few looks.

    Reference: Weinberger, "Correlated and uncorrelated fitness landscapes" (1990); the correlation length there is
        −1/ln ρ(1), which equals this one for an exponential decay.
    """
    loss = _settled(walk, skip)
    correlation = autocorrelation(loss)
    half = correlation[:, : max(2, loss.shape[1] // 2)]
    lengths = [_crossing(row, 1 / math.e) * walk.every for row in half if bool(torch.isfinite(row).all())]
    if not lengths:
        raise SettingError("ruggedness needs a walk along which the loss changes, got a constant loss")
    lags = torch.arange(half.shape[1], dtype=torch.float64) * walk.every
    return Ruggedness(half.nanmean(0), lags, over_networks(lengths, level=level), skip)


@dataclasses.dataclass(frozen=True)
class EffectiveSamples(Record):
    """How many independent looks a set of correlated ones is worth.

    Attributes:
        total: over all walkers.
        looks: how many there were.
        time: looks for one independent one, looks / total.
        agreement: split R-hat, near 1 where the walkers sample the same law; above 1.01 they do not yet.
    """

    total: float
    looks: int
    time: float
    agreement: float


def effective_samples(values: Walk | Float[Tensor, "walkers looks"], *, skip: int = 0) -> EffectiveSamples:
    """The effective sample size of the loss, or of any observable, over all walkers.

    Args:
        values: a walk, whose loss is taken, or one row for each walker; at least 8 looks after the skipped ones.
        skip: looks to leave out at the beginning.

    Raises:
        SettingError: fewer than 8 looks, or values that never change.

    Reference: Vehtari et al., "Rank-normalization, folding, and localization" (2021), equations 1 to 4 and 10 to 13,
        with Geyer's initial monotone sequence; without rank normalisation.
    """
    rows = _settled(values, skip)
    half = rows.shape[1] // 2
    rows = torch.cat([rows[:, :half], rows[:, -half:]])
    chains, looks = rows.shape
    covariance = _autocovariance(rows)
    within = float(covariance[:, 0].mean()) * looks / (looks - 1)
    between = float(rows.mean(1).var())
    if not within > 0:
        raise SettingError("effective_samples needs values that change along the walk, got constant ones")
    spread = within * (looks - 1) / looks + between
    correlation = 1 - (within - covariance.mean(0) * looks / (looks - 1)) / spread
    correlation[0] = 1.0
    pairs = correlation[: looks - looks % 2].view(-1, 2).sum(1)
    negative = (pairs <= 0).nonzero()
    pairs = pairs[: int(negative[0])] if len(negative) else pairs
    time = -1 + 2 * float(torch.cummin(pairs, 0).values.sum())
    # Anticorrelated walks may be worth more than their number; log10 bounds a chance result, as Stan does.
    total = min(chains * looks / max(time, 1e-12), chains * looks * math.log10(chains * looks))
    return EffectiveSamples(total, chains * looks, chains * looks / total, math.sqrt(spread / within))


def _settled(values: Walk | Tensor, skip: int) -> Float[Tensor, "walkers looks"]:
    rows = (values.loss if isinstance(values, Walk) else torch.as_tensor(values)).double()
    if rows.dim() != 2 or skip < 0 or rows.shape[1] - skip < 8:
        raise SettingError(
            f"at least 8 looks must be left after skipping {skip}, got values of shape {tuple(rows.shape)}"
        )
    rows = rows[torch.isfinite(rows).all(1), skip:]
    if not len(rows):
        raise SettingError("at least one walker must have stayed in the finite range, got none")
    return rows


def _autocovariance(values: Tensor) -> Tensor:
    rows = values.double()
    rows = rows - rows.mean(1, keepdim=True)
    looks = rows.shape[1]
    spectrum = torch.fft.rfft(rows, n=2 * looks)
    return torch.fft.irfft(spectrum.abs().square(), n=2 * looks)[:, :looks] / looks


def _crossing(row: Tensor, height: float) -> float:
    """The first lag at which a falling row passes a height, interpolated; the last lag if it never does."""
    below = (row < height).nonzero()
    if not len(below):
        return float(len(row) - 1)
    after = int(below[0])
    high, low = float(row[after - 1]), float(row[after])
    return after - 1 + (high - height) / (high - low)
