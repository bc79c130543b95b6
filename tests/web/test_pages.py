"""What the pages show: runs, search, comparison, studies, results; in both languages; hostile content as text."""

import csv
import html
import json
import re
from urllib.parse import quote, urlencode

import pytest
from tests.web.sites import HOSTILE, LONG, RIGHT_TO_LEFT, TRAVERSAL, filled, key, running

from isthmus.report.words import words_for
from isthmus.studies import Row


def listed(site, **query):
    text = site.ask("/?" + urlencode(query)).text
    return [int(k, 16) for k in re.findall(r'<th scope="row"><a href="/runs/([0-9a-f]{64})"', text)]


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        ({"q": "mlp", "order": "key", "way": "up"}, [0, 1, 2, 3, 4, 5]),
        ({"q": "test_error>=0.004", "order": "key", "way": "down"}, [6, 5, 4]),
        ({"network": "mlp-64x2", "order": "test_error", "way": "up"}, [0, 1, 2, 3, 4, 5]),
        ({"study": "widths", "order": "key", "way": "up"}, [0, 1, 2, 3, 4, 5, 6]),
        ({"q": "rate=0.1", "study": "widths", "order": "key"}, [1, 6]),
        ({"q": HOSTILE}, [6]),
        ({"q": "nothing-fits"}, []),
        ({"q": "' or 1=1 --"}, []),
    ],
)
def test_search_filter_and_order(site, query, wanted):
    found = listed(site, **query)
    assert found == wanted if "order" in query and "way" in query else sorted(found) == wanted


@pytest.mark.parametrize("query", ["page=0", "page=x", "page=99999999999", "study=none", "page=-1"])
def test_a_wrong_address_is_one_line(site, query):
    answer = site.ask(f"/?{query}")
    assert answer.status == 400
    assert "got" in answer.text


def test_long_lists_come_in_pages(tmp_path):
    with running(filled(tmp_path / "store", 120)) as site:
        seen = [k for n in (1, 2, 3) for k in listed(site, page=n, order="key", way="up")]
        assert seen == list(range(121))
        assert listed(site, page=4) == []
        assert 'rel="next"' in site.ask("/?page=2").text
        assert 'rel="next"' not in site.ask("/?page=3").text


@pytest.mark.parametrize("path", ["/", "/studies", f"/runs/{key(6)}", f"/compare?run={key(5)}&run={key(6)}"])
def test_hostile_names_are_text(site, path):
    text = site.ask(path).text
    assert "<script>" not in text
    assert "alert(" not in text or html.escape(HOSTILE)[:12] in text
    assert re.findall(r"<script[^>]*>", text) == ['<script src="/static/site.js" defer>']
    # What turns the direction of writing is kept inside an element of its own.
    for place in re.finditer(re.escape(RIGHT_TO_LEFT), text):
        assert text.rfind("<bdi>", 0, place.start()) > text.rfind("</bdi>", 0, place.start())


def test_very_long_names_do_not_flood_a_list(site):
    assert LONG not in re.sub(r"<option.*?</option>", "", site.ask("/").text)
    assert LONG in site.ask(f"/runs/{key(6)}").text
    assert TRAVERSAL in site.ask(f"/runs/{key(6)}").text


@pytest.mark.parametrize(
    "path",
    [
        "/runs/../../../etc/passwd", "/runs/..%2f..%2f..%2fetc%2fpasswd", "/runs/%2e%2e/store.json",
        f"/runs/{key(1)}/weights/..%2f..%2f..%2fstore", f"/runs/{key(1)}/weights/../run.json/x",
        "/results/..%2fstore.json",
        "/results/../store.json", "/results/..%2f..%2fstore", "/static/../app.py", "/static/..%2fapp.py",
        "/static/%2e%2e/app.py", "/studies/..%2f..%2fstore", "/runs/.hidden", "/runs/%00", "/results/%00", "/table.exe",
        "/runs/" + "a" * 5000,
    ],
)  # fmt: skip
def test_no_address_leads_out_of_the_store(site, path):
    answer = site.ask(path)
    assert answer.status in (400, 404)
    for secret in ("root:", "isthmus store", "def application"):
        assert secret not in answer.text


def test_a_run_shows_what_is_known_of_it(site):
    text = site.ask(f"/runs/{key(3)}").text
    for shown in ("mlp-64x2", "settings.width", "widths", "loss_barrier", key(2)[:12], "curves.svg"):
        assert shown in text
    picture = site.ask(f"/pictures/curves.svg?run={key(3)}&run={key(4)}")
    assert picture.headers["content-type"].startswith("image/svg+xml")
    assert "prefers-color-scheme" in picture.text
    assert key(4)[:8] in picture.text


def test_every_number_has_its_own_unit(site):
    """A row of several numbers names all their units at once; beside one of them only its own may stand."""
    text = site.ask(f"/runs/{key(3)}").text
    for name, unit in (("training_loss", "nats"), ("test_error", "share"), ("loss_barrier", "nats")):
        row = re.search(rf"<bdi>{name}</bdi></td><td>[^<]*</td><td class=\"text\">([^<]*)</td>", text)
        assert row[1] == unit
    lines = site.ask(f"/table.csv?run={key(3)}").text.splitlines()
    units = {line["column"]: line["unit"] for line in csv.DictReader(lines)}
    assert (units["loss_barrier"], units["error_barrier"]) == ("nats", "share")


def test_runs_stand_side_by_side_with_what_lies_between_them(site):
    text = site.ask(f"/compare?run={key(2)}&run={key(3)}&run={key(3)}&run=unknown").text
    assert "2 runs side by side" in text
    assert "barrier: loss_barrier" in text
    between = text.split("barrier: loss_barrier")[1].split("</table>")[0]
    assert between.count(">0.3<") == 2  # on both sides of the diagonal
    different = text.split("Where the recipes differ")[1].split("<details>")[0]
    assert "rate" in different
    assert "network" not in different
    assert site.ask(f"/compare?run={key(2)}").status == 400
    many = "&".join(f"run={key(n)}" for n in range(60))
    assert "at most 50" in site.ask(f"/compare?{many}").text


def test_studies_show_how_far_they_are(site):
    text = site.ask("/studies").text
    assert 'value="0.8750"' in text  # seven of eight networks
    assert "Does width help?" in text
    one = site.ask("/studies/widths").text
    assert "7 of 8 networks" in one
    hostile = site.ask("/studies/" + quote(HOSTILE.replace("/", "\u2215")))
    assert hostile.status == 200


@pytest.mark.parametrize("path", ["/", "/studies", "/results", "/jobs", "/help", f"/runs/{key(1)}", "/nothing"])
def test_both_languages_and_the_readers_preference(site, path):
    japanese = site.ask(path, Accept_Language="ja-JP,ja;q=0.9,en;q=0.5").text
    assert '<html lang="ja">' in japanese
    assert words_for("ja")("site.help") in japanese
    assert '<html lang="en">' in site.ask(path, Accept_Language="fr").text
    kept = site.ask(f"{path}?lang=ja")
    assert "isthmus-language=ja" in kept.headers.get("set-cookie", "")
    assert '<html lang="ja">' in site.ask(path, Cookie="isthmus-language=ja").text
    assert '<html lang="en">' in site.ask(f"{path}?lang=xx").text


def test_tables_do_not_run_in_a_spreadsheet(tmp_path):
    store = filled(tmp_path / "store", 1)
    store.record(key(0), [Row("=cmd|' /C calc'!A0", 1, {}, {"=1+1": 2.0}, "nats")])
    with running(store) as site:
        text = site.ask("/table.csv").text
        assert "'=cmd" in text
        assert ",=" not in text


def test_a_damaged_run_is_shown_as_damaged_and_stops_nothing(tmp_path):
    store = filled(tmp_path / "store", 3)
    (store.folder(key(1)) / "recipe.json").write_text("{")
    with running(store) as site:
        assert "damaged" in site.ask("/").text
        answer = site.ask(f"/runs/{key(1)}")
        assert answer.status == 500
        assert "missing or damaged" in answer.text
        assert site.ask("/table.csv").status == 200


def test_results_of_the_store_are_drawn_as_pages_shut_off_from_the_site(tmp_path):
    store = filled(tmp_path / "store", 2)
    folder = store.path / "results"
    folder.mkdir()
    curve = {
        "kind": "Barrier", "positions": [0, 0.5, 1], "loss": [0.1, 0.5, 0.1], "error": [0.0, 0.2, 0.0], "examples": 9,
        "loss_barrier": 0.4, "loss_barrier_over_mean": 0.4, "error_barrier": 0.2, "error_barrier_over_mean": 0.2,
        "midpoint": 0.4,
        "normalisation": "reestimate", "provenance": {},
    }  # fmt: skip
    (folder / "good.json").write_text(json.dumps(curve))
    (folder / "bad.json").write_text("{")
    (folder / "other.json").write_text('{"kind": "<script>"}')
    (folder / "partial.json").write_text('{"kind": "Barrier"}')
    with running(store) as site:
        text = site.ask("/results").text
        assert "/results/good" in text
        assert "/results/bad" not in text
        assert "/results/other" not in text
        answer = site.ask("/results/good", Accept_Language="ja")
        assert answer.status == 200, answer.text[-500:]
        assert '<html lang="ja">' in answer.text
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("sandbox allow-scripts")
        assert "allow-same-origin" not in policy
        assert "connect-src" not in policy
        assert site.ask("/results/good.json").json()["kind"] == "Barrier"
        partial = site.ask("/results/partial", Accept_Language="ja")
        assert partial.status == 422
        assert words_for("ja")("site.problem.of.SettingError") in partial.text  # said nothing but an English line
        assert 'lang="en"' in partial.text
        assert "must hold a whole result" in partial.text
        assert site.ask("/results/none").status == 404


def test_an_empty_store_says_how_to_fill_it(tmp_path):
    from isthmus.studies import Store

    with running(Store.open(tmp_path / "store", create=True)) as site:
        assert "isthmus study" in site.ask("/").text
        assert site.ask("/studies").status == 200


def test_a_store_that_must_not_be_written_is_shown_and_left_alone(tmp_path, monkeypatch):
    from isthmus.core.errors import IsthmusError
    from isthmus.studies.store import index

    store = filled(tmp_path / "store", 3)
    real = index.atomic

    def refusing(path):
        if str(path).startswith(str(store.path)):
            raise IsthmusError("read-only")
        return real(path)

    monkeypatch.setattr(index, "atomic", refusing)
    before = sorted(store.path.rglob("*"))
    with running(store) as site:
        assert len(listed(site)) == 4
    assert sorted(store.path.rglob("*")) == before


def test_a_study_shows_what_came_out_of_it(tmp_path):
    store = filled(tmp_path / "store", 2)
    none = "Nothing was judged yet"
    verdict = {"words": "width helps <b>much</b>", "outcome": "supported", "measure": "error", "evidence": "p = 0.01"}
    interval = {"estimate": 0.25, "low": 0.125, "high": None}
    cell = {"levels": {"width": 8}, "measure": "error", "unit": "", "interval": interval, "excluded": 0}
    effects = {
        "cells": [cell], "contrasts": [], "trends": [], "two_way": [], "matching": None, "correction": "Holm",
        "networks": 2, "diverged": 1, "missing": 0,
    }  # fmt: skip
    result = {
        "kind": "StudyResult", "study": "widths", "question": "Does width help?", "verdicts": [verdict],
        "effects": effects, "provenance": {},
    }  # fmt: skip
    with running(store) as site:
        assert none in site.ask("/studies/widths").text
        (store.path / "results").mkdir()
        (store.path / "results" / "study-widths.json").write_text(json.dumps(result))
        text = site.ask("/studies/widths").text
        assert none not in text
        assert "Supported: width helps &lt;b&gt;much&lt;/b&gt;." in text
        assert "支持" in site.ask("/studies/widths", Accept_Language="ja").text
        drawn = site.ask("/results/study-widths").text
        assert "1 networks diverged" in drawn
        assert "width = 8" in drawn
        (store.path / "results" / "study-widths.json").write_text("{")
        assert none in site.ask("/studies/widths").text


@pytest.mark.parametrize(
    ("path", "key", "values"),
    [
        ("/nothing", "site.problem.nothing", {}),
        (f"/runs/{key(99)}", "site.problem.run", {}),
        ("/studies/none", "site.problem.study", {}),
        ("/results/none", "site.problem.result", {}),
        ("/jobs/none", "site.problem.work", {}),
        ("/compare?run=x", "site.problem.two", {}),
        ("/?page=x", "site.problem.number", {"name": "page", "low": 1, "high": 1_000_000, "given": "'x'"}),
        ("/?study=none", "site.problem.unknown", {"given": "'none'"}),
        ("/pictures/curves.svg?run=x", "site.problem.curve", {}),
    ],
)
def test_what_is_wrong_is_said_in_the_readers_language(site, path, key, values):
    for language in ("en", "ja"):
        line = words_for(language)(key, **values)
        assert html.escape(line, quote=True).replace("&#x27;", "&#39;") in site.ask(path, Accept_Language=language).text
    refused = site.ask("/", host="elsewhere.example", Accept_Language="ja")
    assert refused.text.strip() == words_for("ja")("site.problem.name")


@pytest.mark.parametrize("path", ["/", f"/runs/{key(6)}", "/studies/widths"])
def test_heads_stand_on_the_side_of_their_columns(site, path):
    text = site.ask(path).text
    tables = [table for table in re.findall(r"<table.*?</table>", text, re.S) if "<thead>" in table]
    assert tables
    for table in tables:
        rows = [re.findall(r"<t[hd][^>]*>", row) for row in re.findall(r"<tr.*?</tr>", table, re.S)]
        left = [['class="text"' in cell or 'scope="row"' in cell for cell in row] for row in rows]
        first = 2 if path == "/" else 1  # after the box that chooses a run, and the run itself
        assert all(row[first:] == left[0][first:] for row in left[1:])
