"""What every command says and how: progress on the error stream, results on the output, JSON for machines."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from isthmus.core.progress import Progress

if TYPE_CHECKING:
    from isthmus.zoo.data import Data

_Number = TypeVar("_Number", int, float)


@contextlib.contextmanager
def progress(what: str) -> Iterator[Progress]:
    """A bar with the time left on the error stream; on a file or pipe, a plain line at most every ten seconds."""
    if not sys.stderr.isatty():
        yield _lines(what)
        return
    from rich.console import Console
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None)

        def say(done: float, total: float, label: str = "") -> None:
            bar.update(task, completed=done, total=total, description=f"{what}: {label}" if label else what)

        yield say


def _lines(what: str) -> Progress:
    began = last = time.monotonic()

    def say(done: float, total: float, label: str = "") -> None:
        nonlocal last
        now = time.monotonic()
        if now - last < 10 or not total or done < 0.03 * total:  # before that an estimate says nothing
            return
        last = now
        # The first steps also load and compile: by them alone a minute has been told as an hour.
        left = (now - began) * (total - done) / done
        told = f", about {left:.0f} s left" if done >= 0.1 * total else ""
        print(f"{what}{': ' + label if label else ''} {done / total:.0%}{told}", file=sys.stderr)

    return say


def deliver(
    values: dict[str, Any],
    *,
    output: str | None,
    report: str | None,
    json: bool,
    show: Callable[[dict[str, Any]], None],
    language: str = "en",
) -> None:
    """Hand over a result: into a file where asked, as JSON or for people, then as a page: numbers before pictures."""
    from isthmus.core.files import write_text
    from isthmus.core.record import to_json

    if output:
        write_text(output, to_json(values))
    if json:
        emit_json(values)
    else:
        show(values)
    if report:
        draw([(values["kind"], values)], report, language=language)


def draw(results: Sequence[tuple[str, dict[str, Any]]], path: str, *, language: str = "en") -> None:
    """A page with the figures of results, each under its name."""
    from isthmus.report.assemble import page_of_results
    from isthmus.report.page import write_page

    write_page(page_of_results(results, language=language), path, language=language)
    note(f"{path} has the figures")


def emit_json(value: Any) -> None:
    """One JSON document on the output, and nothing else there."""
    from isthmus.core.record import to_json

    print(to_json(value))


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]], *, title: str = "") -> None:
    """A table for people; narrow terminals wrap it, and never cut a name off."""
    from rich import box
    from rich.console import Console
    from rich.table import Column, Table

    if title:  # a title inside would be wrapped to the width of the columns
        print(title)
    headers = [Column(name, overflow="fold") for name in columns]
    drawn = Table(*headers, box=box.SIMPLE_HEAD, header_style="bold")
    for row in rows:
        drawn.add_row(*(_cell(value) for value in row))
    Console(highlight=False, soft_wrap=False, width=None if sys.stdout.isatty() else 120).print(drawn)


def say(line: str = "") -> None:
    """One line of plain text on the output."""
    print(line)


def note(line: str) -> None:
    """One line on the error stream, for warnings and where files went."""
    print(f"isthmus: {line}", file=sys.stderr)


def settings(text: str | None, *, what: str) -> Mapping[str, Any]:
    """Settings given as ``name=value,name=value``, as a JSON object, or as the name of a .json file.

    Raises:
        SettingError: cannot be read.
    """
    from isthmus.core.errors import SettingError

    if not text:
        return {}
    if text.endswith(".json"):
        try:
            return json.loads(Path(text).read_text(encoding="utf-8"))
        except (OSError, ValueError) as problem:
            raise SettingError(f"{what} must be a readable JSON file, but {text}: {problem}") from problem
    if text.lstrip().startswith("{"):
        try:
            return json.loads(text)
        except ValueError as problem:
            raise SettingError(f"{what} must be a JSON object or name=value pairs, but: {problem}") from problem
    found: dict[str, Any] = {}
    for part in text.split(","):
        name, equals, value = part.partition("=")
        if not equals or not name.strip():
            raise SettingError(f"{what} must be name=value pairs separated by commas, got {part!r}")
        try:
            # A fraction without its zero is a number to people, though not to JSON.
            found[name.strip()] = float(value) if value.lstrip("+-").startswith(".") else json.loads(value)
        except ValueError:
            found[name.strip()] = value
    return found


def names(text: str | None) -> list[str]:
    """Words separated by commas; none of nothing."""
    return [part.strip() for part in (text or "").split(",") if part.strip()]


def numbers(text: str | None, kind: Callable[[str], _Number], *, what: str) -> list[_Number]:
    """Numbers separated by commas; none of ``None``.

    Raises:
        SettingError: something else.
    """
    from isthmus.core.errors import SettingError

    if text is None:
        return []
    try:
        found = [kind(part) for part in names(text)]
    except ValueError:
        found = []
    if not found:
        raise SettingError(f"{what} must be numbers separated by commas, got {text!r}")
    return found


def traced(found: Any, data: Data, **more: Any) -> dict[str, Any]:
    """A result's plain values with where they come from: versions, machine, command, data, and ``more``."""
    from isthmus.core.provenance import provenance

    made_by = {**provenance(), "data": data.fingerprint, **more}
    return dataclasses.replace(found, provenance=made_by).to_dict()


def _cell(value: Any) -> str:
    from rich.markup import escape

    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else escape(str(value))
