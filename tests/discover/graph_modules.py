"""Modules of the zoo on graphs, one difficulty each: messages over edges."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from tests.discover.case import Calls, Case, linears, normal
from torch import Tensor

EDGES = torch.tensor([[0, 1, 2, 3, 4, 0, 2], [1, 2, 3, 4, 0, 2, 4]])


def graph_attention(m: Any, x: Tensor) -> Tensor:
    source, target = EDGES
    h = m.w(x).view(-1, 2, 3)
    scores = F.leaky_relu((h * m.left).sum(-1)[source] + (h * m.right).sum(-1)[target]).exp()
    total = torch.zeros(len(x), 2).index_add(0, target, scores)
    sent = (scores / total[target])[..., None] * h[source]
    return m.o(F.elu(torch.zeros(len(x), 2, 3).index_add(0, target, sent).flatten(1)))


def isomorphism_layer(m: Any, x: Tensor) -> Tensor:
    h = m.i(x)
    sent = torch.zeros_like(h).scatter_add(0, EDGES[1][:, None].expand(-1, 6), h[EDGES[0]])
    return m.b(F.relu(m.a((1 + m.eps) * h + sent)))


def edge_messages(m: Any, x: Tensor) -> Tensor:
    """Messages from both ends, the largest of each channel."""
    source, target = EDGES
    h = m.i(x)
    message = F.relu(m.a(torch.cat([h[source], h[target] - h[source]], -1)))
    index = target[:, None].expand(-1, 7)
    return m.o(torch.zeros(len(x), 7).scatter_reduce(0, index, message, "amax"))


GRAPHS: dict[str, Case] = {
    "graph attention": Case(
        lambda: Calls(graph_attention, left=normal(2, 3), right=normal(2, 3), **linears(w=(5, 6), o=(6, 2))),
        ((5, 5),),
        (2, 3, 3),
    ),
    "isomorphism layer": Case(
        lambda: Calls(isomorphism_layer, eps=normal(1), **linears(i=(5, 6), a=(6, 7), b=(7, 2))), ((5, 5),), (6, 7)
    ),
    "edge messages": Case(lambda: Calls(edge_messages, **linears(i=(5, 6), a=(12, 7), o=(7, 2))), ((5, 5),), (6, 7)),
}
