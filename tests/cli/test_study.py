"""``isthmus study`` and ``isthmus runs`` from end to end."""

from __future__ import annotations

import csv
import json
import re

import pytest
import torch

from isthmus.core.checkpoint import load
from isthmus.studies import Store
from isthmus.studies.store import export as export_module

STUDY = """
name = "tiny"
[recipe]
network = "mlp-4x1"
steps = 4
subset = 100
[factors]
rate = [0.05, 0.5]
[replicates]
count = 2
differ = ["order"]
[measures]
columns = ["error_barrier", "overlap"]
points = 3
examples = 40
[[claims]]
words = "the overlap falls with the rate"
measure = "overlap"
factor = "rate"
direction = "falls"
"""


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A study that was run through the shell, in one worker process."""
    from isthmus.cli.main import invoke

    folder = tmp_path_factory.mktemp("study")
    (folder / "tiny.toml").write_text(STUDY)
    results = folder / "results.json"
    arguments = [folder / "tiny.toml", "--store", folder / "store", "--workers", 1, "--device", "cpu", "-o", results]
    assert invoke(["study", *map(str, arguments)]) == 0
    return folder


@pytest.fixture
def runs(shell, done):
    def run(command, *arguments):
        return shell("runs", command, *arguments, "--store", done / "store")

    return run


def test_the_results_are_written_and_the_same_the_second_time(shell, done):
    first = json.loads((done / "results.json").read_text())
    assert (first["kind"], first["table"]["missing"], first["table"]["networks"]) == ("StudyResult", 0, 8)
    code, output, error = shell("study", done / "tiny.toml", "--store", done / "store", "--workers", 1, "--json")
    again = json.loads(output)
    assert code == 0
    assert {**again, "provenance": None} == {**first, "provenance": None}
    # how many threads pay is measured, and so depends on the machine and on what else it does
    assert re.search(r"tiny: 2 cells, 8 networks; 1 process on cpu, \d+ threads? each", error)


def test_people_see_means_and_verdicts(shell, done):
    code, output, _ = shell("study", done / "tiny.toml", "--store", done / "store", "--workers", 1)
    assert code == 0
    assert "rate=0.05" in output
    assert "the overlap falls with the rate" in output


def test_a_dry_run_changes_nothing(shell, done, tmp_path):
    code, output, _ = shell("study", done / "tiny.toml", "--store", tmp_path / "new", "--dry-run")
    assert code == 0
    assert "in the store: 0 of 8 networks" in output
    assert "estimated time:" in output
    assert not (tmp_path / "new").exists()
    code, output, _ = shell("study", done / "tiny.toml", "--store", done / "store", "--dry-run", "--json")
    assert json.loads(output)["steps"] == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["gone.toml"], "cannot be read: no such file or directory"),
        (["{done}/tiny.toml", "--store", "{done}"], "with other content"),
        (["{done}/tiny.toml", "--engine", "slurm"], "engine must be local or ray, got slurm"),
        (["{done}/tiny.toml", "--address", "auto"], "add --engine ray"),
        (["{done}/tiny.toml", "--workers", "0"], "workers and threads must be at least 1"),
        (["{done}/tiny.toml", "--device", "cuda:7", "--dry-run"], "device must be one of this machine"),
    ],
)
def test_wrong_input_is_one_line(shell, done, tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    code, output, error = shell("study", *(argument.format(done=done) for argument in arguments))
    assert (code, output) == (2, "")
    assert words in error
    assert error.count("\n") == 1


def test_runs_are_listed_and_shown(runs):
    code, output, _ = runs("list")
    assert code == 0
    assert "8 runs" in output
    assert "studies: tiny" in output
    entries = json.loads(runs("list", "--study", "tiny", "--json")[1])
    assert {entry["status"] for entry in entries} == {"stopped"}
    key = entries[0]["key"]
    code, output, _ = runs("show", key[:10])
    assert code == 0
    assert "training_loss" in output
    assert json.loads(runs("show", key, "--json")[1])["recipe"]["network"] == "mlp-4x1"


def test_a_store_verifies_and_damage_is_an_exit_code(runs, shell, done, tmp_path):
    import shutil

    assert runs("verify")[0] == 0
    shutil.copytree(done / "store", tmp_path / "store")
    path = next((tmp_path / "store").glob("groups/*/weights.safetensors"))
    path.write_bytes(path.read_bytes()[:-1])
    code, output, _ = shell("runs", "verify", "--store", tmp_path / "store")
    assert code == 1
    assert "damaged" in output
    code, output, _ = shell("runs", "gc", "--damaged", "--json", "--store", tmp_path / "store")
    assert json.loads(output)["runs"] == 4
    assert shell("runs", "verify", "--store", tmp_path / "store")[0] == 0
    assert (
        shell("study", done / "tiny.toml", "--store", tmp_path / "store", "--dry-run")[1].count("4 of 8 networks") == 1
    )


def test_cleaning_a_clean_store_removes_nothing(runs):
    assert "would remove 0 runs, 0 groups, 0 leftovers" in runs("gc", "--unused", "--dry-run")[1]


def test_a_table_is_exported(runs, done, tmp_path):
    assert runs("export", tmp_path / "t.csv")[0] == 0
    with (tmp_path / "t.csv").open(newline="") as stream:
        lines = list(csv.DictReader(stream))
    table = json.loads((done / "results.json").read_text())["table"]["observations"]
    found = {(line["key"], line["other"]): float(line["value"]) for line in lines if line["column"] == "overlap"}
    assert found == {tuple(o["networks"]): o["value"] for o in table if o["measure"] == "overlap"}
    assert {line["recipe.rate"] for line in lines} == {"0.05", "0.5"}
    assert runs("export", tmp_path / "t.jsonl", "--study", "tiny")[0] == 0
    rows = [json.loads(line) for line in (tmp_path / "t.jsonl").read_text().splitlines()]
    assert any(len(row["value"]["loss"]) == 3 for row in rows if row["measure"] == "barrier")


def test_the_table_reaches_pandas(done):
    pytest.importorskip("pandas")
    frame = export_module.to_pandas(Store.open(done / "store"))
    assert set(frame["recipe.rate"]) == {0.05, 0.5}
    assert len(frame[frame["column"] == "overlap"]) == 4


def test_parquet_holds_the_same_table(runs, done, tmp_path):
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    assert runs("export", tmp_path / "t.parquet")[0] == 0
    pandas.testing.assert_frame_equal(
        pandas.read_parquet(tmp_path / "t.parquet"), export_module.to_pandas(Store.open(done / "store"))
    )


@pytest.mark.filterwarnings("ignore")
def test_mlflow_takes_each_run_once(runs, done, tmp_path):
    mlflow = pytest.importorskip("mlflow")
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    first = runs("export", "--mlflow", "tiny", "--tracking-uri", uri)
    assert (first[0], "8 runs logged" in first[1]) == (0, True)
    assert "0 runs logged" in runs("export", "--mlflow", "tiny", "--tracking-uri", uri)[1]
    client = mlflow.MlflowClient(tracking_uri=uri)
    logged = client.search_runs([client.get_experiment_by_name("tiny").experiment_id])
    run = Store.open(done / "store").run(logged[0].data.tags["isthmus.key"])
    score = next(row for row in run.rows if row.measure == "score")
    assert logged[0].data.metrics["score.training_loss"] == pytest.approx(score.value["training_loss"])
    assert logged[0].data.params["rate"] == str(run.recipe["rate"])


def test_a_place_that_mlflow_does_not_know_is_one_line(runs):
    pytest.importorskip("mlflow")
    code, _, error = runs("export", "--mlflow", "tiny", "--tracking-uri", "nowhere://at.all")
    assert code == 2
    assert "MLflow must take the runs, but: " in error


@pytest.mark.parametrize("library", ["pandas", "pyarrow", "mlflow"])
def test_a_missing_library_is_named_with_the_way_to_get_it(runs, tmp_path, monkeypatch, library):
    import sys

    monkeypatch.setitem(sys.modules, library, None)
    arguments = ["--mlflow", "x"] if library == "mlflow" else [tmp_path / "t.parquet"]
    if library == "pyarrow":
        pytest.importorskip("pandas")
    code, _, error = runs("export", *arguments)
    assert code == 2
    assert f"needs {library}, which is not installed; pip install {library}" in error
    assert not list(tmp_path.iterdir())


def test_one_run_s_weights_are_exported(runs, done, tmp_path):
    store = Store.open(done / "store")
    key = store.keys[0]
    assert runs("export", tmp_path / "w.safetensors", "--run", key[:16])[0] == 0
    written = load(tmp_path / "w.safetensors")
    assert all(torch.equal(tensor, written[name]) for name, tensor in store.weights(key).items())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["list", "--study", "tin"], "study must be one that used"),
        (["show", "zzz"], "but none match"),
        (["export"], "got neither"),
        (["export", "t.xlsx"], "a table is written as .csv, .jsonl, .parquet, got t.xlsx"),
        (["export", "w.pt", "--run", "zzz"], "none match"),
    ],
)
def test_wrong_input_to_runs_is_one_line(runs, tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    code, _, error = runs(*arguments)
    assert code == 2
    assert words in error
    assert error.count("\n") == 1


def test_no_store_is_one_line(shell, tmp_path):
    code, _, error = shell("runs", "list", "--store", tmp_path / "none")
    assert code == 2
    assert "there is none" in error


def test_whoever_stops_a_study_reads_what_is_kept_and_how_it_goes_on(shell, done, tmp_path, monkeypatch):
    import shutil

    from isthmus.studies import Local

    shutil.copytree(done / "store", tmp_path / "store")
    shutil.rmtree(next(iter((tmp_path / "store").glob("runs/*"))))

    def stop(self, timeout):
        raise KeyboardInterrupt

    monkeypatch.setattr(Local, "next", stop)
    code, output, error = shell("study", done / "tiny.toml", "--store", tmp_path / "store", "--workers", 1)
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
def test_a_study_that_was_stopped_goes_on_to_the_same_table(shell, done, tmp_path):
    """A real process and a real signal, as Ctrl-C sends it: to the command and all its workers."""
    import os
    import signal
    import subprocess
    import sys
    import time

    # A test in the background of a shell inherits that Ctrl-C is ignored.
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    code += "from isthmus.cli.main import run; run()"
    long = (done / "tiny.toml").read_text().replace("[0.05, 0.5]", "[0.05, 0.1, 0.2, 0.3, 0.4, 0.5]")
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


def test_what_came_out_is_kept_beside_the_runs_and_drawn(shell, done, tmp_path):
    kept = json.loads((done / "store" / "results" / "study-tiny.json").read_text())
    assert kept["verdicts"] == json.loads((done / "results.json").read_text())["verdicts"]
    page = tmp_path / "tiny.html"
    code, _, _ = shell("study", done / "tiny.toml", "--store", done / "store", "--workers", 1, "--report", page)
    assert code == 0
    text = page.read_text()
    assert "the overlap falls with the rate" in text
    assert "overlap by cell" in text


def test_weights_that_leave_the_store_know_their_recipe(shell, done, tmp_path):
    key = Store.open(done / "store").keys[0]
    file = tmp_path / "taken.safetensors"
    assert shell("runs", "export", file, "--run", key, "--store", done / "store")[0] == 0
    code, said, _ = shell("history", file, "--json")
    assert code == 0
    (node,) = json.loads(said)["nodes"]
    assert node["descent"]["recipe"]["network"] == "mlp-4x1"
    assert node["descent"]["recipe"]["moment"] == "final"
    assert node["descent"]["data"] == Store.open(done / "store").run(key).provenance["data"]
