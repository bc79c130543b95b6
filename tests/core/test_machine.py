"""What a process does with memory that it has freed."""

import subprocess
import sys

import pytest

from isthmus.core.machine import keep_freed_memory

PROGRAM = """
import resource, sys
from isthmus.core.machine import keep_freed_memory
kept = keep_freed_memory() if sys.argv[1] == "keep" else False
def work():
    blocks = [bytearray(12 << 20) for _ in range(4)]
for _ in range(3):
    work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    work()
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def pages(asked: str) -> tuple[bool, int]:
    """Whether freed memory is kept, and how many pages ten rounds of 48 MiB ask the system for."""
    done = subprocess.run([sys.executable, "-c", PROGRAM, asked], capture_output=True, text=True, check=True)
    kept, count = done.stdout.split()
    return kept == "True", int(count)


def test_freed_memory_is_used_again():
    kept, count = pages("keep")
    if not kept:
        pytest.skip("needs the GNU C library and no MALLOC_ variables")
    assert count < 1000
    assert pages("give back")[1] > 2 * count  # what there is to win, and that it is counted


def test_a_users_own_settings_stay(monkeypatch):
    monkeypatch.setenv("MALLOC_ARENA_MAX", "2")
    assert not keep_freed_memory()
