"""Searching among merges: the front, what is taken from it, and that a search is the same every time."""

import itertools
import math

import pytest
import torch

from isthmus.core.errors import SettingError
from isthmus.core.weights import combine, lerp
from isthmus.merge import (
    Aim,
    Family,
    Fisher,
    Front,
    OrthogonalProjection,
    ProtectSpecific,
    Trial,
    families,
    layerwise,
    search,
)
from isthmus.merge.family import layer_parts


def line(*starts):
    """A family on a line, and what points on it keep of two capabilities that lie at its ends."""
    family = Family("line", lambda s: {"t": torch.tensor(s["t"])}, {"t": (0.0, 1.0)}, tuple({"t": t} for t in starts))
    return family, lambda w: {"near": 1 - float(w["t"]) ** 2, "far": 1 - (1 - float(w["t"])) ** 2}


def test_the_front_and_the_best_by_brute_force():
    generator = torch.Generator().manual_seed(0)
    points = torch.randint(0, 6, (40, 3), generator=generator).double() / 5
    family = Family("any", lambda s: {"w": points[int(s["place"])]}, starts=tuple({"place": p} for p in range(40)))
    aims = [Aim("a", 0.7, 1.0), Aim("b", 0.7, 0.5), Aim("c", 0.9, 2.0)]
    found = search([family], lambda w: dict(zip("abc", w["w"].tolist(), strict=True)), aims, tries=40)
    assert len(found.trials) == 40
    beaten = {
        place
        for place, other in itertools.permutations(range(40), 2)
        if bool((points[other] >= points[place]).all()) and bool((points[other] > points[place]).any())
    }
    kept = {tuple(found.trials[place].retained.values()) for place in found.front}
    assert kept == {tuple(points[place].tolist()) for place in set(range(40)) - beaten}
    assert len(kept) == len(found.front)
    missed = [
        sum(a.priority * max(0.0, a.floor - p) for a, p in zip(aims, row.tolist(), strict=True)) for row in points
    ]
    assert found.trials[found.best].shortfall(aims) == pytest.approx(min(missed))
    assert found.met is any(value == 0 for value in missed)


def test_a_search_gets_where_its_starts_do_not():
    family, keeps = line(0.0, 1.0)
    aims = [Aim("near", 0.7), Aim("far", 0.7)]
    assert not search([family], keeps, aims, tries=2).met
    found = search([family], keeps, aims, tries=40)
    assert found.met
    assert len(found.trials) == 40
    assert all(0 <= trial.settings["t"] <= 1 for trial in found.trials)


def test_the_same_seed_gives_the_same_trials_and_another_others():
    family, keeps = line(0.0, 0.5)
    aims = [Aim("near", 0.9), Aim("far", 0.9)]
    one, same, other = (search([family], keeps, aims, tries=12, seed=seed) for seed in (3, 3, 4))
    assert one.trials == same.trials
    assert one.trials != other.trials


def test_known_trials_take_part_and_are_not_made_again():
    family, keeps = line(0.5)
    known = [
        Trial("elsewhere", {}, {"near": 0.99, "far": 0.99}),
        Trial("line", {"t": 0.5}, {"near": 0.75, "far": 0.75}),
    ]
    found = search([family], keeps, [Aim("near", 0.9), Aim("far", 0.9)], tries=3, known=known)
    assert found.trials[found.best].family == "elsewhere"
    assert sum(trial.settings == {"t": 0.5} for trial in found.trials) == 1
    assert len(found.trials) == 5


def test_a_family_without_settings_ends_the_search():
    heard = []
    found = search(
        [Family("one", lambda _: {"w": torch.zeros(1)})], lambda _: {"a": 0.5}, [Aim("a", 0.9)], tries=50,
        progress=lambda done, total, label="": heard.append((done, total)),
    )  # fmt: skip
    assert len(found.trials) == 1
    assert heard[-1] == (50, 50)


def test_more_slack_is_preferred_up_to_two_standard_errors():
    aims = [Aim("a", 0.9, error=0.01), Aim("b", 0.5, 0.1, error=0.01)]
    rows = {"bare": (0.901, 0.99), "sure": (0.93, 0.53), "surer": (0.95, 0.53), "far": (0.99, 0.52)}
    family = Family("any", lambda s: {"w": torch.tensor(s["place"])}, starts=tuple({"place": p} for p in range(4)))
    listed = list(rows.values())
    found = search([family], lambda w: dict(zip("ab", listed[int(w["w"])], strict=True)), aims, tries=4)
    assert found.trials[found.best].retained["a"] == 0.99
    front = Front(tuple(aims), found.trials[:3], (), 0)
    assert front.met


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Aim("a", 1.2), "floor of a must lie above 0 and be at most 1"),
        (lambda: Aim("a", 0.0), "floor of a"),
        (lambda: Aim("a", math.nan), "floor of a"),
        (lambda: Aim("a", 0.5, 0.0), "priority of a must be above 0"),
        (lambda: search([line(0.0)[0]], line(0.0)[1], []), "needs families and aims"),
        (lambda: search([line(0.0)[0]], line(0.0)[1], [Aim("a", 0.5)] * 2), "named once, got a twice"),
        (lambda: search([line(0.0)[0]], line(0.0)[1], [Aim("near", 0.5)], tries=0), "tries must be at least 1"),
    ],
)
def test_what_cannot_be_searched_for(make, says):
    with pytest.raises(SettingError, match=says):
        make()


def network(seed):
    generator = torch.Generator().manual_seed(seed)
    shapes = {
        "first.weight": (8, 5),
        "first.bias": (8,),
        "second.weight": (8, 8),
        "head.weight": (3, 8),
        "head.bias": (3,),
    }
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def test_every_family_starts_inside_its_ranges_and_makes_weights():
    base, one, other = network(0), network(1), network(2)
    importances = [{name: torch.rand_like(tensor) for name, tensor in one.items()}] * 2
    made = [*families([one, other], base=base, importances=importances), layerwise([one, other], base=base)]
    names = [family.name for family in made]
    assert len(set(names)) == len(names)
    assert {"protect", "protect_fisher", "fisher", "layerwise", "orthogonal_projection", "ties", "slerp"} <= set(names)
    for family in made:
        for start in family.starts:
            assert set(family.ranges) <= set(start), family.name
            assert all(low <= start[key] <= high for key, (low, high) in family.ranges.items()), family.name
        merged = family.make(family.starts[0])
        assert merged.keys() == base.keys()
    alone = {family.name for family in families([one, other])}
    assert {"linear", "protect"} <= alone
    assert not alone & {"ties", "task_arithmetic", "orthogonal_projection", "fisher"}


def test_families_are_the_mergers_that_they_are_named_after():
    base, one, other = network(0), network(1), network(2)
    importances = [{name: torch.rand_like(tensor) for name, tensor in one.items()} for _ in range(2)]
    made = {family.name: family for family in families([one, other], base=base, importances=importances)}
    wanted = {
        "model 2": ({}, other),
        "linear": ({"weight 1": 0.2, "weight 2": 0.6}, lerp(one, other, 0.75)),
        "task_arithmetic": (
            {"weight 1": 0.5, "weight 2": 1.0}, combine([base, one, other], [-0.5, 0.5, 1.0])
        ),
        "fisher": (
            {"weight 1": 1.0, "weight 2": 0.5}, Fisher(()).weighted([one, other], importances, [1.0, 0.5])
        ),
        "orthogonal_projection": (
            {"share": 0.3, "scale": 0.7}, OrthogonalProjection(0.3, 0.7)([one, other], base=base)
        ),
        "protect_fisher": (
            {"protected": 0.2, "scale": 1.0, "weight 1": 1.0, "weight 2": 1.0},
            ProtectSpecific(0.2, importances=importances)([one, other], base=base),
        ),
    }  # fmt: skip
    for name, (settings, expected) in wanted.items():
        for key, tensor in made[name].make(settings).items():
            torch.testing.assert_close(tensor, expected[key], rtol=1e-5, atol=1e-5, msg=f"{name} {key}")


def test_weights_of_layers():
    base, one, other = network(0), network(1), network(2)
    assert layer_parts(one, most=2) == {
        "first.weight": 0, "first.bias": 0, "second.weight": 0, "head.weight": 1, "head.bias": 1
    }  # fmt: skip
    assert layer_parts(one, most=8)["head.bias"] == 2
    assert set(layer_parts(one, most=1).values()) == {0}
    family = layerwise([one, other], {"weight 1": 0.25, "weight 2": 0.5}, base=base, most=3)
    expected = combine([base, one, other], [0.25, 0.25, 0.5])
    for name, tensor in family.make(family.starts[0]).items():
        torch.testing.assert_close(tensor, expected[name])
    split = next(
        start for start in family.starts if start["weight 1, part 1"] == 1.0 and start["weight 2, part 3"] == 1
    )
    mixed = family.make(split)
    torch.testing.assert_close(mixed["first.weight"], one["first.weight"])
    torch.testing.assert_close(mixed["head.bias"], other["head.bias"])
    plain = layerwise([one, other], most=3)
    torch.testing.assert_close(plain.make(plain.starts[0])["head.bias"], lerp(one, other, 0.5)["head.bias"])


def test_what_is_specific_is_handed_over_whole():
    """Entry by entry: protected by one, by both, by none."""
    base = {"w": torch.zeros(5)}
    one, other = {"w": torch.tensor([8.0, 1.0, 2.0, 0.0, 6.0])}, {"w": torch.tensor([0.0, 1.0, 2.0, 0.5, 8.0])}
    merged = ProtectSpecific(0.4)([one, other], base=base)["w"]
    # The first's two largest are entries 0 and 4, the second's 4 and 2; entry 4 is a mean by squares.
    shared = (36 * 6 + 64 * 8) / 100
    torch.testing.assert_close(merged, torch.tensor([8.0, 1.0, 2.0, 0.25, shared]))
    fisher = [{"w": torch.tensor([0.0, 9.0, 0.0, 0.0, 0.0])}, {"w": torch.tensor([0.0, 0.0, 0.0, 9.0, 0.0])}]
    merged = ProtectSpecific(0.2, scale=0.5, importances=fisher)([one, other], base=base)["w"]
    torch.testing.assert_close(merged, torch.tensor([2.0, 1.0, 1.0, 0.5, 3.5]))
    assert torch.equal(ProtectSpecific(0.0)([one, other], base=base)["w"], (one["w"] + other["w"]) / 2)
    whole = ProtectSpecific(1.0)([one, one], base=base)["w"]
    torch.testing.assert_close(whole, one["w"])


def test_projection_leaves_out_what_is_not_new():
    """Against projectors made here from the definition."""
    generator = torch.Generator().manual_seed(0)
    base = {"w": torch.randn(6, 4, generator=generator, dtype=torch.float64)}
    ends = [{"w": base["w"] + torch.randn(6, 4, generator=generator, dtype=torch.float64)} for _ in range(2)]
    first, second = (end["w"] - base["w"] for end in ends)
    left, values, right = torch.linalg.svd(first, full_matrices=True)
    kept = int((values.cumsum(0) / values.sum() < 0.5).sum()) + 1
    removed = torch.zeros(6, 4, dtype=torch.float64)
    for i in range(6):
        for j in range(4):
            if i == j or (i < kept and j < kept):
                direction = left[:, i : i + 1] @ right[j : j + 1]
                removed += (second * direction).sum() * direction
    total = first + second - removed
    total *= (first.norm() + second.norm()) / 2 / total.norm()
    found = OrthogonalProjection(0.5)(ends, base=base)["w"]
    torch.testing.assert_close(found, base["w"] + total)
    assert abs(float(((second - removed) * first).sum())) < 1e-10
    torch.testing.assert_close(OrthogonalProjection()(ends[:1], base=base)["w"], ends[0]["w"])
