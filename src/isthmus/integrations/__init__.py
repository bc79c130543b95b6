"""isthmus inside other people's tools: training loops, test suites, notebooks; none is imported before it is used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from isthmus.integrations.connected import Connection as Connection
    from isthmus.integrations.connected import assert_connected as assert_connected
    from isthmus.integrations.lightning import lightning_callback as lightning_callback
    from isthmus.integrations.trainer import trainer_callback as trainer_callback
    from isthmus.integrations.trajectory import Recorder as Recorder
    from isthmus.integrations.trajectory import Trajectory as Trajectory

# The test plugin is loaded by every pytest that runs where isthmus is installed, and must not wait for torch.
_PLACES = {
    "Connection": "connected",
    "Recorder": "trajectory",
    "Trajectory": "trajectory",
    "assert_connected": "connected",
    "lightning_callback": "lightning",
    "trainer_callback": "trainer",
}

__all__ = list(_PLACES)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'isthmus.integrations' has no attribute {name!r}")
    return getattr(importlib.import_module(f"isthmus.integrations.{_PLACES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
