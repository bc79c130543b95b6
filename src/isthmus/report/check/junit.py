"""A check as JUnit XML, which pipelines read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from xml.etree import ElementTree

from isthmus.report.check.lines import pair_name, share
from isthmus.report.words import Words


def junit(values: Mapping[str, Any], words: Words) -> str:
    """The answer as JUnit XML: one case for each pair, and one for each point of the checklist.

    A pair that must be kept apart fails, and so do models at chance and floors that are not reached; points of the
    checklist that the verdict does not depend on are skipped with their reason.
    """
    cases: list[tuple[str, str, str, str]] = []
    for pair in values["pairs"]:
        fails = pair["verdict"] == "apart"
        heights = "; ".join(
            f"{words(f'check.way.{way}')}: {share(c['error_barrier'])}" for way, c in pair["crossings"].items()
        )
        cases.append(("isthmus.check.pair", pair_name(values, pair), "failure" if fails else "", heights))
    for item in values["items"]:
        binding = item["point"] == "chance" or (item["point"] == "floors" and values["thresholds"]["floors"])
        kind = "" if item["passed"] else "failure" if binding else "skipped"
        meaning = words(f"check.item.{item['point']}.why")
        why = f"{meaning} ({', '.join(item['models']) or '–'})"
        cases.append(("isthmus.check.item", words(f"check.item.{item['point']}"), kind, why))
    count = {kind: str(sum(case[2] == kind for case in cases)) for kind in ("failure", "skipped")}
    root = ElementTree.Element("testsuites")
    suite = ElementTree.SubElement(
        root, "testsuite", name="isthmus check", tests=str(len(cases)), failures=count["failure"],
        skipped=count["skipped"], errors="0",
    )  # fmt: skip
    for group, name, kind, said in cases:
        case = ElementTree.SubElement(suite, "testcase", classname=group, name=_printable(name))
        if kind:
            ElementTree.SubElement(case, kind, message=_printable(said))
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _printable(text: str) -> str:
    """XML 1.0 has no place for control characters, not even escaped."""
    return "".join(char if char.isprintable() else "\ufffd" for char in text)
