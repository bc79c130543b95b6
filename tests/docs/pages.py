"""Snippets of a page: what a reader would type, in the page's order, run in a folder of its own.

A fence of ``python`` is executed; all of a page share their names. A fence of ``sh`` is run line by line: ``isthmus``
in this process (loading torch for each line would take most of the time), anything else in a shell. A comment on the
line before a fence may say what else is meant::

    <!-- file: model.py -->             the fence is a file that later ones use
    <!-- exit code: 1 -->               the last line's answer is "no"
    <!-- not run: it needs a cluster --> the reason is part of the comment
    <!-- output -->                     the fence shows lines that the commands of the fence before it print

Shown output must be what is printed: the same words in the same order, numbers within a third or .02 (networks that
are trained on another machine differ a little); a line of ``…`` leaves lines out.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import re
import shlex
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
_FENCE = re.compile(
    r"(?:^<!-- (?P<note>[^\n]*?) -->\n)?^(?P<ticks>```+)(?P<language>[a-z]+)\n(?P<code>.*?)^(?P=ticks)$",
    flags=re.DOTALL | re.MULTILINE,
)
RUN = ("python", "sh")
#: what needs no running: other languages, and what a program prints
SHOWN = ("text", "json", "yaml", "toml", "html", "math", "toctree", "mermaid")


@dataclasses.dataclass(frozen=True)
class Snippet:
    """A fence of a page, the number of its first line and the comment before it."""

    page: Path
    line: int
    language: str
    code: str
    note: str

    @property
    def reason_not_to_run(self) -> str | None:
        if self.note in ("main-job", "tests"):
            return "run by .ci/run, each in a fresh environment"
        return self.note.removeprefix("not run: ") if self.note.startswith("not run: ") else None

    @property
    def file(self) -> str | None:
        return self.note.removeprefix("file: ") if self.note.startswith("file: ") else None

    @property
    def exit_code(self) -> int:
        return int(self.note.removeprefix("exit code: ")) if self.note.startswith("exit code: ") else 0


def pages() -> list[Path]:
    """README and every page of the documentation."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def snippets(page: Path) -> list[Snippet]:
    """The fences of a page, in their order."""
    text = page.read_text(encoding="utf-8")
    return [
        Snippet(
            page, text.count("\n", 0, found.start("code")) + 1, found["language"], found["code"], found["note"] or ""
        )
        for found in _FENCE.finditer(text)
    ]


def run(page: Path) -> None:
    """Run a page's snippets in the working folder; the first that fails raises, with the page and line."""
    names: dict[str, object] = {"__name__": "__page__"}
    printed = ""
    for snippet in snippets(page):
        if snippet.reason_not_to_run:
            continue
        if snippet.note == "output":
            missing = unprinted(snippet.code, printed)
            where = f"{snippet.page.relative_to(ROOT)}, line {snippet.line}"
            assert missing is None, f"{where}: not printed: {missing}\n{printed}"
            continue
        if snippet.file:
            Path(snippet.file).write_text(snippet.code, encoding="utf-8")
        elif snippet.language == "python":
            # Line numbers of the page, so that a traceback points into it.
            code = "\n" * (snippet.line - 1) + snippet.code
            exec(compile(code, str(page), "exec"), names)
        elif snippet.language == "sh":
            printed = _shell(snippet)


def unprinted(shown: str, printed: str) -> str | None:
    """The first line that is shown and was not printed, after those before it; ``None`` if all were."""
    lines = iter(filter(str.strip, printed.splitlines()))
    for wanted in filter(str.strip, shown.splitlines()):
        if wanted.strip() != "…" and not any(_alike(wanted, line) for line in lines):
            return wanted
    return None


_NUMBER = re.compile(r"(?<![\w.^-])[-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?(?![\w^])")


def _alike(shown: str, printed: str) -> bool:
    words = [re.sub(r"[\s─]+", " ", _NUMBER.sub("#", line)).strip() for line in (shown, printed)]
    numbers = [[float(found) for found in _NUMBER.findall(line)] for line in (shown, printed)]
    near = (abs(a - b) <= max(0.02, 0.33 * abs(b)) for a, b in zip(*numbers, strict=False))
    return words[0] == words[1] and all(near)


def _shell(snippet: Snippet) -> str:
    """Run the lines of a fence; gives what isthmus printed."""
    from isthmus.cli.main import invoke

    lines = snippet.code.replace("\\\n", " ").splitlines()
    commands = [words for words in (shlex.split(line, comments=True) for line in lines) if words]
    printed = io.StringIO()
    for place, words in enumerate(commands):
        wanted = snippet.exit_code if place == len(commands) - 1 else 0
        if words[0] == "isthmus":
            with contextlib.redirect_stdout(printed):
                code = invoke(words[1:])
        else:
            words = [sys.executable, *words[1:]] if words[0] == "python" else words
            code = subprocess.run(words, check=False).returncode
        where = f"{snippet.page.relative_to(ROOT)}, line {snippet.line}"
        assert code == wanted, f"{where}: {shlex.join(words)} must end with {wanted}, got {code}"
    return printed.getvalue()
