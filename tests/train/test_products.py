"""Our own kernel for stacked products, and the rewriting of traced steps that calls it."""

import shutil

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from isthmus.train import products

needs_compiler = pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="needs a C++ compiler")

SIZES = [
    (1, 1, 1),
    (2, 3, 5),
    (32, 64, 64),
    (32, 64, 10),
    (7, 32, 100),
    (33, 17, 50),
    (16, 40, 31),
    (6, 1, 64),
    (1, 64, 16),
]


def factor(count: int, rows: int, columns: int, *, layout: str, dtype: torch.dtype) -> torch.Tensor:
    generator = torch.Generator().manual_seed(rows * 1000 + columns)
    if layout == "columns":
        return torch.randn(count, columns, rows, generator=generator, dtype=dtype).mT
    if layout == "apart":  # in every second row and third column of something larger
        return torch.randn(count, 2 * rows, 3 * columns, generator=generator, dtype=dtype)[:, ::2, ::3]
    if layout == "one for all":
        return torch.randn(1, rows, columns, generator=generator, dtype=dtype).expand(count, rows, columns)
    return torch.randn(count, rows, columns, generator=generator, dtype=dtype)


@needs_compiler
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("right", ["rows", "columns", "apart", "one for all"])
@pytest.mark.parametrize("left", ["rows", "columns", "apart", "one for all"])
def test_products_of_any_size_and_layout(left, right, dtype):
    assert products.kernel(dtype) is not None
    for rows, depth, wide in SIZES:
        one = factor(3, rows, depth, layout=left, dtype=dtype)
        other = factor(3, depth, wide, layout=right, dtype=dtype)
        room = torch.full((3 * rows * wide + 64,), 7.0, dtype=dtype)  # nothing may be written behind the result
        out = room[: 3 * rows * wide].view(3, rows, wide)
        products.write(one, other, out=out)
        wanted = torch.einsum("rik,rkj->rij", one.double(), other.double())
        torch.testing.assert_close(out.double(), wanted, rtol=1e-5 if dtype is torch.float32 else 1e-13, atol=1e-5)
        assert (room[3 * rows * wide :] == 7).all()


@needs_compiler
def test_several_threads_share_the_stack():
    one, other = (
        factor(9, 32, 20, layout="rows", dtype=torch.float32),
        factor(9, 20, 24, layout="columns", dtype=torch.float32),
    )
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            results.append(torch.empty(9, 32, 24))
            products.write(one, other, out=results[-1])
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*results)
    torch.testing.assert_close(results[0], one @ other)


@pytest.mark.parametrize("wrong", ["nothing written", "transposed right factor", "one row too few"])
def test_a_wrong_kernel_is_refused(wrong):
    def built(out, left, right, *numbers):
        if wrong == "transposed right factor":
            right = right.flatten(1).view(right.shape[0], right.shape[2], right.shape[1]).mT
        if wrong != "nothing written":
            out.copy_(torch.bmm(left, right))
        if wrong == "one row too few":
            out[:, -1] = 0

    assert not products._right(built, torch.float32)
    assert products._right(lambda out, left, right, *numbers: out.copy_(torch.bmm(left, right)), torch.float32)


def traced(function, *inputs):
    graph = make_fx(function)(*inputs)
    products.take_over(graph.graph)
    graph.recompile()
    return graph, [node.target for node in graph.graph.nodes if node.op == "call_function"]


@pytest.mark.parametrize("own", [True, False])
def test_transposed_products_are_products_of_transposes(monkeypatch, own):
    monkeypatch.setattr(products, "_ours", lambda left, right: own)
    aten = torch.ops.aten
    images, slopes = torch.randn(3, 5, 7), torch.randn(3, 5, 2)
    multiplied = torch.ops.isthmus.products.default if own else aten.bmm.default
    once, calls = traced(lambda x, g: torch.bmm(x.transpose(1, 2), g).transpose(2, 1) * 2, images, slopes)
    assert calls == [aten.transpose.int, multiplied, aten.mul.Tensor]
    torch.testing.assert_close(once(images, slopes), 2 * torch.einsum("rbi,rbo->roi", images, slopes))

    def used_twice(x, g):
        product = torch.bmm(x.mT, g)
        return product.permute(0, 2, 1) + product.sum()

    twice, calls = traced(used_twice, images, slopes)
    assert aten.permute.default in calls  # the product is wanted as it is, too
    both = torch.einsum("rbi,rbo->rio", images, slopes)
    torch.testing.assert_close(twice(images, slopes), both.mT + both.sum())


@pytest.mark.parametrize(("slower", "own"), [(0.5, True), (1.4, True), (1.6, False), (3.0, False)])
def test_torch_keeps_what_it_does_much_faster(monkeypatch, slower, own):
    monkeypatch.setattr(products, "kernel", lambda dtype: len)
    monkeypatch.setattr(products, "write", lambda left, right, *, out: "ours")
    times = {"ours": 1e-5 * slower, "torch": 1e-5}
    monkeypatch.setattr(
        products, "_seconds", lambda way, number: number * times["ours" if way() == "ours" else "torch"]
    )
    shape = products._Factor((2, 3, 3), (9, 3, 1), torch.float32)
    assert products._ours.__wrapped__(shape, shape) is own
    assert not products._ours.__wrapped__(products._Factor((2, 3, 3), (9, 3, 1), torch.bfloat16), shape)
