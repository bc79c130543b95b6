"""Mergers that have no closed form, against a second way; statistics, low ranks, labels that do not count."""

import numpy as np
import pytest
import torch
from tests.merge import second_ways
from tests.merge.token_networks import copied, small, tokens
from torch import nn

from isthmus.core.checkpoint import load, save
from isthmus.core.errors import DataError
from isthmus.core.network import Network
from isthmus.core.objective import Objective
from isthmus.core.randomness import child
from isthmus.merge import (
    SLERP,
    AdaMerging,
    Configuration,
    KnOTS,
    OrthogonalProjection,
    ProtectSpecific,
    Weighted,
    diagonal_fisher,
    merge_files,
)

TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-6, torch.float16: 2e-3, torch.bfloat16: 1e-2}
KINDS = list(TOLERANCE)


def drawn(seed, dtype=torch.float64):
    """A matrix, a kernel, a norm, a scalar, running statistics and a counter."""
    shapes = {
        "a.weight": (7, 5),
        "conv.weight": (4, 3, 2, 2),
        "norm.weight": (6,),
        "scale": (),
        "bn.running_mean": (3,),
    }
    generator = torch.Generator().manual_seed(seed)
    found = {n: torch.randn(shape, generator=generator, dtype=torch.float64) for n, shape in shapes.items()}
    found["bn.running_var"] = 0.5 + torch.rand(3, generator=generator, dtype=torch.float64)
    return {n: t.to(dtype) for n, t in found.items()} | {"bn.num_batches_tracked": torch.tensor(seed)}


def agree(ours, theirs, dtype):
    for name, array in theirs.items():
        tolerance = TOLERANCE[dtype] * (1 + float(np.abs(array).max()))
        np.testing.assert_allclose(ours[name].double().numpy(), array, rtol=0, atol=tolerance, err_msg=name)


@pytest.mark.filterwarnings("ignore::isthmus.merge.BatchStatisticsWarning")
@pytest.mark.parametrize("dtype", KINDS, ids=str)
@pytest.mark.parametrize("share", [0.3, 0.5, 1.0])
def test_orthogonal_projection(dtype, share):
    base, *solutions = (drawn(seed, dtype) for seed in range(4))
    ours = OrthogonalProjection(share, 0.7)(solutions, base=base)
    agree(ours, second_ways.projected(solutions, base, share, 0.7), dtype)


@pytest.mark.filterwarnings("ignore::isthmus.merge.BatchStatisticsWarning")
@pytest.mark.parametrize("dtype", KINDS, ids=str)
@pytest.mark.parametrize(("density", "elect", "rank"), [(1.0, True, None), (0.3, True, 3), (0.4, False, None)])
def test_knots(dtype, density, elect, rank):
    base, *solutions = (drawn(seed, dtype) for seed in range(4))
    ours = KnOTS(density, elect, rank, 0.7, (1.0, 2.0, -0.5))(solutions, base=base)
    ranks = {} if rank is None else {"a.weight": rank, "conv.weight": rank}
    settings = {"density": density, "elect": elect, "scale": 0.7, "weights": (1.0, 2.0, -0.5), "ranks": ranks}
    agree(ours, second_ways.knotted(solutions, base, **settings), dtype)


@pytest.mark.parametrize("dtype", KINDS, ids=str)
def test_knots_trims_low_rank_changes_among_the_directions_that_they_have(dtype):
    # Two changes of rank 2 of a 32 × 24 matrix, as LoRA makes them: 4 directions, and not 32 of which 28 are rounding.
    generator = torch.Generator().manual_seed(0)
    base = {"w": torch.randn(32, 24, generator=generator, dtype=torch.float64).to(dtype)}
    factors = [torch.randn(2, 56, generator=generator, dtype=torch.float64) for _ in range(2)]
    solutions = [{"w": (base["w"].double() + one[:, :32].T @ one[:, 32:]).to(dtype)} for one in factors]
    ours = KnOTS(0.2)(solutions, base=base)
    settings = {"elect": True, "scale": 1.0, "weights": (1.0, 1.0), "ranks": {"w": 4}}
    agree(ours, second_ways.knotted(solutions, base, density=0.2, **settings), dtype)
    # That is far from what is left if nothing is trimmed.
    whole = second_ways.knotted(solutions, base, density=1.0, **settings)["w"]
    assert float(np.abs(ours["w"].double().numpy() - whole).max()) > 1


@pytest.mark.filterwarnings("ignore::isthmus.merge.BatchStatisticsWarning")
@pytest.mark.parametrize("dtype", KINDS, ids=str)
@pytest.mark.parametrize("share", [0.0, 0.1, 0.3, 1.0])
def test_what_is_specific_is_protected(dtype, share):
    base, *solutions = (drawn(seed, dtype) for seed in range(4))
    generator = torch.Generator().manual_seed(9)
    importances = [{n: torch.rand(s[n].shape, generator=generator) for n in ("a.weight", "scale")} for s in solutions]
    for known in (None, importances):
        settings = {"share": share, "scale": 0.7, "weights": (1.0, 2.0, 3.0), "importances": known}
        ours = ProtectSpecific(share, 0.7, (1.0, 2.0, 3.0), known)(solutions, base=base)
        agree(ours, second_ways.protected(solutions, base, **settings), dtype)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_what_is_specific_is_seen_from_the_mean_before_it_is_rounded(dtype):
    # Changes of a few units in the last place, as in fine-tuning: seen from a rounded mean many are others.
    generator = torch.Generator().manual_seed(0)
    unit = torch.finfo(dtype).eps
    steps = [torch.randint(-3, 4, (400,), generator=generator) for _ in range(3)]
    solutions = [{"w": (1.5 + unit * step).to(dtype)} for step in steps]
    ours = ProtectSpecific(0.1)(solutions)["w"].double().numpy()
    exact = np.array([[1.5 + unit * int(s) for s in step] for step in steps])
    settings = {"share": 0.1, "scale": 1.0, "weights": (1.0, 1.0, 1.0), "importances": None}
    theirs = second_ways.protected([{"w": torch.tensor(one)} for one in exact], None, **settings)["w"]
    assert float(np.abs(ours - theirs).max()) <= 0.51 * unit  # rounded once


@pytest.mark.parametrize("per", ["tensor", "solution"])
@pytest.mark.parametrize("tie", [True, False])
def test_learned_coefficients_are_those_of_adam_by_hand(per, tie):
    modules = [small(seed, tie=tie).double() for seed in range(3)]
    base, *solutions = map(copied, modules)
    inputs, _ = tokens()
    merger = AdaMerging(Network.of(modules[0]), inputs, per=per, steps=7, rate=0.05, batch_size=4, seed=3)
    found = merger.learn(solutions, base=base)
    names = [name for name, _ in modules[0].named_parameters()]
    values = torch.full((len(names) if per == "tensor" else 1, 2), 0.3, dtype=torch.float64, requires_grad=True)

    def merged(factors):
        rows = factors.expand(len(names), 2)
        return {n: base[n] + sum(rows[r, k] * (s[n] - base[n]) for k, s in enumerate(solutions))
                for r, n in enumerate(names)}  # fmt: skip

    def entropy(factors, batch):
        shares = torch.func.functional_call(modules[0], merged(factors), (batch,)).softmax(-1)
        return -(shares * shares.log()).sum(-1).mean()

    assert found.entropy_before == pytest.approx(float(entropy(values.detach(), inputs)), rel=1e-12)
    first, second = torch.zeros_like(values), torch.zeros_like(values)
    generator = child(3, "adaptive merging")
    for step in range(1, 8):
        places = torch.randint(len(inputs), (4,), generator=generator)
        (slope,) = torch.autograd.grad(entropy(values, inputs[places]), values)
        first, second = 0.9 * first + 0.1 * slope, 0.999 * second + 0.001 * slope**2
        move = (first / (1 - 0.9**step)) / ((second / (1 - 0.999**step)).sqrt() + 1e-8)
        values = (values - 0.05 * move).detach().requires_grad_()
    torch.testing.assert_close(found.values, values.detach(), rtol=0, atol=1e-10)
    assert found.entropy_after == pytest.approx(float(entropy(values.detach(), inputs)), rel=1e-10)
    assert found.tensors == (tuple(names) if per == "tensor" else ("*",))
    for name, tensor in merged(values).items():
        torch.testing.assert_close(merger.apply(found, solutions, base=base)[name], tensor.detach(), atol=1e-10, rtol=0)


@pytest.mark.filterwarnings("ignore::isthmus.merge.BatchStatisticsWarning")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_coefficients_of_half_precision_are_learned_with_batch_normalisation(dtype):
    base, *solutions = (copied(small(seed, tie=False, norm=True).to(dtype)) for seed in range(3))
    inputs, _ = tokens()
    merger = AdaMerging(Network.of(small(0, tie=False, norm=True).to(dtype)), inputs, steps=1)
    wide = [{n: t.float() if t.is_floating_point() else t for n, t in w.items()} for w in (base, *solutions)]
    other = AdaMerging(Network.of(small(0, tie=False, norm=True)), inputs, steps=1).learn(wide[1:], base=wide[0])
    assert merger.learn(solutions, base=base).entropy_before == pytest.approx(other.entropy_before, rel=1e-6)


def test_coefficients_of_tensors_of_several_precisions():
    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Linear(3, 4), nn.Linear(4, 3).double()

        def forward(self, inputs):
            return self.last(self.first(inputs).double())

    inputs = torch.randn(9, 3)
    modules = [Mixed() for _ in range(3)]
    merger = AdaMerging(Network.of(modules[0]), inputs, steps=1)
    found = merger.learn([copied(module) for module in modules[1:]], base=copied(modules[0]))
    whole = [module.double() for module in modules]
    exact = AdaMerging(Network.of(whole[0]), inputs.double(), steps=1)
    other = exact.learn([copied(module) for module in whole[1:]], base=copied(whole[0]))
    assert found.entropy_before == pytest.approx(other.entropy_before, rel=1e-5)


@pytest.mark.parametrize("labels", ["data", "expected"])
def test_ignored_labels_count_nowhere_in_a_fisher_information(labels):
    network = Network.of(small(1, tie=False).double())
    inputs, targets = tokens()
    counts = torch.arange(len(targets)) % 3 != 0
    ignored = torch.where(counts, targets, -100)
    found = diagonal_fisher(Objective(network, inputs, ignored, batch_size=4), network.weights, labels=labels)
    alone = diagonal_fisher(Objective(network, inputs[counts], targets[counts]), network.weights, labels=labels)
    for name, tensor in alone.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-12, atol=1e-15)
    with pytest.raises(DataError, match="at least one label that counts"):
        diagonal_fisher(Objective(network, inputs, torch.full_like(targets, -100)), network.weights, labels="data")


def test_expected_fisher_information_is_exact_in_double_precision():
    # Softmax regression: the diagonal for weight (c, i) is the mean of p_c·(1 − p_c)·x_i².
    layer = nn.Linear(3, 4, bias=False).double()
    inputs = torch.randn(9, 3, dtype=torch.float64)
    objective = Objective(Network.of(layer), inputs, torch.zeros(9, dtype=torch.long), batch_size=4)
    shares = layer(inputs).softmax(1)
    exact = torch.einsum("ec,ei->ci", shares * (1 - shares), inputs.square()) / 9
    torch.testing.assert_close(diagonal_fisher(objective, dict(layer.state_dict()))["weight"], exact.detach(),
                               rtol=1e-13, atol=0)  # fmt: skip


def test_weights_that_are_not_normalised_may_sum_to_zero():
    one, other = {"w": torch.tensor([3.0, 1.0])}, {"w": torch.tensor([1.0, 1.0])}
    assert Weighted((1.0, -1.0), normalise=False)([one, other])["w"].tolist() == [2.0, 0.0]


@pytest.mark.filterwarnings("ignore::isthmus.merge.BatchStatisticsWarning")
@pytest.mark.parametrize("t", [0.0, 0.3, 1.0])
def test_running_statistics_lie_on_the_line_and_not_on_the_arc(tmp_path, t):
    start, end = drawn(5), drawn(2)
    save(start, tmp_path / "start.safetensors")
    save(end, tmp_path / "end.safetensors")
    content = {"merge_method": "slerp", "base_model": str(tmp_path / "start.safetensors"), "parameters": {"t": t},
               "models": [{"model": str(tmp_path / "end.safetensors")}]}  # fmt: skip
    merge_files(Configuration.of(content), tmp_path / "out.safetensors")
    on_disk, apart = load(tmp_path / "out.safetensors"), SLERP(t)([start, end])
    for merged in (on_disk, apart, SLERP(t, scope="model")([start, end])):
        for name in ("bn.running_mean", "bn.running_var"):
            torch.testing.assert_close(merged[name], (1 - t) * start[name] + t * end[name], rtol=0, atol=1e-12)
        assert int(merged["bn.num_batches_tracked"]) == 5
    for name, tensor in apart.items():
        torch.testing.assert_close(on_disk[name], tensor, rtol=0, atol=1e-12)


@pytest.mark.filterwarnings("ignore::isthmus.merge.BatchStatisticsWarning")
def test_the_angle_of_a_model_is_that_of_its_weights():
    start, end = drawn(5), drawn(2)
    bare = [{n: t for n, t in weights.items() if not second_ways.statistic(n)} for weights in (start, end)]
    for name, tensor in SLERP(0.4, scope="model")(bare).items():
        assert torch.equal(SLERP(0.4, scope="model")([start, end])[name], tensor)
