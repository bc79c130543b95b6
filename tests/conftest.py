"""What a test draws depends on its own name alone: not on the tests before it, nor on the process."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import random
from collections.abc import Iterator

import hypothesis
import numpy as np
import pytest
import torch

SEED = "--test-seed"

# Without a GPU our kernels run in Triton's interpreter, where Triton is installed; it must know before they are read.
if importlib.util.find_spec("triton") is not None and not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(SEED, type=int, default=0, help="draws other random numbers in every test that names no seed")


def pytest_configure(config: pytest.Config) -> None:
    """Examples of hypothesis repeat too; another seed looks for new ones. How long one takes is no matter of a test."""
    patient = {"deadline": None, "suppress_health_check": [hypothesis.HealthCheck.too_slow]}
    hypothesis.settings.register_profile("repeated", derandomize=True, database=None, **patient)
    hypothesis.settings.register_profile("searched", derandomize=False, **patient)
    hypothesis.settings.load_profile("searched" if config.getoption(SEED) else "repeated")


def _start(config: pytest.Config, *names: object) -> None:
    """Start every global stream of random numbers at a place that the seed and the names give."""
    text = repr((config.getoption(SEED), *names))
    number = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "little")
    random.seed(number)
    np.random.seed(number)  # noqa: NPY002 - the old global stream is what a library under test may draw from
    torch.manual_seed(number)


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef: pytest.FixtureDef[object], request: pytest.FixtureRequest) -> Iterator[None]:
    """A fixture that several tests share draws the same whichever of them asks first."""
    _start(request.config, fixturedef.baseid, fixturedef.argname, getattr(request, "param_index", 0))
    return (yield)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> None:
    _start(item.config, item.nodeid)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Iterator[None]:
    """A file that draws when it is read draws the same in every process."""
    _start(collector.config, collector.nodeid)
    return (yield)
