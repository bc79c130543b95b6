"""Whether labels that meet are arranged so that either side's exchange leaves the other's alone.

That each unit of one kind meets each of another is not enough. In a circulant matrix every row meets every entry of the
vector that it is made of, but each in another column: rows cannot be exchanged without the columns.
"""

from __future__ import annotations

import torch
from torch import Tensor

from isthmus.discover.labels import Layer, positional, squeezed


def together(one: Layer, other: Layer) -> Layer:
    """Two layers of labels that stand still as one layer of places, alike where both are."""
    left, right = (torch.unique(layer.ids, return_inverse=True)[1] for layer in (one, other))
    return squeezed(left * (int(right.max()) + 1) + right, pinned=True)


def independent(one: Layer, other: Layer, group: Tensor | None = None, still: Tensor | None = None) -> bool:
    """Whether at every place along the axes that the layers do not share, whoever meets meets everyone equally often.

    Args:
        one: the layer whose labels fall into groups.
        other: what they meet.
        group: for each entry of the first layer the number of its label's group, within which labels are exchanged;
            one group for all if left out.
        still: labels of entries that do not count.

    Cost: a sort of all entries along the axes of both layers, unless the layers have all axes in common.
    """
    sizes = torch.broadcast_shapes(one.ids.shape, other.ids.shape)
    apart = (one.axes | other.axes) - (one.axes & other.axes)
    left, right = (torch.unique(layer.ids, return_inverse=True)[1].expand(sizes).reshape(-1) for layer in (one, other))
    place = positional(sizes, sorted(apart)).ids.expand(sizes).reshape(-1)
    if group is not None:
        own = torch.unique(group, return_inverse=True)[1].expand(sizes).reshape(-1)
        place = place * (int(own.max()) + 1) + own
    if still is not None and len(still):
        counted = ~(torch.isin(one.ids, still).expand(sizes) | torch.isin(other.ids, still).expand(sizes)).reshape(-1)
        left, right, place = left[counted], right[counted], place[counted]
        if not len(left):
            return True
    place = torch.unique(place, return_inverse=True)[1]
    wide = (int(left.max()) + 1, int(right.max()) + 1)
    met, counts = torch.unique((place * wide[0] + left) * wide[1] + right, return_counts=True)
    at = met // (wide[0] * wide[1])
    number = int(place.max()) + 1
    pairs = torch.bincount(at, minlength=number)
    ones = torch.bincount(torch.unique(met // wide[1]) // wide[0], minlength=number)
    others = torch.bincount(torch.unique(at * wide[1] + met % wide[1]) // wide[1], minlength=number)
    least = torch.full((number,), len(left)).scatter_reduce(0, at, counts, "amin")
    most = torch.zeros(number, dtype=torch.int64).scatter_reduce(0, at, counts, "amax")
    return bool((pairs == ones * others).all()) and torch.equal(least, most)
