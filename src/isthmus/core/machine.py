"""What this process may use of the machine."""

from __future__ import annotations

import contextlib
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


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8").strip()
    except OSError:
        return ""
