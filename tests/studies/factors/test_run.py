"""Running a study: only what is missing, everything that diverges or fails accounted for."""

import errno
import itertools
import os
from pathlib import Path

import pytest
import torch
from tests.studies import small

from isthmus.core.errors import IsthmusError
from isthmus.studies import (
    Here,
    Local,
    Store,
    Study,
    describe,
    effects,
    judge,
    outlook,
    parse_design,
    probe_seconds,
    run_study,
    verify,
)
from isthmus.studies.factors import jobs as jobs_module
from isthmus.studies.factors.engines import Finished
from isthmus.studies.factors.run import _engine_word
from isthmus.train.choice import ENGINES
from isthmus.zoo import build


@pytest.fixture
def store(tmp_path):
    return Store.open(tmp_path / "store", create=True)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A finished small study; its store is not to be changed."""
    store = Store.open(tmp_path_factory.mktemp("done") / "store", create=True)
    study = small.study()
    return study, store, run_study(study, store)


def test_the_table_is_complete(done):
    _study, store, table = done
    assert table.missing == table.diverged == 0
    assert (table.networks, len(store)) == (8, 8)
    assert table.measures == ("training_loss", "error_barrier", "overlap", "parameters")
    counts = {m: sum(o.measure == m for o in table.observations) for m in table.measures}
    assert counts == {"training_loss": 8, "error_barrier": 4, "overlap": 4, "parameters": 8}
    assert {o.value for o in table.observations if o.measure == "parameters"} == {64 * 8 + 8 + 80 + 10}
    columns = table.columns()
    assert len({len(column) for column in columns.values()}) == 1
    assert verify(store).sound


def test_values_are_those_of_the_networks_in_the_store(done):
    """The second way: weights from the store, cosine and error by hand."""
    _study, store, table = done
    for o in (o for o in table.observations if o.measure == "overlap"):
        first, second = (torch.cat([t.flatten().double() for t in store.weights(k).values()]) for k in o.networks)
        assert o.value == pytest.approx(float(first @ second / first.norm() / second.norm()), rel=1e-9)


@pytest.mark.parametrize("changes", [{}, {"subset": None}, {"subset": None, "label_noise": 0.3}])
def test_scores_are_those_that_training_ended_with(store, changes):
    """On the network's own examples and labels, measured anew from the weights in the store."""
    from isthmus.studies.factors import measures

    recipe = {name: value for name, value in {**small.DESIGN["recipe"], **changes}.items() if value is not None}
    study = small.study(recipe=recipe, factors={"rate": [0.05]}, replicates={"count": 1, "members": 1})
    run_study(study, store)
    (place,) = study.cells[0].places
    alone = measures.subject([place.recipe], [store.weights(place.key)], data_folder=None, device="cpu")
    (kept,) = (row.value for row in store.rows(place.key) if row.measure == "score")
    assert measures.SCORE.function(alone, {}) == pytest.approx(kept, rel=1e-5)


def test_a_permuted_copy_is_aligned_whole():
    """A pair that differs by a planted permutation only: no barrier and overlap 1 after alignment, not before."""
    from isthmus.studies.factors import measures

    recipe = small.study().cells[0].places[0].recipe
    weights = build(recipe).state_dict()
    order = torch.randperm(8, generator=torch.Generator().manual_seed(0))
    moved = dict(weights)
    first, last = [name for name in weights if name.endswith("weight")]
    for name in (first, first.replace("weight", "bias")):
        moved[name] = weights[name][order]
    moved[last] = weights[last][:, order]
    pair = measures.subject([recipe, recipe], [weights, moved], data_folder=None, device="cpu")
    settings = {"points": 5, "on": "test", "examples": 50, "statistics_examples": 50}
    after = measures.ALIGNED.function(pair, settings)
    assert after["aligned_overlap"] == pytest.approx(1)
    assert after["aligned_loss_barrier"] == pytest.approx(0, abs=1e-5)
    assert measures.OVERLAP.function(pair, settings)["overlap"] < 0.9
    assert set(measures.ALIGNED.columns) <= set(after)


def test_a_second_run_does_nothing(done, monkeypatch):
    study, store, table = done
    monkeypatch.setattr(jobs_module, "train", None)
    monkeypatch.setattr(jobs_module, "subject", None)
    assert run_study(study, store).to_dict() == table.to_dict()
    assert outlook(study, store).steps == 0
    assert outlook(study, store).trained == 8


def test_another_study_uses_the_networks_that_are_there(done, tmp_path, monkeypatch):
    """More points on the path and another column: nothing is trained again."""
    import shutil

    _study, store, _ = done
    shutil.copytree(store.path, tmp_path / "copy")
    monkeypatch.setattr(jobs_module, "train", None)
    wider = small.study(name="wider", measures={"columns": ["loss_barrier", "distance"], "points": 5})
    table = run_study(wider, Store.open(tmp_path / "copy"))
    assert table.missing == 0
    assert set(Store.open(tmp_path / "copy").studies()) == {"small", "wider"}


def test_what_would_run_is_known_beforehand(store):
    study = small.study()
    found = outlook(study, store)
    assert (found.networks, found.trained, found.groups, found.comparisons) == (8, 0, 4, 4)
    assert found.measurements == 8 + 8 + 4 + 4
    assert found.seconds is None
    probed = outlook(study, store, seconds_per_step=probe_seconds(study, most_steps=12))
    assert probed.seconds is not None
    assert probed.seconds > 0
    assert outlook(study, None).steps == found.steps >= 8 * 6


def test_progress_ends_at_all_of_it(store):
    seen = []
    run_study(small.study(), store, progress=lambda done, total, label="": seen.append((done, total)))
    assert seen[-1][0] == pytest.approx(seen[-1][1])
    assert all(a[0] <= b[0] + 1e-9 for a, b in itertools.pairwise(seen))


def test_a_training_that_diverges_is_kept_marked_and_left_out_with_a_count(store):
    study = small.study(factors={"rate": [0.05, 1e30]})
    table = run_study(study, store)
    assert (table.diverged, table.missing, len(store)) == (4, 0, 8)
    lost = [o for o in table.observations if o.diverged]
    assert {o.levels["rate"] for o in lost} == {1e30}
    assert all(o.value is None for o in lost)
    cell = next(c for c in effects(table).cells if c.levels == {"rate": 1e30} and c.measure == "error_barrier")
    assert (cell.excluded, cell.interval.networks) == (2, 0)
    key = lost[0].networks[0]
    assert store.status(key) == "diverged"
    assert not all(bool(torch.isfinite(t).all()) for t in store.weights(key).values())
    assert run_study(study, store).to_dict() == table.to_dict()
    assert verify(store).sound


def test_a_disk_that_fills_during_a_study_costs_nothing_that_was_done(store, monkeypatch):
    study, write, left = small.study(), Path.write_text, [9]

    def full(self, *arguments, **keywords):
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(self, *arguments, **keywords)

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(IsthmusError, match="no space left on device") as caught:
        run_study(study, store)
    assert "\n" not in str(caught.value)
    monkeypatch.undo()
    assert not list(store.path.rglob("*.part"))
    again = Store.open(store.path)
    assert 0 < len(again) < 8
    assert run_study(study, again).missing == 0
    assert verify(again).sound


def test_the_engine_is_chosen_once_for_groups_of_a_kind(store, monkeypatch):
    asked = []
    train = jobs_module.train

    def watched(recipes, *, engine, **settings):
        asked.append(engine)
        return train(recipes, engine=engine if engine != "auto" else "vectorised", **settings)

    monkeypatch.setattr(jobs_module, "train", watched)
    run_study(small.study(engine="auto", factors={"momentum": [0.1, 0.2]}), store)
    assert asked == ["auto", "vectorised", "vectorised", "vectorised"]


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("sequential", "sequential"),
        ("vectorised", "vectorised"),
        ("one captured graph, folded, compiled", "folded graph"),
        ("sequential, channels last", "channels last"),
        ("vectorised, in chunks of 16", "chunks"),
        ("vectorised and compiled", "compiled"),
        ("vectorised and compiled, in chunks of 2", "compiled"),
        ("one captured graph", "graph"),
        ("one captured graph, compiled", "compiled graph"),
        ("a captured graph for each replica", "graphs"),
        ("a captured graph for each replica, compiled", "compiled graphs"),
        ("one captured graph, own kernels", "kernel graph"),
        ("a captured graph with a branch for each replica, own kernels", "kernel graphs"),
        ("one captured graph, own kernels, in chunks of 24", "kernel graph"),
        ("a captured graph with a branch for each replica, in chunks of 17", "graphs"),
    ],
)
def test_an_engine_s_own_name_becomes_the_word_that_asks_for_it(name, word):
    assert _engine_word(name) == word
    assert word in ENGINES


def test_no_training_leaves_no_choice():
    assert _engine_word("none") is None


def test_judging_gives_a_result_that_json_can_hold(done):
    import json

    _, _, table = done
    claim = {"words": "it rises", "measure": "overlap", "factor": "rate", "direction": "rises"}
    result = judge(small.study(claims=[claim]).design, table)
    assert result.verdicts[0].outcome in ("supported", "contradicted", "undecided")
    assert json.loads(json.dumps(result.to_dict()))["kind"] == "StudyResult"


def test_a_study_goes_on_where_a_job_fails_and_says_so(store):
    class Failing(Here):
        def next(self, timeout):
            found = super().next(timeout)
            if isinstance(found and found.outcome, list) and not self.failed:
                self.failed = True
                return Finished(found.name, problem="no luck")
            return found

        failed = False

    with pytest.raises(IsthmusError, match=r"rate=0.05: no luck; what is done is kept"):
        run_study(small.study(), store, engine=Failing())
    assert len(store) == 6
    assert run_study(small.study(), store).missing == 0


@pytest.mark.slow
def test_processes_give_the_same_table_as_this_one(done, store):
    engine = Local(workers=2, devices=("cpu",))
    try:
        assert run_study(small.study(), store, engine=engine).to_dict() == done[2].to_dict()
    finally:
        engine.close()


def test_an_unknown_data_set_is_one_line_before_anything_runs():
    design = parse_design({**small.DESIGN, "recipe": {**small.DESIGN["recipe"], "data": "digit"}})
    with pytest.raises(IsthmusError, match="data must be one of"):
        Study.of(design)


def test_durations_in_words():
    assert [describe(s) for s in (5, 65, 3725)] == ["5 s", "1 min 5 s", "1 h 2 min"]
