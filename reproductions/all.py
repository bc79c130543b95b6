"""The cells of all reproductions, one job after the other on every GPU of this machine.

    PYTHONPATH=. python reproductions/all.py --data FOLDER --output FOLDER [--jobs NAME ...] [--seconds 1500] [--list]

Jobs stand in ``jobs.toml``, the most wanted first; each is one call of a folder's ``run.py`` that writes into
``OUTPUT/NAME``. A job that ended well is not done again, one that was stopped goes on where it was: the scripts keep
their cells. ``OUTPUT/done.json`` says what ended and how, ``OUTPUT/logs`` has what was printed. To go on on another
machine carry all of OUTPUT, the trained weights too (``trained``, ``weights``, ``frames`` in each job's folder): cells
alone are of networks that are no longer there, and trained anew these are others. Recorded results are brought together
by the folder's own script, the first of a name counts: ``run.py --also OUTPUT/NAME/results.json ...``.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
import time
import tomllib
from pathlib import Path

import torch
from reproductions.cells import say

from isthmus.core.files import write_text

HERE = Path(__file__).parent
GRACE = 10  # seconds that a stopped job has to write what it holds
SHORTEST = 30  # seconds that must be left for another job to begin


@dataclasses.dataclass(frozen=True)
class Job:
    """One call of a script; ``seconds`` is about how long it takes on one H200, OUTPUT in an argument is the folder."""

    name: str
    folder: str
    arguments: list[str]
    seconds: float

    def command(self, data: Path, output: Path) -> list[str]:
        """What is run."""
        script = HERE / self.folder / "run.py"
        places = ["--data", str(data), "--output", str(output / self.name)]
        arguments = [word.replace("OUTPUT", str(output)) for word in self.arguments]
        return [sys.executable, str(script), *places, *arguments]


class Queue:
    """Jobs that lanes take from until they are done or the time is up.

    Args:
        jobs: the most wanted first.
        data: folder of the data sets.
        output: of the results, of ``logs`` and of ``done.json``.
        until: of the monotonic clock.
    """

    def __init__(self, jobs: list[Job], data: Path, output: Path, until: float) -> None:
        self.data, self.output, self.until = data, output, until
        self.record = output / "done.json"
        self.done: dict[str, dict[str, float]] = json.loads(self.record.read_text()) if self.record.exists() else {}
        self.waiting = [job for job in jobs if self.done.get(job.name, {}).get("exit") != 0]
        self.lock = threading.Lock()
        (output / "logs").mkdir(parents=True, exist_ok=True)

    def lane(self, gpu: int | None) -> None:
        """Run jobs on one GPU (or none) while there are any and time is left."""
        while self.until - time.monotonic() > SHORTEST:
            with self.lock:
                if not self.waiting:
                    return
                job = self.waiting.pop(0)
            self.run(job, gpu)

    def run(self, job: Job, gpu: int | None) -> None:
        """One job to its end, or stopped when the time is up."""
        place = {} if gpu is None else {"CUDA_VISIBLE_DEVICES": str(gpu)}
        began = time.monotonic()
        with (self.output / "logs" / f"{job.name}.log").open("a") as log:
            process = subprocess.Popen(
                job.command(self.data, self.output), stdout=log, stderr=subprocess.STDOUT,
                env={**os.environ, **place}, start_new_session=True,
            )  # fmt: skip
            code, ended = self.wait(process)
        took = round(time.monotonic() - began)
        how = f"exit {code}" if ended else "stopped, goes on next time"
        say(f"{job.name}: {how} after {took} s (about {job.seconds:.0f} on an H200)")
        if ended:
            with self.lock:
                self.done[job.name] = {"exit": code, "seconds": took}
                write_text(self.record, json.dumps(self.done, indent=1))

    def wait(self, process: subprocess.Popen[bytes]) -> tuple[int, bool]:
        """The exit code, and whether the process ended by itself."""
        try:
            return process.wait(timeout=max(self.until - time.monotonic(), 0)), True
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGTERM)
        try:
            return process.wait(timeout=GRACE), False
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            return process.wait(), False


def main() -> int:
    """Run the jobs; the exit code is 1 where one of them failed."""
    words = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    words.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    words.add_argument("--output", type=Path, required=True, help="folder of the results")
    words.add_argument("--jobs", nargs="*", help="only those whose name begins so")
    words.add_argument("--lanes", type=int, default=2, help="jobs at a time on one GPU: one alone leaves it waiting")
    words.add_argument("--seconds", type=float, default=1e9, help="stop after so many")
    words.add_argument("--list", action="store_true", help="say what would run")
    asked = words.parse_args()
    table = tomllib.loads((HERE / "jobs.toml").read_text(encoding="utf-8"))["job"]
    jobs = [Job(**row) for row in table]
    if asked.jobs:
        jobs = [job for job in jobs if job.name.startswith(tuple(asked.jobs))]
    queue = Queue(jobs, asked.data, asked.output, time.monotonic() + asked.seconds)
    gpus: list[int | None] = list(range(torch.cuda.device_count())) or [None]
    places = gpus * asked.lanes if gpus != [None] else gpus  # every GPU has a job before one has two
    total = sum(job.seconds for job in queue.waiting)
    say(f"{len(queue.waiting)} of {len(jobs)} jobs to do, about {total / len(places) / 60:.0f} minutes on H200s")
    if asked.list:
        say("\n".join(f"{job.name}: {' '.join(job.command(asked.data, asked.output)[1:])}" for job in queue.waiting))
        return 0
    lanes = [threading.Thread(target=queue.lane, args=(gpu,)) for gpu in places]
    for lane in lanes:
        lane.start()
    for lane in lanes:
        lane.join()
    failed = [name for name, end in queue.done.items() if end["exit"] != 0]
    if failed:
        say(f"failed: {', '.join(failed)}; see {asked.output / 'logs'}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
