"""What the cells say together: claims that need a test of their own, and the tables for people."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from reproductions.summaries import markdown, shown

from isthmus.cluster import FiniteSize, Overlaps, finite_size
from isthmus.core.record import plain
from isthmus.core.statistics import over_networks
from isthmus.studies.factors.trends import holm, jonckheere


def claims_of(cells: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The claims that need a test of their own: one-sided, over what is independent, with Holm's correction."""
    claims = []
    for cell in (each for each in cells if each["name"].startswith("glass")):
        q = {each["label"]: each["overlaps"]["q"] for each in cell["glass"]["arrangements"]}
        # Pairs that share no network; the first one, which the others are aligned to, is left out.
        places = range(1, len(q["raw"]) - 1, 2)
        for lower, higher in (("raw", "reference"), ("reference", "pairwise")):
            gains = [q[higher][i][i + 1] - q[lower][i][i + 1] for i in places]
            claims.append({"claim": f"{cell['name']}: overlap {lower} < {higher}", **_above_zero(gains)})
    walks = [cell for cell in cells if "permutations" in cell]
    for cell in walks:
        # A number for each network, all of its permutations averaged.
        rises = [_mean(each["barrier"][-1]) - _mean(each["barrier"][0]) for each in cell["permutations"].values()]
        claims.append({"claim": f"{cell['name']}: barrier to a permuted copy rises with k/h", **_above_zero(rises)})
        back = cell["walks"]["random"]["returns"]["returned"]
        if len(back) > 1:
            lost = [float(first) - float(last) for first, last in zip(back[0], back[-1], strict=True)]
            claims.append({"claim": f"{cell['name']}: fewer come back after more steps", **_above_zero(lost)})
    perceptrons = sorted((cell for cell in walks if cell["set"] == "mnist"), key=_units)
    if len(perceptrons) > 1:
        whole = [[_mean(each["barrier"][-1]) for each in cell["permutations"].values()] for cell in perceptrons]
        trend = jonckheere(whole)
        p = trend.p if trend.statistic < 0 else 1.0
        claims.append({"claim": "mnist: barrier to a wholly permuted copy falls with h (rank correlation)",
                       "found": trend.statistic, "p": p})  # fmt: skip
    for claim, p in zip(claims, holm([claim["p"] for claim in claims]), strict=True):
        claim["p_corrected"] = p
    return plain(claims)


def _above_zero(values: Sequence[float]) -> dict[str, Any]:
    """The mean of independent values, and Student's one-sided test that it lies above zero; of equal ones by signs."""
    from scipy import stats

    found = over_networks(values)
    if max(values) > min(values):
        tested: Any = stats.ttest_1samp(values, 0.0, alternative="greater")
        p = float(tested.pvalue)
    else:
        p = 0.5 ** len(values) if values[0] > 0 else 1.0
    return {"found": found, "p": p}


def sizes_of(cells: Sequence[Mapping[str, Any]]) -> dict[str, FiniteSize]:
    """How the spread of overlaps falls with the size of the perceptrons, by arrangement."""
    glasses = [cell for cell in cells if cell["name"].startswith("glass-mnist")]
    found: dict[str, list[Overlaps]] = {}
    for cell in glasses:
        for each in cell["glass"]["arrangements"]:
            if each["label"] in ("raw", "pairwise", "function"):
                given = each["overlaps"]
                q = torch.tensor(given["q"], dtype=torch.float64)
                # Function overlaps are over as many outputs at every size: the network's size is what changes.
                entries = cell["glass"]["arrangements"][0]["overlaps"]["entries"]
                made = Overlaps(tuple(map(str, range(len(q)))), q, {}, given["space"], "raw", None, entries, (), ())
                found.setdefault(each["label"], []).append(made)
    return {label: finite_size(sets) for label, sets in found.items() if len(sets) > 1}


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
            row = [cell["name"], each["label"], len(each["overlaps"]["q"])]
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
    if sizes := sizes_of(cells):
        rows = [[label, shown(plain(one.exponent))] for label, one in sizes.items()]
        text.append(markdown(["overlaps", "exponent of spread ~ entries^exponent over the perceptrons"], rows))
    rows = [[each["claim"], _statistic(each["found"]), f"{each['p_corrected']:.2g}"] for each in claims]
    return "\n".join([*text, markdown(["claim", "difference over independent units", "p (Holm)"], rows)])


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
        [steps, f"{rate:.2f} [{low:.2f}, {high:.2f}]", *(f"{_mean(row):.3g}" for row in rows_)]
        for steps, rate, low, high, *rows_ in zip(
            *(back[name] for name in ("steps", "rate", "low", "high", "loss", "barrier", "overlap")), strict=True
        )
    ]
    columns = ["steps before the descent", "share that came back", "loss then", "error barrier", "overlap"]
    text.append(markdown(columns, rows))
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
