"""Write docs/symmetries.md: what is discovered in real architectures, each proved by random permutations.

    python docs/symmetry_table.py [--only transformers,torchvision,timm] [--limit 300]

Each architecture runs in a process of its own; what fails is in the table with its reason.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
SOURCES = {
    "transformers": "hugging_face_configurations",
    "torchvision": "torchvision_classifiers",
    "timm": "timm_families",
}
HEAD = """# Symmetries of real architectures

Written by `python docs/symmetry_table.py`. Random weights; *error* is the largest relative change of any output under
random
permutations of random weights and buffers in float64. *Pinned* counts the operations that held units in place.

| architecture | groups | of these nested | log10 of equivalent networks | error | pinned | seconds |
| --- | ---: | ---: | ---: | ---: | ---: | ---: |
"""


def architectures(source: str) -> Any:
    """The list of one source."""
    sys.path.insert(0, str(ROOT))
    from tests.discover import architectures as listed

    return getattr(listed, SOURCES[source])()


def one(source: str, name: str) -> dict[str, Any]:
    """One architecture, in this process."""
    import torch

    import isthmus

    torch.manual_seed(0)
    found = next(a for a in architectures(source) if a.name == name)
    module = found.make().eval()
    start = time.perf_counter()
    symmetry = isthmus.discover(module, found.example, keywords=found.keywords)
    return {
        "groups": len(symmetry.groups),
        "nested": sum(group.parent is not None for group in symmetry.groups),
        "log10": symmetry.log10_size,
        "error": symmetry.proof.error if symmetry.proof else None,
        "pinned": len(symmetry.obstacles),
        "seconds": time.perf_counter() - start,
    }


def row(source: str, name: str, limit: float) -> str:
    """One line of the table."""
    command = [sys.executable, __file__, "--child", source, name]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit, env=environment, check=False)
    except subprocess.TimeoutExpired:
        return f"| {name} | not finished in {limit:.0f} s | | | | | |"
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or not lines:
        errors = [line for line in done.stderr.splitlines() if line.strip()]
        reason = (errors[-1] if errors else "no result").rpartition("Error: ")[2].replace("|", "/")
        return f"| {name} | refused: {reason[:160]} | | | | | |"
    r = json.loads(lines[-1])
    numbers = (
        f"{r['groups']} | {r['nested']} | {r['log10']:.0f} | {r['error']:.0e} | {r['pinned']} | {r['seconds']:.0f}"
    )
    return f"| {name} | {numbers} |"


def main() -> None:
    """Write the table, one row after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(SOURCES))
    parser.add_argument("--limit", type=float, default=300.0, help="seconds for one architecture")
    parser.add_argument("--out", default=str(ROOT / "docs" / "symmetries.md"))
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(one(*arguments.child)))
        return
    out = Path(arguments.out)
    out.write_text(HEAD, encoding="utf-8")
    for source in arguments.only.split(","):
        for architecture in architectures(source):
            line = row(source, architecture.name, arguments.limit)
            print(line, flush=True)
            with out.open("a", encoding="utf-8") as table:
                table.write(line + "\n")


if __name__ == "__main__":
    main()
