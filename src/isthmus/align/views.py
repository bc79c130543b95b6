"""What can be seen of a tree of groups while two networks run, and how alike its units look there."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from isthmus.align.moments import Moments
from isthmus.align.observe import Port, port_of
from isthmus.align.trees import Tree, uncovered
from isthmus.core.network import Network
from isthmus.core.symmetry import Permutation, Site, Symmetry, UnitGroup


@dataclasses.dataclass(eq=False)
class View:
    """What one port shows of one tree: the features watched, and where each group's units are among them."""

    port: Port
    positions: Tensor
    folded: bool
    indices: dict[str, list[Tensor]]
    moments: Moments

    def same_samples(self, fixed: Mapping[Port, list[Tensor]], moving: Mapping[Port, list[Tensor]]) -> bool:
        """Whether both networks showed as many samples here: a router may send one expert other tokens in each."""
        return [len(part) for part in fixed[self.port]] == [len(part) for part in moving[self.port]]

    def add(self, fixed: Tensor, moving: Tensor) -> None:
        """Take what passed the port in both networks, as (samples, features)."""
        chosen = []
        for features in (fixed, moving):
            part = features.index_select(1, self.positions.reshape(-1).to(features.device))
            if self.folded:
                part = part.reshape(len(part), *self.positions.shape).movedim(2, 1).flatten(0, 1)
            chosen.append(part)
        self.moments.add(*chosen)


def views_of(symmetry: Symmetry, tree: Tree, network: Network, when: str) -> list[View]:
    """Every distinct way to watch a tree, on the preferred side of the nonlinearity where there is one."""
    modules = network.modules()
    beside = _beside(tree)
    found: dict[tuple[Port, tuple[int, ...]], View] = {}
    shown: dict[Port, dict[str, list[Tensor]]] = {}
    for group in tree.members:
        for site in group.sites:
            port = port_of(modules, site)
            if port is not None and port.module in beside:
                port = _joined(port, beside[port.module], symmetry, site)
            if port is None:
                continue
            index = uncovered(symmetry, group, site) if symmetry.children(group.name) else site.index
            if index.numel():
                at = dataclasses.replace(port, offset=0)
                indices = shown.setdefault(at, {}).setdefault(group.name, [])
                if not any(torch.equal(index + port.offset, other) for other in indices):
                    indices.append(index + port.offset)
    for port, indices in _chosen(shown, when).items():
        if not tree.nested:
            for index in indices[tree.name]:
                own = {tree.name: [torch.arange(len(index)).unsqueeze(1)]}
                found[port, tuple(index[0].tolist())] = View(port, index, True, own, Moments())
            continue
        positions = torch.cat([i.reshape(-1) for entries in indices.values() for i in entries]).unique()
        own = {name: [torch.searchsorted(positions, i) for i in entries] for name, entries in indices.items()}
        found[port, ()] = View(port, positions, False, own, Moments())
    return list(found.values())


def _beside(tree: Tree) -> dict[str, tuple[tuple[str, ...], int]]:
    """For each layer that belongs to one unit: the corresponding layers of all units, and which of them it is."""
    found: dict[str, tuple[tuple[str, ...], int]] = {}
    for group in tree.members:
        for row in group.siblings:
            layers = tuple(name.rpartition(".")[0] for name in row.tensors)
            # Units inside units: the innermost list, which comes last, is extended by those around it.
            every = tuple(dict.fromkeys(other for layer in layers for other in found.get(layer, ((layer,), 0))[0]))
            found |= {layer: (every, every.index(layer)) for layer in every}
    return found


def _joined(port: Port, layers: tuple[tuple[str, ...], int], symmetry: Symmetry, site: Site) -> Port | None:
    """A port of one unit's own layer, together with those of the other units."""
    every, place = layers
    if port.offset or site.within:
        return None
    offset = place * symmetry.tensors[site.tensor][site.dim]
    return dataclasses.replace(port, module=every[0], beside=every[1:], offset=offset)


def _chosen(shown: Mapping[Port, dict[str, list[Tensor]]], when: str) -> dict[Port, dict[str, list[Tensor]]]:
    """The ports that each group prefers: queries and keys, say, are only ever seen where they are written."""
    chosen: dict[Port, dict[str, list[Tensor]]] = {}
    for name in dict.fromkeys(name for indices in shown.values() for name in indices):
        for port in _preferred([port for port, indices in shown.items() if name in indices], when):
            chosen.setdefault(port, {})[name] = shown[port][name]
    return chosen


def _preferred(ports: list[Port], when: str) -> list[Port]:
    """Inputs of readers for ``after``; for ``before`` outputs of writers, of their normalisation if they have one."""
    if when == "after":
        inputs = [port for port in ports if port.side == "input"]
        return inputs or _preferred(ports, "before") if ports else []
    outputs = [port for port in ports if port.side != "input"]
    batchwise = [port for port in outputs if port.normalises and port.axis == 1]
    plain = [port for port in outputs if not port.normalises]
    return batchwise or plain or outputs or ports


def drop_doubles(views: Mapping[str, list[View]], seen: Mapping[Port, list[Tensor]]) -> None:
    """Readers of one and the same activation (query, key and value layers) count once; decided on the first batch."""
    for tree_views in views.values():
        kept: list[View] = []
        for view in tree_views:
            doubled = any(
                torch.equal(view.positions, other.positions) and _same(seen[view.port], seen[other.port])
                for other in kept
                if view.moments.samples == 0
            )
            if not doubled:
                kept.append(view)
        tree_views[:] = kept


def _same(first: Sequence[Tensor], second: Sequence[Tensor]) -> bool:
    return len(first) == len(second) and all(
        a.shape == b.shape and torch.equal(a, b) for a, b in zip(first, second, strict=True)
    )


class ActivationSimilarity:
    """Unit by unit similarity of activations, for peers of nested groups too."""

    def __init__(self, symmetry: Symmetry, views: Sequence[View], normalised: bool, centred: bool) -> None:
        self._symmetry = symmetry
        self._views = views
        self._matrices = [view.moments.similarity(normalised=normalised, centred=centred) for view in views]

    def __call__(self, fixed: Sequence[UnitGroup], moving: Sequence[UnitGroup]) -> Tensor:
        """Unit by unit, summed over the views; (peers of the fixed network, of the moving one, units, units)."""
        units = fixed[0].size
        total = torch.zeros(len(fixed) * units, len(moving) * units, dtype=torch.float64)
        for view, matrix in zip(self._views, self._matrices, strict=True):
            left, right = ([view.indices.get(group.name, []) for group in peers] for peers in (fixed, moving))
            for place in range(min(len(entries) for entries in [*left, *right])):
                row = torch.cat([entries[place] for entries in left]).to(matrix.device)
                column = torch.cat([entries[place] for entries in right]).to(matrix.device)
                for entry in range(row.shape[1]):
                    total += matrix[row[:, entry]][:, column[:, entry]].to(total.device)
        return total.reshape(len(fixed), units, len(moving), units).permute(0, 2, 1, 3)

    def total(self, tree: Tree, indices: Mapping[str, Tensor]) -> float:
        """The sum over all units of a tree for given indices."""
        permutation = Permutation(self._symmetry, indices)
        source = {group.name: self._source(permutation, group) for group in tree.members}
        result = 0.0
        for group in tree.members:
            name, units = source[group.name]
            pair = self([group], [self._symmetry.by_name[name]])[0, 0]
            result += float(pair[torch.arange(group.size), units].sum())
        return result

    def _source(self, permutation: Permutation, group: UnitGroup) -> tuple[str, Tensor]:
        """The moving group whose units come to lie in this place, and their order."""
        if group.parent is None:
            return group.name, permutation[group.name]
        above, order = self._source(permutation, self._symmetry.by_name[group.parent.group])
        name = self._symmetry.child(above, int(order[group.parent.unit]), group.parent.slot)
        assert name is not None
        return name, permutation[name]


def is_blind(symmetry: Symmetry, group: UnitGroup, views: Sequence[View]) -> bool:
    """Whether no port shows a group, nor anything that is nested in it."""
    names = {group.name, *(child.name for child in symmetry.children(group.name))}
    return not any(names & set(view.indices) for view in views)
