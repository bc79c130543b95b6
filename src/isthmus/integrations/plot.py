"""Results as Altair charts, to be changed, combined and saved: ``isthmus.plot.chart(result)``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from isthmus.core.errors import SettingError, listed
from isthmus.core.record import Record
from isthmus.report.figures import write_picture
from isthmus.report.notebook import section_of

__all__ = ["chart", "charts", "save"]


def charts(result: Record | Mapping[str, Any], *, language: str = "en") -> dict[str, Any]:
    """Every figure of a result as an Altair chart, by its title.

    Kinds that have a section on pages give its figures; any other result gives a line for each vector, a map for each
    matrix and bars for named numbers.

    Args:
        result: of this process, or the plain values that its ``to_dict()`` gave.
        language: of titles and axes, ``en`` or ``ja``.

    Example:
        >>> from isthmus.core.statistics import over_pairs
        >>> import torch
        >>> charts(over_pairs(torch.ones(3, 3)))
        {}
    """
    import altair

    return {
        figure.title: altair.Chart.from_dict(json.loads(json.dumps(figure.spec)))
        for figure in section_of(result, language=language).figures
    }


def chart(result: Record | Mapping[str, Any], title: str | None = None, *, language: str = "en") -> Any:
    """One figure of a result as an Altair chart.

    Args:
        result: of this process, or plain values.
        title: which figure; the first by default.
        language: of titles and axes.

    Raises:
        SettingError: the result has no figure, or none of that title.
    """
    found = charts(result, language=language)
    if not found:
        kind = result.get("kind") if isinstance(result, Mapping) else type(result).__name__
        raise SettingError(f"a chart must have vectors, matrices or named numbers to show, got {kind}")
    if title is not None and title not in found:
        raise SettingError(f"title must be one of {listed(found, 12)}, got {title}")
    return found[title or next(iter(found))]


def save(
    result: Record | Mapping[str, Any], path: str | Path, *, title: str | None = None, language: str = "en"
) -> Path:
    """Write one figure as ``.svg``, ``.png`` or ``.pdf``, in black on white and without a browser.

    Raises:
        SettingError: no such figure, or another suffix.
    """
    return write_picture(chart(result, title, language=language).to_dict(), path)
