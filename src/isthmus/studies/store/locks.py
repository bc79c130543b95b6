"""Locks that the kernel gives back when their holder dies, also by ``kill -9``; they work across NFS clients."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from isthmus.core.errors import IsthmusError
from isthmus.core.files import unwritable

_TAKEN = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES)


@contextlib.contextmanager
def claimed(path: Path) -> Iterator[bool]:
    """Yield whether the lock of ``path`` could be had at once; if so it is held until the block ends.

    The file is made if it is missing and stays: to remove it would let two holders in.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as problem:
        raise unwritable(path, problem) from problem
    try:
        yield lock(descriptor, path, wait=False)
    finally:
        os.close(descriptor)


def lock(descriptor: int, path: Path, *, wait: bool) -> bool:
    """Lock an open file until it is closed; ``False`` where somebody else holds it and we do not wait.

    Raises:
        IsthmusError: the file system has no locks.
    """
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError as problem:
        if problem.errno in _TAKEN and not wait:
            return False
        raise IsthmusError(
            f"a store must lie on a file system with locks, but {path} cannot be locked ({problem.strerror}); "
            "mount it with locks (NFS: local_lock=none, Lustre: flock) or choose another place for the store"
        ) from problem
    return True
