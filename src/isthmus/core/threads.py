"""Independent pieces of work in threads, each on one core.

Assignment solvers, matrix products and random draws release Python's lock, so threads are enough. Inside, every piece
uses one core: threads that each start a team of their own were measured to slow small networks 5 to 20 times.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import TypeVar

import torch

from isthmus.core.progress import Progress, silent

_MEMORY = 4 << 30  # bytes that pieces at work at the same time may hold together

Piece = TypeVar("Piece")
Result = TypeVar("Result")


def in_threads(
    function: Callable[[Piece], Result],
    pieces: Sequence[Piece],
    *,
    threads: int | None = None,
    progress: Progress = silent,
    label: str = "",
) -> list[Result]:
    """The results of ``function`` for all pieces, in their order; the first error is raised and stops the rest.

    Args:
        function: must not depend on the order in which pieces are done.
        pieces: what to do.
        threads: how many at once; by default as many as PyTorch may use (``torch.get_num_threads()``).
        progress: hears of every finished piece, in the caller's thread.
        label: what is being done.
    """
    wanted = min(threads or torch.get_num_threads(), len(pieces))
    if wanted <= 1:
        results = []
        for done, piece in enumerate(pieces, start=1):
            results.append(function(piece))
            progress(done, len(pieces), label)
        return results
    with _one_core_each(), ThreadPoolExecutor(wanted) as pool:
        futures = [pool.submit(_alone, function, piece) for piece in pieces]
        try:
            for done, future in enumerate(as_completed(futures), start=1):
                future.result()
                progress(done, len(pieces), label)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
        return [future.result() for future in futures]


def fitting(pieces: int, bytes_each: int) -> int:
    """How many pieces to do at once: as many as there are cores, and as hold together in 4 GiB.

    One, where there are fewer pieces than that: each does better with all threads inside it.
    """
    threads = min(torch.get_num_threads(), max(1, _MEMORY // max(1, bytes_each)))
    return threads if threads <= pieces else 1


def _alone(function: Callable[[Piece], Result], piece: Piece) -> Result:
    # The number of OpenMP threads belongs to the thread that asks, so each worker says so itself.
    if torch.get_num_threads() != 1:
        torch.set_num_threads(1)
    return function(piece)


@contextlib.contextmanager
def _one_core_each() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
