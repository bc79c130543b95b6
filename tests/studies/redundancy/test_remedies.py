"""The trial of remedies: matched parameters, verdicts and prices that follow from their numbers, honest refusals."""

import copy
import dataclasses
import math
from functools import partial

import pytest
import torch

from isthmus.core.errors import SettingError
from isthmus.core.statistics import Interval, over_networks
from isthmus.report.section import section
from isthmus.studies.redundancy.candidates import REMEDIES, has_width, left_out, matched
from isthmus.studies.redundancy.judgement import claims, difference, ratio, verdict
from isthmus.studies.redundancy.remedies import RECIPE, try_remedies
from isthmus.studies.redundancy.trials import Heights
from isthmus.zoo import load_data
from isthmus.zoo.models import resolve
from isthmus.zoo.remedies import anchored, free_parameters, masked

QUICK = dataclasses.replace(RECIPE, epochs=3)


@pytest.fixture(scope="module")
def data():
    return load_data("digits").limited(400)


@pytest.fixture(scope="module")
def found(data):
    return try_remedies(
        data, QUICK, remedies=("sorted", "frozen-strong"), widths=(8, 16), label_noise=(0.0,), solutions=4, points=3
    )


def test_cells_and_what_is_left_to_exchange(found):
    names = [(trial.size, trial.remedy) for trial in found.trials]
    assert names == [(size, name) for size in (8, 16) for name in ("plain", "sorted", "frozen-strong")]
    by_name = {trial.remedy: trial for trial in found.trials if trial.size == 8}
    assert by_name["plain"].log10_copies == pytest.approx(2 * math.lgamma(9) / math.log(10))
    assert by_name["frozen-strong"].groups == 0
    assert by_name["frozen-strong"].aligned is None
    assert by_name["plain"].aligned is not None
    assert len(found.scaling) == 3


def test_sorting_takes_over_the_plain_networks(found):
    plain, sorted_ = found.trials[:2]
    assert sorted_.accuracy.estimate == pytest.approx(plain.accuracy.estimate, abs=1e-12)
    assert sorted_.disagreement == plain.disagreement
    assert sorted_.naive.loss.estimate != plain.naive.loss.estimate
    assert (sorted_.cost.estimate, sorted_.cost.low, sorted_.cost.high) == (0, 0, 0)


def test_it_is_drawn_and_survives_json(found):
    values = found.to_dict()
    drawn = section(values)
    assert len(drawn.figures) == 1
    assert [len(table.rows) for table in drawn.tables[:3]] == [6, 6, 6]
    assert "16" in drawn.headline


def test_growing_networks_keep_one_clock(data):
    found = try_remedies(
        data, dataclasses.replace(QUICK, epochs=8), remedies=("modular-grown",), widths=(16,), label_noise=(0.0,),
        solutions=2, points=3, target=0.3,
    )  # fmt: skip
    plain, grown = found.trials
    in_epoch = math.ceil(400 / RECIPE.batch_size)
    assert plain.reached == grown.reached == 2
    assert grown.steps.estimate <= 8 * in_epoch
    assert grown.verdict == "unknown"  # two networks allow no interval


@pytest.mark.parametrize("name", [name for name in REMEDIES if name not in ("plain", "sorted")])
def test_parameters_are_matched_as_closely_as_a_width_can(data, name):
    target = free_parameters(matched(REMEDIES["plain"], data, size=24).make(0))
    fit = matched(REMEDIES[name], data, size=24)
    off = abs(fit.parameters - target)
    make = fit.make.func
    assert all(abs(free_parameters(make(fit.width + step)) - target) >= off for step in (-1, 1))
    assert off / target < 0.05


OWN = """
import torch
from torch import nn


class Own(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.read = nn.Conv2d(1, width, 3, padding=1)
        self.norm = nn.GroupNorm(1, width)
        self.act = nn.GELU()
        self.pool = nn.AdaptiveAvgPool2d(2)
        self.head = nn.Linear(4 * width, 10)

    def forward(self, images):
        return self.head(self.pool(self.act(self.norm(self.read(images)))).flatten(1))


def build(width=8):
    return Own(width)


def fixed():
    return Own(6)


class Called(nn.Sequential):
    def forward(self, images):
        return self[1](torch.relu(self[0](images.flatten(1))))


def called():
    return Called(nn.Linear(64, 5, bias=False), nn.Linear(5, 10))
"""


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    file = tmp_path_factory.mktemp("own") / "own.py"
    file.write_text(OWN)
    return f"{file}:build", f"{file}:fixed"


def test_a_users_model_is_matched_by_its_width(data, own):
    found = try_remedies(
        data, dataclasses.replace(QUICK, epochs=1), model=own[0], widths=(8,), label_noise=(0.0,), solutions=2,
        remedies=("frozen", "chebyshev", "modular"), points=3,
    )  # fmt: skip
    plain, frozen, chebyshev = found.trials  # an architecture of its own is left out
    assert found.matched
    assert (plain.size, plain.width) == (8, 8)
    assert plain.log10_copies == pytest.approx(math.lgamma(9) / math.log(10))
    assert frozen.width > 8
    assert frozen.parameters == pytest.approx(plain.parameters, rel=0.1)
    assert frozen.log10_copies == 0
    assert chebyshev.width == 8  # five coefficients more are nearer than a unit more
    assert chebyshev.parameters == plain.parameters + 5
    assert set(found.left_out) == {"modular"}
    said = " ".join(section(found).text)
    assert "own.py" in said
    assert "Not tried: modular (an architecture of its own" in said


def test_a_model_without_a_width_keeps_its_size(data, own):
    found = try_remedies(
        data, dataclasses.replace(QUICK, epochs=1), model=own[1], remedies=("mask",), widths=(8, 16),
        label_noise=(0.0,), solutions=2, points=3,
    )  # fmt: skip
    plain, mask = found.trials
    assert not found.matched
    assert plain.width is None
    assert plain.size == mask.size == plain.parameters
    assert mask.parameters < plain.parameters
    assert section(found).tables[0].rows
    assert len(section(found).figures) == 1


def test_what_a_model_cannot_take_is_found_before_the_work(data, own):
    called = own[1].replace("fixed", "called")
    missing = left_out(("mask", "chebyshev", "ordered", "sorted"), data, called)
    assert set(missing) == {"chebyshev", "ordered"}
    assert "activation layers" in missing["chebyshev"]
    assert "bias" in missing["ordered"]


def test_which_models_have_a_width(own):
    assert has_width(own[0])
    assert not has_width(own[1])
    assert has_width("mlp")
    assert not has_width("resnet20")  # a multiplier
    assert not has_width("mlp-8-4")
    assert not has_width("torchvision:resnet18")


def test_an_architecture_is_no_change_of_a_users_model(data, own):
    with pytest.raises(SettingError, match="modular is an architecture of its own"):
        matched(REMEDIES["modular"], data, size=8, model=own[0])


@pytest.mark.parametrize(
    ("verdicts", "said"),
    [
        ({"mask": ["does not", "lowers"], "frozen": ["removes"]}, ["confirmed", "confirmed"]),
        ({"sorted": ["removes"], "frozen": ["does not"]}, ["refuted", "refuted"]),
        ({"mask": ["removes", "lowers"], "frozen-strong": ["removes", "lowers"]}, ["mixed", "mixed"]),
        ({"mask": ["does not"], "frozen": ["lowers"]}, ["confirmed", "mixed"]),
        ({"ordered": ["unknown"], "modular": ["removes"]}, ["unknown"]),
    ],
)
def test_the_known_surprise_follows_from_the_verdicts(found, verdicts, said):
    trial = found.trials[0]
    trials = [
        dataclasses.replace(trial, remedy=remedy, verdict=verdict)
        for remedy, several in verdicts.items()
        for verdict in several
    ]
    assert [claim.verdict for claim in claims(trials)] == said


def test_label_noise_reaches_the_training(data):
    clean, noisy = (
        try_remedies(
            data, QUICK, remedies=(), widths=(16,), label_noise=(noise,), solutions=2, points=3, method="weights"
        ).trials[0]
        for noise in (0.0, 0.6)
    )
    assert noisy.accuracy.estimate < clean.accuracy.estimate - 0.05


def heights(low, high):
    """An error barrier's interval; the loss barrier does not count here."""
    interval = Interval((low * high) ** 0.5, low, high, 0.95, 5, "")
    return Heights(interval, interval)


@pytest.mark.parametrize(
    ("ends", "left", "said"),
    [
        ((0.001, 0.019), 2.0, "removes"),
        ((0.001, 0.021), 0.9, "lowers"),
        ((0.001, 0.021), 1.1, "does not"),
        ((math.nan, math.nan), 0.1, "unknown"),
        ((0.001, 0.021), math.nan, "unknown"),
    ],
)
def test_verdicts(ends, left, said):
    remaining = Interval(left, left, left, 0.95, 5, "")
    assert verdict(heights(*ends), remaining, threshold=0.02) == said


def test_a_difference_of_means_is_welchs():
    from scipy import stats

    generator = torch.Generator().manual_seed(3)
    first = torch.randn(6, generator=generator, dtype=torch.float64)
    second = 3 * torch.randn(9, generator=generator, dtype=torch.float64)
    found = difference(over_networks(first), over_networks(second))
    welch = stats.ttest_ind(first.numpy(), second.numpy(), equal_var=False).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((welch.low, welch.high))


def test_a_ratio_has_the_ratio_of_its_means_inside():
    first, second = Interval(0.1, 0.05, 0.2, 0.95, 5, ""), Interval(0.4, 0.3, 0.5, 0.95, 5, "")
    found = ratio(first, second)
    assert found.estimate == pytest.approx(0.25)
    assert 0.05 / 0.5 < found.low < 0.05 / 0.3
    assert found.low * found.high == pytest.approx(0.25**2)
    assert math.isnan(ratio(dataclasses.replace(first, low=0.0), second).high)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"remedies": ("prayer",)}, "remedies must be some of"),
        ({"solutions": 1}, "at least 2"),
        ({"target": 1.5}, "target must be"),
        ({"widths": (3,)}, "widths must be at least 4"),
    ],
)
def test_refusals(data, settings, said):
    with pytest.raises(SettingError, match=said):
        try_remedies(data, QUICK, **{"remedies": (), **settings})


def test_masks_and_constants_are_of_the_seed_that_was_given(data):
    """A second way: the same change, made by hand to the same network."""

    def same(ours, theirs):
        with torch.no_grad():
            return torch.equal(ours(data.test_inputs), theirs(data.test_inputs))

    for name, change in (("mask", partial(masked, density=0.5)), ("frozen", partial(anchored, share=0.5, scale=2.0))):
        for settings, seed in (({}, 0), ({"seed": 0}, 0), ({"seed": 7}, 7)):
            fit = matched(REMEDIES[name], data, size=12, **settings)
            network = resolve("mlp", seed=4, inputs=data.shape, classes=data.classes, depth=2, width=fit.width)
            assert same(fit.make(4), change(copy.deepcopy(network), seed=seed))
            assert not same(fit.make(4), change(copy.deepcopy(network), seed=seed + 1))
