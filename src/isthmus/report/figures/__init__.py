"""Charts: one Altair definition of each, drawn interactive in a page and as SVG or PNG without a browser.

Functions take plain rows and give Vega-Lite definitions. Text and axes use ``currentColor``, so that one definition
reads well on light and on dark paper. A chart of a new kind goes into the file of its subject and is drawn with what
``style`` offers.
"""

from isthmus.report.figures.comparisons import bars, dots, scatter
from isthmus.report.figures.distributions import histogram, outliers, spread, steps
from isthmus.report.figures.laws import intervals, law
from isthmus.report.figures.lines import curves, fan, trend
from isthmus.report.figures.maps import matrix, ordered_matrix, plane, strips
from isthmus.report.figures.pictures import write_picture
from isthmus.report.figures.style import HEIGHT, PALETTE, WIDTH, Row, altair, chosen, colour, distinct, finished, zoom
from isthmus.report.figures.trees import sharing, tree

__all__ = [
    "HEIGHT",
    "PALETTE",
    "WIDTH",
    "Row",
    "altair",
    "bars",
    "chosen",
    "colour",
    "curves",
    "distinct",
    "dots",
    "fan",
    "finished",
    "histogram",
    "intervals",
    "law",
    "matrix",
    "ordered_matrix",
    "outliers",
    "plane",
    "scatter",
    "sharing",
    "spread",
    "steps",
    "strips",
    "tree",
    "trend",
    "write_picture",
    "zoom",
]
