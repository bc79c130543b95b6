"""``isthmus runs`` from end to end: what is in a store, whether it is whole, and ways out of it."""

from __future__ import annotations

import csv
import json

import pytest
import torch

from isthmus.core.checkpoint import load
from isthmus.studies import Store
from isthmus.studies.store import export as export_module


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


def test_a_store_verifies_and_damage_is_an_exit_code(runs, shell, studied, tmp_path):
    import shutil

    assert runs("verify")[0] == 0
    shutil.copytree(studied / "store", tmp_path / "store")
    path = next((tmp_path / "store").glob("groups/*/weights.safetensors"))
    path.write_bytes(path.read_bytes()[:-1])
    code, output, _ = shell("runs", "verify", "--store", tmp_path / "store")
    assert code == 1
    assert "damaged" in output
    code, output, _ = shell("runs", "gc", "--damaged", "--json", "--store", tmp_path / "store")
    assert json.loads(output)["runs"] == 4
    assert shell("runs", "verify", "--store", tmp_path / "store")[0] == 0
    assert (
        shell("study", studied / "tiny.toml", "--store", tmp_path / "store", "--dry-run")[1].count("4 of 8 networks")
        == 1
    )


def test_cleaning_a_clean_store_removes_nothing(runs):
    assert "would remove 0 runs, 0 groups, 0 leftovers" in runs("gc", "--unused", "--dry-run")[1]


def test_a_table_is_exported(runs, studied, tmp_path):
    assert runs("export", tmp_path / "t.csv")[0] == 0
    with (tmp_path / "t.csv").open(newline="") as stream:
        lines = list(csv.DictReader(stream))
    table = json.loads((studied / "results.json").read_text())["table"]["observations"]
    found = {(line["key"], line["other"]): float(line["value"]) for line in lines if line["column"] == "overlap"}
    assert found == {tuple(o["networks"]): o["value"] for o in table if o["measure"] == "overlap"}
    assert {line["recipe.rate"] for line in lines} == {"0.05", "0.5"}
    assert runs("export", tmp_path / "t.jsonl", "--study", "tiny")[0] == 0
    rows = [json.loads(line) for line in (tmp_path / "t.jsonl").read_text().splitlines()]
    assert any(len(row["value"]["loss"]) == 3 for row in rows if row["measure"] == "barrier")


def test_the_table_reaches_pandas(studied):
    pytest.importorskip("pandas")
    frame = export_module.to_pandas(Store.open(studied / "store"))
    assert set(frame["recipe.rate"]) == {0.05, 0.5}
    assert len(frame[frame["column"] == "overlap"]) == 4


def test_parquet_holds_the_same_table(runs, studied, tmp_path):
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    assert runs("export", tmp_path / "t.parquet")[0] == 0
    pandas.testing.assert_frame_equal(
        pandas.read_parquet(tmp_path / "t.parquet"), export_module.to_pandas(Store.open(studied / "store"))
    )


@pytest.mark.filterwarnings("ignore")
def test_mlflow_takes_each_run_once(runs, studied, tmp_path):
    mlflow = pytest.importorskip("mlflow")
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    first = runs("export", "--mlflow", "tiny", "--tracking-uri", uri)
    assert (first[0], "8 runs logged" in first[1]) == (0, True)
    assert "0 runs logged" in runs("export", "--mlflow", "tiny", "--tracking-uri", uri)[1]
    client = mlflow.MlflowClient(tracking_uri=uri)
    logged = client.search_runs([client.get_experiment_by_name("tiny").experiment_id])
    run = Store.open(studied / "store").run(logged[0].data.tags["isthmus.key"])
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


def test_one_run_s_weights_are_exported(runs, studied, tmp_path):
    store = Store.open(studied / "store")
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


def test_weights_that_leave_the_store_know_their_recipe(shell, studied, tmp_path):
    key = Store.open(studied / "store").keys[0]
    file = tmp_path / "taken.safetensors"
    assert shell("runs", "export", file, "--run", key, "--store", studied / "store")[0] == 0
    code, said, _ = shell("history", file, "--json")
    assert code == 0
    (node,) = json.loads(said)["nodes"]
    assert node["lineage"]["recipe"]["network"] == "mlp-4x1"
    assert node["lineage"]["recipe"]["moment"] == "final"
    assert node["lineage"]["data"] == Store.open(studied / "store").run(key).provenance["data"]
