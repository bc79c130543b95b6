"""A graph in plainer words: the same network, and more of its freedom in sight.

A sum written as a tree, (a + b) + (c + d), becomes one running sum: otherwise the halves would be units, and what is
summed units inside of them. Parts of a value that are put together again along another axis are the value itself with
its axes in another order: otherwise each part would be read on its own. A slice of all there is, which older torch
exports for each ``:`` of an index, is what it is taken of.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import Tensor, fx
from torch.export import ExportedProgram

from isthmus.discover.graphs import mutates, name_of, same_memory

#: Operations that may be done in any order.
_FREE = frozenset({"aten.add", "aten.mul", "aten.maximum", "aten.minimum"})


_PARTING = frozenset({"aten.chunk", "aten.split", "aten.split_with_sizes", "aten.tensor_split"})


def straighten(program: ExportedProgram) -> ExportedProgram:
    """The program with trees of sums (products, maxima) as running ones, and no needless parting or slice; in place."""
    graph = program.graph
    for node in list(graph.nodes):
        if (same := _all_of(node)) is not None:
            node.replace_all_uses_with(same)
            graph.erase_node(node)
    for node in list(graph.nodes):
        if name_of(node) == "aten.cat" and (source := _parted(node)) is not None:
            _reorder(graph, node, *source)
    for root in list(graph.nodes):
        if not _free(root) or any(_inside(user, root) for user in root.users):
            continue
        parts = _parts(root, root)
        if _bent(root):
            _rewrite(graph, root, parts)
    return program


def _all_of(node: fx.Node) -> fx.Node | None:
    """What a slice takes all of, or what is written over all of something; None if a node is neither."""
    name = name_of(node)
    if node.op != "call_function" or name not in ("aten.slice", "aten.slice_scatter"):
        return None
    source: Any = node.args[0 if name == "aten.slice" else 1]
    form = _form(node)
    if form is None or form != _form(source) or not all(isinstance(size, int) for size in node.meta["val"].shape):
        return None
    if any(user.op == "output" for user in node.users):
        return None  # the signature knows outputs by their names
    copies = name == "aten.slice_scatter" and any(mutates(one) for one in same_memory(node) | same_memory(source))
    return None if copies else source


def _parted(node: fx.Node) -> tuple[fx.Node, int, int, int] | None:
    """Of which value a concatenation puts all parts together in order: the axis and number of parts, the new axis."""
    parts: Any = node.args[0]
    if node.op != "call_function" or not all(one.target is operator.getitem for one in parts):
        return None
    parting: fx.Node = parts[0].args[0]
    whole = [(one.args[0], one.args[1]) for one in parts] == [(parting, k) for k in range(len(parts))]
    if not whole or name_of(parting) not in _PARTING or len(parting.meta["val"]) != len(parts):
        return None
    shapes = {tuple(one.meta["val"].shape) for one in parts}
    if len(shapes) > 1 or not all(isinstance(size, int) for size in next(iter(shapes))):
        return None
    given: Any = parting.args[2:3] or (parting.kwargs.get("dim", 0),)
    new: Any = node.args[1:2] or (node.kwargs.get("dim", 0),)
    rank = len(next(iter(shapes)))
    source: Any = parting.args[0]
    if any(mutates(one) for one in same_memory(node) | same_memory(source)):
        return None  # what is written into the copy must not be written into the value
    return source, int(given[0]) % rank, len(parts), int(new[0]) % rank


def _reorder(graph: fx.Graph, node: fx.Node, source: fx.Node, axis: int, number: int, new: int) -> None:  # noqa: PLR0917
    """One value's parts along an axis side by side along another, as views."""
    shape = list(source.meta["val"].shape)
    order = [k for k in range(len(shape) + 1) if k != axis]
    order.insert(order.index(new if new < axis else new + 1), axis)
    opened = [*shape[:axis], number, shape[axis] // number, *shape[axis + 1 :]]
    made = source
    with graph.inserting_before(node):
        for target, given in (
            (torch.ops.aten.reshape.default, opened),
            (torch.ops.aten.permute.default, order),
            (torch.ops.aten.reshape.default, list(node.meta["val"].shape)),
        ):
            value = target(made.meta["val"], given)
            made = graph.call_function(target, (made, given))
            made.meta = {**node.meta, "val": value}
    node.replace_all_uses_with(made)
    parts: Any = node.args[0]
    graph.erase_node(node)
    for part in dict.fromkeys(parts):
        if not part.users:
            graph.erase_node(part)


def _free(node: fx.Node) -> bool:
    given = node.args
    whole = len(given) == 2 and not node.kwargs and all(isinstance(one, fx.Node) for one in given)
    return node.op == "call_function" and whole and name_of(node) in _FREE and _form(node) is not None


def _form(node: fx.Node) -> object:
    value = node.meta.get("val")
    return (tuple(value.shape), value.dtype) if isinstance(value, Tensor) else None


def _inside(root: fx.Node, node: fx.Node) -> bool:
    """Whether a node is nothing but a part of what another computes."""
    alone = len(node.users) == 1 and root.args.count(node) == 1
    alike = root.target is node.target and _form(root) == _form(node)
    return alone and alike and _free(root) and _free(node) and {_form(one) for one in _given(node)} == {_form(node)}


def _given(node: fx.Node) -> list[fx.Node]:
    return [one for one in node.args if isinstance(one, fx.Node)]


def _parts(node: fx.Node, root: fx.Node) -> list[fx.Node]:
    """What a tree brings together, from left to right."""
    found: list[fx.Node] = []
    waiting = _given(node)[::-1]
    while waiting:
        one = waiting.pop()
        user = next(iter(one.users))
        if _free(one) and user.target is root.target and _inside(user, one):
            waiting += _given(one)[::-1]
        else:
            found.append(one)
    return found


def _bent(root: fx.Node) -> bool:
    """Whether a tree is none that grows on its left alone, and all it brings together have one form."""
    node: fx.Node = root
    if any(_form(one) != _form(root) for one in _given(root)):
        return False
    while True:
        left, right = _given(node)
        if _inside(node, right):
            return True
        if not _inside(node, left):
            return False
        node = left


def _rewrite(graph: fx.Graph, root: fx.Node, parts: list[fx.Node]) -> None:
    total = parts[0]
    with graph.inserting_before(root):
        for part in parts[1:]:
            total = graph.call_function(root.target, (total, part))  # type: ignore[arg-type]
            total.meta = dict(root.meta)
    root.replace_all_uses_with(total)
    gone = [root]
    for node in gone:
        used = _given(node)
        graph.erase_node(node)
        gone += [one for one in used if not one.users and one not in parts]
