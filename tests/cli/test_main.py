"""The frame of the shell: the list of commands is cheap, errors are lines, bugs are not hidden."""

import os
import subprocess
import sys
import types

import pytest

from isthmus.cli import main
from isthmus.cli.main import COMMANDS, invoke
from isthmus.core.errors import IsthmusError


def test_the_list_of_commands_loads_nothing_heavy():
    code = (
        "import sys; from isthmus.cli.main import invoke; assert invoke(['--help']) == 0; "
        "heavy = {'torch', 'numpy', 'scipy', 'altair', 'pydantic', 'sklearn'} & set(sys.modules); "
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert all(name in done.stdout for name in COMMANDS)


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_explains_itself_without_torch(command):
    code = (
        f"import sys; from isthmus.cli.main import invoke; assert invoke([{command!r}, '--help']) == 0; "
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Usage" in done.stdout
    assert done.stderr == ""


def test_version(capsys):
    import isthmus

    assert invoke(["--version"]) == 0
    assert capsys.readouterr().out.strip() == isthmus.__version__


@pytest.mark.parametrize(
    ("problem", "code", "said"),
    [
        (IsthmusError("steps must be at least 3,\n got 2"), 2, "isthmus: steps must be at least 3, got 2\n"),
        (KeyboardInterrupt(), 130, "isthmus: interrupted\n"),
        (
            MemoryError(),
            2,
            "isthmus: the work must fit into memory, but it ran out; use fewer examples or a smaller batch\n",
        ),
    ],
)
def test_what_goes_wrong_is_one_line(monkeypatch, capsys, problem, code, said):
    def fail(**_):
        raise problem

    monkeypatch.setattr(main, "app", fail)
    assert invoke(["demo"]) == code
    assert capsys.readouterr().err == said


def test_an_interruption_within_a_command_is_said(monkeypatch, capsys):
    """The shell library knows the exit code of an interruption but has no words for it."""

    def interrupted(*_):
        raise KeyboardInterrupt

    # In this module alone: other libraries import on demand, too.
    monkeypatch.setattr(main, "importlib", types.SimpleNamespace(import_module=interrupted))
    assert invoke(["runs", "list"]) == 130
    assert capsys.readouterr().err == "isthmus: interrupted\n"


def test_a_bug_is_not_hidden(monkeypatch):
    def fail(**_):
        raise ZeroDivisionError("our own mistake")

    monkeypatch.setattr(main, "app", fail)
    with pytest.raises(ZeroDivisionError):
        invoke(["demo"])


def shell_line(line, **more):
    """A line for bash, with ``isthmus`` as this interpreter runs it; its exit code and error stream."""
    command = f'isthmus() {{ "{sys.executable}" -c "from isthmus.cli.main import run; run()" "$@"; }}'
    script = f"{command}; set -o pipefail; {line}"
    return subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False, **more)


@pytest.mark.parametrize("asked", ["--version", "runs list --store S", "runs list --store S --json", "--help"])
def test_a_reader_that_goes_away_is_neither_a_good_nor_a_bad_answer(tmp_path, asked):
    """128 + SIGPIPE, as of other programs; the pipe is closed before anything is written to it."""
    from isthmus.studies import Store

    Store.open(tmp_path / "S", create=True)
    done = shell_line(f"(sleep 1; isthmus {asked}) | true", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
@pytest.mark.parametrize("asked", ["--version", "--help", "symmetry mlp-8x1", "symmetry mlp-8x1 --json"])
def test_a_full_disk_is_one_line(asked):
    done = shell_line(f"isthmus {asked} > /dev/full")
    assert done.returncode == 2
    assert done.stderr == "isthmus: the output must be writable, but: no space left on device; free some space\n"
