"""Equal parts of a network beside each other: the experts of a list, heads that are modules, branches that are summed.

Found in the graph alone, by what is done and not by what modules are called. A find is a proposal: whether the parts
may be exchanged is decided by computing.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence

from torch import fx
from torch.export import ExportedProgram

from isthmus.discover.pairing import Outline, Pairing, buckets

_TRIES = 8  # tensors of one kind from which no part was found before the rest of their kind is left


@dataclasses.dataclass(frozen=True, eq=False)
class Branches:
    """Parts of a graph that do the same, each with tensors of its own.

    Attributes:
        outline: of the graph.
        pairings: from the first part to each of the others.
        siblings: for each tensor of the first part its counterparts, itself first.
    """

    outline: Outline
    pairings: tuple[Pairing, ...]
    siblings: tuple[tuple[str, ...], ...]

    @property
    def number(self) -> int:
        """How many parts there are."""
        return len(self.pairings) + 1

    @property
    def nodes(self) -> set[fx.Node]:
        """All nodes of all parts."""
        return {node for pairing in self.pairings for node in (*pairing.to, *pairing.back)}

    def counterparts(self, node: fx.Node) -> tuple[fx.Node, ...]:
        """A node of the first part and those that stand for it in the others."""
        return (node, *(pairing.to[node] for pairing in self.pairings))

    @property
    def reads(self) -> tuple[tuple[fx.Node, ...], ...]:
        """Nodes that read different positions of what is outside of the parts."""
        first = dict.fromkeys(node for pairing in self.pairings for node in pairing.reads)
        return tuple(self.counterparts(node) for node in first)

    @property
    def joins(self) -> tuple[fx.Node, ...]:
        """Nodes that several parts enter."""
        return tuple(dict.fromkeys(node for pairing in self.pairings for node in pairing.joins))

    @property
    def steps(self) -> tuple[tuple[fx.Node, ...], ...]:
        """Nodes by which the parts enter running sums, for each the step of every part; those without are left out."""
        first = dict.fromkeys(node for pairing in self.pairings for node in pairing.steps)
        whole = [node for node in first if all(node in pairing.steps for pairing in self.pairings)]
        return tuple((node, *(pairing.steps[node] for pairing in self.pairings)) for node in whole)


def branches_of(program: ExportedProgram) -> list[Branches]:
    """All sets of equal parts, small ones first.

    Cost: one walk over the graph, and for each kind of equal tensors one walk over each part that is found.
    """
    outline = Outline(program)
    found: dict[frozenset[frozenset[str]], Branches] = {}
    every = buckets(outline)
    kind = {node: number for number, nodes in enumerate(every) for node in nodes}
    covered: set[fx.Node] = set()
    for nodes in every:
        failures = 0
        for node in nodes:
            if node in covered or failures >= _TRIES:
                continue
            sets = _from(outline, node, nodes)
            failures += not sets
            if sets:
                covered |= _known(min(sets, key=lambda made: len(made.siblings)), kind)
            for made in sets:
                units = frozenset(frozenset(unit) for unit in zip(*made.siblings, strict=True))
                found.setdefault(units, made)
    return sorted(found.values(), key=lambda made: len(made.siblings))


def _known(branches: Branches, kind: Mapping[fx.Node, int]) -> set[fx.Node]:
    """Tensors that can be in no smaller parts than these: those that are the only ones of their kind in a part."""
    own = [node for node in branches.pairings[0].to if node in kind]
    times = Counter(kind[node] for node in own)
    alone = [node for node in own if times[kind[node]] == 1]
    return {one for node in alone for one in branches.counterparts(node)}


def _from(outline: Outline, node: fx.Node, peers: Sequence[fx.Node]) -> list[Branches]:
    """The sets of parts to which the part around one tensor belongs: experts, and layers of experts around them."""
    by_part: dict[frozenset[fx.Node], list[Pairing]] = {}
    for peer in peers:
        if peer is node:
            continue
        pairing = Pairing(outline, node, peer)
        if not pairing.holds:
            continue
        part = frozenset(pairing.to)
        taken = {one for other in by_part.get(part, ()) for one in other.back}
        if not taken & set(pairing.back):
            by_part.setdefault(part, []).append(pairing)
    made = []
    for part, pairings in by_part.items():
        own = sorted((one for one in part if one in outline.tensors), key=outline.place.__getitem__)
        rows = tuple((outline.tensors[one], *(outline.tensors[pairing.to[one]] for pairing in pairings)) for one in own)
        made.append(Branches(outline, tuple(pairings), rows))
    return made
