"""Whether walkers go through the network together, and what is said of walks that hardly move."""

import pytest
import torch
from tests.walk.small import classifier

from isthmus.studies.landscape.walks import Manner, walk_from
from isthmus.walk.ground import Ground


@pytest.mark.parametrize("faster", [True, False])
def test_walkers_on_an_accelerator_go_together_only_where_that_is_faster(monkeypatch, faster):
    objective = classifier()
    ground = Ground(objective, objective.network.weights)
    ground.__dict__["home"] = torch.empty(4, device="meta")  # no CPU
    taken = {True: 1.0, False: 2.0 if faster else 0.5}
    monkeypatch.setattr(Ground, "_timed", lambda self, places, *, together: taken[together])
    assert ground.joined(3) == faster
    assert not ground.joined(1)


def test_a_walk_that_stood_still_at_its_first_looks_says_nothing_of_displacement():
    objective = classifier()
    for size, known in ((1.0, False), (1e-3, True)):
        manner = Manner("metropolis", steps=40, walkers=3, size=size, temperature=1e-3)
        found = walk_from(objective.network.weights, objective, name="0", manner=manner)
        assert (found.displacement is not None) == known
        still = (found.walk.distance[:, 1:] == 0).all(0).any()
        assert bool(still) != known
        assert bool((found.walk.distance[:, -1] > 0).any())
