"""The table of rules: operation name → function of labels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Rule = Callable[..., Any]

RULES: dict[str, Rule] = {}


def rule(*operations: str) -> Callable[[Rule], Rule]:
    """Register a rule for operations. It is called with the ledger, then the operation's own arguments as labels."""

    def register(function: Rule) -> Rule:
        for operation in operations:
            RULES[operation if "." in operation else f"aten.{operation}"] = function
        return function

    return register
