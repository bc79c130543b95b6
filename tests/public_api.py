"""Everything that a user may rely on, as text: names, signatures, fields and methods.

    python tests/public_api.py --write    # after a change that was meant; then read the difference in the commit

The list is compared in ``test_public_api.py``. Private names and modules that no package re-exports are not in it: they
may change at any time.
"""

from __future__ import annotations

import enum
import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

LIST = Path(__file__).with_name("public_api.txt")
PACKAGES = (
    "align", "cluster", "connect", "curvature", "discover", "integrations", "merge", "noise", "plot", "report",
    "studies", "train", "walk", "zoo",
)  # fmt: skip


def listed() -> str:
    """The whole list."""
    import isthmus

    lines = [f"isthmus.{name} = {place}" for name, place in sorted(isthmus._public.PUBLIC.items())]
    for package in PACKAGES:
        module = getattr(isthmus, package)
        for name in sorted(module.__all__):
            lines += described(f"isthmus.{package}.{name}", getattr(module, name))
    return "\n".join(lines) + "\n"


def described(name: str, value: Any) -> Iterator[str]:
    """One line for a function or a constant; for a class also its fields and methods."""
    if inspect.isclass(value):
        yield f"{name}{_signature(value)}"
        for member, content in sorted(_members(value).items()):
            if isinstance(content, property):
                yield f"    .{member}: {_returned(content.fget)}"
            else:
                yield f"    .{member}{_signature(content)}"
    elif inspect.ismodule(value):
        yield f"{name} (module)"
    elif callable(value):
        yield f"{name}{_signature(value)}"
    else:
        yield f"{name} ({type(value).__name__})"


def _members(value: type) -> dict[str, Any]:
    """Public methods and properties that the class itself or a class of this library defines."""
    found: dict[str, Any] = {}
    for parent in reversed(value.__mro__):
        if not parent.__module__.startswith("isthmus") or issubclass(value, enum.Enum):
            continue
        for member, content in vars(parent).items():
            if member.startswith("_") and member != "__call__":
                continue
            content = content.__func__ if isinstance(content, classmethod | staticmethod) else content
            if isinstance(content, property) or inspect.isfunction(content):
                found[member] = content
    return found


def _signature(value: Any) -> str:
    try:
        text = str(inspect.signature(value))
    except (ValueError, TypeError):
        return "(…)"
    text = text.replace("typing.Annotated[", "Annotated[")  # as Python 3.12 prints it
    text = re.sub(r"<(?:function|class|factory|enum)? ?'?([\w.]+)[^>]*>", r"\1", text)
    return text.replace("'", "").replace("isthmus.core.weights.", "")


def _returned(function: Any) -> str:
    return str(getattr(function, "__annotations__", {}).get("return", "Any")).replace("'", "")


if __name__ == "__main__":
    if sys.argv[1:] == ["--write"]:
        LIST.write_text(listed(), encoding="utf-8")
    else:
        print(listed(), end="")
