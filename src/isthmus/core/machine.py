"""What this process may use of the machine."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
from pathlib import Path

_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def cores() -> int:
    """How many cores this process may use; containers and schedulers often allow fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory() -> int | None:
    """Bytes that processes here can hold at most, swap included; ``None`` where the system does not say."""
    with contextlib.suppress(OSError, ValueError):
        told = dict(re.findall(r"(\w+):\s+(\d+) kB", Path("/proc/meminfo").read_text(encoding="utf-8")))
        whole = 1024 * (int(told.get("MemTotal", 0)) + int(told.get("SwapTotal", 0)))
        limits = [int(text) for file in _LIMITS if (text := _read(Path(file))).isdecimal()]
        return min([whole, *limits]) or None
    return None


def keep_freed_memory() -> bool:
    """Let this process keep memory that it has freed, up to half a gigabyte, for what it asks for next.

    For programs, not for libraries: it changes how the whole process allocates. A network's values are tens of
    megabytes, freed and asked for again in every layer; given back to the system in between, they come as pages to be
    cleared, which was measured to take 40 % of a ResNet-20's forward pass on a CPU.

    Returns:
        Whether it did: only with the GNU C library, and not where ``MALLOC_…`` variables say what is wanted.

    Reference: mallopt(3), ``M_TRIM_THRESHOLD`` (−1) and ``M_MMAP_THRESHOLD`` (−3).
    """
    if any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ):
        return False
    with contextlib.suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).gnu_get_libc_version  # noqa: B018 - other systems' mallopt has other numbers
        mallopt = ctypes.CDLL(None).mallopt
        return bool(mallopt(-3, 2**26)) and bool(mallopt(-1, 2**29))
    return False


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8").strip()
    except OSError:
        return ""
