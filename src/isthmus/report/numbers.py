"""Numbers as people write them: powers of ten, shares, estimates with their intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_PLAIN_DIGITS = 6  # up to here people read a number faster than a power


def scientific(value: float) -> str:
    """A number with two digits and a power of ten.

    Example:
        >>> scientific(4.13e-16)
        '4.1 × 10⁻¹⁶'
    """
    if value == 0:
        return "0"
    digits, _, power = f"{value:.1e}".partition("e")
    return f"{digits} × 10{str(int(power)).translate(_RAISED)}"


def power_of_ten(log10: float) -> str:
    """10 to some power, also where that is beyond every float.

    Example:
        >>> power_of_ten(194.4583), power_of_ten(math.log10(24))
        ('2.9 × 10¹⁹⁴', '24')
    """
    if log10 < _PLAIN_DIGITS:
        return f"{round(10**log10):,}".replace(",", "\u202f")
    whole = math.floor(log10)
    digits = f"{10 ** (log10 - whole):.1f}"
    if digits == "10.0":
        digits, whole = "1.0", whole + 1
    return f"{digits} × 10{str(whole).translate(_RAISED)}"


def interval_text(interval: Mapping[str, Any], form: str = ".3g") -> str:
    """An estimate with its interval, where it has one.

    Example:
        >>> interval_text({"estimate": 0.181, "low": 0.15, "high": 0.21}, ".1%")
        '18.1% [15.0%, 21.0%]'
    """
    if interval["estimate"] is None:  # not measured: a regression has no error
        return "–"
    if interval.get("low") is None:
        return format(interval["estimate"], form)
    return f"{interval['estimate']:{form}} [{interval['low']:{form}}, {interval['high']:{form}}]"
