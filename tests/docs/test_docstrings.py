"""The examples in docstrings run and say what they show, in every package that has no such test beside its own."""

from __future__ import annotations

import doctest
import importlib
import importlib.util
import pkgutil
from pathlib import Path

import pytest

import isthmus

#: packages whose own tests run their examples (tests/<package>/test_examples_in_<package>.py)
ELSEWHERE = ("core", "connect", "train")
#: examples that train several networks
SLOW = ("isthmus.studies.continual.continual",)


def modules() -> list[str]:
    """Every module with an example."""
    found = []
    for package in pkgutil.iter_modules(isthmus.__path__, "isthmus."):
        name = package.name.partition(".")[2]
        if not package.ispkg or name in ELSEWHERE:
            continue
        for module in pkgutil.walk_packages(importlib.import_module(package.name).__path__, f"{package.name}."):
            spec = importlib.util.find_spec(module.name)
            if spec is not None and spec.origin and ">>> " in Path(spec.origin).read_text(encoding="utf-8"):
                found.append(module.name)
    return found


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in modules()]
)
def test_examples_of(name):
    assert doctest.testmod(importlib.import_module(name), report=True).failed == 0
