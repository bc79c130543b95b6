"""The examples in the docstrings of train and zoo run and say what they say."""

import doctest
import importlib

import pytest
import torch

MODULES = ["train.recipe", "train.replicas", "zoo.data", "zoo.models", "zoo.networks"]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    module = importlib.import_module(f"isthmus.{name}")
    result = doctest.testmod(module, globs={**vars(module), "torch": torch})
    assert result.attempted > 0
    assert result.failed == 0
