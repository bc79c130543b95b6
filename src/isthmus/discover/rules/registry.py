"""The table of rules: operation name → function of labels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Rule = Callable[..., Any]

RULES: dict[str, Rule] = {}

#: Operations whose rules know what to do with numbers of units that an input chose; elsewhere these units are pinned.
CHOOSING: set[str] = set()


def rule(*operations: str, choosing: bool = False) -> Callable[[Rule], Rule]:
    """Register a rule for operations. It is called with the ledger, then the operation's own arguments as labels.

    Args:
        operations: names as ``namespace.operation``; of ``aten`` where there is no namespace.
        choosing: the rule takes values whose numbers say which units an input chose (``Labels.refers``).
    """

    def register(function: Rule) -> Rule:
        for operation in operations:
            name = operation if "." in operation else f"aten.{operation}"
            RULES[name] = function
            if choosing:
                CHOOSING.update((name, f"{name}_"))
        return function

    return register
