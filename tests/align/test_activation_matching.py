"""Activation matching: moments over a stream, what it watches, and what it does where nothing can be seen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from isthmus.align import ActivationMatching, WeightMatching, held
from isthmus.align.moments import Moments
from isthmus.align.observe import Port, Watch
from isthmus.core.checkpoint import save
from isthmus.core.errors import CheckpointError, DataError, SettingError
from isthmus.core.lazy import LazyCheckpoint
from isthmus.core.network import Network
from isthmus.core.randomness import child
from isthmus.core.symmetry import Symmetry
from isthmus.core.weights import to
from isthmus.discover import discover


@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_streamed_moments_equal_numpys(offset: float) -> None:
    generator = child(0, "moments")
    first = torch.randn(101, 4, generator=generator, dtype=torch.float64) + offset
    second = torch.randn(101, 5, generator=generator, dtype=torch.float64) + first[:, :1] - offset
    moments = Moments()
    for part in (slice(0, 40), slice(40, 80), slice(80, 101)):  # an uneven last batch
        moments.add(first[part].float() if offset == 0 else first[part], second[part])
    exact = np.corrcoef(first.numpy().T, second.numpy().T)[:4, 4:]
    assert moments.similarity(normalised=True, centred=True).numpy() == pytest.approx(exact, abs=1e-6)
    raw = first.numpy().T @ second.numpy() / 101
    assert moments.similarity(normalised=False, centred=False).numpy() == pytest.approx(raw, rel=1e-5, abs=1e-5)


def test_a_feature_that_does_not_vary_is_like_nothing() -> None:
    moments = Moments()
    moments.add(torch.tensor([[1.0, 5.0], [2.0, 5.0], [4.0, 5.0]]), torch.tensor([[1.0, 0.0], [2.0, 0.0], [4.0, 0.0]]))
    assert moments.similarity(normalised=True, centred=True).tolist() == [[pytest.approx(1.0), 0.0], [0.0, 0.0]]


class Convolutional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 6, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(6)
        self.second = nn.Conv2d(6, 5, 3, padding=1)
        self.head = nn.Linear(5 * 16, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = torch.relu_(self.norm(self.first(inputs)))  # in place: what a hook kept must not change
        return self.head(torch.relu(self.second(hidden)).flatten(1))


INPUTS = torch.randn(50, 2, 4, 4, generator=child(0, "inputs"))


@pytest.fixture(scope="module")
def convolutional() -> tuple[Network, Symmetry]:
    torch.manual_seed(0)
    module = Convolutional().eval()
    return Network.of(module), discover(module, INPUTS[:2])


def _other(network: Network, seed: int) -> dict[str, Tensor]:
    generator = child(seed, "weights")
    return {
        n: torch.rand(t.shape, generator=generator) + 0.5
        if "running" in n
        else torch.randn(t.shape, generator=generator)
        for n, t in network.weights.items()
        if t.is_floating_point()
    } | {n: t for n, t in network.weights.items() if not t.is_floating_point()}


@pytest.mark.parametrize("when", ["before", "after"])
def test_one_batch_many_batches_and_a_generator_of_batches_agree(convolutional, when: str) -> None:
    network, symmetry = convolutional
    moving, fixed = _other(network, 1), _other(network, 2)
    sources = [
        ActivationMatching(network, INPUTS, when=when),
        ActivationMatching(network, (INPUTS,), when=when, batch_size=7),
        ActivationMatching(network, list(INPUTS.split(13)), when=when),
        ActivationMatching(network, [{"inputs": part} for part in INPUTS.split(20)], when=when),
    ]
    matches = [source(symmetry, moving, fixed, generator=child(0)) for source in sources]
    assert all(match.permutation.same_as(matches[0].permutation) for match in matches[1:])
    assert all(match.objective == pytest.approx(matches[0].objective, rel=1e-5) for match in matches[1:])


def test_before_is_what_the_norm_puts_out_and_after_is_what_the_next_layer_reads(convolutional) -> None:
    network, _ = convolutional
    ports = [Port("norm", "output", 1, normalises=True), Port("second", "input", 1)]
    seen = Watch(network, ports)(network.weights, INPUTS)
    before, after = seen[ports[0]][0], seen[ports[1]][0]
    weights = network.weights
    plain = torch.nn.functional.conv2d(INPUTS, weights["first.weight"], padding=1)
    scaled = (plain - weights["norm.running_mean"].view(1, -1, 1, 1)) / (
        weights["norm.running_var"].view(1, -1, 1, 1) + 1e-5
    ).sqrt()
    expected = scaled * weights["norm.weight"].view(1, -1, 1, 1) + weights["norm.bias"].view(1, -1, 1, 1)
    torch.testing.assert_close(before, expected.movedim(1, -1).reshape(-1, 6), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(after, before.relu())


def test_half_precision_is_matched_like_single(convolutional) -> None:
    network, symmetry = convolutional
    moving = _other(network, 1)
    planted = symmetry.random(child(0, "planted"))
    fixed = planted.apply(moving)
    half = [to(weights, dtype=torch.bfloat16) for weights in (moving, fixed)]
    match = ActivationMatching(network, INPUTS)(symmetry, *half, generator=child(0))
    assert match.permutation.same_as(planted)


class Functional(nn.Module):
    """Its hidden units are in plain parameters, where no layer shows them."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Parameter(torch.randn(9, 4))
        self.down = nn.Parameter(torch.randn(3, 9))

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.relu(inputs @ self.up.T) @ self.down.T


def test_what_nothing_shows_is_matched_by_weights_and_named() -> None:
    torch.manual_seed(0)
    module = Functional()
    inputs = torch.randn(20, 4)
    symmetry, network = discover(module, inputs), Network.of(module)
    planted = symmetry.random(child(0, "planted"))
    match = ActivationMatching(network, inputs)(
        symmetry, network.weights, planted.apply(network.weights), generator=child(0)
    )
    assert match.permutation.same_as(planted)
    assert any("by weights" in note and symmetry.groups[0].name in note for note in match.notes)


def test_no_inputs_and_wrong_settings_are_refused(convolutional) -> None:
    network, symmetry = convolutional
    with pytest.raises(DataError, match="at least one batch"):
        ActivationMatching(network, [])(symmetry, network.weights, network.weights, generator=child(0))
    for wrong in ({"kernel": "rbf"}, {"when": "during"}, {"batch_size": 0}):
        with pytest.raises(SettingError, match="must be"):
            ActivationMatching(network, INPUTS, **wrong)


@pytest.mark.parametrize("kernel", ["linear", "cosine"])
def test_tensors_read_one_by_one_give_the_same_match(
    convolutional, kernel: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, symmetry = convolutional
    moving, fixed = _other(network, 1), _other(network, 2)
    matcher = WeightMatching(kernel=kernel)
    kept = matcher(symmetry, moving, fixed, generator=child(0))
    monkeypatch.setattr(held, "ROOM", 0)
    lazy = [
        LazyCheckpoint(save(weights, tmp_path / f"{name}.safetensors"))
        for name, weights in (("moving", moving), ("fixed", fixed))
    ]
    match = matcher(symmetry, *lazy, generator=child(0))
    assert match.permutation.same_as(kept.permutation)
    assert match.objective == pytest.approx(kept.objective, rel=1e-9)


def test_a_lazy_checkpoint_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="exactly one checkpoint"):
        LazyCheckpoint(tmp_path)
    (tmp_path / "cut.safetensors").write_bytes(b"\x10\x00")
    with pytest.raises(CheckpointError, match="whole"):
        LazyCheckpoint(tmp_path / "cut.safetensors")
