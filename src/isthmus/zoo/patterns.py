"""Patterns that tell classes apart, as cues lay them over images: colours, places and waves."""

from __future__ import annotations

import colorsys
import itertools
import math

import torch
from torch import Tensor

from isthmus.core.errors import DataError


def hues(classes: int) -> Tensor:
    """Fully saturated colours, evenly spread over the circle, as amplitudes from −1 to 1."""
    return torch.tensor([colorsys.hsv_to_rgb(number / classes, 1.0, 1.0) for number in range(classes)]) * 2 - 1


def places(classes: int, height: int, width: int, side: int) -> list[tuple[int, int]]:
    """Corners of squares along a grid over the image, as far apart as so many allow.

    Raises:
        DataError: the image is too small for so many.
    """
    columns = math.ceil(math.sqrt(classes))
    rows = math.ceil(classes / columns)
    if (rows > 1 and height - side < rows - 1) or (columns > 1 and width - side < columns - 1):
        raise DataError(f"{classes} positions of {side} pixels must differ in images of {height}×{width}; set a size")
    tops = [round(row * (height - side) / max(1, rows - 1)) for row in range(rows)]
    lefts = [round(column * (width - side) / max(1, columns - 1)) for column in range(columns)]
    return [(top, left) for top in tops for left in lefts][:classes]


def gratings(classes: int, height: int, width: int) -> Tensor:
    """Cosines of different whole numbers of periods, the slowest first.

    Raises:
        DataError: the image is too small for so many.
    """
    waves = itertools.product(range(height // 2 + 1), range(width // 2 + 1))
    chosen = sorted((wave for wave in waves if wave != (0, 0)), key=lambda wave: (wave[0] ** 2 + wave[1] ** 2, wave))
    if len(chosen) < classes:
        raise DataError(f"{classes} frequencies must differ in images of {height}×{width}, which have {len(chosen)}")
    rows, columns = torch.arange(height)[:, None] / height, torch.arange(width)[None] / width
    return torch.stack(
        [torch.cos(2 * math.pi * (down * rows + across * columns)) for down, across in chosen[:classes]]
    )[:, None]
