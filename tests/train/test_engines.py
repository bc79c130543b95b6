"""All engines against the plain loop written out by hand, and against each other."""

import copy
import dataclasses

import pytest
import torch
from torch import nn
from torch.nn import functional

from isthmus.core.randomness import child_seed
from isthmus.train import Recipe, engines, train
from isthmus.train.batches import Batches
from isthmus.train.engines import Stretch, Vectorised
from isthmus.train.streams import orders
from isthmus.train.task import prepare
from isthmus.zoo import Data, build, network


def images(examples: int = 70, *, size: int = 8, channels: int = 1) -> Data:
    generator = torch.Generator().manual_seed(3)
    inputs = torch.randn(examples, channels, size, size, generator=generator, dtype=torch.float64)
    targets = (inputs.mean((1, 2, 3)) * 40).round().long() % 4
    return Data(inputs[:-20], targets[:-20], inputs[-20:], targets[-20:], 4, "random")


BASE = Recipe(
    network="mlp-12x2",
    settings={"inputs": [1, 8, 8], "classes": 4},
    batch_size=16,
    epochs=3,
    precision="float64",
    rate=0.05,
)
VARIED = {
    "momentum and decay": {"weight_decay": 0.01},
    "nesterov, cosine, warm-up": {"nesterov": True, "schedule": "cosine", "warmup": 3},
    "adamw": {"optimiser": "adamw", "rate": 0.01, "weight_decay": 0.1},
    "sam": {"optimiser": "sam", "radius": 0.1},
    "smoothing, noise, subset": {"label_smoothing": 0.1, "label_noise": 0.3, "subset": 37},
    "drop the last batch": {"last_batch": "drop"},
    "squared error": {"loss": "squared_error"},
    "sparse": {"sparsity": 0.7},
    "batch normalisation": {"network": "vgg-4-6"},
    "batch normalisation and sam": {"network": "vgg-4", "optimiser": "sam"},
    "augmented": {
        "network": "vgg-4",
        "augmentation": ["crop", "flip", "cutout"],
        "crop_padding": 1,
        "cutout_size": 3,
    },
    # Not Adam: the key's bias has a gradient of zero plus rounding, and Adam makes a whole step of the rounding.
    "attention": {"network": "vit-8x1"},
}


def vector(weights) -> torch.Tensor:
    return torch.cat([tensor.flatten().double() for tensor in weights.values()])


@pytest.mark.parametrize("name", VARIED)
def test_vectorised_is_the_plain_loop(name):
    recipes = dataclasses.replace(BASE, **VARIED[name]).replicates(3)
    right = train(recipes, data=images(), module=build, engine="sequential")
    ours = train(recipes, data=images(), module=build, engine="vectorised")
    assert {replica.engine for replica in ours} == {"vectorised"}
    for one, other in zip(ours, right, strict=True):
        torch.testing.assert_close(vector(one.weights), vector(other.weights), rtol=1e-9, atol=1e-11)
        assert one.history[-1].loss == pytest.approx(other.history[-1].loss, rel=1e-9)
        assert one.train.loss == pytest.approx(other.train.loss, rel=1e-9)
    assert not torch.allclose(vector(ours[0].weights), vector(ours[1].weights))


def by_hand(recipe: Recipe, data: Data) -> nn.Module:
    """What anyone would write, with torch's optimiser and the documented order."""
    module = build(recipe).double().train()
    optimiser = torch.optim.SGD(module.parameters(), lr=recipe.rate, momentum=recipe.momentum)
    count = len(data.train_targets)
    for epoch in range(recipe.epochs):
        order = orders([child_seed(recipe.order_seed, "order", epoch)], count)[0]
        for chosen in order.split(recipe.batch_size):
            optimiser.zero_grad()
            functional.cross_entropy(module(data.train_inputs[chosen]), data.train_targets[chosen]).backward()
            optimiser.step()
    return module


@pytest.mark.parametrize("engine", ["sequential", "channels last", "vectorised"])
@pytest.mark.parametrize("kind", ["mlp-12x2", "vgg-4-6", "resnet20-x0.125"])
def test_engines_are_the_loop_by_hand_with_running_statistics(engine, kind):
    recipe = dataclasses.replace(BASE, network=kind, epochs=2, order_seed=5)
    data = images()
    for replica in train(recipe.replicates(2), data=data, module=build, engine=engine):
        assert engine in replica.engine
        right = by_hand(replica.recipe, data).state_dict()
        assert list(replica.weights) == list(right)
        for name, tensor in right.items():
            torch.testing.assert_close(replica.weights[name], tensor, rtol=1e-8, atol=1e-10, msg=name)


def test_sam_by_hand():
    recipe = dataclasses.replace(BASE, optimiser="sam", momentum=0.0, radius=0.2, steps=1, batch_size=50)
    data = images()
    module = build(recipe).double()
    parameters = list(module.parameters())

    def slope() -> list[torch.Tensor]:
        return list(
            torch.autograd.grad(functional.cross_entropy(module(data.train_inputs), data.train_targets), parameters)
        )

    first = slope()
    length = torch.cat([part.flatten() for part in first]).norm()
    start = copy.deepcopy([parameter.detach() for parameter in parameters])
    with torch.no_grad():
        for parameter, part in zip(parameters, first, strict=True):
            parameter += 0.2 * part / length
    wanted = [old - recipe.rate * part for old, part in zip(start, slope(), strict=True)]
    for engine in ("sequential", "vectorised"):
        replica = train([recipe], data=data, module=build, engine=engine)[0]
        for tensor, right in zip(replica.weights.values(), wanted, strict=True):
            torch.testing.assert_close(tensor, right, rtol=1e-9, atol=1e-12)


class Branching(nn.Module):
    """Control flow that depends on the data, which cannot be vectorised."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(64, 4, dtype=torch.float64)

    def forward(self, inputs):
        scores = self.layer(inputs.flatten(1))
        return -scores if float(scores.detach().sum()) > 0 else scores


class Remembering(nn.Module):
    """A recurrent network, which vmap does not take."""

    def __init__(self) -> None:
        super().__init__()
        self.memory = nn.LSTM(8, 5, batch_first=True)
        self.head = nn.Linear(5, 4)

    def forward(self, inputs):
        return self.head(self.memory(inputs.squeeze(1))[0][:, -1])


class Noisy(nn.Module):
    """Dropout draws random numbers, so replicas cannot share a forward pass and stay themselves."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, 4))

    def forward(self, inputs):
        return self.layers(inputs)


@pytest.mark.parametrize(
    ("kind", "said"),
    [(Branching, "cannot be trained vectorised"), (Remembering, "cannot be trained vectorised"), (Noisy, "dropout")],
)
def test_what_cannot_be_vectorised_falls_back_and_says_so(kind, said):
    torch.manual_seed(0)
    module = kind()
    recipes = dataclasses.replace(BASE, network="own", epochs=1).replicates(2)
    asked = train(recipes, data=images(), module=module, engine="vectorised")
    right = train(recipes, data=images(), module=module, engine="sequential")
    assert asked[0].engine == "sequential"
    assert said in " ".join(asked[0].notes)
    for one, other in zip(asked, right, strict=True):
        assert torch.equal(vector(one.weights), vector(other.weights))


def test_dropout_repeats_and_leaves_the_global_generator_alone():
    torch.manual_seed(0)
    module = Noisy()
    before = torch.get_rng_state()
    first, second = (
        train([dataclasses.replace(BASE, augmentation_seed=seed)], data=images(), module=module)[0] for seed in (0, 1)
    )
    again = train([BASE], data=images(), module=module)[0]
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(vector(first.weights), vector(again.weights))
    assert not torch.equal(vector(first.weights), vector(second.weights))


def test_frozen_and_tied_tensors_are_respected():
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(64, 64), nn.Linear(64, 64)
            self.second.weight = self.first.weight
            self.head = nn.Linear(64, 4)
            self.head.bias.requires_grad_(False)

        def forward(self, inputs):
            return self.head(functional.relu(self.second(functional.relu(self.first(inputs.flatten(1))))))

    torch.manual_seed(0)
    module = Tied()
    for engine in ("sequential", "vectorised"):
        replica = train([BASE], data=images(), module=module, engine=engine)[0]
        assert torch.equal(replica.weights["first.weight"], replica.weights["second.weight"])
        assert not torch.equal(replica.weights["first.weight"], module.first.weight.double())
        assert torch.equal(replica.weights["head.bias"], module.head.bias.double())


def test_chunks_change_nothing():

    recipes = BASE.replicates(5)
    batches = Batches.of(recipes, images(), device=torch.device("cpu"))
    task, state = prepare(recipes, build, batches.inputs[:2], classes=4, device=torch.device("cpu"))
    stretch = Stretch(batches, batches.plan(0, apart=False), 0, 4, 0, torch.full((4,), 0.05, dtype=torch.float64))
    results = []
    for chunk in (None, 2):
        own = state.clone()
        Vectorised(task, chunk=chunk).advance(own, stretch)
        results.append(torch.cat([tensor.flatten() for tensor in own.tensors()]))
    torch.testing.assert_close(results[0], results[1], rtol=1e-10, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*VARIED, "stops within epochs"])
def test_compiled_is_the_plain_loop(name):
    changed = VARIED.get(name, {"checkpoints": [1, 5, 6], "schedule": "cosine"})
    recipes = dataclasses.replace(BASE, **changed).replicates(3)
    right = train(recipes, data=images(), module=build, engine="sequential")
    ours = train(recipes, data=images(), module=build, engine="compiled")
    assert ours[0].engine == "vectorised and compiled", ours[0].notes
    for one, other in zip(ours, right, strict=True):
        torch.testing.assert_close(vector(one.weights), vector(other.weights), rtol=1e-9, atol=1e-11)
        assert one.history[-1].loss == pytest.approx(other.history[-1].loss, rel=1e-9)
        for step, weights in other.checkpoints.items():
            torch.testing.assert_close(vector(one.checkpoints[step]), vector(weights), rtol=1e-9, atol=1e-11)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("engine", ["vectorised", "graph", "graphs", "folded graph"])
@pytest.mark.parametrize("name", VARIED)
def test_cuda_engines_are_the_plain_loop(name, engine):
    recipes = dataclasses.replace(BASE, **VARIED[name]).replicates(3)
    right = train(recipes, data=images(), module=build, engine="sequential", device="cuda")
    ours = train(recipes, data=images(), module=build, engine=engine, device="cuda")
    for one, other in zip(ours, right, strict=True):
        torch.testing.assert_close(vector(one.weights), vector(other.weights), rtol=1e-7, atol=1e-9)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("engine", ["kernel graph", "kernel graphs"])
@pytest.mark.parametrize(
    ("changed", "limit"),
    [
        ({"network": "resnet20-x0.5"}, 5e-3),
        ({"network": "vgg-4-6", "optimiser": "sam", "momentum": 0.0, "radius": 0.1}, 5e-3),
        ({"network": "resnet20-x4", "batch_size": 8}, 5e-3),  # wide enough for a library's own kernels
        ({"network": "resnet20-x0.5", "precision": "tensorfloat32"}, 5e-2),
        ({"network": "resnet20-x0.5", "precision": "bfloat16"}, 0.3),
    ],
)
def test_own_kernels_are_the_plain_loop(engine, changed, limit):
    """Weights after a few steps differ by a small part of the way that they went."""
    recipe = dataclasses.replace(BASE, **{"precision": "float32", "rate": 0.01, "steps": 5, **changed})
    recipes = recipe.replicates(3)
    start, right, ours = (
        train(these, data=images(), module=build, engine=name, device="cuda")
        for these, name in (
            ([dataclasses.replace(one, steps=0) for one in recipes], "sequential"),
            (recipes, "sequential"),
            (recipes, engine),
        )
    )
    assert {replica.engine for replica in ours} != {"sequential"}, ours[0].notes
    for begin, one, other in zip(start, ours, right, strict=True):
        way = vector(other.weights) - vector(begin.weights)
        assert float((vector(one.weights) - vector(other.weights)).norm() / way.norm()) < limit


def test_one_module_as_the_common_start():
    module = network("mlp-6x1", inputs=(1, 8, 8), classes=4)
    recipes = dataclasses.replace(BASE, network="own", steps=0).replicates(2)
    for replica in train(recipes, data=images(), module=module):
        for name, tensor in module.state_dict().items():
            assert torch.equal(replica.weights[name], tensor.double())


def test_compiled_chunks_fit_the_cache_and_divide_the_group(monkeypatch):
    state = engines.State([torch.zeros(12, 50)], [], [[torch.zeros(12, 50)]], [], torch.zeros(12))  # 600 bytes each
    for room, wanted in ((10**6, 12), (7200, 12), (7199, 6), (3000, 4), (1300, 2), (600, 1), (1, 1)):
        monkeypatch.setattr(engines, "_CACHE", room)
        assert engines._cached(state) == wanted
    state = state.part(0, 11)  # a prime: rather an uneven last chunk than one replica at a time
    monkeypatch.setattr(engines, "_CACHE", 3000)
    assert engines._cached(state) == 5
