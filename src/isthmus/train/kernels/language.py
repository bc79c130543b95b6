"""Triton, where it is installed: kernels are defined in any case, and run only where it is."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from typing import Any

_found = importlib.util.find_spec("triton")
# A folder of that name beside the user's script is found as well, but holds no package.
INSTALLED = _found is not None and _found.origin is not None
triton: Any = importlib.import_module("triton") if INSTALLED else None
tl: Any = importlib.import_module("triton.language") if INSTALLED else None


def jit(kernel: Callable[..., Any]) -> Any:
    """Mark a kernel."""
    return triton.jit(kernel) if INSTALLED else kernel
