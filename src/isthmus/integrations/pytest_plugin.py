"""The pytest plugin: ``assert_connected`` as a fixture, there in every test suite where isthmus is installed."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest


@pytest.fixture(scope="session")
def assert_connected() -> Callable[..., Any]:
    """``assert_connected(first, second, model=…, data=…)``: fail unless two networks lie in one basin.

    See :func:`isthmus.integrations.assert_connected`.
    """
    # torch is imported by the tests that ask for this, not by every test session.
    from isthmus.core.errors import IsthmusError
    from isthmus.integrations.connected import assert_connected as asserted

    @functools.wraps(asserted)
    def connected(*networks: Any, **settings: Any) -> Any:
        __tracebackhide__ = True
        try:
            return asserted(*networks, **settings)
        except (AssertionError, IsthmusError) as problem:
            # Both say in words what is the matter; where in the library they were raised would only bury it.
            raise problem.with_traceback(None) from None

    return connected
