"""The user's own data: arrays, functions and items; everything wrong with them is one line."""

from pathlib import Path

import numpy as np
import pytest
import torch

from isthmus.core.errors import DataError
from isthmus.zoo.data import load


def test_an_npz_file_with_and_without_a_test_set(tmp_path):
    x, y = np.arange(40, dtype=np.float64).reshape(10, 4), np.arange(10) % 3
    np.savez(tmp_path / "a.npz", x=x, y=y)
    data = load(str(tmp_path / "a.npz"))
    assert (len(data.train_targets), len(data.test_targets), data.classes, data.shape) == (8, 2, 3, (4,))
    both = torch.cat([data.train_inputs, data.test_inputs])[:, 0].sort().values
    assert both.tolist() == x[:, 0].tolist()
    np.savez(tmp_path / "b.npz", x=x, y=y[:, None].astype(float), x_test=x[:3], y_test=y[:3])
    assert torch.equal(load(str(tmp_path / "b.npz")).train_inputs, torch.from_numpy(x).float())


def test_labels_of_pixels_and_of_steps(tmp_path):
    images, steps = np.zeros((10, 1, 4, 5), np.float32), np.zeros((10, 7, 3), np.float32)
    for inputs, shape in ((images, (10, 4, 5)), (steps, (10, 7))):
        labels = np.arange(np.prod(shape)).reshape(shape) % 3
        np.savez(tmp_path / "a.npz", x=inputs, y=labels)
        data = load(str(tmp_path / "a.npz"))
        assert data.train_targets.shape == (8, *shape[1:])
        assert data.classes == 3


def test_the_users_own_function(tmp_path):
    (tmp_path / "mine.py").write_text(
        "import torch\n"
        "from torch.utils.data import TensorDataset\n"
        "def one():\n    return TensorDataset(torch.randn(10, 1, 4, 4), torch.arange(10) % 2)\n"
        "def two():\n    return one(), one()\n"
        "def broken():\n    raise RuntimeError('the disk is on fire\\nsecond line')\n"
        "def nothing():\n    return 3\n"
    )
    assert len(load(f"{tmp_path}/mine.py:one").test_targets) == 2
    assert len(load(f"{tmp_path}/mine.py:two").test_targets) == 10
    with pytest.raises(DataError, match=r"raised RuntimeError: the disk is on fire$"):
        load(f"{tmp_path}/mine.py:broken")
    with pytest.raises(DataError, match="must return a Data or a torch Dataset"):
        load(f"{tmp_path}/mine.py:nothing")
    with pytest.raises(DataError, match="has no function three; it has TensorDataset, one, two, broken"):
        load(f"{tmp_path}/mine.py:three")


class Items(list):
    """A data set of whatever items."""


@pytest.mark.parametrize(
    ("item", "said"),
    [
        ({"image": torch.zeros(2), "label": 1}, "got tables of image, label; wrap the data set"),
        ((Path("a.png"), 1), r"got pathlib\.\w+ as input; turn it into a tensor first"),
        ((torch.zeros(2), "cat"), "but: invalid literal for int"),
    ],
)
def test_items_that_are_no_pairs_of_tensors_are_told_as_what_they_are(item, said, monkeypatch):
    monkeypatch.setattr("isthmus.zoo.models.function", lambda spec, error: lambda: Items([item] * 3))
    with pytest.raises(
        DataError, match=rf"^mine:items: every item must be an \(input tensor, class number\) pair.*{said}"
    ):
        load("mine:items")


@pytest.mark.parametrize(
    ("arrays", "part"),
    [
        ({"x": np.zeros((6, 2))}, "must hold x and y; missing y"),
        ({"x": np.zeros(6), "y": np.zeros(6)}, "x must be numbers with the examples first"),
        ({"x": np.zeros((6, 2)), "y": np.zeros((6, 2))}, "y must be one class number"),
        ({"x": np.zeros((6, 1, 2, 2)), "y": np.zeros((6, 3, 2))}, r"y must be one class number.*got shape \(6, 3, 2\)"),
        (
            {"x": np.zeros((6, 2)), "y": np.zeros(6), "attention_mask": np.ones((6, 2))},
            "would reach the model, got att",
        ),
        ({"x": np.zeros((6, 2)), "y": np.full(6, 0.5)}, "y must be whole class numbers"),
        ({"x": np.zeros((6, 2)), "y": np.arange(5)}, "equally many, got 6 and 5"),
        ({"x": np.zeros((6, 2)), "y": np.arange(6) - 1}, "from 0, got -1"),
        ({"x": np.zeros((6, 2)), "y": np.arange(6) + 900}, "without large gaps"),
        ({"x": np.full((6, 2), np.nan), "y": np.zeros(6)}, "must be finite"),
        ({"x": np.zeros((6, 2)), "y": np.zeros(6), "x_test": np.zeros((2, 2))}, "both x_test and y_test"),
        (
            {"x": np.zeros((6, 2)), "y": np.zeros(6), "x_test": np.zeros((2, 3)), "y_test": np.zeros(2)},
            "must have one shape",
        ),
        (
            {"x": np.zeros((6, 2)), "y": np.zeros(6), "x_test": np.zeros((2, 2)), "y_test": np.ones(2)},
            "labels must lie",
        ),
    ],
)
def test_wrong_arrays_are_one_line(tmp_path, arrays, part):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(DataError, match=part) as caught:
        load(str(tmp_path / "a.npz"))
    assert "\n" not in str(caught.value)
