"""Write docs/symmetries.md: what is discovered in real architectures, each proved by random permutations.

    python docs/symmetry_table.py [--only transformers,torchvision,timm] [--names NAME ...] [--again NAME ...]
        [--limit 60] [--minutes 30]
    python docs/symmetry_table.py --shard 3/16 --rows rows-3.jsonl [the same options]
    python docs/symmetry_table.py --merge rows-*.jsonl

One process and one thread. Rows that are in the table stay: a stopped run goes on where it was. What fails is in the
table with its reason. On a machine of many cores several processes each take a shard of the list (architecture k is
in shard k modulo n) and write rows as JSON lines to a file of their own, which also says what is done already; the
table is left alone until these files are merged into it.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import os
import signal
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
ROOT = Path(__file__).resolve().parent.parent
SOURCES = ("transformers", "torchvision", "timm")
HEAD = """# Symmetries of real architectures

Written by `python docs/symmetry_table.py`, one architecture after the other on one thread. Random weights,
small inputs.

- **kept**: discovered, and the outputs stay under random permutations of random weights and buffers in float64 (*error*
  is the largest relative change of any output, at most 1e-9).
- **refused**: an error says why there is no result, most often that `torch.export` does not take the module.
- **failed**: groups were found that the proof rejects; the caller gets an error with their names, never the groups.
- **not finished**: stopped after the seconds in its row.

Classifiers of torchvision and families of timm that are not listed have not been run yet; the script goes on with them.

*Nested* groups lie inside units of another (channels of a head). *log10* is that of the number of networks with the
same function that the groups reach. *Seconds* is CPU time of the export, the discovery and the proof.

| architecture | result | groups | nested | log10 | error | seconds | notes |
| --- | --- | ---: | ---: | ---: | ---: | ---: | --- |
"""


class OutOfTime(BaseException):
    """The processor time of one architecture is over; not an Exception, which other people's code would catch."""


def architectures(source: str) -> list[Any]:
    """The list of one source."""
    sys.path.insert(0, str(ROOT))
    from tests.discover.architectures import timm_families, torchvision_classifiers
    from tests.discover.hugging_face import hugging_face_configurations

    made = {
        "transformers": hugging_face_configurations,
        "torchvision": torchvision_classifiers,
        "timm": timm_families,
    }
    return [(source, architecture) for architecture in made[source]()]


def measured(architecture: Any) -> str:
    """The cells of one architecture."""
    import torch

    import isthmus

    torch.manual_seed(0)
    module = architecture.make().eval()
    start = time.process_time()
    symmetry = isthmus.discover(
        module, architecture.example, keywords=architecture.keywords
    )
    seconds = time.process_time() - start
    nested = sum(group.parent is not None for group in symmetry.groups)
    proof = symmetry.proof
    notes = [proof.note] if proof.note else []
    if symmetry.obstacles:
        operations = dict.fromkeys(
            obstacle.operation for obstacle in symmetry.obstacles
        )
        notes.append(
            f"pinned by {', '.join(list(operations)[:4])}{' …' if len(operations) > 4 else ''}"
        )
    return (
        f"kept | {len(symmetry.groups)} | {nested} | {symmetry.log10_size:.0f} | {proof.error:.0e} | {seconds:.0f} "
        f"| {'; '.join(notes)}"
    )


def row(source: str, architecture: Any, limit: float) -> str:
    """One line of the table."""
    from isthmus.core.errors import SymmetryError

    def stop(*_: Any) -> None:
        raise OutOfTime

    signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, limit)
    try:
        cells = measured(architecture)
    except OutOfTime:
        cells = f"not finished | | | | | {limit:.0f} | "
    except Exception as problem:
        result = (
            "failed" if str(problem).startswith("permutations must not") else "refused"
        )
        kind = (
            "" if isinstance(problem, SymmetryError) else f"{type(problem).__name__}: "
        )
        reason = (
            " ".join(f"{kind}{problem}".split())
            .replace("|", "/")
            .partition("; rewrite")[0]
        )
        for folder in sys.path:  # paths of this machine mean nothing to readers
            reason = reason.replace(f"{folder}/", "") if folder else reason
        cells = f"{result} | | | | | | {reason[:240]}"
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        gc.collect()
    return f"| {label(source, architecture)} | {cells} |"


def label(source: str, architecture: Any) -> str:
    """The first cell."""
    return (
        architecture.name
        if ":" in architecture.name
        else f"{source}:{architecture.name}"
    )


def main() -> None:
    """Write the table, one row after the other."""
    arguments = options()
    warnings.simplefilter("ignore")
    out = Path(arguments.out)
    rows = in_table(out)
    if arguments.merge:
        for path in arguments.merge:
            rows |= in_lines(Path(path))
        write(out, rows)
        print(f"{len(rows)} rows in {out.name}")
        return
    rows = {
        name: line
        for name, line in rows.items()
        if not name.startswith(tuple(arguments.again))
    }
    lines = Path(arguments.rows) if arguments.rows else None
    if lines is not None:
        rows |= in_lines(lines)
    began = time.monotonic()
    for source, architecture in chosen(arguments):
        name = label(source, architecture)
        if name in rows:
            continue
        if time.monotonic() - began > 60 * arguments.minutes:
            break
        rows[name] = row(source, architecture, arguments.limit)
        print(rows[name], flush=True)
        if lines is None:
            write(out, rows)
        else:
            with lines.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"name": name, "row": rows[name]}) + "\n")


def options() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default=",".join(SOURCES))
    parser.add_argument(
        "--limit",
        type=float,
        default=60.0,
        help="processor seconds for one architecture",
    )
    parser.add_argument(
        "--minutes",
        type=float,
        default=600.0,
        help="begin no further architecture after this",
    )
    parser.add_argument(
        "--names", nargs="*", default=[], help="these only, by the start of their name"
    )
    parser.add_argument(
        "--again",
        nargs="*",
        default=[],
        help="rows to be made anew, by the start of their name",
    )
    parser.add_argument("--out", default=str(ROOT / "docs" / "symmetries.md"))
    parser.add_argument(
        "--shard",
        default="0/1",
        help="i/n: architectures i, i + n, i + 2n, … of the list",
    )
    parser.add_argument(
        "--rows", help="write rows as JSON lines here, and leave the table alone"
    )
    parser.add_argument(
        "--merge",
        nargs="*",
        default=[],
        help="put the rows of these files into the table, and stop",
    )
    return parser.parse_args()


def chosen(arguments: argparse.Namespace) -> Iterator[tuple[str, Any]]:
    """The architectures of this run, sources in turn, so that a run that is stopped has something of each."""
    lists = [
        architectures(source)
        for source in SOURCES
        if source in arguments.only.split(",")
    ]
    shard, shards = (int(part) for part in arguments.shard.split("/"))
    every = [pair for turn in itertools.zip_longest(*lists) for pair in turn if pair]
    for source, architecture in every[shard::shards]:
        if label(source, architecture).startswith(tuple(arguments.names) or ""):
            yield source, architecture


def in_table(out: Path) -> dict[str, str]:
    """The rows of the table, by their names."""
    lines = out.read_text(encoding="utf-8").splitlines() if out.exists() else []
    return {
        line.split(" | ")[0][2:]: line
        for line in lines
        if line.startswith("| ") and ":" in line.split(" | ")[0]
    }


def in_lines(path: Path) -> dict[str, str]:
    """The rows of a file of JSON lines; the last of several for one name."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return {row["name"]: row["row"] for row in map(json.loads, lines)}


def write(out: Path, rows: dict[str, str]) -> None:
    """The table with the rows so far, by source and in the order they came."""
    order: Sequence[str] = sorted(
        rows, key=lambda name: list(SOURCES).index(name.partition(":")[0])
    )
    text = HEAD + "".join(f"{rows[name]}\n" for name in order)
    kept = sum(" | kept | " in line for line in rows.values())
    out.write_text(f"{text}\n{kept} of {len(rows)} kept.\n", encoding="utf-8")


if __name__ == "__main__":
    main()
