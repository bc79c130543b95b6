"""The site in a browser: every reader, live, by keyboard, with hostile content, and work that is started by a click."""

import re

import pytest

pytest.importorskip("uvicorn", reason="the site needs uvicorn: pip install 'isthmus[web]'")

from tests.browser.conftest import focused, overflowing, unreadable, until
from tests.web.sites import HOSTILE, filled, key, running, trained

from isthmus.studies.store.progress import Teller
from isthmus.web import jobs as jobs_module

TOKEN = "a-token-of-some-length"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    with running(filled(tmp_path_factory.mktemp("site") / "store", 60)) as made:
        yield made


@pytest.mark.parametrize(("language", "dark", "width"), [("en", False, 1100), ("ja", True, 390)])
def test_every_reader_can_read_every_page(site, reader, language, dark, width):
    page = reader(site.address, own=site.address, dark=dark, width=width, language=language)
    compared = f"/compare?run={key(59)}&run={key(60)}"
    addresses = ["/", "/studies", "/studies/widths", f"/runs/{key(60)}", compared, "/results", "/jobs", "/?q=none"]
    for address in addresses:
        page.goto(site.address + address)
        assert overflowing(page) <= 0, address
        assert unreadable(page) == [], address
        assert page.locator("html").get_attribute("lang") == language
        assert page.locator("h1").count() == 1
        for picture in page.locator("main img").all():
            assert picture.get_attribute("alt")
            assert picture.evaluate("async e => { await e.decode(); return e.naturalWidth > 100; }")
        for field in page.locator("input, select, button, progress").all():
            assert field.evaluate("e => Boolean(e.getAttribute('aria-label') || e.textContent || e.labels?.length)"), (
                address
            )


def test_runs_are_found_chosen_and_compared_by_keyboard_alone(site, reader):
    page = reader(site.address, own=site.address)
    page.keyboard.press("Tab")
    assert focused(page)["text"] == "Skip to content"
    page.locator("#q").focus()
    page.keyboard.type("test_error<=0.003")
    page.keyboard.press("Enter")
    page.wait_for_url("**/?q=*")
    assert page.locator("tbody tr").count() == 4
    boxes, seen = 0, []
    for _ in range(60):
        page.keyboard.press("Tab")
        seen.append(focused(page))
        if page.evaluate("document.activeElement.type") == "checkbox" and boxes < 2:
            page.keyboard.press("Space")
            boxes += 1
        if boxes == 2:
            break
    assert all(at["seen"] for at in seen)
    page.get_by_role("button", name="Compare the chosen runs").focus()
    page.keyboard.press("Enter")
    page.wait_for_url("**/compare?*")
    assert page.locator("h1").inner_text() == "2 runs side by side"


def test_the_list_follows_the_store_without_a_reload(tmp_path, reader):
    store = filled(tmp_path / "store", 3)
    with running(store) as site:
        page = reader(site.address, own=site.address)
        page.evaluate("window.mark = 'same page'")
        store.add([trained(9)])
        page.locator(f"a[href='/runs/{key(9)}']").wait_for(timeout=20_000)
        assert page.evaluate("window.mark") == "same page"
        # Who has chosen something keeps it, and is told instead.
        page.locator("input[type=checkbox]").first.check()
        store.add([trained(10)])
        page.locator("#changed").wait_for(timeout=20_000)
        assert page.locator("input:checked").count() == 1
        page.goto(f"{site.address}/studies")
        Teller(store, "widths").say(3, 10, "cell")
        until(lambda: page.locator("[data-study=widths] progress").evaluate("e => e.value") == 0.3)


def test_hostile_content_is_shown_and_does_nothing(site, reader):
    page = reader(f"{site.address}/runs/{key(60)}", own=site.address, width=390)
    assert HOSTILE in page.locator("main").inner_text()
    assert page.evaluate("document.scripts.length") == 1
    page.goto(f"{site.address}/?q=" + HOSTILE.replace("/", "%2f"))
    assert page.locator("#q").input_value() == HOSTILE
    assert overflowing(page) <= 0


def test_the_token_lets_in_and_work_is_started_by_a_click(tmp_path, reader, monkeypatch):
    monkeypatch.setattr(jobs_module, "_RUNNER", "import time; print('measuring the way', flush=True); time.sleep(60)")
    store = filled(tmp_path / "store", 4)
    with running(store, allow_run=True, token=TOKEN) as site:
        page = reader(site.address, own=site.address)
        assert page.url.endswith("/enter")
        page.locator("#token").fill(TOKEN)
        page.keyboard.press("Enter")
        page.wait_for_url(f"{site.address}/")
        assert "session" not in page.evaluate("document.cookie")
        for box in page.locator("input[type=checkbox]").all()[1:3]:
            box.check()
        page.get_by_role("button", name="Check the chosen runs").click()
        page.wait_for_url(re.compile(r"/jobs/[0-9a-f]{16}$"))
        page.get_by_text("measuring the way").wait_for(timeout=20_000)
        page.get_by_role("button", name="Stop it").click()
        page.get_by_text("stopped", exact=True).wait_for()
        assert unreadable(page) == []


def test_a_result_is_drawn_but_shut_off_from_the_site(tmp_path, reader):
    import json

    from tests.report.test_check import model, pair, values

    store = filled(tmp_path / "store", 2)
    (store.path / "results").mkdir()
    content = values(models=[model("a"), model("b")], pairs=[pair(0, 1)], changes=[], provenance={})
    (store.path / "results" / "one.json").write_text(json.dumps(content))
    with running(store) as site:
        page = reader(f"{site.address}/results", own=(site.address, "data:", "blob:"))
        page.locator("tbody a").first.click()
        page.wait_for_selector(".vega-embed svg")
        assert page.evaluate("self.origin") == "null"
