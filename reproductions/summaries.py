"""Barriers of all pairs as plain values, summed up over networks, and shown as the cells of a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from isthmus.connect import PairBarriers
from isthmus.core.record import plain
from isthmus.core.statistics import over_pairs
from isthmus.studies.factors.trends import holm

PARTS = ("loss", "error")

CONVENTIONS = ("loss_barrier", "error_barrier", "midpoint", "midpoint_error")


def summary(found: PairBarriers) -> dict[str, Any]:
    """Of each convention the mean over pairs with its interval over networks, and all pairs; and the mean curves."""
    curves = list(found.curves.values())
    return {
        "positions": curves[0].positions,
        "mean_loss": found.mean_loss,
        "mean_error": torch.stack([curve.error for curve in curves]).mean(0),
        **{name: {"mean": found.intervals[name], "pairs": found.heights[name]} for name in CONVENTIONS},
    }


def curves(found: PairBarriers) -> list[dict[str, Any]]:
    """Loss and error along the line of each pair."""
    return [{"pair": list(pair), "loss": curve.loss, "error": curve.error} for pair, curve in found.curves.items()]


def among(measured: Mapping[str, Any], chosen: Sequence[int]) -> dict[str, Any]:
    """The :func:`summary` of some of the networks, from that of all with its :func:`curves`, both as plain values."""
    along = [curve for curve in measured["curves"] if set(curve["pair"]) <= set(chosen)]
    means = {part: torch.tensor([curve[part] for curve in along], dtype=torch.float64).mean(0) for part in PARTS}
    found: dict[str, Any] = {
        "positions": measured["positions"], "mean_loss": means["loss"], "mean_error": means["error"]
    }  # fmt: skip
    for name in CONVENTIONS:
        heights = torch.tensor(measured[name]["pairs"], dtype=torch.float64)[chosen][:, chosen]
        found[name] = {"mean": over_pairs(heights, signed=name.startswith("midpoint")), "pairs": heights}
    return plain(found)


def disjoint(pairs: Sequence[Sequence[float]]) -> list[float]:
    """Of a matrix over pairs those of networks 1–2, 3–4, …: they share no network, so they are independent."""
    return [pairs[first][first + 1] for first in range(0, len(pairs) - 1, 2)]


def corrected(trends: Sequence[dict[str, Any]]) -> Sequence[dict[str, Any]]:
    """Trends with Holm's correction over all of them."""
    for trend, p in zip(trends, holm([trend["p"] for trend in trends]), strict=True):
        trend["p_corrected"] = p
    return trends


def shown(interval: Mapping[str, Any]) -> str:
    """An interval in plain values as a cell of a table."""
    if interval["estimate"] is None:
        return "–"
    if interval["low"] is None:
        return f"{interval['estimate']:.3g}"
    return f"{interval['estimate']:.3g} [{interval['low']:.3g}, {interval['high']:.3g}]"


def markdown(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines) + "\n"
