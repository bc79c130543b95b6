"""What the pages tell a reader to type runs as it stands, page by page."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.docs.pages import ROOT, RUN, SHOWN, Snippet, pages, run, snippets, unprinted

#: pages of which every snippet takes long together
SLOW: tuple[str, ...] = ()


@pytest.fixture
def own_files(tmp_path, monkeypatch):
    """What pages take for granted that a reader has: a model's code, two checkpoints of it and its data."""
    from sklearn.datasets import load_digits

    import isthmus

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")  # how wide shown output is
    Path("model.py").write_text(
        "from torch import nn\n\n\n"
        "def build():\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(64, 24), nn.ReLU(), nn.Linear(24, 10))\n",
        encoding="utf-8",
    )
    found = load_digits()
    inputs, targets = (found.images / 16).astype(np.float32)[:, None], found.target
    np.savez("data.npz", x=inputs[:1000], y=targets[:1000], x_test=inputs[1000:], y_test=targets[1000:])
    images, labels = torch.tensor(inputs[:1000]), torch.tensor(targets[:1000])
    for seed, name in enumerate(("A", "B")):
        module = isthmus.resolve("model.py:build", seed=seed)
        optimiser = torch.optim.Adam(module.parameters(), 0.01)
        for _ in range(60):
            optimiser.zero_grad()
            torch.nn.functional.cross_entropy(module(images), labels).backward()
            optimiser.step()
        isthmus.save(module.state_dict(), f"{name}.safetensors")
    # one more, that has nothing to do with A but the code, and one a few steps away from it
    Path("old.safetensors").write_bytes(Path("A.safetensors").read_bytes())
    weights = isthmus.load("A.safetensors")
    isthmus.save(
        {name: tensor + 0.003 * torch.randn(tensor.shape) for name, tensor in weights.items()}, "new.safetensors"
    )
    return tmp_path


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(
            page,
            id=str(page.relative_to(ROOT)),
            marks=[pytest.mark.slow] if str(page.relative_to(ROOT)) in SLOW else [],
        )
        for page in pages()
        if any(snippet.language in RUN for snippet in snippets(page))
    ],
)
def test_the_snippets_of(page, own_files):
    run(page)


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_every_fence_is_run_or_says_why_not(page):
    for snippet in snippets(page):
        where = f"{page.relative_to(ROOT)}, line {snippet.line}"
        assert snippet.language in (*RUN, *SHOWN), f"{where}: {snippet.language} is neither run nor known as shown"
        if snippet.note.startswith("not run"):
            assert len(snippet.reason_not_to_run or "") > 10, f"{where}: not run, but no reason"


def test_a_fence_that_fails_is_noticed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = ROOT / "docs" / "none.md"
    monkeypatch.setattr(
        "tests.docs.pages.snippets", lambda _: [Snippet(page, 3, "sh", "isthmus barrier nothing.pt\n", "")]
    )
    with pytest.raises(AssertionError, match=r"none.md, line 3: isthmus barrier nothing.pt must end with 0, got 2"):
        run(page)


def test_no_fence_hides_from_the_pattern():
    for page in pages():
        opened = len(re.findall(r"^```+[a-z]", page.read_text(encoding="utf-8"), flags=re.MULTILINE))
        assert opened == len(snippets(page)), page


@pytest.mark.parametrize(
    ("shown", "missing"),
    [
        ("Loss barrier  .9\n", "Loss barrier  .9"),
        ("Loss barrier  0.7\n…\nwrote x\n", None),
        ("Loss barrier  0.5\n", "Loss barrier  0.5"),
        ("wrote x\nLoss barrier  0.7\n", "Loss barrier  0.7"),
        ("Loss barrier  0.7 0.01\n", "Loss barrier  0.7 0.01"),
        ("Error barrier  0.7\n", "Error barrier  0.7"),
    ],
)
def test_output_that_is_shown_must_be_printed(shown, missing):
    printed = "  Loss barrier    0.8   \n ──────\n\nError: 3\nwrote x\n"
    assert unprinted(shown, printed) == missing
