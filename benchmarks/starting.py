"""What a command costs before and beside its work: CPU seconds of small commands, over those of importing torch.

    python benchmarks/starting.py [--repeats 3]

The work itself (five points between two small networks, a plane of nine points) takes less than a tenth of a second, so
what is measured is imports, data and output. Seconds are user and system time of the whole process, the least of the
repeats.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

MODEL = ("--model", "mlp-16x1", "--data", "digits")
COMMANDS = {
    "barrier": ("barrier", "networks", *MODEL, "--points", "5"),
    "symmetry": ("symmetry", "mlp-16x1", "--input", "1x1x8x8"),
    "align": ("align", "networks", *MODEL),
    "merge": ("merge", "networks", "-o", "merged"),
    "history": ("history", "networks"),
    "--help": ("--help",),
}


def seconds(command: tuple[str, ...], folder: Path) -> float:
    """CPU time of a process and its children."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, *command], cwd=folder, capture_output=True, text=True, check=False,
                          env={**os.environ, "OMP_NUM_THREADS": "1"})  # fmt: skip
    if done.returncode not in (0, 1):
        raise SystemExit(f"{' '.join(command)}: {done.stderr.strip().splitlines()[-1]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    repeats = parser.parse_args().repeats
    isthmus = ("-c", "from isthmus.cli.main import run; run()")
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        seconds((*isthmus, "train", *MODEL, "--solutions", "2", "--epochs", "1", "-o", "networks"), folder)
        torch = min(seconds(("-c", "import torch"), folder) for _ in range(repeats))
        print(f"{'import torch':<14} {torch:6.2f} CPU s")
        for name, words in COMMANDS.items():
            taken = min(seconds((*isthmus, *words), folder) for _ in range(repeats))
            print(f"{name:<14} {taken:6.2f} CPU s {taken / torch:6.2f} × torch", flush=True)


if __name__ == "__main__":
    main()
