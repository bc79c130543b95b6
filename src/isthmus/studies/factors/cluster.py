"""The Ray engine: jobs run on an existing cluster (or one started on this machine); lost ones are run again by Ray."""

from __future__ import annotations

import socket
from typing import Any

from isthmus.core.errors import IsthmusError
from isthmus.studies.factors.engines import Finished, Job

# Lost workers and nodes are common on shared clusters, but a job that kills every worker must end some time.
_RETRIES = 3
_KNOCK = 10.0  # seconds; a living head node answers in milliseconds


class Cluster:
    """A Ray cluster.

    Results travel to this process, which alone writes to the store, so the nodes need no common file system. They need
    isthmus in the same version and, for data sets in files, those files at the same place.

    Args:
        address: of the cluster, such as ``auto``, ``10.0.0.1:6379`` or ``ray://10.0.0.1:10001``; by default the one
            that ``RAY_ADDRESS`` names, or a new one on this machine.
        threads: CPUs that each job asks for.

    Raises:
        IsthmusError: Ray is not installed, or there is no cluster at the address.
    """

    def __init__(self, *, address: str | None = None, threads: int = 1) -> None:
        try:
            import ray
        except ImportError:
            raise IsthmusError("the ray engine needs Ray, which is not installed; pip install 'isthmus[ray]'") from None
        self.ray: Any = ray
        _refuse_silence(address)
        self.ours = not ray.is_initialized()
        try:
            self.ray.init(address=address, ignore_reinit_error=True, logging_level="ERROR", log_to_driver=False)
        except (ConnectionError, ValueError, RuntimeError, self.ray.exceptions.RayError) as problem:
            reason = (str(problem).splitlines() or ["no reason given"])[0]
            where = address or "this machine"
            raise IsthmusError(
                f"a Ray cluster must answer at {where}, but: {reason}; start one: ray start --head"
            ) from problem
        resources = ray.cluster_resources()
        gpus = int(resources.get("GPU", 0))
        self.device = "cuda" if gpus else "cpu"
        self.slots = max(1, gpus or int(resources.get("CPU", 1)) // threads)
        self.remote = ray.remote(_run).options(
            num_cpus=threads, num_gpus=1 if gpus else 0, max_retries=_RETRIES, retry_exceptions=False
        )
        self.threads = threads
        self.running: dict[Any, str] = {}

    @property
    def processor(self) -> str:
        """What jobs compute on."""
        return self.device

    @property
    def description(self) -> str:
        """In words."""
        return f"Ray, {self.slots} places on {len(self.ray.nodes())} nodes, {self.device}"

    def submit(self, name: str, job: Job) -> None:
        """Queue the job on the cluster."""
        self.running[self.remote.remote(job, self.device, self.threads)] = name

    def next(self, timeout: float) -> Finished | None:
        """The next job that ends, at most ``timeout`` seconds later."""
        if not self.running:
            return None
        ready, _ = self.ray.wait(list(self.running), num_returns=1, timeout=timeout)
        if not ready:
            return None
        name = self.running.pop(ready[0])
        try:
            kind, value = self.ray.get(ready[0])
        except self.ray.exceptions.RayError as problem:
            reason = next((line for line in str(problem).splitlines() if line.strip()), type(problem).__name__)
            return Finished(name, problem=f"the cluster lost it {_RETRIES + 1} times: {reason.strip()}")
        return Finished(name, outcome=value) if kind == "done" else Finished(name, problem=value)

    def close(self) -> None:
        """Cancel what still runs and, where this engine made the connection, leave the cluster."""
        for reference in self.running:
            self.ray.cancel(reference, force=True)
        self.running.clear()
        if self.ours:
            self.ray.shutdown()


def _refuse_silence(address: str | None) -> None:
    """Knock at HOST:PORT first: Ray itself keeps trying for minutes where nobody answers."""
    host, colon, port = (address or "").removeprefix("ray://").rpartition(":")
    if not colon or not port.isdigit():
        return
    try:
        socket.create_connection((host, int(port)), timeout=_KNOCK).close()
    except OSError as problem:
        reason = problem.strerror or "nobody answers"
        raise IsthmusError(
            f"a Ray cluster must answer at {address}, but: {reason.lower()}; start one there: ray start --head"
        ) from problem


def _run(job: Job, device: str, threads: int) -> tuple[str, Any]:
    """On the cluster. Errors of the input come back as words; everything else is Ray's to report."""
    import torch

    torch.set_num_threads(threads)
    try:
        return "done", job.run(device=device)
    except IsthmusError as problem:
        return "refused", str(problem)
