"""The page of a check: verdict first, every pair to choose, figures with their data, hostile names as text."""

import base64
import csv
import io
import re

import pytest

from isthmus.report import figures
from isthmus.report.assemble import page_of_results
from isthmus.report.check import change_lines, check_page, item_rows, junit, pair_rows, reason_lines, verdict_line
from isthmus.report.page import _scripts, render
from isthmus.report.saved import csv_file
from isthmus.report.section import section
from isthmus.report.words import words_for

HOSTILE = '</script><img src=x onerror=alert(1)>\u202e=cmd|"../'


def interval(estimate, low=None, high=None):
    return {"estimate": estimate, "low": low, "high": high}


def crossing(way, error):
    grid = [0.0, 0.5, 1.0]
    return {
        "way": way, "positions": grid, "loss": [0.1, 0.1 + error, 0.1], "error": [0.1, 0.1 + error, None],
        "error_barrier": interval(error, error / 2, error * 2), "accuracy": 0.9 - error, "examples": 50,
    }  # fmt: skip


def model(name):
    return {
        "name": name, "accuracy": interval(0.9, 0.8, 0.95), "loss": interval(0.3, 0.2, 0.4), "calibration": 0.01,
        "sharpness": None, "eigenvalue": None, "redundancy": None,
    }  # fmt: skip


def pair(first, second, verdict="repair"):
    kept = {"name": "0", "first": 0.9, "second": 0.9, "average": 0.8, "kept": interval(0.9, 0.8, 1.0)}
    return {
        "first": first, "second": second, "verdict": verdict, "best": "repair", "agreement": 0.8,
        "chance_agreement": 0.7, "preference": 0.5,
        "crossings": {"naive": crossing("naive", 0.4 + first), "repair": crossing("repair", 0.01)},
        "retention": {
            "floor": 0.1, "rank_correlation": None,
            "capabilities": [{**kept, "foreseen": 0.7, "foreseen_kept": None}],
        },
    }  # fmt: skip


def values(**changes):
    parts = {
        "kind": "Check", "verdict": "repair", "compatible": True, "established": True,
        "models": [model(HOSTILE), model("b"), model("c")], "pairs": [pair(0, 1), pair(0, 2), pair(1, 2)],
        "changes": [
            {"what": "threshold", "verdict": "as_they_are", "value": 0.4},
            {"what": "without", "verdict": "as_they_are", "value": 2},
        ],
        "ways": [
            {"name": "distil", "seconds": 7200.0, "inference": 1.0, "accuracy": None, "open": True, "estimated": True}
        ],
        "items": [{"point": "floors", "passed": False, "models": [], "found": {}},
                  {"point": "chance", "passed": True, "models": [], "found": {}}],
        "thresholds": {"barrier": 0.02, "floors": {}}, "effort": {"points": 3}, "log10_copies": 12.0,
        "obstacles": [HOSTILE], "examples": 50, "provenance": {"command": HOSTILE},
    }  # fmt: skip
    return {**parts, **changes}


@pytest.mark.parametrize("language", ["en", "ja"])
def test_hostile_names_stay_text_and_every_figure_can_be_saved(language):
    html = render(check_page(values(), language=language), language=language)
    own = html.replace(_scripts()[0], "")
    assert "<img" not in own
    assert len(re.findall(r"<script", html)) == 3
    assert own.count("data:image/svg+xml;base64,") == own.count("data:text/csv;") == 3
    for name in re.findall(r'download="([^"]+)"', own):
        assert not set(name) & set('/\\<>:"')


def test_the_verdict_comes_first_in_plain_words():
    html = render(check_page(values()), interactive=False)
    body = html[html.index("<body>") :]
    order = [words_for("en")(key) for key in ("check.verdict.repair", "page.guidance", "check.pairs", "page.reproduce")]
    places = [body.index(text) for text in order]
    assert places == sorted(places)


def test_the_menu_offers_every_pair_and_opens_on_the_hardest():
    page = check_page(values(pairs=[pair(0, 1), pair(1, 2, "apart")]))
    assert page.sections[0].choice.options == (f"{HOSTILE} – b", "b – c")
    assert page.sections[0].choice.value == "b – c"
    assert check_page(values(pairs=[pair(0, 1)])).sections[0].choice is None


def test_a_choice_filters_the_picture():
    rows = [{"pair": p, "series": "s", "t": t, "loss": 1.0} for p in ("a", "it's") for t in (0.0, 1.0)]
    spec = figures.curves(rows, x="t", y="loss", x_title="t", y_title="loss")
    chosen = figures.chosen(spec, field="pair", value="it's")
    assert {"name": "chosen_pair", "value": "it's"} in chosen["params"]
    assert "params" not in spec or spec["params"] != chosen["params"]  # the given one is not written to


def test_the_data_of_a_figure_come_back_from_its_csv():
    rows = [{"series": "=1+1", "t": 0.0, "loss": 1.5}, {"series": 'é,"', "t": 1.0, "loss": None}]
    spec = figures.curves(rows, x="t", y="loss", x_title="t", y_title="loss")
    text = base64.b64decode(csv_file(spec).split(",", 1)[1]).decode("utf-8-sig")
    assert list(csv.DictReader(io.StringIO(text))) == [
        {"series": "'=1+1", "t": "0.0", "loss": "1.5"},
        {"series": 'é,"', "t": "1.0", "loss": ""},
    ]


def test_unsound_models_are_not_called_interchangeable():
    words = words_for("en")
    assert "Do not deploy" in verdict_line(values(compatible=False), words)
    assert "too few" in verdict_line(values(established=False), words)


def test_a_threshold_that_nobody_would_take_is_not_offered():
    words = words_for("en")
    changes = [{"what": "threshold", "verdict": "permutation", "value": value} for value in (0.05, 0.8)]
    assert [line for line in change_lines(values(changes=changes), words) if "5.00%" in line]
    assert len(change_lines(values(changes=changes), words)) == 1


def test_a_capability_below_chance_is_lost_and_has_no_share():
    words, found = words_for("en"), values()
    kept = found["pairs"][0]["retention"]["capabilities"][0]["kept"]
    for estimate, said in ((0.4, "keeps least"), (-0.1, "has lost")):
        kept |= interval(estimate, -0.3, 0.5)
        (line,) = [line for line in reason_lines(found, words) if "capability" in line]
        assert said in line
    assert "%" not in line


def test_tables_name_what_they_show():
    words = words_for("en")
    for columns, rows in (pair_rows(values(), words), item_rows(values(), words)):
        assert all(len(row) == len(columns) for row in rows)
    assert pair_rows(values(), words)[1][0][1] == "40.0% [20.0%, 80.0%]"


def test_xml_has_no_place_for_control_characters():
    text = junit(values(models=[model("a\x00\x1b<b>"), model("b"), model("c")]), words_for("en"))
    from xml.etree import ElementTree

    names = [case.get("name") for case in ElementTree.fromstring(text.encode()).iter("testcase")]
    assert names[0] == "a\ufffd\ufffd<b> – b"


def test_a_check_is_also_a_section_among_others():
    made = page_of_results([("a", values()), ("b", values())])
    assert len(made.sections) == 2
    assert section(values()).headline == words_for("en")("check.verdict.repair")


@pytest.mark.parametrize("language", ["en", "ja"])
def test_powers_of_ten_are_written_as_such(language):
    content = values(log10_copies=431.18)
    said = [line for part in check_page(content, language=language).sections for line in part.text]
    assert any("1.5 × 10⁴³¹" in line for line in said)
