"""Operations without a rule, taken apart into the simpler operations that PyTorch itself makes them of."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree


def taken_apart(node: fx.Node) -> fx.GraphModule | None:
    """The graph of one operation's parts, its inputs the operation's tensors in order; None if it has no parts."""
    if not isinstance(node.target, torch._ops.OpOverload) or node.target._schema.is_mutable:
        return None
    if torch.Tag.nondeterministic_seeded in node.target.tags:
        return None
    from torch.fx.experimental.proxy_tensor import make_fx

    values, layout = pytree.tree_flatten((node.args, node.kwargs))
    examples = [_example(value) for value in values]
    places = [place for place, example in enumerate(examples) if isinstance(example, Tensor)]
    mode = next((getattr(examples[place], "fake_mode", None) for place in places), None)
    if mode is None:
        return None

    def run(*tensors: Tensor) -> Any:
        filled = list(examples)
        for place, tensor in zip(places, tensors, strict=True):
            filled[place] = tensor
        arguments, keywords = pytree.tree_unflatten(filled, layout)
        return node.target(*arguments, **keywords)  # type: ignore[operator]

    try:
        with mode, torch.no_grad():
            made = make_fx(run, decomposition_table=_decompositions())(*[examples[place] for place in places])
    except Exception:  # whatever another library's tracing may raise: the operation stays whole
        return None
    made.graph.eliminate_dead_code()
    if any(part.target is node.target for part in made.graph.nodes):
        return None
    return made


def _example(value: Any) -> Any:
    return value.meta.get("val") if isinstance(value, fx.Node) else value


@functools.cache
def _decompositions() -> Mapping[Any, Callable[..., Any]]:
    from torch._decomp import core_aten_decompositions

    return core_aten_decompositions()
