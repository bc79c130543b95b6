"""The page in a browser: every reader, nothing from elsewhere, everything by keyboard, on paper too."""

import csv
import io

import pytest
from tests.browser.conftest import focused, overflowing, unreadable, until
from tests.report.test_check import HOSTILE, model, pair, values

from isthmus.report.assemble import page_of_results
from isthmus.report.page import write_page

HARD = ['<script>document.title="hacked"</script>', "../../etc/passwd", "\u202eevil\u202c שלום", "very-long-" * 40]


def found():
    """A check of three models with plain names and ten capabilities."""
    pairs = [pair(0, 1), pair(0, 2), pair(1, 2)]
    for one in pairs:
        (kept,) = one["retention"]["capabilities"]
        one["retention"]["capabilities"] = [{**kept, "name": str(n), "average": 0.8 - n / 50} for n in range(10)]
    return values(
        models=[model(name) for name in "abc"], pairs=pairs, obstacles=[], provenance={"command": "isthmus check"}
    )


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """The page of a check with three models, in each language."""
    folder = tmp_path_factory.mktemp("pages")
    content = found()
    return {
        language: write_page(
            page_of_results([("check", content)], language=language), folder / f"{language}.html", language=language
        )
        for language in ("en", "ja")
    }


@pytest.mark.parametrize("width", [390, 1100])
@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("language", ["en", "ja"])
def test_every_reader_can_read_it(pages, reader, language, dark, width):
    page = reader(pages[language].as_uri(), dark=dark, width=width, language=language)
    page.wait_for_selector(".vega-embed svg")
    assert page.locator(".chart").count() == page.locator(".chart .vega-embed svg").count() > 2
    assert overflowing(page) <= 0
    for part in page.locator("details").all():
        part.evaluate("part => { part.open = true; }")
    assert unreadable(page) == []
    assert page.locator("html").get_attribute("lang") == language


def test_every_figure_has_a_text_alternative(pages, reader):
    page = reader(pages["en"].as_uri())
    for chart in page.locator(".chart").all():
        assert chart.get_attribute("role") == "img"
        assert len(chart.get_attribute("aria-label")) > 20
    for control in page.locator("a, button, select, summary").all():
        assert control.evaluate(
            "e => (e.getAttribute('aria-label') || e.textContent || (e.labels && e.labels[0].textContent)).trim()"
        )


def test_everything_is_reached_and_worked_by_keyboard(pages, reader):
    page = reader(pages["en"].as_uri())
    page.wait_for_selector(".vega-embed svg")
    seen = []
    for _ in range(60):
        page.keyboard.press("Tab")
        at = focused(page)
        if at["tag"] == "BODY":
            break
        seen.append(at)
    assert all(at["seen"] for at in seen), [at for at in seen if not at["seen"]]
    tags = {at["tag"] for at in seen}
    assert {"A", "SELECT", "SUMMARY", "BUTTON"} <= tags
    drawn = page.locator("#f1-1 svg")
    before = drawn.inner_html()
    page.locator("#c1").focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")  # the second pair has the same heights as the first
    until(lambda: drawn.inner_html() != before)
    assert page.locator("#c1").input_value() != page.locator("#c1 option").first.inner_text()
    first = page.locator("section details").first
    first.locator("summary").focus()
    page.keyboard.press("Enter")
    assert first.evaluate("e => e.open")
    button = page.locator("button[data-figure]").first
    small = drawn.bounding_box()["width"]
    button.focus()
    page.keyboard.press("Space")
    assert button.get_attribute("aria-pressed") == "true"
    assert drawn.bounding_box()["width"] > 1.5 * small


def test_hovering_tells_the_values(pages, reader):
    page = reader(pages["en"].as_uri())
    dot = page.locator("#f1-1.vega-embed svg path[aria-roledescription='point']").nth(1)
    dot.scroll_into_view_if_needed()
    box = dot.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    tip = page.locator("#vg-tooltip-element.visible")
    tip.wait_for()
    assert "error" in tip.inner_text()
    assert unreadable(page) == []


def test_the_wheel_scrolls_the_page_and_zooms_only_with_shift(pages, reader):
    page = reader(pages["en"].as_uri())
    page.wait_for_selector("#f1-1.vega-embed svg")
    chart = page.locator("#f1-1 svg")
    chart.scroll_into_view_if_needed()
    box = chart.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 3)
    ticks = "() => document.querySelector('#f1-1 .role-axis-label').textContent"
    before, top = page.evaluate(ticks), page.evaluate("scrollY")
    page.mouse.wheel(0, 100)
    until(lambda: page.evaluate("scrollY") > top)
    assert page.evaluate(ticks) == before
    page.evaluate("top => scrollTo(0, top)", top)
    page.keyboard.down("Shift")
    page.mouse.wheel(0, -300)
    page.keyboard.up("Shift")
    until(lambda: page.evaluate(ticks) != before)


def test_figures_and_their_data_are_saved_without_a_network(pages, reader):
    page = reader(pages["en"].as_uri(), offline=True)
    for chart in range(page.locator("figure").count()):
        links = page.locator("figure").nth(chart).locator("a[download]")
        with page.expect_download() as saved:
            links.nth(0).click()
        assert saved.value.suggested_filename.endswith(".svg")
        assert saved.value.path().read_text().startswith("<svg")
        with page.expect_download() as saved:
            links.nth(1).click()
        assert saved.value.suggested_filename.endswith(".csv")
        rows = list(csv.DictReader(io.StringIO(saved.value.path().read_text(encoding="utf-8-sig"))))
        assert len(rows) > 3
        assert all(None not in row for row in rows)


@pytest.mark.parametrize("dark", [False, True])
def test_on_paper_everything_is_unfolded_black_on_white(pages, reader, dark):
    page = reader(pages["en"].as_uri(), dark=dark)
    page.wait_for_selector(".vega-embed svg")
    page.emulate_media(media="print")
    for part in page.locator("details").all():
        assert part.bounding_box()["height"] > 60
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert not page.locator("select, nav, .save").filter(visible=True).count()
    assert unreadable(page) == []
    paper = page.pdf(format="A4", print_background=True)
    sheets = paper.count(b"/Type /Page") - paper.count(b"/Type /Pages")
    assert 2 <= sheets <= 12


def test_without_scripts_the_pictures_and_words_are_there(pages, chromium):
    context = chromium.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(pages["en"].as_uri())
    assert page.locator(".chart svg").count() == page.locator(".chart").count()
    assert page.locator("button[data-figure]").filter(visible=True).count() == 0
    context.close()


@pytest.mark.parametrize("name", [HOSTILE, *HARD])
def test_hostile_names_are_shown_and_do_nothing(reader, tmp_path, name):
    content = found()
    content["models"] = [model(f"{name} {one['name']}") for one in content["models"]]
    path = write_page(page_of_results([("check", content)]), tmp_path / "hostile.html")
    page = reader(path.as_uri(), width=390)
    page.wait_for_selector(".vega-embed svg")
    assert "hacked" not in page.title() or page.title().count("<script>")
    assert page.evaluate("document.scripts.length") == 3
    assert overflowing(page) <= 0
    # The verdict still reads from left to right.
    assert page.locator(".verdict p").inner_text().startswith(("These", "Keep", "Do not"))


def test_a_script_that_was_smuggled_into_the_file_does_not_run(pages, chromium, tmp_path):
    bad = tmp_path / "smuggled.html"
    smuggled = "<main><script>document.title = 'smuggled'</script><img src=x onerror=\"document.title = 'smuggled'\">"
    bad.write_text(pages["en"].read_text().replace("<main>", smuggled, 1))
    context = chromium.new_context()
    page, said = context.new_page(), []
    page.on("console", lambda message: said.append(message.text))
    page.goto(bad.as_uri())
    page.wait_for_selector(".vega-embed svg")  # the page's own scripts do run
    assert page.title() != "smuggled"
    assert any("Content Security Policy" in line for line in said)
    context.close()
