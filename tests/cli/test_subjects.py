"""Every command about the landscape takes checkpoints, folders of them, a store's runs, or a recipe to train."""

import json

import pytest
from tests.cli.conftest import MODEL

from isthmus.cli import inputs, subjects
from isthmus.cli.main import invoke
from isthmus.core.checkpoint import save
from isthmus.core.errors import SettingError
from isthmus.zoo.networks import network

FIELDS = f"network={MODEL},epochs=2,label_noise=0.2"


def answer(shell, *arguments):
    code, out, err = shell(*arguments, "--json")
    assert code == 0, err
    return json.loads(out)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("store")
    (folder / "s.toml").write_text(
        f'name = "s"\nquestion = "?"\n[recipe]\ndata = "digits"\nnetwork = "{MODEL}"\nepochs = 2\n'
        "[factors]\nrate = [0.05, 0.2]\n[replicates]\ncount = 1\nmembers = 2\n"
        '[measures]\ncolumns = ["test_error"]\n'
    )
    assert invoke(["study", str(folder / "s.toml"), "--store", str(folder / "store")]) == 0
    return folder / "store"


@pytest.mark.parametrize(
    "arguments", [("flatness", "--solutions", "2"), ("spectrum", "--steps", "10"), ("walk", "--steps", "5")]
)
def test_networks_are_trained_where_asked(shell, arguments):
    found = answer(shell, *arguments, "--train", FIELDS, "--examples", "60")
    assert found.get("names", [found.get("name")])[0] == ("0" if "names" in found else MODEL)


def test_trained_networks_are_measured_on_their_own_labels():
    noisy = subjects.chosen(None, train=FIELDS, split="train")
    clean = subjects.chosen(None, train=FIELDS + ",label_noise=0", split="train")
    changed = (noisy.objective.targets != clean.objective.targets).double().mean()
    assert float(changed) == pytest.approx(0.2, abs=0.01)


def test_a_study_of_a_store(shell, store):
    found = answer(shell, "flatness", "--store", store, "--study", "s", "--examples", "60")
    assert len(found["names"]) == 4
    assert len({score["loss"] for score in found["scores"]}) == 4
    one = answer(shell, "spectrum", "--store", store, "--run", found["names"][1], "--examples", "60", "--steps", "10")
    assert one["score"]["loss"] == pytest.approx(found["scores"][1]["loss"])
    code, _, err = shell("walk", "--store", store)
    assert (code, "this looks at 1" in err) == (2, True)


def test_a_folder_means_the_checkpoints_in_it(shell, checkpoints):
    assert [path.rpartition("/")[2] for path in inputs.expanded([str(checkpoints)])] == [
        "a.safetensors",
        "b.safetensors",
    ]
    found = answer(shell, "flatness", checkpoints, "--model", MODEL, "--data", "digits", "--examples", "60")
    assert found["names"] == ["a.safetensors", "b.safetensors"]
    assert found["scale_removed"]
    code, _, err = shell("glass", checkpoints)
    assert (code, "at least 3" in err) == (2, True)


def test_one_checkpoint_in_a_folder_is_that_folder(tmp_path):
    save(network(MODEL, inputs=(1, 8, 8)).state_dict(), tmp_path / "a.pt")
    assert inputs.expanded([str(tmp_path)]) == [str(tmp_path)]


def test_a_trainer_s_folders_are_its_checkpoints(tmp_path):
    weights = network(MODEL, inputs=(1, 8, 8)).state_dict()
    for step in (2, 10, 4):
        (tmp_path / f"checkpoint-{step}").mkdir()
        save(weights, tmp_path / f"checkpoint-{step}" / "model.safetensors")
        for beside in ("optimizer.pt", "rng_state.pth", "training_args.bin"):
            save(weights, tmp_path / f"checkpoint-{step}" / beside)
    (tmp_path / "checkpoint-best").mkdir()
    assert inputs.expanded([str(tmp_path)]) == [str(tmp_path / f"checkpoint-{step}") for step in (2, 4, 10)]
    assert inputs.expanded([str(tmp_path / "checkpoint-4")]) == [str(tmp_path / "checkpoint-4")]
    save(weights, tmp_path / "model.safetensors")
    assert inputs.expanded([str(tmp_path)]) == [str(tmp_path)]


def test_networks_of_known_trunks_are_recovered(shell):
    arguments = ("--train", f"network={MODEL},epochs=6,spawn=60", "--solutions", "6", "--trunks", "2")
    raw = answer(shell, "glass", *arguments, "--alignments", "raw")["arrangements"][0]
    assert raw["recovery"]["score"] == pytest.approx(1.0)
    q = raw["overlaps"]["q"]
    assert min(q[0][1], q[0][2], q[4][5]) > max(q[0][3], q[1][4], q[2][5])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("flatness",), "give checkpoints, --train or --store"),
        (("walk", "a.pt", "--train", ""), "only one of them"),
        (("spectrum", "a.pt"), "need --model and --data"),
        (("glass", "--demo", "--train", ""), "trains its own"),
        (("glass", "--train", "epochs=1", "--solutions", "2"), "at least 3"),
        (("glass", "--train", "epochs=1", "--trunks", "4"), "spawn"),
    ],
)
def test_one_source_and_no_more(shell, arguments, says):
    code, _, err = shell(*arguments)
    assert (code, err.count("\n")) == (2, 1), err
    assert says in err


TRAINING = ("glass", "claims", "remedies", "uncertainty", "continual", "generalisation", "flatness", "check", "train")


@pytest.mark.parametrize("command", TRAINING)
def test_the_data_of_a_recipe_are_the_data_it_is_trained_on(shell, command, tmp_path):
    """A recipe that names mnist was once trained on digits, the default of --data, and recorded as mnist."""
    fields = ("--recipe" if command == "train" else "--train", f"network={MODEL},epochs=1,data=mnist")
    more = ("-o", tmp_path / "out") if command == "train" else ()
    code, _, err = shell(command, *fields, *more, "--data-dir", tmp_path)
    assert (code, "mnist as published" in err) == (2, True), err
    code, _, err = shell(command, *fields, *more, "--data", "digits")
    assert (code, "must name the same data, got digits and mnist" in err) == (2, True), err


def test_a_split_of_another_name_is_refused():
    with pytest.raises(SettingError, match="split must be"):
        subjects.chosen(None, train="", split="validation")


def test_sharpness_and_generalisation_at_one_training_loss(shell, tmp_path):
    page = tmp_path / "g.html"
    grid = ("--rates", "0.05,0.1", "--batch-sizes", "64", "--solutions", "3", "--target", "0.6", "--tolerance", "0.5")
    arguments = ("--train", f"network={MODEL},epochs=4", *grid, "--products", "9")
    found = answer(shell, "generalisation", *arguments, "--report", page)
    assert found["verdict"]["networks"] == sum(each["matched"] for each in found["subjects"])
    assert page.read_text().count("<svg") >= 1
    for measure in ("eigenvalue", "trace", "random", "worst", "adaptive"):
        assert f"{measure}: " in found["verdict"]["sentence"]
    code, _, err = shell("generalisation", "--rates", "0.1,fast")
    assert (code, "rates must be numbers" in err) == (2, True)
