"""The Ray engine on a local cluster of several worker processes, one of which is killed in the middle."""

import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest
from tests.studies import small
from tests.studies.factors.test_processes import Deadly

from isthmus.core.errors import IsthmusError
from isthmus.studies import Store, run_study, verify
from isthmus.studies.factors.cluster import Cluster

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600), pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module")
def cluster():
    ray = pytest.importorskip("ray")
    environment = {"env_vars": {"PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}}
    ray.init(num_cpus=3, include_dashboard=False, log_to_driver=False, logging_level="ERROR", runtime_env=environment)
    engine = Cluster()
    yield engine
    engine.close()
    ray.shutdown()


def workers():
    """Ray's worker processes that run one of our jobs now."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if b"ray::_run" in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def test_every_cell_is_in_the_store_once_though_a_worker_was_killed(cluster, tmp_path):
    store = Store.open(tmp_path / "store", create=True)
    # Long enough to be caught at work.
    study = small.study(factors={"rate": [0.02, 0.05, 0.1]}, recipe={**small.DESIGN["recipe"], "steps": 1000})
    killed = []

    def kill_one():
        deadline = time.monotonic() + 300
        while not killed and time.monotonic() < deadline:
            if store.keys and (at_work := workers()):
                killed.append(at_work[0])
                os.kill(at_work[0], signal.SIGKILL)
            time.sleep(0.05)

    killer = threading.Thread(target=kill_one)
    killer.start()
    table = run_study(study, store, engine=cluster)
    killer.join()
    assert len(killed) == 1
    assert (table.missing, len(store)) == (0, 12)
    assert verify(store).sound
    for key in store.keys:
        lines = (store.folder(key) / "measures.jsonl").read_text().splitlines()
        assert len(lines) == len({row.identity for row in store.rows(key)})


def test_a_lost_job_is_run_again_and_a_hopeless_one_is_given_up(cluster, tmp_path):
    for name, times in (("once", 1), ("always", 99)):
        (tmp_path / name).mkdir()
        cluster.submit(name, Deadly(str(tmp_path / name), times))
    found = {}
    while len(found) < 2:
        if (finished := cluster.next(60)) is not None:
            found[finished.name] = finished
    assert found["once"].outcome == "survived on cpu"
    assert "the cluster lost it 4 times" in str(found["always"].problem)


def test_the_table_is_that_of_this_process(cluster, tmp_path):
    here, there = (Store.open(tmp_path / name, create=True) for name in ("here", "there"))
    assert run_study(small.study(), here).to_dict() == run_study(small.study(), there, engine=cluster).to_dict()


def test_no_cluster_is_one_line(cluster):
    with pytest.raises(
        IsthmusError, match=r"a Ray cluster must answer at 127\.0\.0\.1:1, but: connection refused"
    ) as caught:
        Cluster(address="127.0.0.1:1")
    assert "\n" not in str(caught.value)
