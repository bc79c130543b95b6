"""A step written with the kernels is the stacked step: what is taken, what is fused, what is left alone.

Where Triton is not installed, the launches are replaced by the formulas that they compute.
"""

import collections
import dataclasses
import types

import pytest
import torch
from tests.train.kernels.modules import InPlace, Mixed, Parallel, Read, Twice
from torch.nn import grad as slopes_of

from isthmus.train import Recipe, graphs
from isthmus.train.batches import Batches
from isthmus.train.engines import Sequential, Stretch
from isthmus.train.graphs import Graph
from isthmus.train.kernels import convolution, normalisation
from isthmus.train.kernels.language import INSTALLED
from isthmus.train.kernels.rewriting import _Moves
from isthmus.train.steps import Function, Layout, gradients
from isthmus.train.task import prepare
from isthmus.zoo import Data, build

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")

REPLICAS = 2


def _each(function, *stacks):
    return torch.stack([function(*parts) for parts in zip(*stacks, strict=True)])


def _per_channel(vector, like):
    return vector.reshape(*vector.shape[:1], 1, vector.shape[1], *[1] * (like.dim() - 3))


def _normalised(inputs, mean, deviation):
    return (inputs.float() - _per_channel(mean, inputs)) * _per_channel(deviation, inputs)


class Formulas:
    """What the launches compute."""

    @staticmethod
    def convolve(images, weight, stride, padding, *, dtype, rounded):
        return _each(lambda x, w: torch.conv2d(x.to(dtype), w.to(dtype), None, stride, padding), images, weight)

    @staticmethod
    def image_slopes(slopes, weight, size, stride, padding, added, *, dtype, rounded):
        shape = (slopes.shape[1], weight.shape[2], *size)
        found = _each(
            lambda g, w: slopes_of.conv2d_input(shape, w.to(dtype), g.to(dtype), stride, padding), slopes, weight
        )
        return found if added is None else found + added

    @staticmethod
    def kernel_slopes(images, slopes, extents, stride, padding, *, dtype, rounded):
        shape = (slopes.shape[2], images.shape[2], *extents)
        return _each(lambda x, g: slopes_of.conv2d_weight(x.float(), shape, g.float(), stride, padding), images, slopes)

    @staticmethod
    def moments(inputs, epsilon):
        flat = inputs.float().transpose(1, 2).flatten(2)
        return flat.mean(2), (flat.var(2, correction=0) + epsilon).rsqrt(), flat.var(2)

    @staticmethod
    def normalise(inputs, mean, deviation, gain, shift, added, rectified):
        found = _normalised(inputs, mean, deviation)
        found = found if gain is None else found * _per_channel(gain, inputs) + _per_channel(shift, inputs)
        found = found if added is None else found + added
        return (found.relu() if rectified else found).to(inputs.dtype)

    @staticmethod
    def slope_sums(slopes, inputs, mean, deviation, gain, shift, outputs, rectified, more):
        slopes = slopes if more is None else slopes + more
        if rectified:
            made = outputs
            if made is None:
                made = Formulas.normalise(inputs, mean, deviation, gain, shift, None, True)
            slopes = torch.where(made > 0, slopes, 0)
        axes = [axis for axis in range(inputs.dim()) if axis not in (0, 2)]
        products = slopes * _normalised(inputs, mean, deviation)
        return slopes.sum(axes), products.sum(axes), slopes.new_empty(0) if outputs is None else slopes.clone()

    @staticmethod
    def input_slopes(slopes, inputs, mean, deviation, gain, shift, total, products, rectified):
        if rectified:
            made = Formulas.normalise(inputs, mean, deviation, gain, shift, None, True)
            slopes = torch.where(made > 0, slopes, 0)
        count = inputs[0].numel() // inputs.shape[2]
        level, tilt = _per_channel(total / count, inputs), _per_channel(products / count, inputs)
        found = (slopes - level - _normalised(inputs, mean, deviation) * tilt) * _per_channel(deviation, inputs)
        return found if gain is None else found * _per_channel(gain, inputs)


@pytest.fixture(autouse=True)
def launches(monkeypatch):
    if not INSTALLED:
        for module, names in (
            (convolution, ("convolve", "image_slopes", "kernel_slopes")),
            (normalisation, ("moments", "normalise", "slope_sums", "input_slopes")),
        ):
            for name in names:
                monkeypatch.setattr(module, name, getattr(Formulas, name))


def whole_group(module, *, count=REPLICAS, **changed):
    generator = torch.Generator().manual_seed(5)
    channels = 3 if isinstance(module, str) else 2
    inputs = torch.randn(20, channels, 8, 8, generator=generator)
    targets = torch.randint(0, 3, (20,), generator=generator)
    data = Data(inputs, targets, inputs[:4], targets[:4], 3, "random")
    recipe = Recipe(
        network=module if isinstance(module, str) else "own",
        settings={"inputs": [channels, 8, 8], "classes": 3} if isinstance(module, str) else {},
        batch_size=6,
    )
    recipes = dataclasses.replace(recipe, **changed).replicates(count)
    batches = Batches.of(recipes, data, device=DEVICE)
    made = build if isinstance(module, str) else module
    task, state = prepare(recipes, made, batches.inputs[:2], classes=3, device=DEVICE)
    return task, state, batches


def group(module, **changed):
    task, state, batches = whole_group(module, **changed)
    return task, state, batches.fetch(batches.plan(0, apart=False).order[:, :6], None)


def traced(module, **changed):
    """Results of the stacked step and of the one with kernels; how often the latter's trace holds each operation."""
    task, state, batch = group(module, **changed)
    flat = [*state.inputs(), *batch]
    right = Function(task, gradients, compiled=False)(Layout.of(state), flat)
    function = Function(task, gradients, compiled=False)
    ours = function(Layout.of(state, kernels=True), flat)
    (forward,) = function._traced.values()
    graph = getattr(forward, "__self__").graph  # noqa: B009 - not every callable has one
    nodes = [node for node in graph.nodes if node.op == "call_function"]
    return right, ours, collections.Counter(str(node.target) for node in nodes)


@pytest.mark.parametrize("module", [InPlace, Mixed, Read, Twice, Parallel, "resnet20-x0.125", "vgg-4"])
def test_a_step_with_kernels_is_the_stacked_one(module):
    torch.manual_seed(0)
    changed = {"optimiser": "sam"} if module == "vgg-4" else {}
    right, ours, _ = traced(module if isinstance(module, str) else module().to(DEVICE), **changed)
    for one, other in zip(ours, right, strict=True):
        assert one.shape == other.shape
        torch.testing.assert_close(one, other, rtol=2e-3, atol=2e-4)


def test_what_stands_beside_each_other_is_one_pass():
    torch.manual_seed(0)
    _, _, counts = traced(InPlace().to(DEVICE))
    assert counts["isthmus.normalise.default"] == 2
    assert not any("relu" in name or "threshold" in name for name in counts)
    assert not counts["aten.add_.Tensor"]
    assert counts["aten.add.Tensor"] == 2  # biases, of the first convolution and of the head


def test_what_is_read_elsewhere_is_not_fused():
    torch.manual_seed(0)
    _, _, counts = traced(Read().to(DEVICE))
    assert counts["aten.relu.default"] == 2
    assert counts["aten.threshold_backward.default"] == 2


@pytest.mark.parametrize("kind", [InPlace, Twice])
def test_running_statistics_move_as_the_module_moves_them(kind):
    torch.manual_seed(0)
    module = kind().to(DEVICE)
    task, state, batch = group(module)
    layout = Layout.of(state, kernels=True)
    results = Function(task, gradients, compiled=False)(layout, [*state.inputs(), *batch])
    _, _, moved = layout.split(results)
    alone = kind().to(DEVICE)
    alone.load_state_dict(module.state_dict())
    alone.train()(batch[0][1])
    named = dict(alone.named_buffers())
    for name, tensor in zip(task.buffers, moved, strict=True):
        torch.testing.assert_close(tensor[1], named[name], rtol=1e-4, atol=1e-5)


def test_more_replicas_than_fit_go_through_the_kernels_in_chunks(monkeypatch):
    """A captured step is taken anew instead of replayed, so that it runs without a GPU, too."""

    def capture(engine, size):
        return types.SimpleNamespace(replay=lambda: [engine._step(tape, size) for tape in engine._tapes])

    monkeypatch.setattr(graphs._Graphs, "_capture", capture)
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: None)
    task, state, batches = whole_group(InPlace(), count=3)
    stretch = Stretch(batches, batches.plan(0, apart=False), 0, 2, 0, torch.full((2,), 0.01, device=DEVICE))
    ours, right = state.clone(), state.clone()
    engine = Graph(task, kernels=True)
    engine._most = 2
    engine.advance(ours, stretch)
    Sequential(task).advance(right, stretch)
    assert engine.name == "one captured graph, own kernels, in chunks of 2"
    for one, other in zip(ours.tensors(), right.tensors(), strict=True):
        torch.testing.assert_close(one, other, rtol=2e-3, atol=2e-4)


def test_double_precision_is_left_to_torch():
    torch.manual_seed(0)
    right, ours, counts = traced(InPlace().to(DEVICE), precision="float64")
    assert not any("isthmus" in name for name in counts)
    for one, other in zip(ours, right, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-10)


def test_what_moves_twice_moves_in_rounds():
    running, other = torch.zeros(3), torch.ones(3)
    moves = _Moves()
    for tensor, now in ((running, torch.ones(3)), (other, torch.zeros(3)), (running, torch.full((3,), 2.0))):
        moves.add(tensor, now, 0.5)
    assert [len(olds) for _, olds, _ in moves.rounds] == [2, 1]
    moves.settle()
    assert running.tolist() == [1.25] * 3
    assert other.tolist() == [0.5] * 3
