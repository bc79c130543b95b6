"""``isthmus redundancy`` and ``isthmus remedies`` from a shell."""

import json

import pytest


def test_redundancy_by_layer_and_size(shell, tmp_path):
    page = tmp_path / "r.html"
    code, out, err = shell(
        "redundancy", "mlp-6x1", "--input", "2x1x8x8", "--widths", "4,8", "--depths", "1,2", "--json", "--report", page
    )
    assert code == 0, err
    found = json.loads(out)
    assert found["total"]["log10_floored"] == 2  # 6! = 720
    assert found["total"]["scale_dimensions"] == 6
    assert [(size["width"], size["depth"]) for size in found["sizes"]] == [(4, 1), (8, 1), (4, 2), (8, 2)]
    assert "<svg" in page.read_text()


def test_redundancy_for_people(shell):
    code, out, err = shell("redundancy", "mlp-5x1", "--input", "2x1x8x8")
    assert code == 0, err
    assert "120 permutations and signs leave" in out  # 5!


def test_remedies(shell, tmp_path):
    page, file = tmp_path / "r.html", tmp_path / "r.json"
    code, out, err = shell(
        "remedies", "--only", "frozen", "--widths", "8", "--label-noise", "0", "--examples", "200", "--solutions", "2",
        "--points", "3", "--train", "epochs=2", "--report", page, "--output", file,
    )  # fmt: skip
    assert code == 0, err
    assert "frozen" in out
    assert [trial["remedy"] for trial in json.loads(file.read_text())["trials"]] == ["plain", "frozen"]
    assert "half frozen" in page.read_text()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("remedies", "--only", "prayer"), "remedies must be some of"),
        (("remedies", "--widths", "eight"), "widths must be numbers"),
        (("remedies", "--model", "mlp-8x1", "--only", "prayer"), "remedies must be some of"),
        (("remedies", "--model", "nowhere.py:build"), "there is no file"),
        (("remedies", "--target", "2"), "target must be"),
        (("remedies", "--solutions", "1"), "solutions must be at least 2"),
        (("remedies", "--points", "2"), "points must be at least 3"),
        (("remedies", "--label-noise", "1"), "label_noise must be"),
        (("redundancy", "torchvision:alexnet", "--widths", "8"), "a network of the zoo"),
        (("redundancy", "mlp-8x1", "--input", "2x1x8x8", "--widths", "x"), "widths must be numbers"),
    ],
)
def test_wrong_input_is_one_line(shell, arguments, said):
    code, _, err = shell(*arguments)
    assert code == 2
    assert said in err
    assert err.strip().count("\n") == 0
