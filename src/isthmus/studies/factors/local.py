"""The local engine: worker processes, each with its threads and its device; a worker that dies is replaced."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import os
import pickle
import socket
import subprocess
import sys
from collections.abc import Mapping
from multiprocessing.connection import Connection, wait
from typing import Any

import torch

from isthmus.core.errors import IsthmusError, SettingError
from isthmus.core.machine import cores
from isthmus.studies.factors.engines import Finished, Job

# A job that kills its worker this often is at fault itself (out of memory, say), not the machine.
_ATTEMPTS = 3


@dataclasses.dataclass(eq=False)
class _Worker:
    process: subprocess.Popen[bytes]
    connection: Connection
    device: str
    name: str | None = None


class Local:
    """Worker processes on this machine.

    Workers are processes of their own (``python -m isthmus.studies.factors.worker``), so that scripts and notebooks
    need no guard around their main part. They end when this process does, however it ends.

    Args:
        workers: how many; by default one for each GPU, or else one for each core that this process may use.
        threads: of each worker. One pays for the small networks of most studies (two threads that compete for cores
            were measured to slow them 5 to 20 times); :func:`isthmus.studies.factors.threads.threads_for` finds out
            where more do.
        devices: what the workers compute on, shared out in turn; by default all GPUs, or else the CPU. A worker sees
            its own GPU only, as ``cuda:0``.
    """

    def __init__(self, *, workers: int | None = None, threads: int = 1, devices: tuple[str, ...] | None = None) -> None:
        found = devices or tuple(f"cuda:{index}" for index in range(torch.cuda.device_count())) or ("cpu",)
        self.devices = found
        self.slots = workers if workers is not None else len(found) if found[0] != "cpu" else cores()
        if self.slots < 1 or threads < 1:
            raise SettingError(f"workers and threads must be at least 1, got {self.slots} and {threads}")
        self.threads = threads
        self.waiting: collections.deque[tuple[str, bytes]] = collections.deque()
        self.attempts: collections.Counter[str] = collections.Counter()
        self.jobs: dict[str, bytes] = {}
        self.workers: list[_Worker] = []

    @property
    def processor(self) -> str:
        """What jobs compute on."""
        return self.devices[0].partition(":")[0]

    @property
    def description(self) -> str:
        """In words."""
        threads = f"{self.threads} thread{'s' if self.threads > 1 else ''} each"
        return f"{self.slots} process{'es' if self.slots > 1 else ''} on {', '.join(self.devices)}, {threads}"

    def submit(self, name: str, job: Job) -> None:
        """Hand the job to a free worker, or keep it until one is."""
        self.jobs[name] = pickle.dumps(job)
        self.waiting.append((name, self.jobs[name]))
        self._hand_out()

    def next(self, timeout: float) -> Finished | None:
        """The next sign of life, at most ``timeout`` seconds later."""
        self._hand_out()
        busy = [worker for worker in self.workers if worker.name is not None]
        for ready in wait([worker.connection for worker in busy], timeout):
            worker = next(w for w in busy if w.connection is ready)
            try:
                kind, value = worker.connection.recv()
            except (EOFError, OSError, pickle.UnpicklingError):
                return self._lost(worker)
            return self._heard(worker, kind, value)
        return None

    def close(self) -> None:
        """End all workers, also those at work."""
        for worker in self.workers:
            worker.connection.close()
        for worker in self.workers:
            worker.process.kill()
            worker.process.wait()
        self.workers.clear()

    def _heard(self, worker: _Worker, kind: str, value: Any) -> Finished | None:
        name = worker.name or ""
        if kind == "progress":
            return Finished(name, share=min(float(value), 0.999))
        self._settle(worker)
        return Finished(name, outcome=value) if kind == "done" else Finished(name, problem=value)

    def _lost(self, worker: _Worker) -> Finished | None:
        """A worker has died: try its job again elsewhere, a few times."""
        name = worker.name or ""
        code = self._remove(worker)
        self.attempts[name] += 1
        if self.attempts[name] < _ATTEMPTS:
            self.waiting.appendleft((name, self.jobs[name]))
            self._hand_out()
            return None
        self.jobs.pop(name, None)
        reason = f"signal {-code}" if code < 0 else f"exit code {code}"
        hint = "; the machine may have run out of memory: use fewer workers or a smaller group" if code == -9 else ""
        return Finished(name, problem=f"its worker died {_ATTEMPTS} times, last with {reason}{hint}")

    def _settle(self, worker: _Worker) -> None:
        self.jobs.pop(worker.name or "", None)
        worker.name = None

    def _hand_out(self) -> None:
        """Give waiting jobs to free workers; start workers as they are needed."""
        while self.waiting:
            worker = next((w for w in self.workers if w.name is None), None)
            if worker is None:
                if len(self.workers) >= self.slots:
                    return
                worker = self._start()
            name, job = self.waiting.popleft()
            worker.name = name
            # A worker that died just now is noticed, and its job tried again, when it is listened to.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                worker.connection.send((name, job))

    def _start(self) -> _Worker:
        """Start a worker and tell it where it is."""
        used = collections.Counter(worker.device for worker in self.workers)
        device = min(self.devices, key=lambda name: used[name])
        ours, theirs = socket.socketpair()
        os.set_inheritable(theirs.fileno(), True)
        command = [sys.executable, "-m", "isthmus.studies.factors.worker", str(theirs.fileno())]
        device_there, environment = seen_by_worker(device, os.environ)
        environment |= {"OMP_NUM_THREADS": str(self.threads), "MKL_NUM_THREADS": str(self.threads)}
        # The worker must find isthmus and the user's own modules where this process found them.
        environment["PYTHONPATH"] = os.pathsep.join(path or os.getcwd() for path in sys.path)
        try:
            # A session of its own: Ctrl-C in the terminal is for this process, which decides what it means.
            process = subprocess.Popen(
                command, pass_fds=[theirs.fileno()], env=environment, stdin=subprocess.DEVNULL, start_new_session=True
            )
        except OSError as problem:
            raise IsthmusError(f"a worker process must start, but: {problem.strerror}") from problem
        theirs.close()
        worker = _Worker(process, Connection(ours.detach()), device)
        worker.connection.send({"device": device_there, "threads": self.threads})
        self.workers.append(worker)
        return worker

    def _remove(self, worker: _Worker) -> int:
        self.workers.remove(worker)
        worker.connection.close()
        worker.process.kill() if worker.process.poll() is None else None
        return worker.process.wait()


def seen_by_worker(device: str, environment: Mapping[str, str]) -> tuple[str, dict[str, str]]:
    """The device as a worker is to call it, and the environment in which it has nothing but that device.

    A process that sees several GPUs puts some of its memory on the first one, whichever it computes on.

    Args:
        device: ``cpu``, or a GPU as this process counts them.
        environment: of this process; where it may see only some GPUs, its numbers are among those.
    """
    if not device.startswith("cuda"):
        return device, dict(environment)
    index = int(device.partition(":")[2] or 0)
    visible = [name.strip() for name in environment.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return "cuda:0", {**environment, "CUDA_VISIBLE_DEVICES": visible[index] if visible else str(index)}
