"""isthmus: are these trained networks in one basin, can they be brought into one, and may they be merged?

Everything public is reachable from here and is imported on first use, so that ``import isthmus`` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import Any

from isthmus._public import PUBLIC

__version__ = "0.1.0"

__all__ = ["__version__", *PUBLIC]  # noqa: PLE0604  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name in PUBLIC:
        module, _, attribute = PUBLIC[name].partition(":")
        loaded = importlib.import_module(module)
        return getattr(loaded, attribute) if attribute else loaded
    raise AttributeError(f"module 'isthmus' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
