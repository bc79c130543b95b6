"""Captured steps in chunks: the same memory takes one part of a group after the other.

Without a GPU a step is not captured but taken anew whenever it would be replayed; everything around it is the same.
"""

import dataclasses

import pytest
import torch

from isthmus.train import Recipe, graphs
from isthmus.train.batches import Batches
from isthmus.train.choice import _ALL
from isthmus.train.engines import Sequential, Stretch
from isthmus.train.graphs import Graph, Graphs
from isthmus.train.prune import random_masks
from isthmus.train.task import prepare
from isthmus.zoo import Data, build

BASE = Recipe(
    network="mlp-6x1", settings={"inputs": [1, 6, 6], "classes": 4}, batch_size=8, precision="float64", rate=0.1
)
VARIED = {
    "plain": {},
    "labels and examples of its own": {"label_noise": 0.3, "subset": 22},
    "augmented": {"network": "vgg-4", "augmentation": ["crop", "flip"], "crop_padding": 1},
    "masks, adam": {"sparsity": 0.5, "optimiser": "adam", "rate": 0.01},
}


class Replayed:
    """Takes the step of every tape, as a replay of its graph would."""

    def __init__(self, engine, size):
        self.engine, self.size = engine, size

    def replay(self):
        for tape in self.engine._tapes:
            self.engine._step(tape, self.size)


@pytest.fixture
def tried(monkeypatch):
    """Graphs without a GPU; which were captured, as (tapes, replicas in each, size of the batch)."""
    found = []

    def capture(self, size):
        found.append((len(self._tapes), self._tapes[0].state.count, size))
        return Replayed(self, size)

    monkeypatch.setattr(graphs._Graphs, "_capture", capture)
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: None)
    return found


def group(count, **changed):
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(27, 1, 6, 6, generator=generator)
    targets = torch.randint(0, 4, (27,), generator=generator)
    data = Data(inputs, targets, inputs[:4], targets[:4], 4, "random")
    recipes = dataclasses.replace(BASE, **changed).replicates(
        count, vary=("initialisation", "order", "augmentation", "label_noise", "subset", "mask")
    )
    batches = Batches.of(recipes, data, device=torch.device("cpu"))
    task, state = prepare(recipes, build, batches.inputs[:2], classes=4, device=torch.device("cpu"))
    if recipes[0].sparsity:
        state.masks = random_masks(recipes, state.parameters)
        state.parameters = [p * m for p, m in zip(state.parameters, state.masks, strict=True)]
    return task, state, batches


def epochs(batches, count=2):
    """Whole epochs, their uneven last batch included, each in two stretches."""
    length = batches.recipes[0].steps_in_epoch(batches.examples)
    rates = torch.linspace(0.1, 0.05, count * length, dtype=torch.float64) * batches.recipes[0].rate * 10
    for epoch in range(count):
        plan = batches.plan(epoch, apart=False)
        for first, last in ((0, 2), (2, length)):
            yield Stretch(batches, plan, first, last, epoch * length + first, rates)


def trained(engine, state, batches):
    own = state.clone()
    for stretch in epochs(batches):
        engine.advance(own, stretch)
    return own


def same(one, other):
    for ours, right in zip(one.tensors(), other.tensors(), strict=True):
        torch.testing.assert_close(ours, right, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", VARIED)
@pytest.mark.parametrize("kind", [Graph, Graphs])
@pytest.mark.parametrize("most", [None, 4, 2, 1])
def test_chunks_are_the_plain_loop(tried, name, kind, most):
    task, state, batches = group(5, **VARIED[name])
    right = trained(Sequential(task), state, batches)
    engine = kind(task)
    if most is not None:
        engine._most = most
    same(trained(engine, state, batches), right)
    width = {None: 5, 4: 3, 2: 2, 1: 1}[most]  # as even as can be
    assert ("chunks" in engine.name) == (most is not None)
    assert most is None or engine.name.endswith(f", in chunks of {width}")
    assert {tapes * each for tapes, each, _ in tried} == {width}
    assert len(tried) == 2  # whole batches, and the uneven last one; not one more for the uneven last chunk


def test_branches_are_limited_whole_graphs_are_not(tried):
    for kind, widest in ((Graphs, 17), (Graph, 34)):
        task, state, batches = group(34)
        engine = kind(task)
        same(trained(engine, state, batches), trained(Sequential(task), state, batches))
        assert {tapes * each for tapes, each, _ in tried} == {widest}
        tried.clear()


@pytest.mark.parametrize("kind", [Graph, Graphs])
def test_where_memory_runs_out_chunks_are_halved(monkeypatch, tried, kind):
    capture = graphs._Graphs._capture

    def small(self, size):
        made = capture(self, size)
        if len(self._tapes) * self._tapes[0].state.count > 2:
            raise torch.cuda.OutOfMemoryError("out of memory")
        return made

    monkeypatch.setattr(graphs._Graphs, "_capture", small)
    task, state, batches = group(5)
    engine = kind(task)
    same(trained(engine, state, batches), trained(Sequential(task), state, batches))
    assert [tapes * each for tapes, each, _ in tried] == [5, 3, 2, 2]
    assert engine.name.endswith("in chunks of 2")


def test_one_that_does_not_fit_alone_is_an_error(monkeypatch, tried):
    def full(self, size):
        raise torch.cuda.OutOfMemoryError("out of memory")

    monkeypatch.setattr(graphs._Graphs, "_capture", full)
    task, state, batches = group(3)
    before = state.clone()
    with pytest.raises(torch.cuda.OutOfMemoryError):
        Graph(task).advance(state, next(epochs(batches)))
    same(state, before)


@pytest.mark.parametrize(("needed", "fits"), [(80, True), (95, False)])
def test_a_capture_that_would_not_fit_is_refused_before_it_begins(monkeypatch, needed, fits):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (100, 1000))
    if fits:
        graphs._refuse_crowding(needed, torch.device("cuda"))
    else:
        with pytest.raises(torch.cuda.OutOfMemoryError, match="95 bytes, but 100 are free"):
            graphs._refuse_crowding(needed, torch.device("cuda"))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", ["graph", "graphs", "kernel graph", "kernel graphs"])
def test_on_a_gpu_that_is_nearly_full(monkeypatch, name):
    """Real captures: what is free lets a part of the group in, and the weights are those of the whole."""
    device, needed = torch.device("cuda"), []
    monkeypatch.setattr(graphs, "_refuse_crowding", lambda amount, device: needed.append(amount))
    recipe = Recipe(network="vgg-64", settings={"inputs": [3, 32, 32]}, batch_size=256, rate=0.01)
    generator = torch.Generator().manual_seed(1)
    inputs, targets = torch.randn(600, 3, 32, 32, generator=generator), torch.arange(600) % 10
    data = Data(inputs, targets, inputs[:4], targets[:4], 10, "random")
    recipes = recipe.replicates(5)
    batches = Batches.of(recipes, data, device=device)
    task, state = prepare(recipes, build, batches.inputs[:2], classes=10, device=device)
    stretch = Stretch(batches, batches.plan(0, apart=False), 0, 3, 0, torch.full((3,), 0.01, device=device))
    right, ours = state.clone(), state.clone()
    whole = _ALL[name](task)
    whole.advance(right, stretch)
    whole._release()
    monkeypatch.undo()
    free, _ = torch.cuda.mem_get_info(device)
    ballast = torch.empty(max(0, free - int(0.9 * max(needed))), dtype=torch.uint8, device=device)
    engine = _ALL[name](task)
    try:
        engine.advance(ours, stretch)
    finally:
        del ballast
        whole._release()
    assert ", in chunks of " in engine.name
    start = torch.cat([tensor.flatten() for tensor in state.parameters])
    ends = [torch.cat([tensor.flatten() for tensor in one.parameters]) for one in (right, ours)]
    assert float((ends[1] - ends[0]).norm() / (ends[0] - start).norm()) < 1e-2
