"""Which hidden units of *this module* may be exchanged? ``isthmus.discover(module, example)``, proved."""

from __future__ import annotations

import sys
import types
from typing import Any

from isthmus.discover.discovery import discover
from isthmus.discover.picture import LayerGroup, LayerMap, layer_map


class _Callable(types.ModuleType):
    """The package is also the function: ``isthmus.discover(module, example)``."""

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        return discover(*arguments, **keywords)


sys.modules[__name__].__class__ = _Callable

__all__ = ["LayerGroup", "LayerMap", "discover", "layer_map"]
