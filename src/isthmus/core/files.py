"""Writing files so that nobody ever sees half of one."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from isthmus.core.errors import UnwritableError


@contextlib.contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on success it is synced and renamed, on failure removed.

    Raises:
        IsthmusError: the folder cannot be written, or the disk is full.
    """
    target = Path(path)
    temporary: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{target.name[:80]}.", suffix=".part", dir=target.parent)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(target)
        _sync_folder(target.parent)
    except OSError as problem:
        raise unwritable(target, problem) from problem
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """Yield a temporary folder beside ``path``; on success it is renamed to ``path``, on failure removed.

    Raises:
        IsthmusError: the folder exists already with other content, or cannot be written.
    """
    target = Path(path)
    temporary: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{target.name[:80]}.", suffix=".part", dir=target.parent))
        yield temporary
        for file in temporary.rglob("*"):
            if file.is_file():
                with file.open("rb") as written:
                    os.fsync(written.fileno())
        temporary.chmod(0o755)
        _sync_folder(temporary)  # the names in it; the files themselves are synced above
        temporary.rename(target)
        _sync_folder(target.parent)
    except OSError as problem:
        raise unwritable(target, problem) from problem
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def write_text(path: str | Path, text: str) -> None:
    """Write a whole text file atomically, UTF-8.

    Bytes of file names that are no UTF-8 are escaped in the way of JSON's strings.
    """
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def check_writable(path: str | Path) -> None:
    """Find out before hours of work whether a file can be written after them; nothing is left behind.

    Raises:
        IsthmusError: it is a folder, or no file can be made where it is to stand.
    """
    target = Path(path)
    try:
        if target.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        folder = next(above for above in target.absolute().parents if above.exists())
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as problem:
        raise unwritable(target, problem) from problem


def unwritable(path: Path, problem: OSError) -> UnwritableError:
    """The one-line error for a place that cannot be written."""
    reason = problem.strerror or str(problem)
    return UnwritableError(f"{path} must be writable, but: {reason.lower()}; choose another output or free some space")


def _sync_folder(folder: Path) -> None:
    """Make the rename itself durable; not every file system offers it."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
