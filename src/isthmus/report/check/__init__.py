"""The check before deployment as a page, as tables for a shell, and as JUnit XML."""

from isthmus.report.check.junit import junit
from isthmus.report.check.lines import WAYS, change_lines, guidance_lines, reason_lines, verdict_line
from isthmus.report.check.page import check_page, check_section
from isthmus.report.check.rows import capability_rows, item_rows, model_rows, pair_rows, way_rows

__all__ = [
    "WAYS",
    "capability_rows",
    "change_lines",
    "check_page",
    "check_section",
    "guidance_lines",
    "item_rows",
    "junit",
    "model_rows",
    "pair_rows",
    "reason_lines",
    "verdict_line",
    "way_rows",
]
