"""``isthmus stationary`` from a shell."""

import json

import pytest

TINY = "network=mlp-4x1,epochs=1,weight_decay=0.05"


def test_a_network_and_quadratics(shell, tmp_path):
    page = tmp_path / "s.html"
    code, out, err = shell(
        "stationary", "--train", TINY, "--examples", "60", "--pairs", "2", "--noise", "sampling,labels",
        "--walkers", "8", "--steps", "60", "--settle", "40", "--force", "--no-quadratic", "--json", "--report", page,
    )  # fmt: skip
    assert code == 0, err
    found = json.loads(out)
    assert [law["kind"] for law in found["network"]] == ["sampling", "labels"]
    assert found["weight_decay"] == 0.05
    assert found["settling"]["gradient_norm"] < found["settling"]["before"]
    assert "<svg" in page.read_text()


def test_checkpoints_that_are_no_minimum_are_refused(shell, checkpoints):
    code, out, err = shell(
        "stationary", checkpoints / "a.safetensors", "--model", "mlp-8x1", "--data", "digits", "--examples", "50",
        "--no-quadratic",
    )  # fmt: skip
    assert code == 2
    assert out == ""
    assert "needs a minimum, but the gradient's norm is" in err
    assert "lowest curvature -" in err
    assert err.strip().count("\n") == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--noise", "thermal"), "noise must be some of"),
        (("--noise", ","), "noise must be some of"),
        (("--batch-size", "0"), "batch-size must be at least 1"),
        (("--train", TINY, "--examples", "40", "--rate", "99", "--settle", "0", "--noise", "labels"), "below 2/λ_max"),
        (("--train", TINY, "--settle", "-1"), "at least 1 iteration"),
        (("--train", TINY, "--examples", "40", "--walkers", "1", "--force", "--settle", "0"), "at least 2 walkers"),
    ],
)
def test_wrong_input_is_one_line(shell, arguments, said):
    code, _, err = shell("stationary", *arguments)
    assert code == 2
    assert said in err
    assert err.strip().count("\n") == 0
