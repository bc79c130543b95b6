"""Which runs of a store somebody wants to see, and how SQLite is asked for them."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
from collections.abc import Sequence
from typing import Any

# name of an order -> what SQLite orders by; the key makes every order total, so that paging never skips or repeats.
_ORDERS = {"created": "created", "status": "status", "seconds": "seconds", "rows": "rows", "key": "key"}
_COMPARISON = re.compile(r"([A-Za-z_][\w.]*)(!=|<=|>=|=|<|>)(.+)")


@dataclasses.dataclass(frozen=True)
class Query:
    """Which runs, in which order, how many.

    Attributes:
        words: all must be found: plain words in the key, the status, the recipe or the names of measures; or
            comparisons such as ``network=mlp-64x2``, ``rate>0.1`` and ``test_error<=0.02``.
        keys: only these.
        order: ``created``, ``status``, ``seconds``, ``rows``, ``key``, or the name of a field.
        descending: the largest first; runs without a value come last in either case.
        offset: how many are skipped.
        limit: how many are given at most.
    """

    words: str = ""
    keys: Sequence[str] | None = None
    order: str = "created"
    descending: bool = False
    offset: int = 0
    limit: int | None = None


def conditions(query: Query) -> tuple[str, list[Any]]:
    """The condition of a query; everything that a user wrote is a value, never a part of the statement."""
    parts, values = ["1"], []
    for word in query.words.split():
        if comparison := _COMPARISON.fullmatch(word):
            name, sign, wanted = comparison.groups()
            kind, value = ("text", wanted.lower())
            with contextlib.suppress(ValueError):
                kind, value = "real", float(wanted)
            # ``is`` and ``is not`` know what to do with a field that is missing.
            sign = {"=": "is", "!=": "is not"}.get(sign, sign)
            number = "typeof(json_extract(fields, ?)) in ('integer', 'real') and " if kind == "real" else ""
            shown = "json_extract(fields, ?)" if kind == "real" else "lower(json_extract(fields, ?))"
            if sign == "is not":
                number = ""
            parts.append(f"({number}{shown} {sign} ?)")
            values += [*([path_of(name)] if number else []), path_of(name), value]
        else:
            parts.append("instr(said, ?) > 0")
            values.append(word.lower())
    if query.keys is not None:
        parts.append("key in (select value from json_each(?))")
        values.append(json.dumps(list(query.keys)))
    return " and ".join(parts), values


def order(query: Query) -> tuple[str, list[Any]]:
    """What the runs are ordered by, and the values in it."""
    by, place = (_ORDERS[query.order], []) if query.order in _ORDERS else ("json_extract(fields, ?)", [])
    if query.order not in _ORDERS:
        place = [path_of(query.order)] * 2
    way = "desc" if query.descending else "asc"
    if by == "created":
        return f"created {way}, key {way}", []
    return f"({by}) is null, {by} {way}, key {way}", place


def path_of(field: str) -> str:
    """The JSON path of one member, whatever its name holds."""
    return f'$."{field}"' if '"' not in field else "$.none"
