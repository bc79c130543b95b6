"""What runs the jobs of a study: this process, several processes, or a Ray cluster. All give the same results."""

from __future__ import annotations

import collections
import dataclasses
from typing import Any, Protocol

from isthmus.core.errors import IsthmusError
from isthmus.core.progress import Progress, silent


class Job(Protocol):
    """A piece of work that needs nothing but itself; it is pickled to where it runs."""

    def run(self, *, device: str, progress: Progress = silent) -> Any:
        """Do it and return a value that can be pickled."""
        ...


@dataclasses.dataclass(frozen=True, eq=False)
class Finished:
    """The end of a job, or a sign of life.

    Attributes:
        name: the job's.
        outcome: what it returned.
        problem: one line, if it could not be done.
        share: how far it is, between 0 and 1; 1 at its end.
    """

    name: str
    outcome: Any = None
    problem: str | None = None
    share: float = 1.0

    @property
    def over(self) -> bool:
        """Whether the job has ended."""
        return self.share >= 1.0


class Engine(Protocol):
    """Runs jobs; at most ``slots`` are worth submitting at a time."""

    @property
    def slots(self) -> int:
        """How many jobs run at a time."""
        ...

    @property
    def processor(self) -> str:
        """What jobs compute on: ``cpu`` or ``cuda``."""
        ...

    @property
    def description(self) -> str:
        """The engine in words."""
        ...

    def submit(self, name: str, job: Job) -> None:
        """Take a job; its end is told under this name."""
        ...

    def next(self, timeout: float) -> Finished | None:
        """The next end or sign of life of a job, or ``None`` if there is none for ``timeout`` seconds."""
        ...

    def close(self) -> None:
        """Give back what the engine holds; jobs that still run are lost."""
        ...


class Here:
    """Runs each job in this process when its result is asked for."""

    slots = 1

    def __init__(self, *, device: str = "cpu", progress: Progress = silent) -> None:
        self.device, self.progress = device, progress
        self.waiting: collections.deque[tuple[str, Job]] = collections.deque()

    @property
    def processor(self) -> str:
        """What jobs compute on."""
        return self.device.partition(":")[0]

    @property
    def description(self) -> str:
        """In words."""
        return f"this process on {self.device}"

    def submit(self, name: str, job: Job) -> None:
        """Keep the job for the next call of :meth:`next`."""
        self.waiting.append((name, job))

    def next(self, timeout: float) -> Finished | None:
        """Run the oldest job to its end."""
        if not self.waiting:
            return None
        name, job = self.waiting.popleft()
        try:
            return Finished(name, job.run(device=self.device, progress=self.progress))
        except IsthmusError as problem:
            return Finished(name, problem=str(problem))

    def close(self) -> None:
        """Nothing to give back."""
        self.waiting.clear()
