"""What hashes order decides nothing: other hashes, the same groups, and still proved."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.discover.case import Case
from tests.discover.mixed_modules import MIXED
from tests.discover.modules import CASES
from tests.discover.odd_modules import ODD

import isthmus
from isthmus.discover import hashing, labels
from isthmus.discover.labels import numbered

_NESTED = {
    name: case
    for name, case in {**CASES, **ODD, **MIXED}.items()
    if name in ("parts in another order", "parts in a ring", "relative bias", "difference of attentions", "latents")
}


@pytest.mark.parametrize("salt", [1, 2, 3])
@pytest.mark.parametrize("case", _NESTED.values(), ids=_NESTED)
def test_no_group_depends_on_which_number_a_hash_is(case: Case, salt: int, monkeypatch: pytest.MonkeyPatch) -> None:
    odd = [2 * int(number) + 1 for number in np.random.default_rng(salt).integers(1 << 61, size=2)]
    monkeypatch.setattr(hashing, "_GOLDEN", np.uint64(odd[0]))
    monkeypatch.setattr(labels, "_MIX", (odd[1], *labels._MIX[1:]))
    symmetry = isthmus.discover(case.make(), case.inputs())
    assert sorted(group.size for group in symmetry.groups) == sorted(case.sizes)


def test_blocks_are_numbered_as_they_occur() -> None:
    ids = torch.tensor([[7, 7, 3], [9, 3, -2]])
    assert numbered(ids).tolist() == [[0, 0, 1], [2, 1, 3]]
