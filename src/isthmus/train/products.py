"""Products of many small matrices on a CPU, by a kernel of our own where it is the faster one.

A compiled step of perceptrons is mostly batched products of small matrices, which torch hands to a library. How well
the library does depends on the processor and the shapes: on one AMD core it was measured at 87 GFLOP/s for 16 products
of (32, 64) by (64, 64), where the core reaches 220. ``products.cpp`` reaches 170 to 200 there. Both are timed, shape by
shape, when a step is compiled, and torch keeps what it does much faster; without a compiler, or where the kernel would
be wrong, it keeps all.

The kernel is built and called through ``torch._inductor``, as everything else in a compiled step is. What torch may
change there ends in :func:`kernel` returning None.
"""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable
from importlib import resources
from typing import Any

import torch
from torch import Tensor, fx

_TYPES = {torch.float32: "float", torch.float64: "double"}
_ROUNDS = 5
_LONG = 0.002  # seconds of one timed round: long beside the clock, short beside compiling
_SLOWER = 1.5  # times as long as torch our kernel may take: noise hardly ever decides, so runs repeat bit for bit
_ALLOWED = {torch.float32: 1e-4, torch.float64: 1e-12}  # relative, for the largest entry: rounding, with room

aten = torch.ops.aten
Kernel = Callable[..., None]


@torch.library.custom_op("isthmus::products", mutates_args=(), schema="(Tensor left, Tensor right) -> Tensor")
def products(left: Tensor, right: Tensor) -> Tensor:
    """Stacked matrix products; in a compiled step this is the kernel."""
    return torch.bmm(left, right)


@products.register_fake
def _shape(left: Tensor, right: Tensor) -> Tensor:
    return left.new_empty((left.shape[0], left.shape[1], right.shape[2]))


@functools.cache
def kernel(dtype: torch.dtype) -> Kernel | None:
    """The built kernel for a type; None where it cannot be built, or gives wrong results."""
    try:
        from torch._inductor.codecache import CppPythonBindingsCodeCache

        name = _TYPES[dtype]
        numbers = [f"int64_t n{index}" for index in range(11)]
        given = ", ".join(["out", "left", "right", *(f"n{index}" for index in range(11))])
        source = resources.files("isthmus.train").joinpath("products.cpp").read_text(encoding="utf-8") + (
            f'extern "C" void kernel({name}* out, const {name}* left, const {name}* right, {", ".join(numbers)}) '
            f"{{ products<{name}>({given}); }}\n"
        )
        pointers = [f"{name}*", f"const {name}*", f"const {name}*"]
        built: Kernel = CppPythonBindingsCodeCache.load_pybinding([*pointers, *["const int64_t"] * 11], source)
        _lowering()
        return built if _right(built, dtype) else None
    except Exception:  # no compiler, or another torch: products stay torch's own
        return None


def write(left: Tensor, right: Tensor, *, out: Tensor) -> None:
    """The kernel's call; ``out`` is contiguous."""
    built = kernel(left.dtype)
    assert built is not None
    count, rows, depth = left.shape
    threads = torch.get_num_threads()
    built(out, left, right, count, rows, right.shape[2], depth, *left.stride(), *right.stride(), threads)


@functools.cache
def _lowering() -> None:
    """Tell the compiler to call the kernel for :func:`products`, into memory that the compiler plans."""
    from torch._inductor import ir, lowering
    from torch._inductor.select_algorithm import ExternKernelChoice

    choice = ExternKernelChoice(write, name="isthmus_products")

    def lowered(left: Any, right: Any) -> Any:
        factors = [ir.ExternKernel.realize_input(factor) for factor in (left, right)]
        (count, rows, _), (_, _, wide) = (factor.get_size() for factor in factors)
        layout = ir.FixedLayout(factors[0].get_device(), factors[0].get_dtype(), [count, rows, wide])
        return choice.bind(factors, layout).output_node()

    lowering.register_lowering(torch.ops.isthmus.products, type_promotion_kind=None)(lowered)


def _right(built: Kernel, dtype: torch.dtype) -> bool:
    """Whether a kernel multiplies, for sizes that use all its parts, against torch in double precision."""
    generator = torch.Generator().manual_seed(0)
    for rows, depth, wide in ((1, 1, 1), (37, 33, 85), (16, 64, 64)):
        left, right = (torch.randn(2, *size, generator=generator, dtype=torch.float64).to(dtype)
                       for size in ((rows, depth), (depth, wide)))  # fmt: skip
        wanted = torch.bmm(left.double(), right.double())
        for one in (left, left.mT.contiguous().mT):
            for other in (right, right.mT.contiguous().mT):
                out = torch.full_like(wanted, float("nan"), dtype=dtype)
                built(out, one, other, 2, rows, wide, depth, *one.stride(), *other.stride(), 1)
                if not bool((out - wanted).abs().max() <= _ALLOWED[dtype] * wanted.abs().max()):
                    return False
    return True


def take_over(graph: fx.Graph) -> None:
    """Let a traced step on a CPU take products the faster way: transposed results as such, and by our own kernel.

    Autograd asks for a weight's gradient as its transpose's, (inputs, outputs), and transposes that. The transpose of
    a product is the product of the transposes; so the gradient comes in the weight's own layout.
    """
    for node in list(graph.nodes):
        if node.target is not aten.bmm.default:
            continue
        factors, product = [_Factor.of(factor) for factor in node.args], node
        users = list(node.users)
        if users and all(_swaps(user) for user in users):
            factors = [factor.swapped() for factor in reversed(factors)]
            with graph.inserting_before(node):
                product = graph.call_function(
                    aten.bmm.default, tuple(_swapped(graph, one) for one in reversed(node.args))
                )
            for user in users:
                user.replace_all_uses_with(product)
                graph.erase_node(user)
            graph.erase_node(node)
        if _ours(*factors):
            product.target = torch.ops.isthmus.products.default
    graph.eliminate_dead_code()


@dataclasses.dataclass(frozen=True)
class _Factor:
    """What the time of a product depends on."""

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: torch.dtype

    @classmethod
    def of(cls, node: Any) -> _Factor:
        tensor = node.meta.get("val", node.meta.get("tensor_meta"))
        strides = tensor.stride() if callable(getattr(tensor, "stride", None)) else tensor.stride
        return cls(tuple(tensor.shape), tuple(strides), tensor.dtype)

    def swapped(self) -> _Factor:
        (count, *shape), (ahead, *strides) = self.shape, self.strides
        return dataclasses.replace(self, shape=(count, *reversed(shape)), strides=(ahead, *reversed(strides)))

    def example(self) -> Tensor:
        """Ones, whatever the strides, so that no number is a slow one."""
        held = 1 + sum((size - 1) * stride for size, stride in zip(self.shape, self.strides, strict=True))
        return torch.ones(held, dtype=self.dtype).as_strided(self.shape, self.strides)


def _swaps(node: fx.Node) -> bool:
    """Whether a node exchanges the last two of three axes."""
    if node.target is aten.transpose.int:
        return {axis % 3 for axis in node.args[1:]} == {1, 2}  # type: ignore[operator]
    return node.target is aten.permute.default and [axis % 3 for axis in node.args[1]] == [0, 2, 1]  # type: ignore[operator,union-attr]


def _swapped(graph: fx.Graph, node: Any) -> fx.Node:
    return node.args[0] if _swaps(node) else graph.call_function(aten.transpose.int, (node, 1, 2))


@functools.cache
def _ours(left: _Factor, right: _Factor) -> bool:
    """Whether our own kernel takes such factors, and torch is not much faster there."""
    if left.dtype not in _TYPES or kernel(left.dtype) is None:
        return False
    one, other = left.example(), right.example()
    out = torch.empty(one.shape[0], one.shape[1], other.shape[2], dtype=one.dtype)
    ways: tuple[Callable[[], object], ...] = (
        lambda: write(one, other, out=out),
        lambda: torch.bmm(one, other, out=out),
    )
    best = [float("inf")] * 2
    lengths = [max(1, int(_LONG / _seconds(way, 1))) for way in ways]
    for _ in range(_ROUNDS):
        for index, way in enumerate(ways):
            best[index] = min(best[index], _seconds(way, lengths[index]) / lengths[index])
    return best[0] < best[1] * _SLOWER


def _seconds(way: Callable[[], object], times: int) -> float:
    begin = time.perf_counter()
    for _ in range(times):
        way()
    return time.perf_counter() - begin
