"""A disk that fills while a checkpoint is written: one line, and nothing half-written."""

import resource

import pytest
import torch

from isthmus.core.checkpoint import save
from isthmus.core.errors import IsthmusError


@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path, suffix):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(IsthmusError, match="must be writable") as caught:
            save({"w": torch.ones(100_000)}, tmp_path / f"w.{suffix}")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []
