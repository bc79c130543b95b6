"""The colours that pages and site share: every ink on every paper keeps WCAG's contrast, in light, dark and print."""

import re

import pytest

from isthmus.report.page import tokens

INKS = ("ink", "soft", "good", "mixed", "bad", "neutral", "link")


def themes():
    """The colours of light, dark and print, as the sheet sets them one after the other."""
    light, dark, paper = (
        dict(re.findall(r"--([a-z]+): (#[0-9a-f]{6});", part)) for part in tokens().split(":root {")[1:]
    )
    return {"light": light, "dark": {**light, **dark}, "print": {**light, **paper}}


def luminance(colour):
    """WCAG 2.2's relative luminance of a colour."""
    channels = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one, other):
    """WCAG's ratio, from 1 to 21."""
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_the_ratio_is_that_of_the_standard():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.005)


@pytest.mark.parametrize("theme", ["light", "dark", "print"])
def test_every_ink_can_be_read_on_every_paper(theme):
    colours = themes()[theme]
    assert {"paper", "panel", "line", "edge", *INKS} <= colours.keys()
    for paper in ("paper", "panel"):
        for ink in INKS:
            assert contrast(colours[ink], colours[paper]) >= 4.5, (ink, paper)
        # The borders of fields are what tells a field from the page.
        assert contrast(colours["edge"], colours[paper]) >= 3, paper
