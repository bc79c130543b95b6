"""What the scripts of this folder share: data from one folder, cells that are done once, lines that say how far it is.

Scripts run from the root of the repository with it on the path: ``PYTHONPATH=. python reproductions/FOLDER/run.py``.
"""

from __future__ import annotations

import argparse
import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from json import loads
from pathlib import Path
from typing import Any

import torch

from isthmus.core.files import write_text
from isthmus.core.progress import Progress
from isthmus.core.provenance import provenance
from isthmus.core.record import plain, to_json
from isthmus.zoo import load_data
from isthmus.zoo.data import Data, arrays_of, images


def loaded(name: str, folder: Path, *, device: str, examples: int | None = None) -> Data:
    """Images on the device: from ``NAME.npz`` (x, y, x_test, y_test; pixels as bytes) or from a folder ``NAME``."""
    file = folder / f"{name}.npz"
    if file.exists():
        arrays = arrays_of(file)
        parts = (arrays[key] for key in ("x", "y", "x_test", "y_test"))
        data = images(*parts, classes=10, name=name)
    else:
        data = load_data(name, folder / name)
    return (data.limited(examples) if examples else data).to(device)


class Cells:
    """Parts of a result, each written as soon as it is done, so that a second start makes only what is missing.

    Args:
        folder: of the results; the cells lie in ``cells`` in it.
        settings: what all cells depend on; other settings have other files.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        self.folder, self.settings = folder, plain(settings)
        self.mark = hashlib.sha256(to_json(self.settings).encode()).hexdigest()[:10]
        self.found: list[dict[str, Any]] = []
        self.began = time.perf_counter()

    def __call__(self, name: str, make: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
        """The cell of a name: read where it is there already, else made and written with seconds and provenance."""
        file = self.folder / "cells" / f"{name}-{self.mark}.json"
        if file.exists():
            say(f"{name}: there already")
            cell = loads(file.read_text(encoding="utf-8"))
        else:
            began = time.perf_counter()
            made = make()
            cell = plain({"name": name, **made, "wall_seconds": round(time.perf_counter() - began, 1)})
            cell["provenance"] = plain(provenance())
            write_text(file, to_json(rounded(cell), indent=None))
            say(f"{name}: {cell['wall_seconds']:.0f} s; {time.perf_counter() - self.began:.0f} s so far")
        self.found.append(cell)
        return cell

    def write(self, question: str | None, table: str, **more: Any) -> None:
        """``results.json`` with all cells, ``results.md`` with the table."""
        result = {"question": question, "settings": self.settings, **more, "cells": self.found}
        write_text(
            self.folder / "results.json", to_json(rounded(plain({**result, "provenance": provenance()})), indent=1)
        )
        write_text(self.folder / "results.md", table)
        say(f"\n{table}\n{self.folder / 'results.json'} has everything; {time.perf_counter() - self.began:.0f} s")


def rounded(value: Any, digits: int = 5) -> Any:
    """Plain values with numbers to so many significant digits, for files that people keep."""
    if isinstance(value, float):
        return float(f"{value:.{digits}g}")
    if isinstance(value, Mapping):
        return {key: rounded(entry, digits) for key, entry in value.items()}
    return [rounded(entry, digits) for entry in value] if isinstance(value, list) else value


def arguments(question: str | None, folder: str) -> argparse.ArgumentParser:
    """The options that every script has."""
    words = argparse.ArgumentParser(description=(question or "").splitlines()[0])
    words.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    words.add_argument("--output", type=Path, default=Path(folder), help="folder of the results")
    words.add_argument("--engine", default="auto", help="of training; see isthmus.train")
    words.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return words


class Phase:
    """Adds up the seconds of what runs inside it under a name."""

    def __init__(self, name: str, seconds: dict[str, float]) -> None:
        self.name, self.seconds = name, seconds

    def __enter__(self) -> None:
        self.began = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self.seconds[self.name] = round(self.seconds.get(self.name, 0) + time.perf_counter() - self.began, 2)


def told(what: str) -> Progress:
    """A line every five seconds."""
    last = time.perf_counter()

    def line(done: float, total: float, label: str = "") -> None:
        nonlocal last
        if time.perf_counter() - last > 5:
            last = time.perf_counter()
            say(f"{what} {done / total:.0%} {label}")

    return line


def say(line: str) -> None:
    """Print at once, also into a file."""
    print(line, flush=True)


def shown(interval: Mapping[str, Any]) -> str:
    """An interval in plain values as a cell of a table."""
    if interval["estimate"] is None:
        return "–"
    if interval["low"] is None:
        return f"{interval['estimate']:.3g}"
    return f"{interval['estimate']:.3g} [{interval['low']:.3g}, {interval['high']:.3g}]"


def markdown(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines) + "\n"
