"""Every check on isthmus, and on peers from PyPI where they are installed."""

from __future__ import annotations

import importlib.metadata
import sys
from pathlib import Path

import pytest

# The suite is a folder that can be copied and pointed at another tool, so it does not live in a package.
sys.path.insert(0, str(Path(__file__).parent))

from adapters import Isthmus, LossLandscapes
from checks import CHECKS

LOSS_LANDSCAPES_FAILS = {
    "the_start_is_evaluated",
    "inputs_are_left_untouched",
    "other_statistics_count_at_the_end",
    "a_plane_lies_where_it_says",
}


@pytest.mark.parametrize("normalisation", ["interpolate", "reestimate"])
@pytest.mark.parametrize("check", CHECKS)
def test_isthmus_conforms(check, normalisation):
    CHECKS[check](Isthmus(normalisation))


def version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


@pytest.mark.filterwarnings("default")
@pytest.mark.skipif(version("loss-landscapes") != "3.0.6", reason="loss-landscapes 3.0.6 is not installed")
@pytest.mark.parametrize("check", CHECKS)
def test_what_loss_landscapes_gets_wrong(check):
    if check not in LOSS_LANDSCAPES_FAILS:
        CHECKS[check](LossLandscapes())
        return
    with pytest.raises(AssertionError):
        CHECKS[check](LossLandscapes())


class Broken:
    """A tool with one mistake for each check: no check may be unable to fail."""

    def __init__(self, mistake: str) -> None:
        self.tool, self.mistake = Isthmus("interpolate"), mistake

    def line(self, start, end, problem, points):
        if self.mistake == "inputs_are_left_untouched":
            next(start.parameters()).data.add_(0.1)
        positions, losses = self.tool.line(start, end, problem, points)
        if self.mistake == "the_start_is_evaluated":
            return positions[1:], losses[1:]
        if self.mistake == "the_end_is_evaluated":
            return positions[:-1], losses[:-1]
        if self.mistake == "permuted_copy_is_the_same_network_at_both_ends_only":
            return positions, [losses[0]] * points
        return positions, [loss * 1.01 + 1e-3 for loss in losses]

    def plane(self, origin, first, second, problem, points):
        rows, columns, losses = self.tool.plane(origin, first, second, problem, points)
        return columns, rows, [list(row) for row in zip(*losses, strict=True)]


@pytest.mark.parametrize("check", CHECKS)
def test_every_check_can_fail(check):
    with pytest.raises(AssertionError):
        CHECKS[check](Broken(check))
