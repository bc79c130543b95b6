"""Branches that no input and no weight decides: told while a module is traced, where export sees no values.

Masks that a module makes for itself are numbers like any other, and whether one of them is set is the same for every
input of the example's shape. Branches that an input decides stay refused: another input might take the other one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import _disable_current_modes

from isthmus.discover.graphs import LARGEST_CONSTANT, filled_with, mutates, shapes_of

_ASKING = {"item", "tolist", "__bool__", "__int__", "__float__", "__index__"}


class Deciding(TorchFunctionMode):
    """Answers questions for a tensor's numbers from what the graph so far computes out of nothing."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.graphs: dict[fx.Graph, _Numbers] = {}
        self.held = _in_order(module)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """The number itself where it is known; otherwise whatever export does."""
        if getattr(func, "__name__", "") in _ASKING and args and isinstance(args[0], FakeTensor):
            found = self._number(args[0])
            if found is not None:
                with _disable_current_modes():
                    return func(found)
        return func(*args, **(kwargs or {}))

    def _number(self, value: Tensor) -> Tensor | None:
        """The number behind a traced tensor."""
        from torch._ops import _get_dispatch_mode_pre_dispatch
        from torch.fx.experimental.proxy_tensor import get_proxy_slot

        mode: Any = _get_dispatch_mode_pre_dispatch(torch._C._TorchDispatchModeKey.PROXY)
        if mode is None:
            return None
        slot: Any = get_proxy_slot(value, mode.tracer, None)
        if slot is None:
            return None
        node = slot.proxy.node
        return self.graphs.setdefault(node.graph, _Numbers(mode.tracer.root, self.held)).of(node)


def _in_order(module: nn.Module) -> list[tuple[Tensor, bool]]:
    """Tensors in the order in which a graph is given them, and which of them are whole numbers that nobody learns."""
    parameters = [(tensor, False) for _, tensor in module.named_parameters(remove_duplicate=False)]
    buffers = [tensor for _, tensor in module.named_buffers(remove_duplicate=False)]
    return parameters + [(b, not (b.is_floating_point() or b.is_complex() or b.is_meta)) for b in buffers]


class _Numbers:
    """Values of one growing graph's nodes that depend on no placeholder, computed in its order."""

    def __init__(self, root: Any, held: Sequence[tuple[Tensor, bool]]) -> None:
        self.root, self.held = root, held
        self.values: dict[fx.Node, Any] = {}
        self.seen: set[fx.Node] = set()

    def of(self, wanted: fx.Node) -> Tensor | None:
        """A node's value, if it is known."""
        with torch._C.DisableTorchFunction(), _disable_current_modes():  # nothing of this belongs in the graph
            if not self.seen:
                self._take_buffers(wanted.graph)
            for node in list(wanted.graph.nodes):
                if node not in self.seen:
                    self.seen.add(node)
                    self._look(node)
        found = self.values.get(wanted)
        return found if isinstance(found, Tensor) else None

    def _take_buffers(self, graph: fx.Graph) -> None:
        """Whole numbers that the module keeps (strides, counters) are constants; parameters and inputs are not."""
        given = [node for node in graph.nodes if node.op == "placeholder"][: len(self.held)]
        shapes = [getattr(node.meta.get("val"), "shape", None) for node in given]
        if shapes == [tensor.shape for tensor, _ in self.held]:
            self.values |= {node: t.clone() for node, (t, still) in zip(given, self.held, strict=True) if still}

    def _look(self, node: fx.Node) -> None:
        if node.op == "get_attr":
            held = getattr(self.root, str(node.target), None)
            if isinstance(held, Tensor) and not isinstance(held, FakeTensor):
                self.values[node] = held.clone()
            return
        made = self._made(node) if node.op == "call_function" else None
        if made is not None:
            self.values[node] = made
        elif node.op == "call_function" and mutates(node):
            self._forget(node.args[0])

    def _made(self, node: fx.Node) -> Any:
        target = node.target
        if not isinstance(target, torch._ops.OpOverload) or torch.Tag.nondeterministic_seeded in target.tags:
            return None
        shapes = shapes_of(node)
        if any(not isinstance(n, int) for s in shapes for n in s) or sum(map(math.prod, shapes)) > LARGEST_CONSTANT:
            return None
        if (number := filled_with(node)) is not None:
            return torch.full(shapes[0], number, dtype=node.meta["val"].dtype)
        if any(used not in self.values for used in node.all_input_nodes) or "empty" in target.name():
            return None
        arguments = fx.map_arg(node.args, self.values.__getitem__)
        keywords = dict(fx.map_arg(node.kwargs, self.values.__getitem__))
        if "device" in keywords:
            keywords["device"] = torch.device("cpu")
        try:
            return target(*arguments, **keywords)
        except (RuntimeError, TypeError, NotImplementedError, ValueError, IndexError):
            return None

    def _forget(self, written: Any) -> None:
        """Memory into which something unknown was written is known no more, under whatever name."""
        value = self.values.get(written)
        if not isinstance(value, Tensor):
            return
        memory = value.untyped_storage().data_ptr()
        gone = [
            node
            for node, other in self.values.items()
            if isinstance(other, Tensor) and other.untyped_storage().data_ptr() == memory
        ]
        for node in gone:
            del self.values[node]
