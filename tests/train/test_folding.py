"""Convolutions of many replicas as one grouped one: the same numbers and derivatives as one replica after the other."""

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from isthmus.train import Recipe, folding, steps
from isthmus.train.batches import Batches
from isthmus.train.steps import Function, Layout, gradients
from isthmus.train.task import prepare
from isthmus.zoo import Data, build

REPLICAS = 3


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).requires_grad_()


def many(function, *tensors: torch.Tensor, convolutions: bool = True) -> torch.Tensor:
    """The function of every replica; images come folded, everything else stacked."""
    images, others = tensors[0], tensors[1:]
    with folding.Rewriting(convolutions=convolutions):
        return torch.func.vmap(function, in_dims=(1, *[0] * len(others)))(folding.folded(images), *others)


@settings(max_examples=60, deadline=None)
@given(
    size=st.tuples(st.integers(7, 12), st.integers(7, 12)),
    kernel=st.tuples(st.integers(1, 7), st.integers(1, 5)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    padding=st.tuples(st.integers(0, 3), st.integers(0, 2)),
    channels=st.sampled_from([(1, 2), (3, 5), (16, 4)]),
    bias=st.booleans(),
)
def test_any_convolution_is_what_it_was(size, kernel, stride, padding, channels, bias):
    images = drawn(REPLICAS, 2, channels[0], *size)
    weight, shift = drawn(REPLICAS, channels[1], channels[0], *kernel, seed=1), drawn(REPLICAS, channels[1], seed=2)

    def convolved(one, kernels, offset):
        return functional.conv2d(one, kernels, offset if bias else None, stride=stride, padding=padding)

    right = torch.stack([convolved(*parts) for parts in zip(images, weight, shift, strict=True)])
    ours = many(convolved, images, weight, shift)
    torch.testing.assert_close(ours, right, rtol=1e-10, atol=1e-10)
    slope = torch.randn(right.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    leaves = [images, weight, *([shift] if bias else [])]
    for one, other in zip(
        torch.autograd.grad(ours, leaves, slope), torch.autograd.grad(right, leaves, slope), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    "how", [{"dilation": 2}, {"groups": 2}, {"padding": "same"}, {"padding": "valid", "stride": 2}]
)
def test_other_convolutions_are_left_as_they_are(how):
    images, weight = drawn(REPLICAS, 2, 4, 9, 9), drawn(REPLICAS, 6, 4 // how.get("groups", 1), 3, 3, seed=1)

    def convolved(one, kernels):
        return functional.conv2d(one, kernels, **how)

    right = torch.stack([convolved(*parts) for parts in zip(images, weight, strict=True)])
    torch.testing.assert_close(many(convolved, images, weight), right, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("size", [(3, 3), (2, 3)])
@pytest.mark.parametrize("bias", [True, False])
def test_patches_that_do_not_overlap_are_a_product(size, bias):
    images, weight = drawn(REPLICAS, 2, 4, 6, 9), drawn(REPLICAS, 5, 4, *size, seed=1)
    shift = drawn(REPLICAS, 5, seed=2)

    def embedded(one, kernels, offset):
        return functional.conv2d(one, kernels, offset if bias else None, stride=size)

    right = torch.stack([embedded(*parts) for parts in zip(images, weight, shift, strict=True)])
    with torch.profiler.profile() as record, folding.Rewriting(convolutions=False):
        ours = torch.func.vmap(embedded)(images, weight, shift)
    torch.testing.assert_close(ours, right, rtol=1e-10, atol=1e-10)
    seen = [event.key for event in record.key_averages()]
    assert not [name for name in seen if "conv" in name]


def test_a_patch_embedding_does_not_make_a_network_convolutional():
    made = {}
    for name in ("vit-8x1", "resnet20"):
        recipe = Recipe(network=name, settings={"inputs": [3, 16, 16], "classes": 4})
        made[name] = prepare([recipe], build, torch.zeros(2, 3, 16, 16), classes=4, device=torch.device("cpu"))[0]
    assert [task.convolutional for task in made.values()] == [False, True]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("affine", [True, False])
def test_batch_normalisation_written_out_moves_the_same_statistics(training, affine):
    images, gain, shift = drawn(REPLICAS, 5, 4, 3, 3), drawn(REPLICAS, 4, seed=1), drawn(REPLICAS, 4, seed=2)
    start = [torch.full((REPLICAS, 4), value, dtype=torch.float64) for value in (0.5, 2.0)]

    def normalised(one, mean, variance, scale, offset):
        parts = (scale, offset) if affine else (None, None)
        return functional.batch_norm(one, mean, variance, *parts, training=training, momentum=0.3, eps=1e-3)

    moved, ours_moved = ([part.clone() for part in start] for _ in range(2))
    right = torch.stack([normalised(*parts) for parts in zip(images, *moved, gain, shift, strict=True)])
    ours = many(normalised, images, *ours_moved, gain, shift)
    torch.testing.assert_close(ours, right, rtol=1e-10, atol=1e-10)
    for one, other, before in zip(ours_moved, moved, start, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
        assert torch.equal(one, before) is not training


def test_sixteen_bit_images_are_normalised_in_float32():
    images = drawn(REPLICAS, 8, 4, 5, 5).detach() * 100 + 1000  # a mean that bfloat16 cannot subtract
    rounded = images.to(torch.bfloat16)

    def normalised(one):
        return functional.batch_norm(one, None, None, training=True)

    right = torch.stack([normalised(one) for one in rounded.double()])
    ours = many(normalised, rounded, convolutions=False)
    assert ours.dtype is torch.bfloat16
    torch.testing.assert_close(ours.double(), right, rtol=1e-2, atol=1e-2)


def group(network: str, channels: int, **changed):
    """A group's task and state, a batch of images and labels."""
    generator = torch.Generator().manual_seed(5)
    inputs = torch.randn(40, channels, 8, 8, generator=generator, dtype=torch.float64)
    targets = torch.randint(0, 4, (40,), generator=generator)
    data = Data(inputs, targets, inputs[:4], targets[:4], 4, "random")
    recipe = Recipe(
        network=network, settings={"inputs": [channels, 8, 8], "classes": 4}, batch_size=8, precision="float64"
    )
    recipes = dataclasses.replace(recipe, **changed).replicates(REPLICAS)
    device = torch.device("cpu")
    batches = Batches.of(recipes, data, device=device)
    task, state = prepare(recipes, build, batches.inputs[:2], classes=4, device=device)
    return task, state, batches.fetch(batches.plan(0, apart=False).order[:, :8], None)


@pytest.mark.parametrize(
    ("network", "channels", "changed"),
    [("resnet20", 3, {}), ("vgg-4-6", 1, {}), ("vgg-4", 1, {"optimiser": "sam"}), ("mlp-6x1", 1, {})],
)
def test_a_folded_step_is_the_stacked_one(network, channels, changed):
    task, state, batch = group(network, channels, **changed)
    flat = [*state.inputs(), *batch]
    right, ours = (
        Function(task, gradients, compiled=False)(Layout.of(state, folded=folded), flat) for folded in (False, True)
    )
    for one, other in zip(ours, right, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-10)


def test_gradients_of_images_are_forward_convolutions(monkeypatch):
    graphs = []
    simplify = steps.simplify
    monkeypatch.setattr(steps, "simplify", lambda graph: (graphs.append(graph), simplify(graph)))
    task, state, batch = group("resnet20", 3)
    Function(task, gradients, compiled=False)(Layout.of(state, folded=True), [*state.inputs(), *batch])
    aten = torch.ops.aten
    backward = [node for node in graphs[0].nodes if node.target is aten.convolution_backward.default]
    forward = [node for node in graphs[0].nodes if node.target is aten.convolution.default]
    assert backward
    assert not any(node.args[10][0] for node in backward)
    assert len(forward) > len(backward)
