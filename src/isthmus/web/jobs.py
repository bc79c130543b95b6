"""Work that a reader starts: commands of isthmus, one after the other, each in a process of its own."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import queue
import secrets
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from isthmus.core.errors import listed
from isthmus.web.pages import SiteError

State = Literal["waiting", "running", "done", "failed", "stopped"]
_MOST_WAITING = 8
_MOST_RUNS = 12
_RUNNER = "import sys; from isthmus.cli.main import invoke; sys.exit(invoke(sys.argv[1:]))"
# kind -> whether it takes chosen runs, whether it takes a study, further arguments
KINDS: Mapping[str, tuple[bool, bool, tuple[str, ...]]] = {
    "check": (True, True, ("--quick",)),
    "glass": (False, True, ("--alignments", "raw,reference")),
    "flatness": (False, True, ("--examples", "500")),
}


@dataclasses.dataclass(eq=False)
class Job:
    """One piece of work.

    Attributes:
        id: random, so that it cannot be guessed.
        kind: one of :data:`KINDS`.
        what: it is about, for people.
        arguments: of the command line.
        log: file with what the command said.
        result: name of the result that it writes.
        started: when it was asked for, seconds since 1970.
        state: where it is.
        process: while it is at work.
    """

    id: str
    kind: str
    what: str
    arguments: tuple[str, ...]
    log: Path
    result: str
    started: float
    state: State = "waiting"
    process: subprocess.Popen[bytes] | None = None

    def said(self) -> str:
        """The last line that the command said."""
        lines = self.text().splitlines()
        return lines[-1][:400] if lines else ""

    def text(self, most: int = 20_000) -> str:
        """The end of what the command said."""
        try:
            content = self.log.read_bytes()
        except OSError:
            return ""
        return content[-most:].decode("utf-8", "replace").strip()


class Jobs:
    """What was started on one store; nothing can be where ``allowed`` is false."""

    def __init__(self, store: Path, *, allowed: bool = False, data_folder: str | None = None) -> None:
        self.store, self.allowed, self.data_folder = store, allowed, data_folder
        self._jobs: dict[str, Job] = {}
        self._queue: queue.Queue[Job | None] = queue.Queue()
        self._lock = threading.Lock()
        self._folder = tempfile.TemporaryDirectory(prefix="isthmus-jobs-") if allowed else None
        self._thread = threading.Thread(target=self._work, name="jobs", daemon=True)
        if allowed:
            self._thread.start()

    def all(self) -> list[Job]:
        """All jobs, the newest first."""
        return sorted(self._jobs.values(), key=lambda job: job.started, reverse=True)

    def find(self, identity: str) -> Job | None:
        """The job of an id."""
        return self._jobs.get(identity)

    def start(self, kind: str, *, runs: Sequence[str] = (), study: str = "") -> Job:
        """Ask for work; it begins when all that was asked for before is done.

        Args:
            kind: one of :data:`KINDS`.
            runs: keys of runs of the store.
            study: name of a study of the store, instead of runs.

        Raises:
            SiteError: nothing may be started, the kind does not take what was given, or too much is waiting.
        """
        if not self.allowed or self._folder is None:
            raise SiteError("site.problem.shows")
        takes_runs, takes_study, further = KINDS.get(kind, (False, False, ()))
        if kind not in KINDS or bool(runs) == bool(study) or (runs and not takes_runs) or (study and not takes_study):
            raise SiteError("site.problem.kind", kinds=listed(KINDS))
        if len(runs) > _MOST_RUNS or len(runs) == 1:
            raise SiteError("site.problem.check", most=_MOST_RUNS, got=len(runs))
        with self._lock:
            if sum(job.state in ("waiting", "running") for job in self._jobs.values()) >= _MOST_WAITING:
                raise SiteError("site.problem.waiting", most=_MOST_WAITING)
            identity = secrets.token_hex(8)
            result = f"{time.strftime('%Y%m%dT%H%M%S')}-{kind}-{identity[:6]}"
            target = self.store / "results" / f"{result}.json"
            subject = [f"--run={key}" for key in runs] if runs else [f"--study={study}"]
            place = [str(self.store)] if kind == "check" else [f"--store={self.store}"]
            data = [f"--data-dir={self.data_folder}"] if self.data_folder else []
            arguments = (kind, *place, *subject, *further, *data, f"--output={target}")
            what = study or ", ".join(key[:8] for key in runs)
            job = Job(identity, kind, what, arguments, Path(self._folder.name) / identity, result, time.time())
            self._jobs[identity] = job
        self._queue.put(job)
        return job

    def stop(self, job: Job) -> None:
        """Stop a job that waits or runs."""
        with self._lock:
            if job.state in ("waiting", "running"):
                job.state = "stopped"
                _end(job.process)

    def close(self) -> None:
        """Stop everything."""
        for job in self.all():
            self.stop(job)
        self._queue.put(None)
        if self._thread.is_alive():
            self._thread.join(timeout=10)
        if self._folder is not None:
            self._folder.cleanup()

    def _work(self) -> None:
        while (job := self._queue.get()) is not None:
            with self._lock:
                if job.state != "waiting":
                    continue
                try:
                    job.process = self._begun(job)
                except OSError as problem:  # no memory, no room: the next job may have them
                    job.state = "failed"
                    with contextlib.suppress(OSError):
                        job.log.write_text(
                            f"isthmus: the work must start in a process, but: {problem}\n", encoding="utf-8"
                        )
                    continue
                job.state = "running"
            code = job.process.wait()
            with self._lock:
                if job.state == "running":
                    # A check that says no is as good an answer as one that says yes.
                    job.state = "done" if code in (0, 1) and self._wrote(job) else "failed"

    def _begun(self, job: Job) -> subprocess.Popen[bytes]:
        with job.log.open("wb") as log:
            return subprocess.Popen(
                [sys.executable, "-c", _RUNNER, *job.arguments],
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
                env={**os.environ, "NO_COLOR": "1"},
            )  # fmt: skip

    def _wrote(self, job: Job) -> bool:
        return (self.store / "results" / f"{job.result}.json").exists()


def _end(process: subprocess.Popen[bytes] | None) -> None:
    """End a process and what it started; it was made the leader of a session of its own."""
    if process is None or process.poll() is not None:
        return
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, 15)
    try:
        process.wait(timeout=3)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, 9)
