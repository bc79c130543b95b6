"""Killed at any moment and run again: nothing lost, nothing twice, and the same table bit for bit."""

import json
import multiprocessing
import random
import signal
import time

import pytest
from tests.studies import small

from isthmus.studies import Store, verify

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


@pytest.fixture(scope="module")
def processes():
    """Processes that start in milliseconds: forked from a server that has imported everything and computed nothing."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["isthmus.studies", "sklearn.datasets", "tests.studies.small"])
    return context


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, processes):
    path = tmp_path_factory.mktemp("undisturbed") / "store"
    warm = processes.Process(target=small.study)  # the server imports everything before its first process
    warm.start()
    warm.join()
    begun = time.monotonic()
    process = processes.Process(target=small.run, args=(path,))
    process.start()
    process.join()
    assert process.exitcode == 0
    return small.table_of(path), time.monotonic() - begun


def once_each(store):
    """Every value was measured and written once."""
    for key in store.keys:
        lines = (store.folder(key) / "measures.jsonl").read_text().splitlines()
        questions = [json.dumps([line["measure"], line["settings"]]) for line in map(json.loads, lines)]
        assert len(questions) == len(set(questions))


def finish(path, processes):
    process = processes.Process(target=small.run, args=(path,))
    process.start()
    process.join()
    assert process.exitcode == 0
    store = Store.open(path)
    assert verify(store).sound
    once_each(store)
    return small.table_of(path)


def test_killed_at_every_durable_step_in_turn(tmp_path, processes, undisturbed):
    """Each start dies a few durable steps further on, until nothing is left to do; at least twenty deaths."""
    path, deaths = tmp_path / "store", 0
    for seed in range(200):
        process = processes.Process(target=small.run_and_die, args=(path, seed))
        process.start()
        process.join()
        if process.exitcode == 0:
            break
        assert process.exitcode == -signal.SIGKILL
        deaths += 1
    assert deaths >= 20
    assert finish(path, processes) == undisturbed[0]


def killed_at_random_moments(path, processes, times, seconds, *, seed):
    draw = random.Random(seed)
    for _ in range(times):
        process = processes.Process(target=small.run, args=(path,))
        process.start()
        process.join(draw.uniform(0, seconds))
        process.kill()
        process.join()


def test_killed_three_times_at_random_moments(tmp_path, processes, undisturbed):
    table, seconds = undisturbed
    killed_at_random_moments(tmp_path / "store", processes, 3, seconds / 2, seed=1)
    assert finish(tmp_path / "store", processes) == table


@pytest.mark.slow
def test_killed_twenty_times_at_random_moments(tmp_path, processes, undisturbed):
    table, seconds = undisturbed
    killed_at_random_moments(tmp_path / "store", processes, 20, seconds / 4, seed=2)
    assert finish(tmp_path / "store", processes) == table


def test_two_processes_on_one_store_share_the_work(tmp_path, processes, undisturbed):
    path = tmp_path / "store"
    both = [processes.Process(target=small.run, args=(path,)) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join()
    assert [process.exitcode for process in both] == [0, 0]
    once_each(Store.open(path))
    assert small.table_of(path) == undisturbed[0]
    assert len(list(Store.open(path).path.glob("groups/*"))) == 4
