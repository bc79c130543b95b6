"""Sums written as a tree, (a + b) + (c + d), as one running sum: all that enters it enters alike.

Otherwise the halves of a tree would be units, and what is summed units inside of them: a nested group instead of all.
"""

from __future__ import annotations

from torch import Tensor, fx
from torch.export import ExportedProgram

from isthmus.discover.graphs import name_of

#: Operations that may be done in any order.
_FREE = frozenset({"aten.add", "aten.mul", "aten.maximum", "aten.minimum"})


def straighten(program: ExportedProgram) -> ExportedProgram:
    """The program with every tree of sums (products, maxima) of equal shape written as a running one, in place."""
    graph = program.graph
    for root in list(graph.nodes):
        if not _free(root) or any(_inside(user, root) for user in root.users):
            continue
        parts = _parts(root, root)
        if _bent(root):
            _rewrite(graph, root, parts)
    return program


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
