"""Neighbouring operations of a traced step that the kernels take in one pass: sums and rectifiers beside normalisation.

A graph comes in with operations of :mod:`isthmus.train.kernels.operations` among torch's own, and the fused ones are
the same arithmetic with fewer roundings.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch.fx import Graph, Node

from isthmus.train.kernels import operations  # noqa: F401 - registers the operations

_ATEN: Any = torch.ops.aten
_OURS: Any = torch.ops.isthmus
_IN_PLACE = {_ATEN.relu_.default: _ATEN.relu.default, _ATEN.add_.Tensor: _ATEN.add.Tensor}


def out_of_place(graph: Graph) -> None:
    """Write sums and rectifiers that overwrite their input as ones that do not, where nobody reads the input after."""
    fresh = {_OURS.normalise.default, _OURS.convolve.default, _ATEN.add.Tensor, _ATEN.relu.default}
    reading = {*fresh, _OURS.moments.default, _OURS.slope_sums.default, _OURS.input_slopes.default}  # no views
    place = {node: index for index, node in enumerate(graph.nodes)}
    for node in graph.nodes:
        if node.target not in _IN_PLACE or not isinstance(node.args[0], Node):
            continue
        source = node.args[0]
        others = [user for user in source.users if user is not node]
        if source.target in fresh and all(place[user] < place[node] and user.target in reading for user in others):
            node.target = _IN_PLACE[node.target]


def fuse(graph: Graph) -> None:
    """Fuse what can be, in the forward pass and then in the backward one."""
    for node in list(graph.nodes):
        if node.target is _OURS.normalise.default:
            _forward(graph, node)
    for node in list(graph.nodes):
        if node.target is _ATEN.threshold_backward.default and node.args[2] == 0:
            _backward(graph, node)
    for node in list(graph.nodes):
        if node.target is _ATEN.add.Tensor:
            _added(graph, node)
    graph.eliminate_dead_code()


def _alike(one: Any, other: Any) -> bool:
    """Whether two nodes are tensors of one shape and type."""
    first, second = (node.meta.get("val") if isinstance(node, Node) else None for node in (one, other))
    if not isinstance(first, torch.Tensor) or not isinstance(second, torch.Tensor):
        return False
    return first.shape == second.shape and first.dtype is second.dtype


def _plain_sum(node: Node) -> bool:
    return node.target is _ATEN.add.Tensor and bool(node.kwargs.get("alpha", 1) == 1) and _alike(*node.args[:2])


def _only_user(node: Node) -> Node | None:
    return next(iter(node.users)) if len(node.users) == 1 else None


def _forward(graph: Graph, node: Node) -> None:
    last, added = node, None
    user = _only_user(node)
    if user is not None and _plain_sum(user) and user.args[0] is not user.args[1] and _alike(user, node):
        added, last = next(part for part in user.args[:2] if part is not node), user
        user = _only_user(user)
    rectified = user is not None and user.target is _ATEN.relu.default
    if rectified and user is not None:
        last = user
    if last is node:
        return
    with graph.inserting_before(last):
        fused = graph.call_function(_OURS.normalise.default, (*node.args[:5], added, rectified))
    fused.meta = dict(last.meta)
    last.replace_all_uses_with(fused)
    while last is not node:
        before = next(part for part in last.args if isinstance(part, Node) and part is not added)
        graph.erase_node(last)
        last = before
    graph.erase_node(node)


def _backward(graph: Graph, node: Node) -> None:
    slopes, outputs = node.args[:2]
    if not isinstance(outputs, Node) or outputs.target is not _OURS.normalise.default or not outputs.args[6]:
        return
    sums = [user for user in node.users if user.target is _OURS.slope_sums.default and user.args[0] is node]
    if not sums:
        return
    first = sums[0]
    with_it = [
        user for user in node.users if user.target is _OURS.input_slopes.default and user.args[1] is first.args[1]
    ]
    same = all(user.args[1:6] == outputs.args[:5] for user in (first, *with_it))
    if outputs.args[5] is None and same and set(node.users) == {first, *with_it}:
        first.args = (slopes, *first.args[1:6], None, True, None)
        for user in with_it:
            user.args = (slopes, *user.args[1:8], True)
        graph.erase_node(node)
        return
    whole, more = slopes, None
    if isinstance(slopes, Node) and len(slopes.users) == 1 and _plain_sum(slopes):
        slopes, more = slopes.args[:2]
    with graph.inserting_before(node):
        fused = graph.call_function(_OURS.slope_sums.default, (slopes, *first.args[1:6], outputs, True, more))
        kept = graph.call_function(operator.getitem, (fused, 2))
    kept.meta = dict(node.meta)
    first.replace_all_uses_with(fused)
    graph.erase_node(first)
    node.replace_all_uses_with(kept)
    graph.erase_node(node)
    if more is not None and isinstance(whole, Node):
        graph.erase_node(whole)


def _added(graph: Graph, node: Node) -> None:
    if not _plain_sum(node) or node.args[0] is node.args[1]:
        return
    for part, other in (node.args[:2], node.args[1::-1]):
        assert isinstance(part, Node)
        if part.target is _OURS.image_slopes.default and part.args[5] is None and len(part.users) == 1:
            with graph.inserting_before(node):
                fused = graph.call_function(_OURS.image_slopes.default, (*part.args[:5], other, *part.args[6:]))
            fused.meta = dict(node.meta)
            node.replace_all_uses_with(fused)
            graph.erase_node(node)
            graph.erase_node(part)
            return
