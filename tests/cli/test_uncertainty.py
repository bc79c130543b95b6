"""``isthmus uncertainty`` from a shell."""

import json


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
    assert "Risk table" in page.read_text()


def test_folds_must_fit(shell):
    code, _, err = shell(
        "uncertainty", "--model", "mlp-8x1", "--examples", "30", "--folds", "20", "--train", "epochs=1"
    )
    assert code == 2
    assert "as many examples as folds" in err
    assert err.strip().count("\n") == 0
