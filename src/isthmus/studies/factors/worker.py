"""A worker process of the local engine: takes jobs from its connection until that closes."""

from __future__ import annotations

import os
import pickle
import queue
import signal
import sys
import threading
import time
import traceback
from multiprocessing.connection import Connection
from typing import Any

from isthmus.core.errors import IsthmusError

# Signs of life more often than this only cost time.
_SECONDS_BETWEEN_SIGNS = 0.2


def main(descriptor: int) -> None:
    """Work until the other side of the connection goes away, and end at once when it does."""
    # The process that started this one decides what an interruption means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    connection = Connection(descriptor)
    settings = _heard(connection)
    import torch

    torch.set_num_threads(settings["threads"])
    jobs: queue.Queue[bytes] = queue.Queue()
    threading.Thread(target=_listen, args=(connection, jobs), daemon=True).start()
    while True:
        job = jobs.get()
        connection.send(_done(job, settings["device"], connection))


def _listen(connection: Connection, jobs: queue.Queue[bytes]) -> None:
    """Take jobs as they come. When the owner dies, also by kill -9, the connection closes and so does this process."""
    while True:
        _, job = _heard(connection)
        jobs.put(job)


def _heard(connection: Connection) -> Any:
    """What the owner says next; without an owner there is nobody to tell of the end."""
    try:
        return connection.recv()
    except (EOFError, OSError):
        os._exit(1)


def _done(job: bytes, device: str, connection: Connection) -> tuple[str, Any]:
    last = time.monotonic()

    def progress(done: float, total: float, label: str = "") -> None:
        nonlocal last
        if time.monotonic() - last > _SECONDS_BETWEEN_SIGNS:
            last = time.monotonic()
            connection.send(("progress", done / total if total else 0.0))

    try:
        return "done", pickle.loads(job).run(device=device, progress=progress)
    except IsthmusError as problem:
        return "refused", str(problem)
    except MemoryError:
        return "refused", "it ran out of memory; use fewer workers or a smaller group"
    except Exception as problem:
        traceback.print_exc(file=sys.stderr)
        return "failed", f"{type(problem).__name__}: {(str(problem).splitlines() or [''])[0]}"


if __name__ == "__main__":
    main(int(sys.argv[1]))
