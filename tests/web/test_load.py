"""Many readers while runs are written: every answer whole, nothing lost. How long they wait, the benchmark says."""

import asyncio
import concurrent.futures
import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from benchmarks.serving import generate, load
from tests.web.sites import key, running, trained

from isthmus.studies import Row, Store, verify


def test_readers_disturb_no_writer_and_writers_no_reader(tmp_path):
    keys = generate(tmp_path / "store", 200)
    store = Store.open(tmp_path / "store")
    stop, written = threading.Event(), []

    def write():
        number = 1000
        while not stop.is_set() and number < 1400:
            store.add([trained(number)])
            store.record(key(number), [Row("flatness", 1, {}, {"trace": float(number)}, "nats")])
            written.append(number)
            number += 1

    with running(store) as site:
        writer = threading.Thread(target=write)
        writer.start()
        with concurrent.futures.ThreadPoolExecutor(1) as apart:  # a browser's test may hold this thread's event loop
            asked = load(site.port, keys, readers=10, seconds=3, think=0.2)
            seen = apart.submit(asyncio.run, asked).result()
        stop.set()
        writer.join()
    assert seen.wrong == []
    assert seen.answers > 20
    assert seen.events > 1
    assert len(written) > 5
    for number in written:
        (value,) = [row.value for row in store.rows(key(number)) if row.measure == "flatness"]
        assert value == {"trace": float(number)}
        assert float(store.weights(key(number))["layer.weight"][0, 0]) == number
    damaged = verify(store).damaged
    # The stand-in runs are not named by their recipes, and the generated ones have no weights: nothing else is wrong.
    assert {key(n) for n in written if "its recipe has the key" not in damaged.get(key(n), "")} == set()


@pytest.mark.slow
def test_fifty_readers_for_thirty_seconds_while_a_study_writes(tmp_path):
    script = Path(__file__).parents[2] / "benchmarks" / "serving.py"
    ended = subprocess.run(
        [sys.executable, str(script), "--runs", "2000", "--networks", "12"], capture_output=True, text=True, check=False
    )
    found = json.loads(ended.stdout)
    assert found["wrong"] == 0, found
    assert found["answers"] > 200
    assert (found["study"]["exit code"], found["study"]["lost"], found["study"]["missing values"]) == (0, 0, 0)
