"""Colours for any number of series, each told apart from all before it and from light and dark paper."""

from __future__ import annotations

import colorsys
import functools
import math
from collections.abc import Iterable

# Okabe and Ito's palette, told apart by readers of every colour vision; the order is that of the methods in a legend.
PALETTE: tuple[str, ...] = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F7F7F", "#B2A400")
_PAPERS = ("#FFFFFF", "#14181D")
_CONTRAST = 2.2  # what the palette itself keeps to both papers
_GRID = (48, (0.3, 0.4, 0.5, 0.6, 0.7, 0.8), (0.35, 0.55, 0.75))  # hues, lightnesses and saturations to choose from


def colours(count: int) -> list[str]:
    """The first ``count`` colours: the palette, then always the one that lies farthest from all before it.

    Farthest is by Euclidean distance in OKLab (Ottosson 2020), which follows what eyes tell apart. Each colour keeps
    the contrast to white and to dark paper that the palette keeps. Neighbours come closer as the number grows, so
    charts of many series vary shapes or dashes as well.
    """
    return list(_chain(max(count, len(PALETTE)))[:count])


@functools.cache
def _chain(count: int) -> tuple[str, ...]:
    chosen: list[str] = list(PALETTE)
    left = {colour: _nearest(colour, chosen) for colour in _candidates()}
    while len(chosen) < count:
        if not left:  # several hundred series: nobody tells them apart, and no chart may fail for it
            return tuple(chosen[place % len(chosen)] for place in range(count))
        best = max(left, key=lambda colour: left[colour])
        del left[best]
        chosen.append(best)
        left = {colour: min(far, math.dist(_lab(colour), _lab(best))) for colour, far in left.items()}
    return tuple(chosen)


def _nearest(colour: str, others: Iterable[str]) -> float:
    return min(math.dist(_lab(colour), _lab(other)) for other in others)


@functools.cache
def _candidates() -> tuple[str, ...]:
    hues, lightnesses, saturations = _GRID
    found = (
        colorsys.hls_to_rgb(hue / hues, light, saturation)
        for hue in range(hues)
        for light in lightnesses
        for saturation in saturations
    )
    named = ("#" + "".join(f"{round(255 * channel):02X}" for channel in rgb) for rgb in found)
    return tuple(
        colour for colour in dict.fromkeys(named) if all(_contrast(colour, paper) >= _CONTRAST for paper in _PAPERS)
    )


def _linear(colour: str) -> list[float]:
    """The channels of sRGB without their gamma (IEC 61966-2-1)."""
    channels = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    return [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]


def _contrast(one: str, other: str) -> float:
    """WCAG 2.2's ratio of luminances."""
    low, high = sorted(
        sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), _linear(colour), strict=True)) for colour in (one, other)
    )
    return (high + 0.05) / (low + 0.05)


@functools.cache
def _lab(colour: str) -> tuple[float, float, float]:
    """OKLab: https://bottosson.github.io/posts/oklab/, with the matrices given there."""
    r, g, b = _linear(colour)
    long, middle, short = (
        math.cbrt(part)
        for part in (
            0.4122214708 * r + 0.5363325363 * g + 0.0514459929 * b,
            0.2119034982 * r + 0.6806995451 * g + 0.1073969566 * b,
            0.0883024619 * r + 0.2817188376 * g + 0.6299787005 * b,
        )
    )
    return (
        0.2104542553 * long + 0.7936177850 * middle - 0.0040720468 * short,
        1.9779984951 * long - 2.4285922050 * middle + 0.4505937099 * short,
        0.0259040371 * long + 0.7827717662 * middle - 0.8086757660 * short,
    )
