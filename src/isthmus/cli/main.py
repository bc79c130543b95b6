"""The entry point: finds the commands and turns what is wrong with the input into one line and exit code 2.

Each command's module is imported only when that command runs, so that ``isthmus --help`` needs neither torch nor
anything else that is slow to load.
"""

from __future__ import annotations

import contextlib
import difflib
import errno
import importlib
import io
import itertools
import os
import sys
from typing import Any

import typer
from typer.core import TyperGroup

# command -> (module that defines a typer command function of the same name, one line for the list of commands)
COMMANDS: dict[str, tuple[str, str]] = {
    "demo": ("isthmus.cli.demo", "Train, align and compare networks on real data and write a report: start here."),
    "train": ("isthmus.cli.train", "Train replicas of one recipe that differ only in the seeds you vary."),
    "symmetry": ("isthmus.cli.symmetry", "Find and prove which hidden units of a model may be exchanged."),
    "align": ("isthmus.cli.align", "Permute the hidden units of checkpoints so that they match the first one."),
    "barrier": ("isthmus.cli.barrier", "Measure the loss on the straight way between checkpoints."),
    "claims": (
        "isthmus.cli.claims",
        "Test whether permutations connect pairs, whole trainings, or all networks at once.",
    ),
    "continual": ("isthmus.cli.continual", "What survives a merge of networks that learned different things."),
    "check": (
        "isthmus.cli.check",
        "May models be swapped, updated or merged? A verdict, its evidence and a checklist.",
    ),
    "path": ("isthmus.cli.path", "Look between two checkpoints: line, learned curve, layer by layer."),
    "plane": ("isthmus.cli.plane", "Draw the loss on a plane through checkpoints."),
    "repair": ("isthmus.cli.repair", "Average two checkpoints and repair the average's hidden statistics."),
    "flatness": ("isthmus.cli.flatness", "How flat solutions are, by measures that no rescaling can fake."),
    "generalisation": (
        "isthmus.cli.generalisation",
        "Do flatter networks generalise better, at the same training loss?",
    ),
    "spectrum": ("isthmus.cli.spectrum", "Eigenvalues and spectral density of the curvature at a solution."),
    "walk": ("isthmus.cli.walk", "What the landscape around a solution looks like to walkers."),
    "glass": (
        "isthmus.cli.glass",
        "Overlaps between solutions, their distribution, and whether they form a hierarchy.",
    ),
    "redundancy": ("isthmus.cli.redundancy", "Count the equal copies of a network, layer by layer."),
    "remedies": ("isthmus.cli.remedies", "Which remedy against redundancy removes the barrier, and at what price."),
    "uncertainty": ("isthmus.cli.uncertainty", "How far a loss can be trusted, and which labels to check first."),
    "stationary": ("isthmus.cli.stationary", "Where SGD at a constant rate settles, against the law that predicts it."),
    "merge": ("isthmus.cli.merge", "Merge checkpoints into one, also larger than memory."),
    "history": ("isthmus.cli.history", "Draw the graph of updates and merges behind checkpoints."),
    "study": ("isthmus.cli.study", "Run a factor study from a file; resumes where it was stopped."),
    "runs": ("isthmus.cli.runs", "List, show, export and verify what a store holds."),
    "serve": ("isthmus.cli.serve", "Show a store in a browser: runs, studies with live progress, results."),
    "report": ("isthmus.cli.report", "Draw a results.json as one offline HTML page."),
}


_CLOSED_PIPE = 141  # 128 + SIGPIPE, as shells say it; 0 would pass for a good answer, 1 for a bad one


class _Lazy(TyperGroup):
    """Commands by name; the module behind a name is imported when it is used."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:  # the shell library would end with the same code and say nothing
            raise typer.Exit(_say("interrupted", 130)) from None

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in COMMANDS:
            return None
        module, line = COMMANDS[cmd_name]
        found: Any = importlib.import_module(module)
        if isinstance(getattr(found, "app", None), typer.Typer):
            command = typer.main.get_command(found.app)
        else:
            single = typer.Typer(add_completion=False, rich_markup_mode=None)
            single.command(cmd_name, short_help=line)(getattr(found, cmd_name))
            command = typer.main.get_command(single)
        command.name = cmd_name
        return command

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        # Listing must not import the commands, as the inherited method would.
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


app = typer.Typer(
    name="isthmus",
    cls=_Lazy,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Are these trained networks in one basin, can they be brought into one, and may they be merged?",
)


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: bool = typer.Option(False, "--version", help="Print the version and stop."),
) -> None:
    if version:
        from isthmus import __version__

        typer.echo(__version__)
    elif context.invoked_subcommand is None:
        typer.echo(context.get_help())


def run() -> None:
    """Run the shell.

    The exit code is 0 for success, 1 for a negative answer, 2 for wrong input, 130 for an interruption and 141 where
    the reader of the output went away, as other programs have it.
    """
    if sys.argv[1:2] != ["merge"]:  # which promises to take little memory, and evaluates little
        from isthmus.core.machine import keep_freed_memory

        keep_freed_memory()
    sys.exit(invoke(sys.argv[1:]))


def invoke(arguments: list[str]) -> int:
    """Run one command line and return its exit code; wrong input is one line on the error stream."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # names of files may hold bytes that are no text
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        result = app(args=arguments, standalone_mode=False, prog_name="isthmus")
        sys.stdout.flush()  # what cannot be written is found out here, not while the interpreter ends
    except KeyboardInterrupt:
        return _say("interrupted", 130)
    except (SystemExit, OSError) as problem:  # the libraries that print leave by exiting when a pipe is closed
        cause = problem.__context__ if isinstance(problem, SystemExit) else problem
        if not isinstance(cause, OSError) or cause.errno not in (errno.EPIPE, errno.ENOSPC, errno.EDQUOT, errno.EIO):
            raise
        _mute()
        if cause.errno == errno.EPIPE:  # the reader has gone (``| head``), and nobody is left to tell
            return _CLOSED_PIPE
        return _say(f"the output must be writable, but: {os.strerror(cause.errno).lower()}; free some space", 2)
    except Exception as problem:
        if os.environ.get("ISTHMUS_TRACEBACK"):
            raise
        # The shell library is vendored by some of its versions, so its errors are known by what they can do.
        if hasattr(problem, "format_message") and hasattr(problem, "exit_code"):
            return _say(_usage(problem, arguments), 2)
        if type(problem).__name__ == "Abort":
            return _say("interrupted", 130)
        from isthmus.core.errors import IsthmusError

        if isinstance(problem, IsthmusError):
            return _say(str(problem), 2)
        if isinstance(problem, MemoryError) or type(problem).__name__ == "OutOfMemoryError":
            return _say("the work must fit into memory, but it ran out; use fewer examples or a smaller batch", 2)
        raise
    return result if isinstance(result, int) else 0


def _mute() -> None:
    """Let the interpreter end quietly: what still waits to be written has nowhere to go."""
    with contextlib.suppress(OSError, ValueError):  # not every stream stands for a file
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.__stdout__.fileno() if sys.__stdout__ else 1)


def _usage(problem: Any, arguments: list[str]) -> str:
    """What is wrong with a command line: what was given, what may have been meant, and where to look."""
    said = str(problem.message if getattr(problem, "possibilities", None) else problem.format_message()).rstrip(".")
    given = str(getattr(problem, "option_name", None) or "").lstrip("-")
    near = [
        option
        for option in getattr(problem, "possibilities", None) or ()
        if difflib.SequenceMatcher(None, given, option.lstrip("-")).ratio() > 0.6  # the dashes alone are no likeness
    ]
    options = getattr(getattr(problem, "param", None), "opts", ())
    values = [after for option, after in itertools.pairwise(arguments) if option in options]
    got = f", got {values[-1]!r}" if values and said.startswith("Invalid value") else ""
    where = getattr(getattr(problem, "ctx", None), "command_path", "isthmus")
    meant = f"did you mean {', '.join(near)}? " if near else ""
    return f"{said}{got}; {meant}{where} --help says what it takes"


def _say(line: str, code: int) -> int:
    text = " ".join(line.split()).encode(errors="backslashreplace").decode()  # names may hold bytes that are no text
    print(f"isthmus: {text}", file=sys.stderr)
    return code
