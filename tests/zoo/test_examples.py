"""Examples that a capability shows on."""

import numpy as np
import pytest
import torch

from isthmus.core.errors import DataError
from isthmus.zoo import load_data
from isthmus.zoo.examples import load_examples


def test_a_file_counts_whole_unless_it_says_what_is_for_tests(tmp_path):
    x, y = np.arange(12.0).reshape(4, 3), np.array([0, 1, 900, 1])
    np.savez(tmp_path / "whole.npz", x=x, y=y)
    found = load_examples(str(tmp_path / "whole.npz"))
    assert torch.equal(found.inputs, torch.tensor(x, dtype=torch.float32))
    assert found.targets.tolist() == [0, 1, 900, 1]
    np.savez(tmp_path / "parts.npz", x=x, y=y, x_test=x[:2] + 1, y_test=y[:2])
    part = load_examples(str(tmp_path / "parts.npz"))
    assert part.targets.tolist() == [0, 1]
    assert float(part.inputs[0, 0]) == 1.0
    assert part.fingerprint != found.fingerprint
    assert part.to("cpu").fingerprint == part.fingerprint


def test_a_built_in_set_counts_with_its_test_part():
    found = load_examples("digits")
    assert torch.equal(found.inputs, load_data("digits").test_inputs)


def test_a_file_that_is_none(tmp_path):
    with pytest.raises(DataError, match="there is none"):
        load_examples(str(tmp_path / "missing.npz"))
    np.savez(tmp_path / "half.npz", x=np.zeros((2, 2)))
    with pytest.raises(DataError, match="missing y"):
        load_examples(str(tmp_path / "half.npz"))
