"""The site under load: many readers at once while a study writes into the store that they read.

    python benchmarks/serving.py                                # 50 readers, 30 s, 10,000 runs in the store
    python benchmarks/serving.py --readers 10 --seconds 5 --runs 500

A store is generated, ``isthmus serve`` shows it, ``isthmus study`` trains small networks into it, and the readers open
lists, searches, runs, comparisons, studies and tables as fast as ``--think`` lets them; every fifth also listens to the
live events. Asked afterwards: was every answer whole, how long did the slowest take, does the store verify, and is the
study complete. ``stall`` is the longest that this process itself was not run when it should have been: what the machine
withheld from everybody is no fault of the site.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import hashlib
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

STUDY = """
name = "load"
question = "Does the store lose anything while it is read?"
[recipe]
data = "digits"
network = "mlp-8x1"
epochs = 2
[factors.rate]
levels = [0.05, 0.1]
[replicates]
count = {count}
members = 2
[measures]
columns = ["test_error", "error_barrier"]
"""


@dataclasses.dataclass
class Load:
    """What the readers saw."""

    answers: int
    wrong: list[str]
    seconds: list[float]
    events: int
    stall: float

    def describe(self) -> dict[str, object]:
        """Percentiles of the answers' times, in seconds."""
        ordered = sorted(self.seconds) or [0.0]
        places = {"median": 0.5, "p99": 0.99, "slowest": 1.0}
        times = {name: round(ordered[min(len(ordered) - 1, int(q * len(ordered)))], 4) for name, q in places.items()}
        return {
            "answers": self.answers,
            "wrong": len(self.wrong),
            "events": self.events,
            **times,
            "stall": round(self.stall, 4),
        }


def generate(folder: Path, runs: int) -> list[str]:
    """A store of many runs, written without waiting for the disk: for looking at, not for keeping."""
    from isthmus.studies import Store

    Store.open(folder, create=True)
    keys = []
    for number in range(runs):
        recipe = {
            "schema": 1,
            "network": f"mlp-{2 ** (4 + number % 6)}x{1 + number % 3}",
            "data": ("digits", "mnist")[number % 2],
            "rate": round(0.01 * (1 + number % 50), 4),
            "epochs": 10 + number % 20,
            "optimiser": "sgd",
            "settings": {"inputs": [1, 8, 8], "classes": 10},
            "order_seed": number,
            "initialisation_seed": number // 2,
        }
        key = hashlib.sha256(json.dumps(recipe).encode()).hexdigest()
        place = folder / "runs" / key
        place.mkdir(parents=True)
        score = {
            "training_loss": 1 / (number + 1),
            "training_error": 0.0,
            "test_loss": 0.1,
            "test_error": (number % 97) / 1000,
        }
        rows = [{"measure": "score", "version": 1, "settings": {}, "value": score, "unit": "nats, share"}]
        if keys:
            barrier = {"loss_barrier": (number % 31) / 10, "error_barrier": 0.01}
            settings = {"other": keys[-1], "points": 25}
            rows.append(
                {"measure": "barrier", "version": 1, "settings": settings, "value": barrier, "unit": "nats, share"}
            )
        made = {
            "status": "stopped",
            "created": f"2026-01-{1 + number % 28:02d}T{number % 24:02d}:00:00+00:00",
            "seconds": 1.0,
        }
        (place / "recipe.json").write_text(json.dumps(recipe))
        (place / "provenance.json").write_text(json.dumps(made))
        (place / "measures.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        (place / "weights.json").write_text(json.dumps({"group": None, "index": 0, "moments": {"final": ""}}))
        keys.append(key)
    return keys


async def load(port: int, keys: list[str], *, readers: int, seconds: float, think: float) -> Load:
    """Read as many people do, for some seconds."""
    found = Load(0, [], [], 0, 0.0)
    end = time.monotonic() + seconds
    work = [_reader(port, keys, found, end, think, random.Random(number)) for number in range(readers)]
    listeners = [asyncio.create_task(_listener(port, found)) for _ in range(max(1, readers // 5))]
    await asyncio.gather(*work, _watch(found, end))
    for listener in listeners:
        listener.cancel()
    await asyncio.gather(*listeners, return_exceptions=True)
    return found


def _paths(keys: list[str], draw: random.Random) -> str:
    some = draw.sample(keys, 3)
    lists = ["/", f"/?page={1 + draw.randrange(5)}", "/?q=mlp-64+rate%3E0.2&order=test_error", "/?network=mlp-32x2"]
    runs = [f"/runs/{some[0]}", f"/compare?run={some[0]}&run={some[1]}&run={some[2]}", f"/runs/{some[1]}/run.json"]
    return draw.choice([*lists, *runs, "/studies", f"/table.csv?run={some[0]}", "/static/site.css", "/help?lang=ja"])


async def _reader(port: int, keys: list[str], found: Load, end: float, think: float, draw: random.Random) -> None:
    await asyncio.sleep(draw.random() * think)
    while time.monotonic() < end:
        path = _paths(keys, draw)
        began = time.monotonic()
        try:
            status, body = await asyncio.wait_for(_ask(port, path), 30)
            if status != 200 or (b"</html>" not in body and not path.startswith(("/table", "/static", "/runs/"))):
                found.wrong.append(f"{path}: {status}, {len(body)} bytes")
        except (OSError, TimeoutError, ValueError, asyncio.IncompleteReadError) as problem:
            found.wrong.append(f"{path}: {type(problem).__name__} {problem}")
        found.seconds.append(time.monotonic() - began)
        found.answers += 1
        await asyncio.sleep(think * (0.5 + draw.random()))


async def _ask(port: int, path: str) -> tuple[int, bytes]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n".encode())
        answer = await reader.read()
    finally:
        writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), body


async def _listener(port: int, found: Load) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(f"GET /events HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
        while line := await reader.readline():
            found.events += line.startswith(b"data: ")
    finally:
        writer.close()


async def _watch(found: Load, end: float) -> None:
    while (now := time.monotonic()) < end:
        await asyncio.sleep(0.01)
        found.stall = max(found.stall, time.monotonic() - now - 0.01)


def measured(arguments: argparse.Namespace, folder: Path) -> dict[str, object]:
    """One run of everything."""
    from isthmus.studies import Store, Study, read_design
    from isthmus.studies.store.index import index_of, refresh, search
    from isthmus.studies.store.query import Query

    store = folder / "store"
    keys = generate(store, arguments.runs)
    opened = Store.open(store)
    building = _cpu(lambda: refresh(opened))
    again = _cpu(lambda: (refresh(opened), search(index_of(opened), Query(limit=50, order="created", descending=True))))
    (folder / "load.toml").write_text(STUDY.format(count=arguments.networks))
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    shell = [sys.executable, "-c", "import sys; from isthmus.cli.main import invoke; sys.exit(invoke(sys.argv[1:]))"]
    site = subprocess.Popen(
        [*shell, "serve", str(store), "--port", "0", "--json"], stdout=subprocess.PIPE, text=True, env=environment
    )
    try:
        said = ""
        while "}" not in said:
            said += site.stdout.readline()
        port = int(json.loads(said)["address"].rsplit(":", 1)[1].strip("/"))
        began = time.monotonic()
        asyncio.run(_ask(port, "/"))
        first = time.monotonic() - began
        study = subprocess.Popen(
            [*shell, "study", str(folder / "load.toml"), "--store", str(store), "--workers", "1"],
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment,
        )  # fmt: skip
        seen = asyncio.run(
            load(port, keys, readers=arguments.readers, seconds=arguments.seconds, think=arguments.think)
        )
        still_running = study.poll() is None
        code, complaint = study.wait(), study.stderr.read().decode()
    finally:
        site.terminate()
        site.wait(timeout=20)
    made = Study.of(read_design(folder / "load.toml"))
    lost = [key for key in made.keys if key not in opened]
    missing = made.table(opened).missing
    return {
        **{name: getattr(arguments, name) for name in ("runs", "readers", "seconds")},
        "index built, CPU s": building,
        "index refreshed and a page found, CPU s": again,
        "first page, s": round(first, 3),
        **seen.describe(),
        "first wrong": seen.wrong[:3],
        "study": {
            "exit code": code,
            "networks": len(made.keys),
            "lost": len(lost),
            "missing values": missing,
            "outlasted the readers": still_running,
            "said": complaint[-300:],
        },
    }


def _cpu(work) -> float:
    began = resource.getrusage(resource.RUSAGE_SELF)
    work()
    ended = resource.getrusage(resource.RUSAGE_SELF)
    return round(ended.ru_utime + ended.ru_stime - began.ru_utime - began.ru_stime, 3)


def main() -> int:
    """Exit code 0 if no answer was wrong, nothing was lost, and nobody waited longer than a second."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--readers", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--think", type=float, default=1.0, help="seconds between two pages of a reader, on average")
    parser.add_argument("--networks", type=int, default=40, help="pairs of networks that the study trains at each rate")
    parser.add_argument("--repeat", type=int, default=1)
    arguments = parser.parse_args()
    slowest = []
    for _ in range(arguments.repeat):
        with tempfile.TemporaryDirectory(prefix="isthmus-serving-") as folder:
            found = measured(arguments, Path(folder))
        print(json.dumps(found, indent=2))
        slowest.append(found["slowest"] - found["stall"])
        study = found["study"]
        if found["wrong"] or study["exit code"] or study["lost"] or study["missing values"]:
            return 1
    return int(statistics.median(slowest) > 1.0)


if __name__ == "__main__":
    sys.exit(main())
