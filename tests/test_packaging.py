"""What the package says of itself is the same everywhere it says it."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import yaml

import isthmus

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def split(requirement: str) -> tuple[str, frozenset[str]]:
    name, bounds = re.fullmatch(r"([\w.-]+)\s*(.*)", requirement).groups()  # type: ignore[union-attr]
    return name.lower(), frozenset(bound.strip() for bound in bounds.split(",") if bound.strip())


def test_the_conda_recipe_asks_for_what_the_package_asks_for():
    text = (ROOT / "conda" / "recipe.yaml").read_text(encoding="utf-8")
    recipe = yaml.safe_load(text.replace("${{ version }}", isthmus.__version__))
    asked = dict(map(split, recipe["requirements"]["run"]))
    wanted = dict(map(split, [*PROJECT["dependencies"], f"python {PROJECT['requires-python']}"]))
    wanted["pytorch"] = wanted.pop("torch")  # its name on conda-forge
    assert asked == wanted
    assert recipe["context"]["version"] == isthmus.__version__
    (command,) = recipe["build"]["python"]["entry_points"]
    assert command.split(" = ") == list(*PROJECT["scripts"].items())


def test_every_entry_point_leads_somewhere():
    import importlib

    points = [*PROJECT["scripts"].values()]
    points += [place for group in PROJECT["entry-points"].values() for place in group.values()]
    for place in points:
        module, _, name = place.partition(":")
        found = importlib.import_module(module)
        assert not name or callable(getattr(found, name)), place


def test_the_changelog_has_the_version():
    assert f"## {isthmus.__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
