"""``isthmus study`` from end to end."""

from __future__ import annotations

import json
import re

import pytest

from isthmus.studies import Store


def test_the_results_are_written_and_the_same_the_second_time(shell, studied):
    first = json.loads((studied / "results.json").read_text())
    assert (first["kind"], first["table"]["missing"], first["table"]["networks"]) == ("StudyResult", 0, 8)
    code, output, error = shell("study", studied / "tiny.toml", "--store", studied / "store", "--workers", 1, "--json")
    again = json.loads(output)
    assert code == 0
    assert {**again, "provenance": None} == {**first, "provenance": None}
    # how many threads pay is measured, and so depends on the machine and on what else it does
    assert re.search(r"tiny: 2 cells, 8 networks; 1 process on cpu, \d+ threads? each", error)


def test_people_see_means_and_verdicts(shell, studied):
    code, output, _ = shell("study", studied / "tiny.toml", "--store", studied / "store", "--workers", 1)
    assert code == 0
    assert "rate=0.05" in output
    assert "the overlap falls with the rate" in output


def test_a_dry_run_changes_nothing(shell, studied, tmp_path):
    code, output, _ = shell("study", studied / "tiny.toml", "--store", tmp_path / "new", "--dry-run")
    assert code == 0
    assert "in the store: 0 of 8 networks" in output
    assert "estimated time:" in output
    assert not (tmp_path / "new").exists()
    code, output, _ = shell("study", studied / "tiny.toml", "--store", studied / "store", "--dry-run", "--json")
    assert json.loads(output)["steps"] == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["gone.toml"], "cannot be read: no such file or directory"),
        (["{studied}/tiny.toml", "--store", "{studied}"], "with other content"),
        (["{studied}/tiny.toml", "--engine", "slurm"], "engine must be local or ray, got slurm"),
        (["{studied}/tiny.toml", "--address", "auto"], "add --engine ray"),
        (["{studied}/tiny.toml", "--workers", "0"], "workers and threads must be at least 1"),
        (["{studied}/tiny.toml", "--device", "cuda:7", "--dry-run"], "device must be one of this machine"),
    ],
)
def test_wrong_input_is_one_line(shell, studied, tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    code, output, error = shell("study", *(argument.format(studied=studied) for argument in arguments))
    assert (code, output) == (2, "")
    assert words in error
    assert error.count("\n") == 1


def test_whoever_stops_a_study_reads_what_is_kept_and_how_it_goes_on(shell, studied, tmp_path, monkeypatch):
    import shutil

    from isthmus.studies import Local

    shutil.copytree(studied / "store", tmp_path / "store")
    shutil.rmtree(next(iter((tmp_path / "store").glob("runs/*"))))

    def stop(self, timeout):
        raise KeyboardInterrupt

    monkeypatch.setattr(Local, "next", stop)
    code, output, error = shell("study", studied / "tiny.toml", "--store", tmp_path / "store", "--workers", 1)
    assert (code, output) == (130, "")
    assert f"isthmus: interrupted; {tmp_path / 'store'} holds 7 of 8 networks" in error.splitlines()[-1]
    assert "the same command goes on from there" in error


def test_whoever_stops_a_training_reads_that_nothing_was_written(shell, tmp_path, monkeypatch):
    import isthmus.train

    def stop(*arguments, **keywords):
        raise KeyboardInterrupt

    monkeypatch.setattr(isthmus.train, "train", stop)
    code, output, error = shell("train", "--model", "mlp-4x1", "-o", tmp_path / "replicas")
    assert (code, output) == (130, "")
    assert "interrupted; " in error.splitlines()[-1]
    assert not list((tmp_path / "replicas").glob("*")) if (tmp_path / "replicas").exists() else True


@pytest.mark.slow
def test_a_study_that_was_stopped_goes_on_to_the_same_table(shell, studied, tmp_path):
    """A real process and a real signal, as Ctrl-C sends it: to the command and all its workers."""
    import os
    import signal
    import subprocess
    import sys
    import time

    # A test in the background of a shell inherits that Ctrl-C is ignored.
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    code += "from isthmus.cli.main import run; run()"
    long = (studied / "tiny.toml").read_text().replace("[0.05, 0.5]", "[0.05, 0.1, 0.2, 0.3, 0.4, 0.5]")
    long = long.replace("steps = 4", "steps = 300")  # not over before the signal comes, on a busy machine either
    (tmp_path / "tiny.toml").write_text(long)
    store = tmp_path / "store"
    arguments = ["study", str(tmp_path / "tiny.toml"), "--workers", "1", "--threads", "1", "--device", "cpu", "--store"]
    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments, str(store)],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while process.poll() is None and not list(store.glob("groups/*/complete")):
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted; " in error.strip().splitlines()[-1]
    assert "Traceback" not in error
    assert 4 <= len(Store.open(store).keys) < 24
    assert shell(*arguments, store, "-o", tmp_path / "resumed.json")[0] == 0
    assert shell(*arguments, tmp_path / "undisturbed", "-o", tmp_path / "undisturbed.json")[0] == 0
    tables = [json.loads((tmp_path / f"{name}.json").read_text())["table"] for name in ("resumed", "undisturbed")]
    assert tables[0] == tables[1]


def test_what_came_out_is_kept_beside_the_runs_and_drawn(shell, studied, tmp_path):
    kept = json.loads((studied / "store" / "results" / "study-tiny.json").read_text())
    assert kept["verdicts"] == json.loads((studied / "results.json").read_text())["verdicts"]
    page = tmp_path / "tiny.html"
    code, _, _ = shell("study", studied / "tiny.toml", "--store", studied / "store", "--workers", 1, "--report", page)
    assert code == 0
    text = page.read_text()
    assert "the overlap falls with the rate" in text
    assert "overlap by cell" in text
