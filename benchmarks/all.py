"""One command, one table: isthmus beside its peers from PyPI and beside the plain loop, and how time grows.

    python benchmarks/all.py [--quick] [--only NAME ...] [--mergekit PATH] [--json FILE] [--markdown FILE]

Every measurement runs in a process of its own, on one thread, under a time limit; its peak memory is the largest
resident set of that process. *ratio* is the peer's CPU seconds over those of isthmus for the same work: above 1,
isthmus is faster. What a machine cannot run (a peer that is not installed, a GPU that is not there) is in the table
with the reason. The full run takes about ten minutes on two quiet cores; ``--quick`` shows in two or three that
everything runs.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PACKAGES = (
    "isthmus", "torch", "numpy", "scipy", "rebasin", "torch-pruning", "loss-landscapes", "curvlinops-for-pytorch",
    "pyhessian", "torchvision",
)  # fmt: skip
OURS = "isthmus"


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of the table; ``quality`` says what the time bought, or why there is none."""

    work: str
    system: str
    seconds: float | None
    peak: float | None
    quality: str
    ratio: float | None = None


@dataclasses.dataclass(frozen=True)
class Done:
    """One process that ended: its output, and what it took."""

    output: str
    peak: float
    trouble: str | None


@dataclasses.dataclass(frozen=True)
class Asked:
    """What the command line asks for."""

    quick: bool
    mergekit: str | None
    folder: Path

    def file(self, name: str) -> Path:
        return self.folder / name


def ran(words: Sequence[str], *, limit: float) -> Done:
    """Run one benchmark in a process of its own; it is killed, with its children, at the limit (seconds)."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        started = subprocess.Popen(
            [sys.executable, *words], cwd=HERE, env=environment, stdout=out, stderr=err, start_new_session=True
        )
        status, used = waited(started.pid, limit)
        started.returncode = -9 if status is None else status  # it was waited for here
        out.seek(0), err.seek(0)
        errors = [line for line in err.read().splitlines() if line.strip()]
        trouble = None
        if status is None:
            trouble = f"over {limit:.0f} s"
        elif status:
            trouble = (errors or ["no reason given"])[-1][:110]
        return Done(out.read(), used / 1024, trouble)


def waited(process: int, limit: float) -> tuple[int | None, float]:
    """The exit status (None: killed at the limit) and the largest resident set in KiB."""
    end, peak = time.monotonic() + limit, 0.0
    while time.monotonic() < end:
        found, status, used = os.wait4(process, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status), peak or used.ru_maxrss
        peak = resident(process) or peak
        time.sleep(0.02)
    os.killpg(process, 9)
    os.wait4(process, 0)
    return None, peak


def resident(process: int) -> float:
    """The largest resident set of a running process so far, in KiB; 0 where the system does not tell.

    What is told at its end (``ru_maxrss``) also counts the process that it was forked from.
    """
    try:
        lines = Path(f"/proc/{process}/status").read_text(encoding="utf-8").splitlines()
        return float(next(line.split()[1] for line in lines if line.startswith("VmHWM")))
    except (OSError, StopIteration):
        return 0.0


def last_json(done: Done) -> dict[str, Any]:
    """The JSON object on the last line of the output."""
    lines = [line for line in done.output.splitlines() if line.startswith("{")]
    return json.loads(lines[-1]) if lines else {}


def symmetry(asked: Asked) -> Iterator[Row]:
    """Whose symmetry keeps the function?"""
    networks = (
        ("resnet18",) if asked.quick else ("resnet18", "vgg16_bn", "mobilenet_v3_small", "densenet121", "vit_b_16")
    )
    for network in networks:
        for system in (OURS, "rebasin", "torch-pruning"):
            done = ran(["symmetry.py", "--child", system, network], limit=60)
            found = last_json(done)
            quality = done.trouble or f"{found['verdict']}, {found['groups']} groups, 10^{found['log10']:.0f}"
            yield Row(f"symmetry of {network}", system, found.get("seconds"), done.peak, quality)


def alignment(asked: Asked) -> Iterator[Row]:
    """Weight matching of two ResNets."""
    systems = (OURS, "rebasin") if asked.quick else (OURS, "published algorithm", "rebasin")
    for system in systems:
        done = ran(["alignment.py", "pair", "--model", "resnet18", "--here", system], limit=90)
        found = last_json(done)
        quality = done.trouble or f"L2 {found['before']:.1f} → {found['after']:.1f}"
        yield Row("matching two resnet18", system, found.get("cpu"), done.peak, quality)


def line(asked: Asked) -> Iterator[Row]:
    """25 points between two networks."""
    for system in (OURS, "loss-landscapes", "plain loop"):
        done = ran(["line.py", "--here", system, "--examples", "300" if asked.quick else "2000"], limit=60)
        found = last_json(done)
        quality = done.trouble or f"ends off by {found['ends_off']:.0e}"
        yield Row("25 points of a line", system, found.get("seconds"), done.peak, quality)


def curvature(asked: Asked) -> Iterator[Row]:
    """Hessian products, eigenvalues and density."""
    file = asked.file("curvature.json")
    words = [
        "--networks",
        "small",
        "--examples",
        "100" if asked.quick else "500",
        "--repeats",
        "1" if asked.quick else "3",
    ]
    done = ran(["curvature.py", "--device", "cpu", *words, "--json", str(file)], limit=200)
    if done.trouble or not file.exists():
        yield Row("curvature", OURS, None, done.peak, done.trouble or "no result")
        return
    for row in json.loads(file.read_text())["rows"]:
        system = OURS if row["method"].startswith(OURS) else row["method"]
        quality = next((f"{name} {row[name]:.1e}" for name in ("error", "w1") if row.get(name) is not None), "")
        yield Row(f"Hessian: {row['work']}", system, row["seconds"], row.get("peak"), quality)


def merging(asked: Asked) -> Iterator[Row]:
    """From files to a file, beside mergekit and the floor of copying."""
    file = asked.file("merging.json")
    words = [
        "--parameters",
        "5e6" if asked.quick else "1e8",
        "--methods",
        "linear",
        *([] if asked.quick else ["slerp", "ties"]),
    ]
    peer = ["--mergekit", asked.mergekit] if asked.mergekit else []
    done = ran(["merging.py", *words, *peer, "--output", str(file)], limit=240)
    if done.trouble or not file.exists():
        yield Row("merging", OURS, None, done.peak, done.trouble or "no result")
        return
    found = json.loads(file.read_text())
    size = f"{found['bytes'] / 1e9:.2f} GB"
    for method in ("linear", "slerp", "ties"):
        if method in found:
            row = found[method]
            agreement = row.get("agreement", {})
            same = f"equal entries {agreement['equal']:.4f}" if "equal" in agreement else ""
            yield Row(f"merging 2 × {size}, {method}", OURS, row["ours, processor s"], row["ours, anonymous MB"], same)
            if asked.mergekit:
                used = row["theirs, processor s"]
                yield Row(f"merging 2 × {size}, {method}", "mergekit", used, row["theirs, anonymous MB"], "")
            elif method == "linear":
                yield Row(f"merging 2 × {size}, {method}", "mergekit", None, None, "give --mergekit PATH")


def replicas(asked: Asked) -> Iterator[Row]:
    """Many networks together against one after the other."""
    file = asked.file("replicas.json")
    words = ["--seconds", "0.1" if asked.quick else "0.5", *(["--case", "MLP 64"] if asked.quick else [])]
    done = ran(["replicas.py", "--device", "cpu", *words, "--json", str(file)], limit=180)
    if not file.exists():
        yield Row("training replicas", OURS, None, done.peak, done.trouble or "no result")
        return
    for row in json.loads(file.read_text())["rows"]:
        work = f"1000 steps of {row['replicas']} × {row['case']}"
        steps = 1000 * row["replicas"]
        yield Row(work, OURS, steps / row["ours"], done.peak, f"engine {row['engine']}")
        yield Row(work, "plain loop", steps / max(row["plain"].values()), None, "")


def landscape(asked: Asked) -> Iterator[Row]:
    """Overlaps, hierarchy and walkers; no maintained peer has them."""
    file = asked.file("landscape.json")
    words = (
        ["--networks", "8", "--walkers", "8", "--steps", "20"]
        if asked.quick
        else ["--networks", "32", "--walkers", "32"]
    )
    done = ran(["landscape.py", *words, "--json", str(file)], limit=180)
    if not file.exists():
        yield Row("landscape", OURS, None, done.peak, done.trouble or "no result")
        return
    for row in json.loads(file.read_text())["rows"]:
        yield Row(row["name"], OURS, row["cpu"], done.peak, "no peer")


def devices(asked: Asked) -> Iterator[Row]:
    """What needs a GPU."""
    for file in ("devices.py", "agreement.py"):
        done = ran(["-c", "import torch, sys; sys.exit(0 if torch.cuda.is_available() else 1)"], limit=60)
        if done.trouble:
            yield Row(file, OURS, None, None, "needs a GPU; see results/")
            continue
        done = ran([file, *(["--quick"] if file == "devices.py" and asked.quick else [])], limit=240)
        for text in done.output.splitlines()[-12:]:
            yield Row(file, OURS, None, done.peak, text.strip())


PARTS: dict[str, Callable[[Asked], Iterator[Row]]] = {
    "symmetry": symmetry, "alignment": alignment, "line": line, "curvature": curvature, "merging": merging,
    "replicas": replicas, "landscape": landscape, "devices": devices,
}  # fmt: skip


def with_ratios(rows: Sequence[Row]) -> list[Row]:
    """Each peer's seconds over ours for the same work."""
    mine = {row.work: row.seconds for row in rows if row.system == OURS and row.seconds}
    return [
        dataclasses.replace(row, ratio=row.seconds / mine[row.work])
        if row.system != OURS and row.seconds is not None and row.work in mine
        else row
        for row in rows
    ]


def growth(asked: Asked) -> list[dict[str, Any]]:
    """Fitted exponents with their limits; see growth.py."""
    file = asked.file("growth.json")
    done = ran(["growth.py", *(["--quick"] if asked.quick else []), "--json", str(file)], limit=240)
    return json.loads(file.read_text())["rows"] if file.exists() else [{"name": f"growth: {done.trouble}"}]


def versions(mergekit: str | None) -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    if mergekit:
        line = "import importlib.metadata as m; print(m.version('mergekit'))"
        done = subprocess.run(
            [str(Path(mergekit).parent / "python"), "-c", line], capture_output=True, text=True, check=False
        )
        found["mergekit"] = done.stdout.strip() or "unknown"
    return found


def machine() -> str:
    """The processor's own name where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        name = next(text.partition(":")[2].strip() for text in lines if text.startswith("model name"))
    except (OSError, StopIteration):
        name = platform.processor() or platform.machine()
    return f"{name}, {len(os.sched_getaffinity(0))} processors"


def markdown(rows: Sequence[Row], fits: Sequence[dict[str, Any]], about: dict[str, str], where: str) -> str:
    """The tables as a page."""

    def number(value: float | None, form: str = ".3g") -> str:
        return "–" if value is None else format(value, form)

    lines = [
        f"{datetime.date.today()}, {where}, python {platform.python_version()}, one thread",
        "",
        ", ".join(f"{name} {version}" for name, version in about.items()),
        "",
        "| work | system | CPU s | ratio | peak MB | |",
        "| --- | --- | ---: | ---: | ---: | --- |",
    ]
    for row in rows:
        cells = (
            row.work,
            row.system,
            number(row.seconds),
            number(row.ratio, ".2f"),
            number(row.peak, ".0f"),
            row.quality,
        )
        lines.append(f"| {' | '.join(cells)} |")
    lines += [
        "",
        "| work | grows as | largest size | CPU s | limit, s | times the limit |",
        "| --- | --- | ---: | ---: | ---: | ---: |",
    ]
    for fit in fits:
        if "slope" not in fit:
            lines.append(f"| {fit['name']} | | | | | |")
            continue
        power = f"{fit['of']}^{fit['slope']:.2f} [{fit['low']:.2f}, {fit['high']:.2f}]"
        limit = f"{fit['limit']:.3g} ({fit['limit_amount']:.2g} {fit['limit_kind']})"
        last = f"{fit['sizes'][-1]:,} | {fit['seconds'][-1]:.3g}"
        lines.append(f"| {fit['name']} | {power} | {last} | {limit} | {fit['above']:.1f} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small sizes: whether it runs, not what it says")
    parser.add_argument("--only", nargs="*", default=[*PARTS, "growth"], help=f"some of {', '.join(PARTS)}, growth")
    parser.add_argument("--mergekit", help="path of mergekit-yaml, installed in an environment of its own")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="benchmarks-"))
    asked = Asked(given.quick, given.mergekit, folder)
    rows: list[Row] = []
    fits: list[dict[str, Any]] = []
    try:
        for name in given.only:
            begun = time.monotonic()
            if name == "growth":
                fits = growth(asked)
            else:
                rows += PARTS[name](asked)
            print(f"{name}: {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    rows, about = with_ratios(rows), versions(given.mergekit)
    text = markdown(rows, fits, about, machine())
    print(text)
    if given.markdown:
        given.markdown.write_text(f"# Benchmarks\n\nWritten by `python benchmarks/all.py`.\n\n{text}", encoding="utf-8")
    if given.json:
        content = {"versions": about, "machine": machine(), "rows": [dataclasses.asdict(row) for row in rows]}
        given.json.write_text(json.dumps({**content, "growth": fits}, indent=1, ensure_ascii=False), encoding="utf-8")


if __name__ == "__main__":
    main()
