"""Overlaps: closed forms, alignment that undoes a planted permutation, layers, scale, function space, bad input."""

from __future__ import annotations

import functools
import itertools
import math
import threading

import pytest
import torch
from torch.nn import functional

from isthmus.cluster import distances, distribution, function_overlaps, gaussian_solutions, overlaps
from isthmus.core import weights as w
from isthmus.core.canonical import unit_scale
from isthmus.core.errors import DataError, SettingError, WeightsError
from isthmus.core.randomness import child
from isthmus.core.symmetry import Permutation, Site, Symmetry, UnitGroup

HIDDEN = 12
ROWS = torch.arange(HIDDEN)[:, None]
SHAPES = {"fc1.weight": (HIDDEN, 5), "fc1.bias": (HIDDEN,), "fc2.weight": (3, HIDDEN), "fc2.bias": (3,)}
SITES = (Site("fc1.weight", 0, ROWS), Site("fc1.bias", 0, ROWS), Site("fc2.weight", 1, ROWS))
SYMMETRY = Symmetry((UnitGroup("fc1", HIDDEN, SITES),), SHAPES)
SCALES = Symmetry(
    (
        UnitGroup(
            "fc1.scale",
            HIDDEN,
            (Site("fc1.weight", 0, ROWS), Site("fc1.bias", 0, ROWS), Site("fc2.weight", 1, ROWS, power=-1.0)),
            kind="scale",
        ),
    ),
    SHAPES,
)


def _network(seed: int, dtype: torch.dtype = torch.float64) -> dict[str, torch.Tensor]:
    generator = child(seed, "overlap")
    return {name: torch.randn(shape, generator=generator).to(dtype) for name, shape in SHAPES.items()}


def _align(moving, fixed):
    """Exact for one hidden layer: one assignment."""
    from scipy.optimize import linear_sum_assignment

    gain = fixed["fc1.weight"] @ moving["fc1.weight"].T + torch.outer(fixed["fc1.bias"], moving["fc1.bias"])
    gain = gain + fixed["fc2.weight"].T @ moving["fc2.weight"]
    index = linear_sum_assignment(gain.numpy(), maximize=True)[1]
    return Permutation(SYMMETRY, {"fc1": torch.as_tensor(index)})


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_overlaps_are_cosines_whole_and_by_layer(dtype):
    solutions = [_network(seed, dtype) for seed in range(4)]
    found = overlaps(solutions, names=["a", "b", "c", "d"])
    for i in range(4):
        for j in range(4):
            assert float(found.q[i, j]) == pytest.approx(w.cosine(solutions[i], solutions[j]), abs=1e-12)
            for layer in ("fc1", "fc2"):
                names = [f"{layer}.weight", f"{layer}.bias"]
                expected = w.cosine(solutions[i], solutions[j], tensors=names)
                assert float(found.layers[layer][i, j]) == pytest.approx(expected, abs=1e-12)
    assert found.entries == sum(math.prod(shape) for shape in SHAPES.values())
    torch.testing.assert_close(found.layer("fc1").q, found.layers["fc1"])
    # d is the distance between the solutions' directions.
    directions = [w.flatten(s).double() / w.norm(s) for s in solutions]
    assert float(found.distances[0, 1]) == pytest.approx(float((directions[0] - directions[1]).norm()), abs=1e-12)
    torch.testing.assert_close(distances(found.q), found.distances)


def test_large_tensors_are_summed_in_blocks(monkeypatch):
    solutions = [_network(seed) for seed in range(3)]
    whole = overlaps(solutions).q
    # The function `overlaps` is not the module of its name.
    import sys

    monkeypatch.setattr(sys.modules["isthmus.cluster.products"], "_BLOCK", 21)
    torch.testing.assert_close(overlaps(solutions).q, whole, rtol=0, atol=1e-14)


def test_alignment_undoes_planted_permutations():
    base = _network(0)
    copies = [base] + [
        SYMMETRY.random(child(seed, "plant")).apply({n: t + 0.01 * _network(seed)[n] for n, t in base.items()})
        for seed in range(1, 5)
    ]
    raw = overlaps(copies)
    off = ~torch.eye(5, dtype=torch.bool)
    assert float(raw.q[off].max()) < 0.9
    for alignment in ("reference", "pairwise"):
        found = overlaps(copies, alignment=alignment, aligner=_align, threads=2)
        assert found.alignment == alignment
        assert float(found.q[off].min()) > 0.998
        assert float(found.layers["fc1"][off].min()) > 0.998
        torch.testing.assert_close(found.q, found.q.T)


def test_pairwise_alignment_is_at_least_the_reference_ones_and_that_the_raw():
    """An exact aligner maximises each pair's overlap."""
    solutions = [_network(seed) for seed in range(6)]
    raw = overlaps(solutions).q
    reference = overlaps(solutions, alignment="reference", aligner=_align, reference=2)
    pairwise = overlaps(solutions, alignment="pairwise", aligner=_align).q
    assert bool((pairwise >= raw - 1e-12).all())
    assert bool((pairwise >= reference.q - 1e-12).all())
    torch.testing.assert_close(reference.q[2], pairwise[2], rtol=0, atol=1e-12)
    assert reference.reference == "2"


class _Match:
    def __init__(self, permutation):
        self.permutation = permutation


def test_aligners_may_answer_with_a_result_or_with_weights():
    solutions = [_network(seed) for seed in range(3)]
    expected = overlaps(solutions, alignment="pairwise", aligner=_align).q
    results = overlaps(solutions, alignment="pairwise", aligner=lambda m, f: _Match(_align(m, f))).q
    moved = overlaps(solutions, alignment="pairwise", aligner=lambda m, f: _align(m, f).apply(m)).q
    torch.testing.assert_close(results, expected)
    torch.testing.assert_close(moved, expected)
    with pytest.raises(SettingError, match=r"must return a permutation.*got str"):
        overlaps(solutions, alignment="pairwise", aligner=lambda m, f: "no")


def test_alignments_run_in_threads_and_are_told():
    calls, both, heard = itertools.count(), threading.Barrier(2), []

    def align(moving, fixed):
        if next(calls) < 2:
            both.wait(60)  # for another thread: alone, the first would wait in vain
        return _align(moving, fixed)

    overlaps(
        [_network(seed) for seed in range(12)], alignment="pairwise", aligner=align, threads=3,
        progress=lambda done, total, label="": heard.append((done, total)),
    )  # fmt: skip
    assert heard[-1] == (66, 66)


def test_scale_is_removed_without_changing_the_function():
    solution = _network(3)
    factors = torch.rand(HIDDEN, generator=child(9), dtype=torch.float64) * 5 + 0.1
    scaled = {
        "fc1.weight": solution["fc1.weight"] * factors[:, None],
        "fc1.bias": solution["fc1.bias"] * factors,
        "fc2.weight": solution["fc2.weight"] / factors,
        "fc2.bias": solution["fc2.bias"],
    }
    normalise = functools.partial(unit_scale, SCALES)
    inputs = torch.randn(7, 5, generator=child(1), dtype=torch.float64)

    def run(s):
        hidden = functional.relu(functional.linear(inputs, s["fc1.weight"], s["fc1.bias"]))
        return functional.linear(hidden, s["fc2.weight"], s["fc2.bias"])

    unit = normalise(scaled)
    torch.testing.assert_close(run(unit), run(solution))
    incoming = unit["fc1.weight"].square().sum(1) + unit["fc1.bias"].square()
    torch.testing.assert_close(incoming, torch.ones(HIDDEN, dtype=torch.float64))
    assert float(overlaps([solution, scaled]).q[0, 1]) < 0.95
    assert float(overlaps([solution, scaled], normalise=normalise).q[0, 1]) == pytest.approx(1.0, abs=1e-12)


def test_scale_of_a_deep_chain_in_any_order_and_of_dead_units():
    shapes = {"a": (4, 3), "b": (4, 4), "c": (2, 4)}
    rows = torch.arange(4)[:, None]
    first = UnitGroup("a", 4, (Site("a", 0, rows), Site("b", 1, rows, power=-1.0)), kind="scale")
    second = UnitGroup("b", 4, (Site("b", 0, rows), Site("c", 1, rows, power=-1.0)), kind="scale")
    weights = {n: torch.randn(s, generator=child(2), dtype=torch.float64) for n, s in shapes.items()}
    weights["a"][1] = 0
    for groups in ((first, second), (second, first)):
        unit = unit_scale(Symmetry(groups, shapes), weights)
        expected = torch.tensor([1.0, 0.0, 1.0, 1.0], dtype=torch.float64)
        torch.testing.assert_close(unit["a"].norm(dim=1), expected, rtol=1e-7, atol=0)
        torch.testing.assert_close(unit["b"].norm(dim=1), torch.ones(4, dtype=torch.float64), rtol=1e-7, atol=0)


def test_scale_inside_a_slice_touches_only_that_slice():
    shapes = {"a": (4, 6), "b": (2, 4)}
    rows, part = torch.arange(4)[:, None], torch.tensor([1, 2])
    sites = (Site("a", 0, rows, within=((1, part),)), Site("b", 1, rows, power=-1.0))
    weights = {n: torch.randn(s, generator=child(5), dtype=torch.float64) for n, s in shapes.items()}
    unit = unit_scale(Symmetry((UnitGroup("a", 4, sites, kind="scale"),), shapes), weights)
    norms = unit["a"][:, part].norm(dim=1)
    torch.testing.assert_close(norms, torch.ones(4, dtype=torch.float64))
    assert torch.equal(unit["a"][:, [0, 3, 4, 5]], weights["a"][:, [0, 3, 4, 5]])


def test_function_overlaps_equal_their_definitions():
    outputs = torch.randn(3, 50, 4, generator=child(0), dtype=torch.float64)
    outputs[1] += outputs[0]
    correlation = function_overlaps(outputs).q
    a, b = (outputs[i] - outputs[i].mean(0) for i in (0, 1))
    assert float(correlation[0, 1]) == pytest.approx(float((a * b).sum() / (a.norm() * b.norm())), abs=1e-12)
    agreement = function_overlaps(outputs, measure="agreement")
    same = (outputs[0].argmax(1) == outputs[1].argmax(1)).double().mean()
    assert float(agreement.q[0, 1]) == pytest.approx(float(same), abs=1e-12)
    assert agreement.space == "agreement"
    cka = function_overlaps(outputs, measure="cka").q
    first, second = a @ a.T, b @ b.T
    assert float(cka[0, 1]) == pytest.approx(float((first * second).sum() / (first.norm() * second.norm())), abs=1e-12)
    rotation = torch.linalg.qr(torch.randn(4, 4, generator=child(1), dtype=torch.float64)).Q
    turned = torch.stack([outputs[0], 3 * outputs[0] @ rotation])
    assert float(function_overlaps(turned, measure="cka").q[0, 1]) == pytest.approx(1.0)
    assert float(function_overlaps(turned).q[0, 1]) < 0.99


def test_diverged_solutions_are_named_and_left_out():
    solutions = [_network(seed) for seed in range(5)]
    solutions[1]["fc1.bias"][3] = math.nan
    solutions[3] = {name: tensor * 0 for name, tensor in solutions[3].items()}
    found = overlaps(solutions, names=["a", "b", "c", "d", "e"])
    assert found.names == ("a", "c", "e")
    assert [(each.name, each.reason) for each in found.left_out] == [
        ("b", "diverged: NaN or Inf in fc1.bias"),
        ("d", "all zero: it has no direction"),
    ]
    torch.testing.assert_close(found.q, overlaps([solutions[i] for i in (0, 2, 4)]).q)
    outputs = torch.randn(4, 6, 3)
    outputs[2, 0] = math.inf
    assert function_overlaps(outputs, measure="agreement").names == ("0", "1", "3")


def test_identical_solutions_are_named():
    first, second = _network(0), _network(1)
    nearly = {name: tensor.clone() for name, tensor in first.items()}
    nearly["fc2.bias"][0] += 1e-9
    found = overlaps([first, second, dict(first), nearly])
    assert found.identical == (("0", "2"),)
    assert float(found.q[0, 2]) == 1.0


def test_running_statistics_do_not_count():
    solutions = [{**_network(s), "bn.running_mean": torch.full((3,), 1e6 * s), "n": torch.tensor(3)} for s in range(3)]
    torch.testing.assert_close(overlaps(solutions).q, overlaps([_network(s) for s in range(3)]).q)


@pytest.mark.parametrize(
    ("build", "error", "words"),
    [
        (lambda: overlaps([]), SettingError, "at least two solutions are needed"),
        (lambda: overlaps([_network(0)]), SettingError, "got 1"),
        (
            lambda: overlaps([_network(0), {n: t / 0 for n, t in _network(1).items()}]),
            SettingError,
            "got 1 .1: diverged",
        ),
        (
            lambda: overlaps([_network(0), {**_network(1), "fc2.bias": torch.zeros(4)}], names=["a", "b"]),
            WeightsError,
            r"solutions a and b must have the same shapes; fc2.bias is \(3,\) and \(4,\)",
        ),
        (lambda: overlaps([_network(0), _network(1)], names=["a", "a"]), SettingError, "names must be different"),
        (lambda: overlaps([_network(0), _network(1)], tensors=["x"]), WeightsError, "unknown: x"),
        (lambda: overlaps([_network(0), _network(1)], alignment="pairwise"), SettingError, "needs an aligner"),
        (lambda: overlaps([_network(0), _network(1)], alignment="cross"), SettingError, "raw, reference or pairwise"),
        (
            lambda: overlaps([_network(0), _network(1)], alignment="reference", aligner=_align, reference=7),
            SettingError,
            "reference must be one of the solutions",
        ),
        (lambda: overlaps(gaussian_solutions(3, generator=child(0))).layer("x"), SettingError, "layer must be one of"),
        (lambda: function_overlaps(torch.zeros(2, 1, 3)), DataError, "at least two examples"),
        (lambda: function_overlaps(torch.zeros(2, 4, 3), measure="cos"), SettingError, "measure must be"),
    ],
)
def test_bad_input_is_one_line(build, error, words):
    with pytest.raises(error, match=words) as caught:
        build()
    assert "\n" not in str(caught.value)


def test_a_solution_that_is_zero_in_a_layer_is_left_out_of_it():
    generator = torch.Generator().manual_seed(0)
    solutions = [
        {"a.weight": torch.randn(20, generator=generator), "b.weight": torch.randn(5, generator=generator)}
        for _ in range(6)
    ]
    solutions[2]["b.weight"].zero_()
    whole = overlaps(solutions)
    assert len(whole.names) == len(whole.layer("a").names) == 6
    layer = whole.layer("b")
    assert layer.names == ("0", "1", "3", "4", "5")
    assert [one.name for one in layer.left_out] == ["2"]
    alone = overlaps([{"b.weight": s["b.weight"]} for s in solutions])
    assert torch.allclose(layer.q, alone.q)
    assert (layer.entries, whole.entries) == (alone.entries, 25) == (5, 25)
    assert math.isfinite(distribution(layer, generator=generator).spread.estimate)
