"""The examples in the docstrings of isthmus.connect run and say what they show."""

import doctest
import importlib
import pkgutil

import pytest

package = importlib.import_module("isthmus.connect")


@pytest.mark.parametrize("name", [module.name for module in pkgutil.iter_modules(package.__path__)])
def test_examples(name):
    module = importlib.import_module(f"isthmus.connect.{name}")
    assert doctest.testmod(module, report=True).failed == 0
