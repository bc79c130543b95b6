"""Every script of the gallery runs as it stands, asserts its answer, and is on the page."""

from __future__ import annotations

import ast
import runpy

import pytest
from tests.docs.pages import ROOT

SCRIPTS = sorted((ROOT / "docs" / "gallery").glob("*.py"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_it_runs(script, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(script))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_it_asks_and_asserts(script):
    tree = ast.parse(script.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree)
    assert any(isinstance(node, ast.Assert) for node in tree.body), "a script of the gallery asserts its answer"


def test_the_page_shows_every_script():
    page = (ROOT / "docs" / "gallery.md").read_text(encoding="utf-8")
    for script in SCRIPTS:
        assert f"{{literalinclude}} gallery/{script.name}\n" in page
        picture = f"images/gallery-{script.stem.replace('_', '-')}.svg"
        assert f"{{image}} {picture}\n" in page
        assert (ROOT / "docs" / picture).is_file(), "draw it: python docs/draw_gallery.py"
