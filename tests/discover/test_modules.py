"""Every difficulty of the zoo of small modules: right sizes, and the proof passes."""

from __future__ import annotations

import pytest
from tests.discover.algebra_modules import ALGEBRA
from tests.discover.case import Case
from tests.discover.choosing_modules import CHOOSING_UNITS
from tests.discover.compact_modules import COMPACT
from tests.discover.expert_modules import EXPERTS
from tests.discover.found_modules import FOUND
from tests.discover.graph_modules import GRAPHS
from tests.discover.image_modules import IMAGES
from tests.discover.mixed_modules import MIXED
from tests.discover.modules import CASES
from tests.discover.odd_modules import ODD
from tests.discover.sequence_modules import SEQUENCES
from tests.discover.sliced_modules import SLICED

import isthmus

ZOO = {
    **CASES, **EXPERTS, **ODD, **FOUND, **SEQUENCES, **GRAPHS, **IMAGES, **COMPACT, **MIXED, **CHOOSING_UNITS,
    **ALGEBRA, **SLICED,
}  # fmt: skip


@pytest.mark.parametrize("case", ZOO.values(), ids=ZOO)
def test_groups_have_the_sizes_worked_out_by_hand(case: Case) -> None:
    symmetry = isthmus.discover(case.make(), case.inputs())
    assert sorted(group.size for group in symmetry.groups) == sorted(case.sizes)
    assert symmetry.proof is not None
    assert symmetry.proof.error < 1e-12
