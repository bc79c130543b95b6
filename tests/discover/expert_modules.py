"""Experts of the zoo: one tensor or a list, chosen, gated or choosing, with sizes worked out by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from tests.discover.case import Calls, Case, lin, normal
from torch import Tensor, nn


def experts(m: Any, x: Tensor) -> Tensor:
    hidden = torch.relu(torch.einsum("bi,eih->beh", x, m.into))
    return (torch.einsum("beh,eho->beo", hidden, m.out) * torch.softmax(m.router(x), -1)[..., None]).sum(1)


def experts_by_bmm(m: Any, x: Tensor) -> Tensor:
    hidden = torch.relu(torch.bmm(x.expand(3, -1, -1), m.into))
    return (torch.bmm(hidden, m.out) * torch.softmax(m.router(x), -1).T[..., None]).sum(0)


def chosen(m: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    return torch.softmax(m.router(x), -1).topk(2, -1)


def picked_experts(m: Any, x: Tensor) -> Tensor:
    """Each token's two experts, their matrices and biases read by number."""
    weights, which = chosen(m, x)
    hidden = torch.relu(torch.einsum("ti,tkih->tkh", x, m.a[which]) + m.ab[which])
    return m.o(((torch.einsum("tkh,tkho->tko", hidden, m.b[which]) + m.bb[which]) * weights[..., None]).sum(1))


def corrected_choice(m: Any, x: Tensor) -> Tensor:
    """The choice is made with a correction that the weights do not have."""
    scores = torch.sigmoid(m.router(x))
    which = (scores + m.correction).topk(2, -1, sorted=False)[1]
    weights = scores.gather(1, which)
    hidden = torch.relu(torch.einsum("ti,tkih->tkh", x, m.a[which]))
    mixed = torch.einsum("tkh,tkho->tko", hidden, m.b[which]) * (weights / weights.sum(-1, keepdim=True))[..., None]
    return mixed.sum(1)


def scattered_gates(m: Any, x: Tensor) -> Tensor:
    """All experts are computed, gates of those not chosen are zero."""
    weights, which = m.router(x).topk(2, -1)
    gates = torch.zeros(len(x), 3).scatter(1, which, torch.softmax(weights, -1))
    hidden = torch.relu(torch.einsum("bi,eih->beh", x, m.a))
    return (torch.einsum("beh,eho->beo", hidden, m.b) * gates[..., None]).sum(1)


def one_hot_gates(m: Any, x: Tensor) -> Tensor:
    weights, which = chosen(m, x)
    gates = (F.one_hot(which, 3) * weights[..., None]).sum(1)
    hidden = torch.relu(torch.bmm(x.expand(3, -1, -1), m.a) + m.ab[:, None])
    return (torch.bmm(hidden, m.b) * gates.T[..., None]).sum(0)


def one_expert_each(m: Any, x: Tensor) -> Tensor:
    weights, which = torch.softmax(m.router(x), -1).max(-1)
    return torch.bmm(torch.relu(torch.bmm(x[:, None], m.a[which])), m.b[which])[:, 0] * weights[:, None]


def listed_experts(m: Any, x: Tensor) -> Tensor:
    """Experts in a list, each computed for all tokens under a mask."""
    weights, which = chosen(m, x)
    return m.o(sum(part(x) * (weights * (which == e)).sum(-1, keepdim=True) for e, part in enumerate(m.list)))


def dispatched_experts(m: Any, x: Tensor) -> Tensor:
    """Experts in a list, each computed for its own tokens: sizes depend on values."""
    weights, which = chosen(m, x)
    mask, result = F.one_hot(which, 3).permute(2, 1, 0), torch.zeros(len(x), 4)
    for e, part in enumerate(m.list):
        slot, token = torch.where(mask[e])
        result.index_add_(0, token, part(x[token]) * weights[token, slot, None])
    return m.o(result)


def choosing_experts(m: Any, x: Tensor) -> Tensor:
    """Experts choose tokens."""
    weights, token = torch.softmax(m.router(x), -1).T.topk(2, -1)
    hidden = torch.relu(torch.einsum("eci,eih->ech", x[token], m.a))
    made = torch.einsum("ech,eho->eco", hidden, m.b) * weights[..., None]
    return torch.zeros(len(x), 2).index_add(0, token.reshape(-1), made.reshape(-1, 2))


def routed(function: Callable[..., Any], **parts: Any) -> Case:
    """Three experts of four channels, as one tensor."""

    def make() -> nn.Module:
        made = {name: part() for name, part in parts.items()}
        return Calls(function, router=lin(5, 3), a=normal(3, 5, 4), b=normal(3, 4, 2), **made)

    stream = (2,) if "o" in parts else ()
    return Case(make, ((6, 5),), (3, 4, 4, 4, *stream))


def expert_list() -> nn.ModuleList:
    return nn.ModuleList([nn.Sequential(lin(5, 6), nn.ReLU(), lin(6, 4)) for _ in range(3)])


EXPERTS: dict[str, Case] = {
    "experts": Case(
        lambda: Calls(experts, router=lin(5, 3), into=normal(3, 5, 4), out=normal(3, 4, 2)), ((2, 5),), (3, 4, 4, 4)
    ),
    "experts by bmm": Case(
        lambda: Calls(experts_by_bmm, router=lin(5, 3), into=normal(3, 5, 4), out=normal(3, 4, 2)),
        ((2, 5),),
        (3, 4, 4, 4),
    ),
    "experts picked by number": routed(
        picked_experts, ab=lambda: normal(3, 4), bb=lambda: normal(3, 2), o=lambda: lin(2, 2)
    ),
    "experts by a corrected choice": routed(corrected_choice, correction=lambda: normal(3)),
    "experts under scattered gates": routed(scattered_gates),
    "experts under one-hot gates": routed(one_hot_gates, ab=lambda: normal(3, 4)),
    "one expert for each token": routed(one_expert_each),
    # Whole experts lie in different tensors here: what can be exchanged are the channels inside each.
    "listed experts": Case(
        lambda: Calls(listed_experts, router=lin(5, 3), list=expert_list(), o=lin(4, 2)), ((6, 5),), (3, 4, 6, 6, 6)
    ),
    "dispatched experts": Case(
        lambda: Calls(dispatched_experts, router=lin(5, 3), list=expert_list(), o=lin(4, 2)), ((6, 5),), (3, 4, 6, 6, 6)
    ),
    "experts that choose": Case(
        lambda: Calls(choosing_experts, router=lin(5, 3), a=normal(3, 5, 4), b=normal(3, 4, 2)), ((6, 5),), (3, 4, 4, 4)
    ),
}
