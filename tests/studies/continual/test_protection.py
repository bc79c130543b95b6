"""Merges under conditions, on networks whose capabilities are known: what is kept, verified, refused."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from isthmus.core.errors import DataError, SettingError
from isthmus.core.network import Network
from isthmus.core.randomness import child
from isthmus.core.record import to_json
from isthmus.report.section import section
from isthmus.studies.continual import halves
from isthmus.studies.continual.halves import Wish
from isthmus.studies.continual.protection import protect
from isthmus.zoo.examples import Examples

NETWORK = Network.of(nn.Linear(6, 3, bias=False))


def reading(first, second):
    """Weights that read the class from the first three inputs and from the second three, with these strengths."""
    return {"weight": torch.cat([first * torch.eye(3), second * torch.eye(3)], 1)}


def examples(where, count=60, shift=0):
    """The class stands in one half of the inputs; labels may be shifted by a class."""
    targets = torch.arange(count) % 3
    inputs = torch.zeros(count, 6)
    inputs[torch.arange(count), targets + 3 * where] = 1.0
    return Examples(inputs, (targets + shift) % 3, f"half {where}")


ENDS = {"a": reading(1.0, 0.0), "b": reading(0.0, 1.0)}
BASE = reading(0.0, 0.0)


def test_what_lies_in_different_places_is_kept_together():
    wishes = [Wish("left", examples(0), 0.99), Wish("right", examples(1), 0.99)]
    found, weights = protect(NETWORK, ENDS, wishes, base=BASE, base_name="start", tries=20)
    assert found.met
    assert found.alone == ()
    assert [one.expert for one in found.kept] == ["a", "b"]
    assert [one.priority for one in found.kept] == [1.0, 0.5]
    assert (found.models, found.base) == (("a", "b"), "start")
    assert found.merges == len(found.front.trials) <= 20
    assert found.passed == found.merges * 60
    for one in found.kept:
        assert (one.selection.examples, one.verification.examples) == (30, 30)
        assert (one.selection.merged, one.verification.merged) == (1.0, 1.0)
    logits = NETWORK(weights, torch.cat([examples(0).inputs, examples(1).inputs]))
    assert torch.equal(logits.argmax(1), torch.cat([examples(0).targets, examples(1).targets]))


def test_ignored_labels_are_neither_right_nor_wrong():
    """Two labels of each example, the second ignored in two of three: the expert retains all of itself."""
    one = examples(0)
    inputs = torch.stack([one.inputs, one.inputs], 1)
    targets = torch.stack([one.targets, (one.targets + 1) % 3], 1)
    targets[torch.arange(60) % 3 > 0, 1] = -100
    capability = halves.Capability(NETWORK, Wish("left", Examples(inputs, targets), 0.9), ENDS, rank=0, seed=0)
    for objective, known in zip((capability.selection, capability.verification), capability._known, strict=True):
        assert len(known) == int((objective.targets != -100).sum())
        assert float(known.mean()) == pytest.approx(1 - objective(ENDS["a"]).error)
    assert capability.retained(ENDS["a"]) == pytest.approx(1.0)
    assert capability.kept(ENDS["a"]).met


def test_what_contradicts_itself_is_not_met_and_priorities_say_what_yields():
    """One and the same inputs, labels that differ: no merge gets more than one of the two right."""
    ends = {"a": reading(1.0, 0.0), "b": {"weight": reading(1.0, 0.0)["weight"].roll(1, 0)}}
    wishes = [Wish("straight", examples(0), 0.9), Wish("shifted", examples(0, shift=1), 0.9)]
    found, weights = protect(NETWORK, ends, wishes, tries=30)
    assert not found.met
    assert "No merge was found" in section(found).headline
    other, yielding = protect(NETWORK, ends, [dataclasses.replace(wishes[0], priority=0.1), wishes[1]], tries=30)
    shares = [
        [
            float((NETWORK(w, examples(0).inputs).argmax(1) == examples(0, shift=shift).targets).double().mean())
            for shift in (0, 1)
        ]
        for w in (weights, yielding)
    ]
    assert shares[0][0] > shares[1][0]
    assert shares[0][1] < shares[1][1]
    assert not other.met
    assert all(sum(pair) <= 1 for pair in shares)


def test_a_floor_that_is_met_only_where_it_was_chosen_is_not_met():
    """On the half for verification the other end's inputs hold louder, wrong evidence."""
    left = examples(0, 200)
    order = torch.randperm(200, generator=child(0, "keep", "left"))
    judged = order[100:]
    inputs = left.inputs.clone()
    inputs[judged, 3 + (left.targets[judged] + 1) % 3] = 30.0
    wishes = [Wish("left", Examples(inputs, left.targets), 0.95), Wish("right", examples(1, 200), 0.95)]
    found, _ = protect(NETWORK, ENDS, wishes, base=BASE, tries=20)
    assert [one.selection.met for one in found.kept] == [True, True]
    assert not found.kept[0].verification.met
    assert found.kept[0].verification.expert == 1.0
    assert not found.met
    assert "chosen by, but on the others" in section(found).headline


def test_a_named_expert_counts_instead_of_the_best():
    weak = {"a": reading(1.0, 0.0), "b": reading(0.0, 1.0)}
    mixed = Examples(
        torch.cat([examples(0).inputs, examples(1, 20).inputs]),
        torch.cat([examples(0).targets, examples(1, 20).targets]),
    )
    found, _ = protect(NETWORK, weak, [Wish("mixed", mixed, 1.0, expert="b")], tries=6)
    assert found.kept[0].expert == "b"
    assert found.kept[0].selection.retained.estimate > 1.2
    assert "a" in found.alone
    found, _ = protect(NETWORK, weak, [Wish("mixed", mixed, 1.0)], tries=6)
    assert found.kept[0].expert == "a"


def test_running_statistics_are_those_of_the_merge():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 3))
    network = Network.of(module)
    inputs = torch.randn(100, 6, generator=child(1))
    ends = {}
    for name in "ab":
        other = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 3))
        ends[name] = {key: tensor.clone() for key, tensor in other.state_dict().items()}
    wishes = [Wish(name, Examples(inputs, network(ends[name], inputs).argmax(1)), 0.1) for name in "ab"]
    found, weights = protect(network, ends, wishes, tries=12)
    if found.best.family.startswith("model "):
        assert any(all(torch.equal(weights[key], own[key]) for key in own) for own in ends.values())
    else:
        used = torch.cat([inputs[torch.randperm(100, generator=child(0, "keep", name))[:50]] for name in "ab"])
        hidden = torch.nn.functional.linear(used, weights["0.weight"], weights["0.bias"])
        torch.testing.assert_close(weights["1.running_mean"], hidden.mean(0), rtol=1e-4, atol=1e-5)


def test_the_interval_of_a_ratio_covers():
    """Nominal 95 % of the ratio of two paired accuracies, by simulation; binomial deviation of the coverage is .015."""
    generator = np.random.default_rng(0)
    inside = 0
    for _ in range(200):
        known = generator.random(300) < 0.9
        right = np.where(generator.random(300) < 0.85, known, generator.random(300) < 0.5)
        half = halves._half(torch.tensor(right).double(), torch.tensor(known).double(), 0.5)
        inside += half.retained.low <= (0.85 * 0.9 + 0.15 * 0.5) / 0.9 <= half.retained.high
    assert 0.9 <= inside / 200 <= 0.99


def test_the_result_is_drawn_in_both_languages():
    three = [Wish("left", examples(0), 0.9), Wish("right", examples(1), 0.9), Wish("whole", examples(0, 40), 0.5)]
    found, _ = protect(NETWORK, ENDS, three, base=BASE, tries=15)
    assert '"kind": "Protected"' in to_json(found)
    assert len(section(found).figures) == 3
    assert "Every floor is met" in section(found).headline
    assert section(found, language="ja").headline
    alone, _ = protect(NETWORK, ENDS, three[:1], tries=8)
    assert len(section(alone).figures) == 1
    assert "By itself" in " ".join(section(alone).text)


@pytest.mark.parametrize(
    ("wishes", "error", "says"),
    [
        ([], SettingError, "at least one capability"),
        ([Wish("left", examples(0), 0.9)] * 2, SettingError, "named once, got left twice"),
        ([Wish("left", examples(0), 1.01)], SettingError, "floor of left must lie above 0 and be at most 1"),
        ([Wish("left", examples(0), 0.9, expert="c")], SettingError, "expert of left must be one of a, b, got c"),
        ([Wish("left", examples(0, 19), 0.9)], DataError, "left must have at least 20 examples"),
        ([Wish("left", Examples(torch.zeros(30, 5), torch.arange(30) % 3), 0.9)], DataError, r"shape \(5,\) of left"),
        (
            [Wish("left", Examples(torch.zeros(30, 6), torch.arange(30) % 4), 0.9)],
            DataError,
            "left: labels must lie in",
        ),
        ([Wish("left", Examples(torch.zeros(30, 6), torch.full((30,), 2)), 0.9)], DataError, "gets nothing right"),
    ],
)
def test_impossible_wishes(wishes, error, says):
    with pytest.raises(error, match=says) as caught:
        protect(NETWORK, ENDS, wishes, tries=5)
    assert "\n" not in str(caught.value)


def test_what_are_no_examples():
    with pytest.raises(DataError, match="equally many"):
        Examples(torch.zeros(3, 2), torch.zeros(2, dtype=torch.int64))
    with pytest.raises(DataError, match="finite"):
        Examples(torch.full((3, 2), float("nan")), torch.zeros(3, dtype=torch.int64))
    with pytest.raises(DataError, match="from 0, got -1"):
        Examples(torch.zeros(3, 2), torch.full((3,), -1))
