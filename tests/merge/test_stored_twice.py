"""Tensors that a network has once and a checkpoint twice: merged as one, counted as one."""

import pytest
import torch
from tests.merge.token_networks import copied, small, tokens

from isthmus.core.checkpoint import load, save
from isthmus.core.network import Network
from isthmus.core.objective import Objective
from isthmus.core.weights import lerp
from isthmus.merge import (
    DARE,
    SLERP,
    TIES,
    AdaMerging,
    Configuration,
    Fisher,
    OrthogonalProjection,
    ProtectSpecific,
    RegMean,
    TaskArithmetic,
    diagonal_fisher,
    layerwise,
    loss_scores,
    merge_files,
)


def informations(objective, solutions):
    return [diagonal_fisher(objective, weights) for weights in solutions]


TIED = {
    "fisher": lambda o, s, b: Fisher(o)(s),
    "regression means": lambda o, s, b: RegMean(o)(s),
    "learned coefficients": lambda o, s, b: AdaMerging(o.network, o.inputs, steps=3, rate=0.1)(s, base=b),
    "dare": lambda o, s, b: DARE(0.5)(s, base=b),
    "ties over the model": lambda o, s, b: TIES(0.31, scope="model")(s, base=b),
    "protection": lambda o, s, b: ProtectSpecific(0.31)(s, base=b),
    "informed protection": lambda o, s, b: ProtectSpecific(0.31, importances=informations(o, s))(s, base=b),
    "parts of the network": lambda o, s, b: (family := layerwise(s, base=b)).make(family.starts[-1]),
}


@pytest.mark.parametrize("name", TIED)
def test_a_tensor_that_is_stored_twice_stays_one(name):
    base, *solutions = (copied(small(seed)) for seed in range(4))
    inputs, targets = tokens()
    merged = TIED[name](Objective(Network.of(small(0)), inputs, targets), solutions, base)
    assert torch.equal(merged["embed.weight"], merged["head.weight"])
    assert merged["embed.weight"].data_ptr() != merged["head.weight"].data_ptr()


@pytest.mark.parametrize("merge", [
    lambda s, b: OrthogonalProjection()(s, base=b), lambda s, b: SLERP(0.3, scope="model")(s[:2]),
    lambda s, b: TIES(0.31, scope="model")(s, base=b), lambda s, b: ProtectSpecific(0.31)(s, base=b),
])  # fmt: skip
def test_a_tensor_that_is_stored_twice_counts_once(merge):
    base, *solutions = (copied(small(seed)) for seed in range(4))
    once = [{n: t for n, t in weights.items() if n != "head.weight"} for weights in (base, *solutions)]
    twice, alone = merge(solutions, base), merge(once[1:], once[0])
    for name, tensor in alone.items():
        assert torch.equal(twice[name], tensor), name


def test_scores_before_a_merge_count_a_tensor_once():
    base, holder, other = (copied(small(seed)) for seed in range(3))
    merged = lerp(holder, other, 0.3)
    once = [{n: t for n, t in weights.items() if n != "head.weight"} for weights in (holder, merged, other, base)]
    expected = loss_scores(once[0], once[1], other=once[2], base=once[3])
    assert loss_scores(holder, merged, other=other, base=base) == expected
    # Two tensors whose sums are equal are two all the same.
    base, holder, other = ({"a": torch.tensor(a), "b": torch.tensor(b)} for a, b in (
        ([0.0, 0.0], [0.0, 0.0]), ([3.0, 0.0], [0.0, 3.0]), ([0.0, 0.0], [0.0, 0.0])))  # fmt: skip
    assert loss_scores(holder, holder, other=other, base=base)["distance"] == pytest.approx(18**0.5)


def test_tensors_that_are_tied_get_one_mask_on_disk(tmp_path):
    base, *solutions = (copied(small(seed)) for seed in range(3))
    paths = [tmp_path / f"{place}.safetensors" for place in range(3)]
    for weights, path in zip((base, *solutions), paths, strict=True):
        save(weights, path)
    models = [{"model": str(path), "parameters": {"weight": 1.0, "density": 0.5}} for path in paths[1:]]
    content = {"merge_method": "dare_linear", "base_model": str(paths[0]), "models": models}
    merge_files(Configuration.of(content), tmp_path / "out.safetensors", seed=3)
    found = load(tmp_path / "out.safetensors")
    assert torch.equal(found["embed.weight"], found["head.weight"])
    for name, tensor in DARE(0.5, seed=3)(solutions, base=base).items():
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=1e-6)


def test_tied_by_chance_changes_nothing():
    # Two layers that no solution has moved are equal: each keeps its own numbers all the same.
    base = {"a": torch.ones(3), "b": torch.ones(3), "c": torch.zeros(3)}
    solutions = [{**base, "c": torch.tensor([1.0, 2.0, 3.0])}, {**base, "b": torch.tensor([1.0, 1.0, 2.0])}]
    merged = TaskArithmetic()(solutions, base=base)
    assert {name: tensor.tolist() for name, tensor in merged.items()} == {
        "a": [1.0, 1.0, 1.0], "b": [1.0, 1.0, 2.0], "c": [1.0, 2.0, 3.0]}  # fmt: skip
