"""Sparse mixtures of experts: experts are units, each has channels of its own."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from tests.discover.architectures import define_missing_operators

import isthmus
from isthmus.core.errors import SymmetryError
from isthmus.core.symmetry import Symmetry
from isthmus.discover.labels import Labels
from isthmus.discover.ledger import Ledger

EXPERTS, INNER, STREAM = 3, 6, 8
ROUTER = "model.layers.0.mlp.gate.weight"


def mixtral(inner: int = INNER) -> torch.nn.Module:
    define_missing_operators()
    t = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = t.MixtralConfig(
        hidden_size=STREAM, intermediate_size=inner, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2,
        vocab_size=16, max_position_embeddings=16, num_local_experts=EXPERTS, num_experts_per_tok=2,
    )  # fmt: skip
    return t.MixtralForCausalLM(config).eval()


@pytest.fixture(scope="module")
def found() -> Symmetry:
    return isthmus.discover(mixtral(), torch.arange(8)[None], keywords={"use_cache": False})


def test_each_expert_has_its_own_channels_and_the_stream_is_free(found: Symmetry) -> None:
    inner = [group for group in found.groups if any("experts" in s.tensor and s.within for s in group.sites)]
    assert [group.size for group in inner] == [INNER] * EXPERTS
    stream = [group for group in found.groups if any(s.tensor == "model.norm.weight" for s in group.sites)]
    assert [group.size for group in stream] == [STREAM]
    assert found.proof is not None
    assert found.proof.error < 1e-12


def test_whole_experts_are_units_with_their_rows_of_the_router(found: Symmetry) -> None:
    (group,) = [group for group in found.groups if any(s.tensor == ROUTER and s.dim == 0 for s in group.sites)]
    assert group.size == EXPERTS
    sites = {(site.tensor.rpartition("mlp.")[2], site.dim) for site in group.sites}
    assert sites == {("gate.weight", 0), ("experts.gate_up_proj", 0), ("experts.down_proj", 0)}
    assert len(found.children(group.name)) == EXPERTS
    assert not any("experts" in name for obstacle in found.obstacles for name in obstacle.tensors)


def test_one_experts_channels_leave_the_others_as_they_are(found: Symmetry) -> None:
    weights = {name: tensor.detach() for name, tensor in mixtral().state_dict().items()}
    name = "model.layers.0.mlp.experts.gate_up_proj"
    groups = [group.name for group in found.groups if any(s.tensor == name and s.within for s in group.sites)]
    moved = found.random(torch.Generator().manual_seed(1), groups=groups[1:2]).apply(weights)
    same = [torch.equal(moved[name][expert], weights[name][expert]) for expert in range(EXPERTS)]
    assert sum(same) == EXPERTS - 1


@pytest.mark.skipif(
    tuple(map(int, torch.__version__.split(".")[:2])) < (2, 11),
    reason="transformers reads addresses of experts' weights in half precision before torch 2.11; nothing exports that",
)
def test_the_kernel_for_half_precision_is_proved_in_float64() -> None:
    # Its rows must be multiples of 16 bytes: eight numbers of sixteen bits.
    module = mixtral(inner=8).to(torch.bfloat16)
    symmetry = isthmus.discover(module, torch.arange(8)[None], keywords={"use_cache": False})
    assert [g.size for g in symmetry.groups if any("experts" in s.tensor and s.within for s in g.sites)] == [
        8
    ] * EXPERTS
    assert symmetry.proof is not None
    assert symmetry.proof.error < 1e-12


def test_more_experts_than_rows_says_what_to_do() -> None:
    symmetry = isthmus.discover(mixtral(), torch.arange(1)[None], keywords={"use_cache": False}, verify=False)
    assert any("longer example" in obstacle.reason for obstacle in symmetry.obstacles)


def test_a_rule_that_mixes_the_experts_up_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    # Without the tie between the two matrices of an expert each moves alone, and the proof must see it.
    def apart(ledger: Ledger, equation: str, *values: Labels) -> Labels:
        result = whole(ledger, equation, *values)
        if equation != "az,azb->ab":
            return result
        kept = tuple(layer for layer in result.layers if layer.pinned or 0 not in layer.axes)
        return dataclasses.replace(result, layers=kept)

    whole = Ledger.contract
    monkeypatch.setattr(Ledger, "contract", apart)
    with pytest.raises(SymmetryError, match="must not change"):
        isthmus.discover(mixtral(), torch.arange(8)[None], keywords={"use_cache": False})
