"""``isthmus uncertainty`` from a shell."""

import json

import numpy as np
import pytest


def test_uncertainty_of_checkpoints(shell, checkpoints, tmp_path):
    page = tmp_path / "u.html"
    code, out, err = shell(
        "uncertainty", checkpoints / "a.safetensors", "--model", "mlp-8x1", "--examples", "300", "--folds", "2",
        "--train", "epochs=2", "--json", "--report", page,
    )  # fmt: skip
    assert code == 0, err
    found = json.loads(out)
    assert {spread["source"] for spread in found["spreads"]} >= {"other examples", "augmented inputs"}
    assert found["metrics"] is None
    assert "Risk table before training" in page.read_text()


def test_before_training(shell):
    code, out, err = shell(
        "uncertainty",
        "--before",
        "--model",
        "mlp-8x1",
        "--examples",
        "200",
        "--folds",
        "2",
        "--train",
        "epochs=1",
        "--json",
    )
    assert code == 0, err
    found = json.loads(out)
    assert found["spreads"] == []
    assert {risk["name"] for risk in found["risks"]["risks"]} == {"labels", "error", "loss", "rarest", "data"}


def one_class(tmp_path):
    file = tmp_path / "one.npz"
    inputs = np.random.default_rng(0).normal(size=(40, 1, 8, 8)).astype("float32")
    np.savez(file, x=inputs, y=np.zeros(40, int))
    return file


def test_labels_all_of_one_class(shell, tmp_path):
    code, out, err = shell("uncertainty", "--data", one_class(tmp_path), "--model", "mlp-8x1", "--train", "epochs=1")
    assert code == 2
    assert out == ""
    assert "two classes" in err
    assert err.strip().count("\n") == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--folds", "1"), "folds must be at least 2"),
        (("--label-noise", "2"), "label noise must be shares between 0 and 1"),
        (("--label-noise", "much"), "label-noise must be numbers"),
        (("--before", "a.safetensors"), "leave the checkpoints out"),
    ],
)
def test_wrong_input_is_one_line(shell, arguments, said):
    code, out, err = shell("uncertainty", "--model", "mlp-4x1", "--examples", "100", "--train", "epochs=1", *arguments)
    assert code == 2
    assert out == ""
    assert said in err
    assert err.strip().count("\n") == 0


def test_folds_must_fit(shell):
    code, _, err = shell(
        "uncertainty", "--model", "mlp-8x1", "--examples", "30", "--folds", "20", "--train", "epochs=1"
    )
    assert code == 2
    assert "as many examples as folds" in err
    assert err.strip().count("\n") == 0
