"""Cells: parts of a recorded result that are made once and written at once, and lines that say how far it is."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from isthmus.core.files import write_text
from isthmus.core.progress import Progress
from isthmus.core.provenance import provenance
from isthmus.core.record import plain, to_json


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
        cell = self.piece(name, make)
        self.found.append(cell)
        return cell

    def within(self, name: str) -> Callable[[str, Callable[[], Mapping[str, Any]]], dict[str, Any]]:
        """Makes or reads pieces of a cell, so that one that was stopped half-way goes on from there."""
        return lambda piece, make: self.piece(f"{name}-{piece}", make)

    def piece(self, name: str, make: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
        """What is kept as a cell is, but is no part of the result by itself."""
        file = self.folder / "cells" / f"{name}-{self.mark}.json"
        if file.exists():
            say(f"{name}: there already")
            cell = json.loads(file.read_text(encoding="utf-8"))
        else:
            began = time.perf_counter()
            made = make()
            cell = plain({"name": name, **made, "wall_seconds": round(time.perf_counter() - began, 1)})
            cell["provenance"] = plain(provenance())
            write_text(file, to_json(rounded(cell), indent=None))
            say(f"{name}: {cell['wall_seconds']:.0f} s; {time.perf_counter() - self.began:.0f} s so far")
        return cell

    def also(self, files: Sequence[Path]) -> None:
        """Cells of recorded results count, too, where there is none of their name, with settings that differ."""
        for file in files:
            known = {cell["name"] for cell in self.found}
            recorded = json.loads(file.read_text(encoding="utf-8"))
            other = {name: value for name, value in recorded["settings"].items() if value != self.settings.get(name)}
            for cell in recorded["cells"]:
                if cell["name"] not in known:
                    own = {**other, **cell.get("settings", {})}
                    self.found.append({**cell, "settings": own} if own else cell)

    def write(self, question: str | None, table: str, **more: Any) -> None:
        """``results.json`` with all cells, ``results.md`` with the table."""
        result = {"question": question, "settings": self.settings, **more, "cells": self.found}
        write_text(self.folder / "results.json", compact(rounded(plain({**result, "provenance": provenance()}))) + "\n")
        write_text(self.folder / "results.md", table)
        say(f"\n{table}\n{self.folder / 'results.json'} has everything; {time.perf_counter() - self.began:.0f} s")


def rounded(value: Any, digits: int = 5) -> Any:
    """Plain values with numbers to so many significant digits, for files that people keep."""
    if isinstance(value, float):
        return float(f"{value:.{digits}g}")
    if isinstance(value, Mapping):
        return {key: rounded(entry, digits) for key, entry in value.items()}
    return [rounded(entry, digits) for entry in value] if isinstance(value, list) else value


def compact(value: Any, *, width: int = 120, indent: int = 0) -> str:
    """JSON text with what fits the width on one line, and every list of numbers and the like."""
    line = json.dumps(value, ensure_ascii=False, allow_nan=False)
    inner = list(value.values()) if isinstance(value, Mapping) else value if isinstance(value, list) else []
    if len(line) + indent <= width or not any(isinstance(entry, Mapping | list) for entry in inner):
        return line
    parts = [compact(entry, width=width, indent=indent + 1) for entry in inner]
    if isinstance(value, Mapping):
        parts = [f"{json.dumps(name, ensure_ascii=False)}: {part}" for name, part in zip(value, parts, strict=True)]
    margin = "\n" + " " * indent
    return line[0] + f"{margin} " + f",{margin} ".join(parts) + margin + line[-1]


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
