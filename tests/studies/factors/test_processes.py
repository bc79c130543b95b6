"""Worker processes: one that dies is replaced, one that kills is given up, none outlives its parent."""

import dataclasses
import os
import signal
import time
from pathlib import Path

import pytest

from isthmus.core.progress import silent
from isthmus.studies import Local
from isthmus.studies.factors.engines import Finished
from isthmus.studies.factors.jobs import TrainJob


@dataclasses.dataclass(frozen=True)
class Deadly:
    """A job whose worker dies the first ``times`` times."""

    folder: str
    times: int

    def run(self, *, device, progress=silent):
        marks = list(Path(self.folder).iterdir())
        if len(marks) < self.times:
            (Path(self.folder) / str(len(marks))).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return f"survived on {device}"


@dataclasses.dataclass(frozen=True)
class Sleeper:
    """A job that says which process it runs in and stays there."""

    folder: str

    def run(self, *, device, progress=silent):
        (Path(self.folder) / str(os.getpid())).touch()
        time.sleep(60)


def finished(engine: Local) -> Finished:
    while (found := engine.next(30)) is None or not found.over:
        pass
    return found


def test_a_worker_that_dies_is_replaced_and_its_job_done_again(tmp_path):
    engine = Local(workers=1, devices=("cpu",))
    try:
        engine.submit("job", Deadly(str(tmp_path), 1))
        assert finished(engine).outcome == "survived on cpu"
        engine.submit("bad", TrainJob(({"network": "nonsense"},)))
        assert "got nonsense" in str(finished(engine).problem)
    finally:
        engine.close()


@pytest.mark.slow
def test_a_job_that_kills_every_worker_is_given_up_in_words(tmp_path):
    engine = Local(workers=1, devices=("cpu",))
    try:
        engine.submit("job", Deadly(str(tmp_path), 99))
        assert "its worker died 3 times, last with signal 9" in str(finished(engine).problem)
    finally:
        engine.close()


def alive(pid):
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


def start_and_wait(folder):
    engine = Local(workers=2, devices=("cpu",))
    for number in range(2):
        engine.submit(str(number), Sleeper(folder))
    while True:
        engine.next(5)


@pytest.mark.slow
def test_workers_end_with_the_process_that_started_them(tmp_path):
    import multiprocessing

    process = multiprocessing.get_context("spawn").Process(target=start_and_wait, args=(str(tmp_path),))
    process.start()
    deadline = time.monotonic() + 200
    while len(list(tmp_path.iterdir())) < 2 and time.monotonic() < deadline:
        time.sleep(0.2)
    workers = [int(path.name) for path in tmp_path.iterdir()]
    assert len(workers) == 2
    assert all(alive(pid) for pid in workers)
    process.kill()
    process.join()
    while any(alive(pid) for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(alive(pid) for pid in workers)
