"""Every difficulty of the zoo of small modules: right sizes, and the proof passes."""

from __future__ import annotations

import pytest
from tests.discover.found_modules import FOUND
from tests.discover.image_modules import IMAGES
from tests.discover.mixed_modules import MIXED
from tests.discover.modules import CASES, Case
from tests.discover.odd_modules import ODD
from tests.discover.sequence_modules import SEQUENCES

import isthmus

ZOO = {**CASES, **ODD, **FOUND, **SEQUENCES, **IMAGES, **MIXED}


@pytest.mark.parametrize("case", ZOO.values(), ids=ZOO)
def test_groups_have_the_sizes_worked_out_by_hand(case: Case) -> None:
    symmetry = isthmus.discover(case.make(), case.inputs())
    assert sorted(group.size for group in symmetry.groups) == sorted(case.sizes)
    assert symmetry.proof is not None
    assert symmetry.proof.error < 1e-12
