"""A real browser: Debian's chromium, driven from here; tests are skipped with the reason where there is none."""

from __future__ import annotations

import contextlib
import shutil
import time

import pytest

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)


@pytest.fixture(scope="session")
def chromium():
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="browser tests need playwright: pip install playwright"
    )
    if CHROMIUM is None:
        pytest.skip("browser tests need chromium: apt-get install chromium")
    with playwright.sync_playwright() as driver:
        try:
            browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        except playwright.Error as problem:
            pytest.skip(f"chromium must start here, but: {str(problem).splitlines()[0]}")
        yield browser
        browser.close()


@pytest.fixture
def reader(chromium):
    """Opens pages for readers of all kinds; at the end nothing may have gone wrong, and nothing asked for elsewhere."""
    with contextlib.ExitStack() as opened:
        wrong: list[str] = []

        def open_page(
            address: str, *, dark=False, width=1100, language="en", own=("file:", "data:", "blob:"), **settings
        ):
            context = chromium.new_context(
                viewport={"width": width, "height": 900}, color_scheme="dark" if dark else "light", locale=language,
                accept_downloads=True, **settings,
            )  # fmt: skip
            opened.callback(context.close)
            page = context.new_page()
            page.on("console", lambda said: wrong.append(said.text) if said.type in ("error", "warning") else None)
            page.on("pageerror", lambda problem: wrong.append(str(problem)))
            page.on("dialog", lambda dialog: (wrong.append(f"dialog: {dialog.message}"), dialog.dismiss()))
            page.on("request", lambda sent: None if sent.url.startswith(own) else wrong.append(f"asked for {sent.url}"))
            page.goto(address)
            return page

        yield open_page
        assert wrong == []


def until(holds, *, seconds: float = 20) -> None:
    """Wait until something holds; asked from here, since the pages' policies let no code be evaluated in them."""
    began = time.monotonic()
    while not holds():
        assert time.monotonic() - began < seconds, "it never came to hold"
        time.sleep(0.05)


CONTRAST = """() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgba = (text) => {
    canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = text; canvas.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data; return [r, g, b, a / 255];
  };
  const over = (top, under) => [0, 1, 2].map((i) => top[i] * top[3] + under[i] * (1 - top[3])).concat(1);
  const light = (c) => {
    const [r, g, b] = c.map((v) => v / 255).map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const paper = (element) => {
    const layers = [];
    for (let at = element; at; at = at.parentElement) layers.push(rgba(getComputedStyle(at).backgroundColor));
    const ground = rgba(getComputedStyle(document.body).backgroundColor);
    return layers.reverse().reduce((under, top) => over(top, under), ground);
  };
  const found = [];
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    if (!own || ["SCRIPT", "STYLE", "OPTION", "NOSCRIPT"].includes(element.tagName)) continue;
    if (!element.checkVisibility({ checkOpacity: true, checkVisibilityCSS: true })) continue;
    const style = getComputedStyle(element), under = paper(element);
    const ink = over(rgba(element instanceof SVGElement ? style.fill : style.color), under);
    const [a, b] = [light(ink), light(under)].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    const size = parseFloat(style.fontSize), large = size >= 24 || (size >= 18.66 && style.fontWeight >= 700);
    if (ratio < (large ? 3 : 4.5))
      found.push(`${ratio.toFixed(2)} ${element.tagName} ${element.textContent.slice(0, 40)}`);
  }
  return found;
}"""


def unreadable(page) -> list[str]:
    """Every visible text whose contrast is below WCAG's AA."""
    page.wait_for_load_state()  # after a click the text of the next page is there before its style
    return page.evaluate(CONTRAST)


def overflowing(page) -> int:
    """By how many pixels a page is wider than its window."""
    page.wait_for_load_state()
    return page.evaluate("document.documentElement.scrollWidth - window.innerWidth")


def focused(page) -> dict:
    """What has the focus, and whether a reader sees that it has."""
    return page.evaluate(
        """() => { const e = document.activeElement, s = getComputedStyle(e), r = e.getBoundingClientRect();
        return { tag: e.tagName, text: (e.getAttribute("aria-label") || e.textContent || "").trim().slice(0, 60),
                 seen: s.outlineStyle !== "none" && parseFloat(s.outlineWidth) > 0 && r.width > 0 }; }"""
    )
