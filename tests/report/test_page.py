"""The page: offline, escaped, whole."""

import json
import re

import pytest

from isthmus.core.errors import SettingError
from isthmus.report import figures
from isthmus.report.assemble import page_of, page_of_results
from isthmus.report.page import Figure, Page, Section, Table, _scripts, render, write_page

HOSTILE = '</script><script>alert("x")</script><img src=x onerror=alert(1)>'
ROWS = [{"series": HOSTILE, "t": t, "loss": t * (1 - t)} for t in (0.0, 0.5, 1.0)]
SPEC = figures.curves(ROWS, x="t", y="loss", x_title="t", y_title=HOSTILE)


def page(**changes):
    parts = dict(
        title=HOSTILE,
        verdict=HOSTILE,
        reasons=[HOSTILE],
        sections=[
            Section(
                HOSTILE,
                [HOSTILE],
                [Figure(HOSTILE, SPEC, HOSTILE, HOSTILE)],
                [Table(HOSTILE, [HOSTILE], [[HOSTILE, None]])],
            )
        ],
        provenance={"command": HOSTILE, "nested": {HOSTILE: HOSTILE}},
    )
    return Page(**{**parts, **changes})


def test_hostile_names_stay_text():
    html = render(page())
    own = html.replace(_scripts()[0], "")
    assert len(own) < len(html) / 2  # the library is most of the page
    assert "<img" not in own
    # Every script element is one of ours: the data, the drawing library and the page's own.
    assert len(re.findall(r"<script", html)) == 3
    assert len(re.findall(r"</script>", html)) == 3


def test_the_page_names_no_other_host():
    html = render(page(), interactive=False)
    loaded = re.findall(r'(?:src|href)\s*=\s*"([^"]+)"', html)
    assert all(target.startswith(("#", "data:")) for target in loaded), loaded
    assert "connect-src" not in html  # default-src 'none' already forbids it
    assert "default-src 'none'" in html


def test_a_figure_is_there_without_scripts_and_says_what_it_shows():
    html = render(page(), interactive=False)
    assert "<svg" in html
    assert "<script" not in html
    assert 'role="img"' in html


def test_a_chart_keeps_four_fifths_of_its_size_on_a_narrow_screen():
    html = render(page(), interactive=False)
    told = re.search(r'class="chart" style="--natural: (\d+)px"', html)
    drawn = re.search(r'class="chart".*?<svg[^>]* width="(\d+)"', html, re.DOTALL)
    assert told[1] == drawn[1]
    assert int(told[1]) > 300


def test_numbers_missing_values_and_nested_settings():
    rows = [["a", 0.123456, None, 1234567, True]]
    settings = {"machine": {"cpus": 2, "devices": ["H100", "L4"], "threads": {"torch": 8}}}
    sections = [Section("s", tables=[Table("t", list("abcde"), rows)])]
    html = render(page(sections=sections, provenance=settings), interactive=False)
    assert "0.1235" in html
    assert "–" in html
    assert "1\u202f234\u202f567" in html
    assert "<td>yes</td>" in html
    found = re.findall(r'<th scope="row">(machine[^<]*)</th><td class="text">([^<]*)</td>', html)
    assert found == [("machine.cpus", "2"), ("machine.devices", "H100, L4"), ("machine.threads.torch", "8")]


def test_a_page_is_written_whole_or_not_at_all(tmp_path):
    target = tmp_path / "deep" / "page.html"
    write_page(page(), target, interactive=False)
    assert target.read_text(encoding="utf-8").rstrip().endswith("</html>")
    assert [entry.name for entry in target.parent.iterdir()] == ["page.html"]


@pytest.mark.parametrize("suffix", [".svg", ".png", ".pdf"])
def test_pictures_without_a_browser(tmp_path, suffix):
    start = {".svg": b"<svg", ".png": b"\x89PNG", ".pdf": b"%PDF"}[suffix]
    assert figures.write_picture(SPEC, tmp_path / f"a{suffix}").read_bytes().startswith(start)


def test_an_unknown_picture_is_refused(tmp_path):
    with pytest.raises(SettingError, match=r"written as \.svg"):
        figures.write_picture(SPEC, tmp_path / "a.bmp")


def test_results_that_cannot_be_drawn(tmp_path):
    file = tmp_path / "r.json"
    file.write_text("[1, 2")
    with pytest.raises(SettingError, match="must be JSON"):
        page_of([file])
    file.write_text(json.dumps({"loss": 1}))
    with pytest.raises(SettingError, match="it has no kind"):
        page_of([file])
    with pytest.raises(SettingError, match=r"must be a readable file"):
        page_of([tmp_path / "absent.json"])
    with pytest.raises(SettingError, match="must be one of"):
        page_of_results([("x", {"kind": "Nonsense"})])
    with pytest.raises(SettingError, match="must hold a whole result of this version"):
        page_of_results([("x", {"kind": "Barrier"})])


def test_an_unknown_language_is_refused():
    with pytest.raises(SettingError, match="must be one of en, ja"):
        render(page(), language="xx")


def test_bars_stand_at_their_names_unless_a_name_has_several():
    rows = [{"name": "A", "value": 1.0, "of": "network"}, {"name": "middle", "value": 0.5, "of": "midpoint"}]
    words = {"x": "value", "y": "name", "x_title": "accuracy", "series": "of"}
    assert "yOffset" not in figures.bars(rows, **words)["encoding"]
    both = [*rows, {"name": "A", "value": 0.9, "of": "midpoint"}]
    assert figures.bars(both, **words)["encoding"]["yOffset"]["field"] == "of"
