"""The examples in the docstrings of isthmus.core run and say what they show."""

import doctest
import importlib
import pkgutil

import pytest

package = importlib.import_module("isthmus.core")


@pytest.mark.parametrize("name", [module.name for module in pkgutil.iter_modules(package.__path__)])
def test_examples(name):
    module = importlib.import_module(f"isthmus.core.{name}")
    assert doctest.testmod(module, report=True).failed == 0
