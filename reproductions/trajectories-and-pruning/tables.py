"""What the cells say together: one permutation against the others, pair by pair, and the tables for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from reproductions.summaries import markdown, shown
from torch import Tensor

from isthmus.core.record import plain
from isthmus.core.statistics import over_networks
from isthmus.studies.factors.trends import holm

CHANCE = 0.8  # test errors above this are at chance level, or nearly: nine tenths would be guessing


def _compared(cell: Mapping[str, Any]) -> dict[str, Any]:
    """What the claim comes to: heights by kind of permutation at every time or level, and differences pair by pair.

    The permutation in question is that of the ends of training, or that of the dense networks.
    """
    heights = torch.tensor(cell["heights"], dtype=torch.float64)
    one = len(cell["labels"]) - 1 if cell["claim"] == "times" else 0
    kinds = {
        "one": heights[:, one],
        "own": heights.diagonal(dim1=1, dim2=2),
        **{name: _numbers(cell[name]) for name in ("naive", "random", "together")},
    }
    counted = [t for t, error in enumerate(cell["test_error"]) if error <= CHANCE and t != one]
    return {
        "kinds": {name: [over_networks(column) for column in values.T] for name, values in kinds.items()},
        "counted": counted,
        "differences": {
            "naive - one": _difference(kinds["naive"], kinds["one"], counted),
            "own - one": _difference(kinds["own"], kinds["one"], counted),
            "own - one, first half": _difference(kinds["own"], kinds["one"], counted[: (len(counted) + 1) // 2]),
            "together - one": _difference(kinds["together"], kinds["one"], counted),
        },
        "connected": {
            name: float((values[:, counted] <= 0.02).double().mean())
            for name, values in kinds.items()
            if counted and not bool(values.isnan().any())
        },
        "holds": bool((kinds["one"][:, [*counted, one]] <= 0.02).all()),
    }


def _difference(first: Tensor, second: Tensor, counted: Sequence[int]) -> dict[str, Any]:
    """The mean over times of first − second, pair by pair: over pairs, with Student's test (two-sided)."""
    from scipy.stats import ttest_1samp

    values = (first - second)[:, list(counted)].mean(1)
    varied = len(values) > 1 and float(values.std()) > 0
    p = float(ttest_1samp(values.numpy(), 0.0).pvalue) if varied else 1.0
    return {"mean": over_networks(values), "higher": int((values > 0).sum()), "pairs": len(values), "p": p}


def comparisons_of(cells: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Everything compared, Holm's correction over all tests of the case."""
    found = {cell["name"]: plain(_compared(cell)) for cell in cells}
    tests = [
        test for one in found.values() for test in one["differences"].values() if test["mean"]["estimate"] is not None
    ]
    for test, p in zip(tests, holm([test["p"] for test in tests]), strict=True):
        test["p_corrected"] = p
    return found


def tables_of(cells: Sequence[Mapping[str, Any]]) -> str:
    """The results for people, in Markdown."""
    parts = []
    for cell, found in zip(cells, comparisons_of(cells).values(), strict=True):
        times = cell["claim"] == "times"
        names = {
            "naive": "naive",
            "random": "random",
            "own": "own permutation",
            "one": "permutation of the ends" if times else "permutation of the dense",
            "together": "one for all",
        }
        rows = [
            [label, f"{error:.3g}", *(shown(found["kinds"][kind][place]) for kind in names)]
            for place, (label, error) in enumerate(zip(cell["labels"], cell["test_error"], strict=True))
        ]
        head = ["step" if times else "density", "test error", *names.values()]
        pairs = len(cell["naive"])
        parts += [f"## {cell['case']}, {cell['claim']}, by {cell['method']}", ""]
        parts += [f"Error barrier; 95 % intervals over {pairs} pairs that share no network.", "", markdown(head, rows)]
        for name, test in found["differences"].items():
            if test["mean"]["estimate"] is not None:
                parts += [
                    f"- {name}: {shown(test['mean'])}, above 0 in {test['higher']} of {test['pairs']} pairs, "
                    f"p = {test['p_corrected']:.2g} (Student, Holm)"
                ]
        parts += [f"- connected (2 %): {', '.join(f'{names[k]} {v:.0%}' for k, v in found['connected'].items())}", ""]
    return "\n".join(parts) + "\n"


def _numbers(values: Sequence[Sequence[float | None]]) -> Tensor:
    """A table in plain values, where nothing stands for what could not be measured."""
    return torch.tensor([[float("nan") if v is None else v for v in row] for row in values], dtype=torch.float64)
