"""The frame of the shell: the list of commands is cheap, errors are lines, bugs are not hidden."""

import subprocess
import sys

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

    monkeypatch.setattr(main.importlib, "import_module", interrupted)
    assert invoke(["runs", "list"]) == 130
    assert capsys.readouterr().err == "isthmus: interrupted\n"


def test_a_bug_is_not_hidden(monkeypatch):
    def fail(**_):
        raise ZeroDivisionError("our own mistake")

    monkeypatch.setattr(main, "app", fail)
    with pytest.raises(ZeroDivisionError):
        invoke(["demo"])
