"""The report in a real headless Chromium: phone width, both themes, filters, keyboard, contrast, print, no request."""

from __future__ import annotations

import os
import shutil

import pytest

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
CONTRAST = """() => {
  const light = ([r, g, b]) => {
    const part = (v) => (v /= 255) <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
    return .2126 * part(r) + .7152 * part(g) + .0722 * part(b);
  };
  const numbers = (text) => text.match(/[\\d.]+/g).map(Number);
  const ground = (node) => {
    for (; node; node = node.parentElement) {
      const colour = numbers(getComputedStyle(node).backgroundColor);
      if (colour.length < 4 || colour[3] > 0) return colour;
    }
    return [255, 255, 255];
  };
  const poor = [];
  const names = 'p li td th a summary span h1 h2 h3 caption dt dd ins del strong';
  for (const node of document.querySelectorAll(names.replaceAll(' ', ', '))) {
    const own = [...node.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim());
    if (!own || !node.getClientRects().length || node.closest('.sr, .skip')) continue;
    const a = light(numbers(getComputedStyle(node).color)), b = light(ground(node));
    const ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
    if (ratio < 4.5) poor.push([node.textContent.trim().slice(0, 40), node.className, ratio.toFixed(2)]);
  }
  return poor;
}"""


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine (Debian: apt-get install chromium)")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (extra `dev`)")
    with playwright.sync_playwright() as driver:
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []  # it refuses its own sandbox to root
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield chromium
        chromium.close()


@pytest.fixture(params=[("light", 1200), ("dark", 1200), ("light", 390)], ids=lambda value: f"{value[0]}-{value[1]}")
def page(browser, report, request):
    """The opened report; afterwards no script may have failed and nothing may have been asked for."""
    theme, width = request.param
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=theme)
    faults, asked = [], []
    made = context.new_page()
    made.on("pageerror", lambda error: faults.append(str(error)))
    made.on("console", lambda line: faults.append(line.text) if line.type in ("error", "warning") else None)
    made.on("request", lambda request: asked.append(request.url))
    made.goto(report.html.as_uri())
    yield made
    context.close()
    assert faults == []
    assert [url for url in asked if not url.startswith(("file:", "data:,"))] == []


def test_nothing_is_wider_than_the_window(page):
    page.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def test_text_stands_out_from_its_ground(page):
    assert page.evaluate(CONTRAST) == []


def test_filters_work_by_keyboard(page):
    form = page.locator("form[data-filter=flip]")
    everything = page.locator(".flip:not([hidden])").count()
    form.locator("select[name=way]").focus()
    page.keyboard.press("ArrowDown")
    lost = page.locator(".flip:not([hidden])").count()
    assert 0 < lost < everything
    assert page.locator(".flip:not([hidden]) .tag.accepted").count() == 0
    form.locator("input[name=words]").focus()
    page.keyboard.type("no row says this")
    assert page.locator(".flip:not([hidden])").count() == 0
    assert form.locator(".shown").inner_text() == f"0 of {everything} shown"
    assert page.locator(".example:not([hidden])").count() > 0  # the other form's rows stay


def test_links_lead_to_what_can_be_seen(page):
    page.locator("nav a", has_text="Questions").click()
    assert page.locator("#questions-h").is_visible()
    assert page.evaluate("document.activeElement.tagName") in ("A", "BODY")


def test_it_prints(page):
    if page.viewport_size["width"] < 1000:
        pytest.skip("paper has one width")
    page.emulate_media(media="print")
    assert page.locator("nav").is_hidden()
    assert page.locator("#tables table.paper").first.is_visible()
    assert len(page.pdf()) > 20_000
