"""What the cells say together: claims that need a test of their own, and the tables for people."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from reproductions.common import markdown, shown

from isthmus.core.record import plain
from isthmus.core.statistics import over_networks, spearman
from isthmus.studies.factors.trends import holm, jonckheere


def claims_of(cells: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The claims that need more than one cell or a test of their own; p-values with Holm's correction."""
    walks = [cell for cell in cells if "permutations" in cell]
    claims: list[dict[str, Any]] = []
    for cell in walks:
        # One rank correlation for each network, all of its permutations averaged; networks are independent.
        rising = [
            spearman(each["moved"], [sum(row) / len(row) for row in each["barrier"]])
            for each in cell["permutations"].values()
        ]
        claims.append({"claim": f"{cell['name']}: barrier to a permuted copy rises with k/h",
                       "statistic": over_networks(rising), "p": 2.0 ** -sum(r > 0 for r in rising)
                       if all(r > 0 for r in rising) else 1.0})  # fmt: skip
    perceptrons = sorted((cell for cell in walks if cell["set"] == "mnist"), key=_units)
    if len(perceptrons) > 1:
        whole = [[_mean(each["barrier"][-1]) for each in cell["permutations"].values()] for cell in perceptrons]
        trend = jonckheere(whole)
        claims.append({"claim": "mnist: barrier to a wholly permuted copy falls with h", "statistic": trend.statistic,
                       "p": trend.p if trend.statistic < 0 else 1.0})  # fmt: skip
    for claim, p in zip(claims, holm([claim["p"] for claim in claims]), strict=True):
        claim["p_corrected"] = p
    return plain(claims)


def _units(cell: Mapping[str, Any]) -> int:
    return next(iter(cell["permutations"].values()))["units"]


def _mean(values: Sequence[float | None]) -> float:
    """What is not finite is written as nothing."""
    return sum(math.nan if value is None else value for value in values) / len(values)


def tables_of(cells: Sequence[Mapping[str, Any]], claims: Sequence[Mapping[str, Any]]) -> str:
    """The results for people, in Markdown."""
    text, rows = [], []
    for cell in (each for each in cells if "glass" in each):
        for each in cell["glass"]["arrangements"]:
            verdict, recovered = each["verdict"], each["recovery"]
            row = [cell["name"], each["label"], len(each["overlaps"]["labels"])]
            row += [shown(each["distribution"][name]) for name in ("mean", "spread")]
            row += [shown(verdict[name]) if verdict else "–" for name in ("gap", "cophenetic")]
            row += [f"{verdict['p']:.3g}", "yes" if verdict["hierarchical"] else "no"] if verdict else ["–", "–"]
            rows.append([*row, f"{recovered['score']:.2f} (p {recovered['p']:.2g})" if recovered else "–"])
    columns = ["cell", "arrangement", "networks", "mean q", "spread of q", "K_KH", "cophenetic", "p", "hierarchical"]
    text.append(markdown([*columns, "families found (Rand)"], rows))
    for cell in (each for each in cells if "walks" in each):
        text += [f"**{cell['name']}**, test error {shown(cell['test_error'])}\n", *_walk_tables(cell)]
    for cell in (each for each in cells if "generalisation" in each):
        text.append(f"**{cell['name']}**: {cell['generalisation']['verdict']['sentence']}\n")
    rows = [[each["claim"], _statistic(each["statistic"]), f"{each['p_corrected']:.2g}"] for each in claims]
    return "\n".join([*text, markdown(["claim", "rank correlation", "p (Holm)"], rows)])


def _walk_tables(cell: Mapping[str, Any]) -> list[str]:
    rows = []
    for name, found in cell["walks"].items():
        walk = found["walk"]
        for look in sorted({0, len(walk["steps"]) // 4, len(walk["steps"]) // 2, len(walk["steps"]) - 1}):
            columns = (walk["loss"], walk["metrics"]["error"], walk["overlap"])
            seen = [f"{_mean([row[look] for row in rows_]):.3g}" for rows_ in columns]
            rows.append([name, walk["steps"][look], *seen])
    text = [markdown(["walk", "steps", "loss", "error", "overlap"], rows)]
    back = cell["walks"]["random"]["returns"]
    rows = [
        [steps, f"{rate:.2f} [{low:.2f}, {high:.2f}]", f"{_mean(barrier):.3g}", f"{_mean(overlap):.3g}"]
        for steps, rate, low, high, barrier, overlap in zip(
            *(back[name] for name in ("steps", "rate", "low", "high", "barrier", "overlap")), strict=True
        )
    ]
    text.append(markdown(["steps before the descent", "share that came back", "error barrier", "overlap"], rows))
    copies = list(cell["permutations"].values())
    rows = [
        [f"{moved}/{copies[0]['units']}", _interval([_mean(each["barrier"][place]) for each in copies]),
         f"{_mean([_mean(each['overlap'][place]) for each in copies]):.3g}"]
        for place, moved in enumerate(copies[0]["moved"])
    ]  # fmt: skip
    text.append(markdown(["units permuted", "loss barrier over networks", "overlap"], rows))
    text.append(markdown(list(cell["flatness"]), [[_interval(values) for values in cell["flatness"].values()]]))
    return text


def _interval(values: Sequence[float]) -> str:
    return shown(plain(over_networks(values)))


def _statistic(found: Any) -> str:
    return shown(found) if isinstance(found, Mapping) else f"{found:.3g}"
