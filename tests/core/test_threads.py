"""Pieces in threads: same order, errors raised, PyTorch's own threads as before."""

from __future__ import annotations

import pytest
import torch

from isthmus.core.threads import fitting, in_threads


@pytest.fixture(autouse=True)
def several():
    """Three threads of PyTorch's own: where one is all there is, nothing could be seen to come back."""
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_results_keep_the_order_of_the_pieces(threads):
    heard: list[tuple[float, float]] = []
    squares = in_threads(
        lambda x: x * x, range(20), threads=threads, progress=lambda done, total, label="": heard.append((done, total))
    )
    assert squares == [x * x for x in range(20)]
    assert heard == [(done, 20) for done in range(1, 21)]
    assert torch.get_num_threads() == 3


@pytest.mark.parametrize("threads", [1, 2])
def test_an_error_is_raised_and_settings_come_back(threads):
    def picky(x: int) -> int:
        if x == 3:
            raise ValueError("three")
        return x

    with pytest.raises(ValueError, match="three"):
        in_threads(picky, range(10), threads=threads)
    assert torch.get_num_threads() == 3


def test_inside_each_piece_has_one_core():
    assert set(in_threads(lambda _: torch.get_num_threads(), range(4), threads=2)) == {1}


def test_nothing_to_do_is_no_error():
    assert in_threads(lambda x: x, []) == []


def test_as_many_at_once_as_cores_and_memory_allow(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    assert fitting(100, 1) == 8
    assert fitting(8, 1) == 8
    assert fitting(7, 1) == 1  # fewer pieces than threads: all threads inside each
    assert fitting(100, 1 << 30) == 4
    assert fitting(100, 1 << 40) == 1
