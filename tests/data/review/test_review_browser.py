"""The page in a real headless Chromium, by keyboard only."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from optaware.data.review import read_labels, serving

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine (Debian: apt-get install chromium)")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (extra `dev`)")
    with playwright.sync_playwright() as driver:
        # Chromium refuses its own sandbox to root, as which containers run; the only page opened is this project's.
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield chromium
        chromium.close()


@pytest.fixture
def visit(browser, open_review):
    """Opens the page; afterwards nothing may have been asked of another address, and no script may have failed."""
    review = open_review()
    with serving(review) as server:
        context = browser.new_context(viewport={"width": 390, "height": 844}, accept_downloads=True)
        asked, faults = [], []

        def go():
            page = context.new_page()
            page.on("request", lambda request: asked.append(request.url))
            page.on("pageerror", lambda error: faults.append(str(error)))
            page.on("console", lambda line: faults.append(line.text) if line.type in ("error", "warning") else None)
            page.on("dialog", lambda dialog: faults.append("a dialog opened"))
            page.goto(server.url)
            page.wait_for_selector("body[data-ready]")
            return page

        yield go
        context.close()
        own = f"http://127.0.0.1:{server.server_port}/"
        assert not [url for url in asked if not url.startswith((own, "blob:" + own, "data:,"))]
        assert not faults


def press(page, *keys):
    for key in keys:
        page.keyboard.press(key)
        page.wait_for_selector("body[aria-busy=false]")


def place(page):
    return page.text_content("#place")


def test_labelling_by_keyboard_goes_to_disk_resumes_and_exports(visit, tmp_path):
    page = visit()
    assert place(page).startswith("1 of 3")
    assert "#" not in page.url  # the token does not stay in the address bar
    press(page, "s")
    assert place(page).startswith("2 of 3")
    press(page, "t")
    page.keyboard.type("two vases, snm are no keys here")
    press(page, "Enter")
    press(page, "m")
    assert place(page).startswith("3 of 3")
    labels = read_labels(tmp_path / "labels.jsonl")
    assert [(label.answer, label.faults, label.note) for label in labels] == [
        ("same", (), ""),
        ("not the same", ("meaning",), "two vases, snm are no keys here"),
    ]
    assert page.text_content("#counts") == "2 of 3 done · 1 same · 1 not the same · 0 skipped"
    page.reload()
    page.wait_for_selector("body[data-ready]")
    assert place(page).startswith("3 of 3")  # goes on at the first open pair
    with page.expect_download() as download:
        press(page, "e")
    lines = Path(download.value.path()).read_text().splitlines()
    assert [json.loads(line)["answer"] for line in lines] == ["same", "not the same"]
    press(page, "u")
    assert place(page).startswith("2 of 3")
    assert page.text_content("#mark") == "open"
    press(page, "x", "r")
    assert "All pairs are labelled" in page.text_content("#message")
    assert page.text_content("#counts").startswith("3 of 3 done")


def test_filters_moves_and_machine_verdict_by_keyboard(visit):
    page = visit()
    press(page, "s", "k")
    assert place(page).startswith("1 of 3")
    assert page.text_content("#mark") == "labelled: same"
    assert page.get_attribute("[data-key=s]", "aria-pressed") == "true"
    press(page, "k")
    assert place(page).startswith("3 of 3")
    press(page, "ArrowLeft")
    assert not page.is_visible("#reason")  # what the gate said is shown on request only
    press(page, "v")
    assert page.text_content("#reason") == "accepted · accepted · written by a model"
    press(page, "f")
    assert page.input_value("#shown") == "open"
    assert place(page).startswith("1 of 2")
    press(page, "f", "f")
    assert page.is_visible("#empty")
    press(page, "s", "v", "t")  # no pair, so nothing to label
    press(page, "u")
    assert page.text_content("#counts").startswith("0 of 3")
    page.select_option("#outcome", "rejected")
    page.wait_for_selector("#place:text-is('1 of 1')")


def test_text_from_the_data_stays_text(visit):
    page = visit()
    press(page, "j", "j", "v")
    assert page.title().startswith("pairs <img")
    shown = page.text_content("body")
    assert "<script>document.title='taken'</script>" in shown
    assert "⟨U+202E⟩emas" in shown
    assert "javascript:alert(1)" in shown
    assert page.locator("img, main a, main script, main b, main svg").count() == 0
    assert page.locator("#rewritten ins").count() > 0


def test_the_page_fits_a_phone_light_and_dark(visit):
    page = visit()
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        left = page.evaluate("document.getElementById('original').getBoundingClientRect().bottom")
        right = page.evaluate("document.getElementById('rewritten').getBoundingClientRect().top")
        assert left < right  # one above the other
        for button in page.locator(".acts button").all():
            box = button.bounding_box()
            assert box["height"] >= 44
            assert box["y"] + box["height"] <= 844
        colours = page.evaluate(
            "[getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor]"
        )
        luminance = [sum(int(n) for n in text[4:-1].split(",")) for text in colours]
        assert abs(luminance[0] - luminance[1]) > 500
    page.set_viewport_size({"width": 1200, "height": 800})
    tops = [
        page.evaluate(f"document.getElementById('{n}').getBoundingClientRect().top") for n in ("original", "rewritten")
    ]
    assert tops[0] == tops[1]  # side by side


def test_without_the_token_the_page_shows_nothing(browser, open_review):
    with serving(open_review()) as server:
        context = browser.new_context()
        page = context.new_page()
        page.goto(f"http://127.0.0.1:{server.server_port}/#wrong")
        page.wait_for_selector("#message.bad")
        assert "token" in page.text_content("#message")
        assert "baker" not in page.content()
        context.close()


def test_a_foreign_page_with_the_token_cannot_label(browser, open_review, tmp_path):
    """Even with a leaked token: another origin's post needs a preflight, which is refused."""
    review = open_review()
    with serving(review) as server, serving(review) as foreign:
        context = browser.new_context()
        page = context.new_page()
        page.goto(f"http://127.0.0.1:{foreign.server_port}/style.css")
        done = page.evaluate(
            """async ([url, token, id]) => {
              const body = JSON.stringify({id, answer: "same"});
              const tries = [
                {method: "POST", body, headers: {"Content-Type": "application/json", "X-Review-Token": token}},
                {method: "POST", body, mode: "no-cors", headers: {"Content-Type": "text/plain"}},
              ];
              return Promise.all(tries.map((each) => fetch(url, each).then((r) => r.status, () => "refused")));
            }""",
            [f"http://127.0.0.1:{server.server_port}/api/label", server.token, next(iter(review.pairs))],
        )
        context.close()
    assert done[0] == "refused"
    assert not read_labels(tmp_path / "labels.jsonl")


def test_when_the_command_has_ended_the_page_says_so_and_loses_nothing(browser, open_review, tmp_path):
    review = open_review()
    with serving(review) as server:
        context = browser.new_context()
        page = context.new_page()
        page.goto(server.url)
        page.wait_for_selector("body[data-ready]")
        press(page, "s")
    page.keyboard.press("s")
    page.wait_for_selector("#message.bad")
    assert "has ended" in page.text_content("#message")
    assert place(page).startswith("2 of 3")
    assert page.text_content("#mark") == "open"
    context.close()
    assert len(read_labels(tmp_path / "labels.jsonl")) == 1
