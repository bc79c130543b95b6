"""Threads and devices of worker processes follow from the machine, the study and what was measured."""

import pytest
from tests.studies import small

from isthmus.studies import Local, Store
from isthmus.studies.factors import threads as threads_module
from isthmus.studies.factors.local import seen_by_worker
from isthmus.studies.factors.outlook import probe_seconds
from isthmus.studies.factors.threads import threads_for


@pytest.fixture
def measured(monkeypatch):
    """Pretend that a step takes so long with so many threads; hear how often it was asked."""
    told = {1: 1.0}
    asked = []

    def seconds(study, *, most_steps, threads):
        asked.append(threads)
        return told[threads]

    monkeypatch.setattr(threads_module, "probe_seconds", seconds)
    return told, asked


@pytest.mark.parametrize(
    ("available", "workers", "many", "wanted"),
    [(8, 2, 0.3, 4), (8, 2, 0.9, 1), (8, 2, 3.0, 1), (2, 2, 0.1, 1), (3, 2, 0.1, 1), (16, 1, 0.5, 16)],
)
def test_more_threads_only_where_cores_are_left_and_they_pay(measured, available, workers, many, wanted):
    measured[0][available // workers] = min(many, 1.0) if available // workers == 1 else many
    assert threads_for(small.study(), None, workers=workers, available=available) == wanted
    assert len(measured[1]) == (0 if available // workers < 2 else 4 if wanted > 1 else 2)


def test_small_networks_compute_with_one_thread_however_the_probe_was_disturbed(measured):
    told, asked = measured
    together = len(small.study().plan.trainings[0].places)
    told |= {1: 4e-3 / together, 2: 1e-9}
    assert threads_for(small.study(), None, workers=1, available=2) == 1
    assert asked == [1]


def test_threads_must_win_every_round(measured, monkeypatch):
    rounds = iter([1.0, 0.3, 1.0, 0.9])  # one, many, one, many
    monkeypatch.setattr(threads_module, "probe_seconds", lambda study, *, most_steps, threads: next(rounds))
    assert threads_for(small.study(), None, workers=1, available=2) == 1
    assert next(rounds, None) is None


def test_a_store_remembers_so_that_a_resumed_study_rounds_as_it_did(measured, tmp_path):
    told, asked = measured
    store = Store.open(tmp_path / "store", create=True)
    told[4] = 0.3
    assert threads_for(small.study(), store, workers=2, available=8) == 4
    told[4] = 5.0
    assert threads_for(small.study(), store, workers=2, available=8) == 4
    assert asked == [1, 4, 1, 4]
    assert threads_for(small.study(), store, workers=2, available=4) == 2  # a smaller machine


def test_a_probe_leaves_the_number_of_threads_as_it_was():
    import torch

    before = torch.get_num_threads()
    assert probe_seconds(small.study(), most_steps=6, threads=2) > 0
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(
    ("device", "environment", "wanted"),
    [
        ("cpu", {"A": "b"}, ("cpu", {"A": "b"})),
        ("cuda:1", {}, ("cuda:0", {"CUDA_VISIBLE_DEVICES": "1"})),
        ("cuda", {}, ("cuda:0", {"CUDA_VISIBLE_DEVICES": "0"})),
        ("cuda:1", {"CUDA_VISIBLE_DEVICES": "4,7"}, ("cuda:0", {"CUDA_VISIBLE_DEVICES": "7"})),
        ("cuda:0", {"CUDA_VISIBLE_DEVICES": "GPU-5a, GPU-6b"}, ("cuda:0", {"CUDA_VISIBLE_DEVICES": "GPU-5a"})),
    ],
)
def test_a_worker_sees_its_own_gpu_only(device, environment, wanted):
    assert seen_by_worker(device, environment) == wanted


class Looking:
    """Says where it runs."""

    def run(self, *, device, progress):
        import os
        import time

        time.sleep(0.5)  # long enough for the other job to need the other worker
        return device, os.environ.get("CUDA_VISIBLE_DEVICES"), os.getpid()


@pytest.mark.slow
def test_gpus_are_shared_out_over_worker_processes():
    engine = Local(devices=("cuda:0", "cuda:1"))
    assert engine.slots == 2
    try:
        for number in range(4):
            engine.submit(str(number), Looking())
        found = []
        while len(found) < 4:
            if (one := engine.next(30)) is not None and one.over:
                found.append(one.outcome)
    finally:
        engine.close()
    assert {outcome[:2] for outcome in found} == {("cuda:0", "0"), ("cuda:0", "1")}
    assert len({outcome[2] for outcome in found}) == 2
