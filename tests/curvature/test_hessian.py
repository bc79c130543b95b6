import dataclasses

import pytest
import torch
from torch import nn

from isthmus.core.errors import DataError, WeightsError
from isthmus.core.losses import cross_entropy, squared_error
from isthmus.core.network import Network
from isthmus.core.objective import Objective
from isthmus.core.weights import to
from isthmus.curvature import gauss_newton, hessian, kept


def close(found: torch.Tensor, truth: torch.Tensor, tolerance: float) -> bool:
    return bool((found.double() - truth).abs().max() <= tolerance * truth.abs().max())


@pytest.mark.parametrize("batch_size", [5, 7, 1000])
def test_any_batching_gives_the_exact_hessian(classifier, exact, batch_size):
    objective = dataclasses.replace(classifier, batch_size=batch_size)
    weights = objective.network.weights
    truth = exact.hessian(objective, weights)
    assert close(hessian(objective, weights, dtype=torch.float64).dense(), truth, 1e-12)
    assert close(hessian(objective, weights).dense(), truth, 1e-5)


@pytest.mark.parametrize("batch_size", [7, 1000])
def test_any_batching_gives_the_exact_gauss_newton(classifier, exact, batch_size):
    objective = dataclasses.replace(classifier, batch_size=batch_size)
    weights = objective.network.weights
    truth = exact.gauss_newton(objective, weights)
    assert close(gauss_newton(objective, weights, dtype=torch.float64).dense(), truth, 1e-12)
    assert close(gauss_newton(objective, weights).dense(), truth, 1e-5)
    assert not close(truth, exact.hessian(objective, weights), 1e-2)


@pytest.mark.parametrize("memory", [0, 5_000, None])
def test_graphs_are_kept_as_memory_allows_and_results_do_not_depend_on_it(classifier, memory, monkeypatch):
    weights = classifier.network.weights
    calls = []
    forward = kept.Point.outputs
    monkeypatch.setattr(kept.Point, "outputs", lambda point, inputs: calls.append(1) or forward(point, inputs))
    operator = hessian(classifier, weights, dtype=torch.float64, memory=memory)
    vector = torch.arange(operator.size, dtype=torch.float64)
    first = operator @ vector
    calls.clear()
    second = operator @ vector
    assert torch.equal(first, second)
    rebuilt = {0: 4, None: 0}.get(memory)
    assert len(calls) == rebuilt if rebuilt is not None else 0 < len(calls) < 4


def test_a_quadratic_has_its_own_matrix(exact):
    """Squared error of a linear map, in closed form: 2·XᵀX/(n·outputs) for each output."""
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(11, 3, generator=generator, dtype=torch.float64)
    network = Network.of(nn.Linear(3, 2, bias=False).double())
    objective = Objective(network, inputs, torch.zeros(11, 2), loss=squared_error, metrics={}, batch_size=4)
    truth = torch.block_diag(*[inputs.T @ inputs / 11] * 2)
    assert close(hessian(objective, network.weights).dense(), truth, 1e-13)
    assert close(gauss_newton(objective, network.weights).dense(), truth, 1e-13)


def test_many_vectors_are_the_single_ones(classifier):
    operator = hessian(classifier, classifier.network.weights, dtype=torch.float64)
    vectors = torch.randn(operator.size, 5, dtype=torch.float64)
    assert torch.allclose(operator @ vectors, torch.stack([operator @ v for v in vectors.T], 1), rtol=1e-12, atol=0)


def test_the_vectorised_pass_of_a_gpu_gives_the_same(classifier):
    """On a CPU the loop is taken; the batched derivative that a GPU would take is called here by hand."""
    point = kept.Point.of(classifier, classifier.network.weights, tensors=None, dtype=torch.float64)
    inputs, targets = next(classifier.batches())
    values = point.values(point.outputs(inputs), targets)
    gradient = kept.flat(torch.autograd.grad(values.sum(), point.leaves, create_graph=True), point.leaves)
    rows = torch.randn(4, point.size, dtype=torch.float64)
    parts = torch.autograd.grad(gradient, point.leaves, rows, True, is_grads_batched=True)
    together = kept.flat(parts, point.leaves, rows=4)
    assert torch.allclose(together, kept.pulled(gradient, point.leaves, rows), rtol=1e-12, atol=1e-14)


def test_a_layer_is_a_diagonal_block(classifier, exact):
    weights = classifier.network.weights
    truth = exact.hessian(classifier, weights)
    first = sum(weights[name].numel() for name in ("0.weight", "0.bias"))
    size = sum(weights[name].numel() for name in ("2.weight", "2.bias"))
    for matrix, full in ((hessian, truth), (gauss_newton, exact.gauss_newton(classifier, weights))):
        block = matrix(classifier, weights, tensors=["2.bias", "2.weight"], dtype=torch.float64).dense()
        assert close(block, full[first : first + size, first : first + size], 1e-12)


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(6, 4)
        self.read = nn.Linear(4, 6, bias=False)
        self.read.weight = self.embed.weight
        self.unused = nn.Parameter(torch.ones(2))

    def forward(self, tokens):
        return self.read(self.embed(tokens).mean(1).tanh())


def test_tied_weights_vary_together_and_unused_ones_have_no_curvature(exact):
    torch.manual_seed(2)
    network = Network.of(Tied())
    objective = Objective(network, torch.randint(6, (9, 3)), torch.randint(6, (9,)), batch_size=4)
    matrix = hessian(objective, network.weights, dtype=torch.float64).dense()
    assert len(matrix) == 26
    at = network.parameter_names.index("unused")
    unused = torch.zeros(26, dtype=torch.bool)
    unused[slice(0, 2) if at == 0 else slice(24, 26)] = True
    assert not matrix[unused].any()
    assert not matrix[:, unused].any()
    weights = {n: t for n, t in network.weights.items() if n not in network.tied}
    truth = exact.hessian(objective, weights)
    assert close(matrix, truth, 1e-12)
    alias = hessian(objective, network.weights, tensors=["read.weight"], dtype=torch.float64).dense()
    assert close(alias, truth[~unused][:, ~unused], 1e-12)
    for build in (hessian, gauss_newton):
        assert not build(objective, network.weights, tensors=["unused"]).dense().any()


class Attention(nn.Module):
    """A transformer block as people write it, with fused attention and a loss over tokens."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(7, 8)
        self.block = nn.TransformerEncoderLayer(8, 2, 12, dropout=0.1, batch_first=True, activation="gelu")
        self.qkv = nn.Linear(8, 24)
        self.read = nn.Linear(8, 7)

    def forward(self, tokens):
        x = self.block(self.embed(tokens))
        q, k, v = self.qkv(x).unflatten(-1, (3, 2, 4)).permute(2, 0, 3, 1, 4)
        attended = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.read(attended.transpose(1, 2).flatten(2) + x)


def test_a_transformer_with_fused_attention_over_tokens():
    torch.manual_seed(3)
    network = Network.of(Attention())
    tokens = torch.randint(7, (5, 6))
    objective = Objective(network, tokens, tokens.roll(-1, 1), batch_size=2)
    weights = to(network.weights, dtype=torch.float64)
    operator = hessian(objective, weights)
    direction = torch.randn(operator.size, dtype=torch.float64)
    direction /= direction.norm()
    # Central differences of the gradient, step 1e-5: an error of about 1e-9.
    from isthmus.core.weights import flatten, unflatten

    names = network.parameter_names
    start = flatten(weights, tensors=names)
    ahead, behind = (
        flatten(objective.gradient(unflatten(start + s * direction, weights, tensors=names))[1], tensors=names)
        for s in (1e-5, -1e-5)
    )
    assert close(operator @ direction, (ahead - behind) / 2e-5, 1e-6)
    product = gauss_newton(objective, weights) @ direction
    assert float(direction @ product) > 0
    assert not close(product, operator @ direction, 1e-2)


def test_a_recurrent_network():
    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell = nn.LSTM(3, 4, batch_first=True)
            self.read = nn.Linear(4, 2)

        def forward(self, x):
            return self.read(self.cell(x)[0][:, -1])

    torch.manual_seed(4)
    network = Network.of(Recurrent())
    objective = Objective(network, torch.randn(6, 5, 3), torch.randint(2, (6,)), batch_size=4)
    matrix = hessian(objective, network.weights, dtype=torch.float64).dense()
    assert close(matrix, matrix.T, 1e-12)
    assert matrix.abs().max() > 1e-3


def test_batch_statistics_are_constants_of_the_point(exact):
    torch.manual_seed(5)
    module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(32, 2))
    module[1].running_mean.normal_()
    module[1].running_var.uniform_(0.5, 2)
    network = Network.of(module)
    objective = Objective(network, torch.randn(10, 1, 6, 6), torch.randint(2, (10,)), batch_size=3)
    matrix = hessian(objective, network.weights, dtype=torch.float64).dense()
    assert close(matrix, exact.hessian(objective, network.weights), 1e-11)
    other = {**network.weights, "1.running_var": network.weights["1.running_var"] * 4}
    assert not close(hessian(objective, other, dtype=torch.float64).dense(), matrix, 0.1)


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_half_precision_weights_are_differentiated_in_float32(classifier, exact, half):
    weights = to(classifier.network.weights, dtype=half)
    operator = hessian(classifier, weights)
    assert operator.dtype == torch.float32
    assert close(operator.dense(), exact.hessian(classifier, weights), 1e-5)


def test_outputs_with_logits_and_mappings(classifier):
    class Output:
        def __init__(self, logits):
            self.logits = logits

    class Wrapped(nn.Module):
        def __init__(self, wrap):
            super().__init__()
            self.inner, self.wrap = nn.Linear(4, 3), wrap

        def forward(self, x):
            return self.wrap(self.inner(x))

    def named(outputs, targets):
        return cross_entropy(outputs["scores"], targets)

    found = []
    for wrap, loss in ((lambda x: x, cross_entropy), (Output, cross_entropy), (lambda x: {"scores": x}, named)):
        torch.manual_seed(6)
        network = Network.of(Wrapped(wrap))
        objective = dataclasses.replace(classifier, network=network, loss=loss, metrics={})
        found.append(gauss_newton(objective, network.weights).dense())
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def test_nothing_is_changed_and_no_grad_around_does_not_matter(classifier):
    before = {name: tensor.clone() for name, tensor in classifier.network.weights.items()}
    with torch.no_grad():
        operator = hessian(classifier, classifier.network.weights)
        image = operator @ torch.ones(operator.size)
    assert image.abs().max() > 0
    assert not image.requires_grad
    for name, tensor in classifier.network.weights.items():
        assert torch.equal(tensor, before[name])
        assert tensor.grad is None


def test_what_is_refused(classifier):
    weights = classifier.network.weights
    with pytest.raises(WeightsError, match="trainable tensors of the network; unknown: nope"):
        hessian(classifier, weights, tensors=["nope"])
    with pytest.raises(WeightsError, match="at least one"):
        hessian(classifier, weights, tensors=[])
    with pytest.raises(WeightsError, match=r"missing: 0\.bias"):
        hessian(classifier, {n: t for n, t in weights.items() if n != "0.bias"})
    mean = dataclasses.replace(classifier, loss=lambda o, t: cross_entropy(o, t).mean())
    with pytest.raises(DataError, match="one value for each example"):
        hessian(mean, weights).dense()


def test_convolutions_on_a_gpu_keep_full_float32_and_the_setting_comes_back():
    before = torch.backends.cudnn.allow_tf32
    try:
        torch.backends.cudnn.allow_tf32 = True
        with kept.full_precision(torch.device("cuda")):
            assert not torch.backends.cudnn.allow_tf32
        assert torch.backends.cudnn.allow_tf32
        with kept.full_precision(torch.device("cpu")):
            assert torch.backends.cudnn.allow_tf32
    finally:
        torch.backends.cudnn.allow_tf32 = before


def test_ignored_labels_leave_the_curvature_of_the_others():
    network = Network.of(torch.nn.Linear(3, 4).double())
    inputs, targets = torch.randn(10, 3, dtype=torch.float64), torch.randint(4, (10,))
    targets[[1, 4, 5, 9]] = -100
    kept = targets != -100
    marked = Objective(network, inputs, targets, batch_size=4)
    without = Objective(network, inputs[kept], targets[kept])
    for operator in (hessian, gauss_newton):
        found, expected = (operator(one, network.weights).dense() for one in (marked, without))
        assert torch.allclose(found, expected, rtol=1e-10)
