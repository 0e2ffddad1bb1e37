"""The report in headless Chromium.

It is not collected with the other tests, because it needs a browser: install the extra [browser]
and Chromium (a package of the system, or `playwright install chromium`), then run
`python -m pytest tests/evaluation/browser_report.py`.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

from denoisecli.evaluation.report import write_report

WAIT = 30_000  # ms


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    names = ("chromium", "chromium-browser", "google-chrome")
    own = next((path for name in names if (path := shutil.which(name))), None)
    options = [] if os.getuid() else ["--no-sandbox"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=own, args=options)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def report(
    tmp_path_factory: pytest.TempPathFactory, make_evaluation: Callable[..., Any], nasty_name: str
) -> str:
    folder = tmp_path_factory.mktemp("report")
    gains = {f"file {i}": float(i) for i in (3, 10, 1, 7, 0, 5)}
    result, pairs = make_evaluation(
        folder, {**gains, nasty_name: -2.0}, seconds=8.0, others=("old",)
    )
    result.scores[-1].values["si_sdr"] = float("nan")
    write_report(result, pairs, folder / "report.html", files=3)
    return (folder / "report.html").as_uri()


@pytest.fixture(params=[(1280, 900), (390, 844)], ids=["desktop", "phone"])
def page(request: pytest.FixtureRequest, browser: Browser, report: str) -> Iterator[Page]:
    """The report, read from disk; console messages and network requests are errors."""
    width, height = request.param
    page = browser.new_page(viewport={"width": width, "height": height})
    page.set_default_timeout(WAIT)
    messages: list[str] = []
    page.on("console", lambda message: messages.append(message.text))
    page.on("pageerror", lambda error: messages.append(str(error)))
    page.on(
        "request",
        lambda request: request.url.startswith(("file:", "data:")) or messages.append(request.url),
    )
    page.goto(report)
    yield page
    assert messages == []
    page.close()


@pytest.fixture
def recording(page: Page) -> Locator:
    return page.locator(".recording").first


def column(page: Page, number: int) -> list[str]:
    rows = page.locator("#files tbody tr:visible")
    return rows.evaluate_all(f"rows => rows.map(row => row.cells[{number}].textContent)")


def until(page: Page, expression: str) -> None:
    """Wait for an expression; the security policy of the page forbids Playwright's own way."""
    for _ in range(WAIT // 100):
        if page.evaluate(expression):
            return
        page.wait_for_timeout(100)
    raise AssertionError(expression)


def test_nothing_is_wider_than_the_page(page: Page) -> None:
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.evaluate("[...document.images].every(image => image.naturalWidth > 100)")
    assert page.locator("h1").inner_text() == "mine"


def test_sorting(page: Page) -> None:
    headings = page.locator("#files thead th")
    names = headings.all_inner_texts()
    gain = next(i for i, name in enumerate(names) if name.startswith("Gain"))
    for arrow, direction in ((1, "ascending"), (-1, "descending")):
        headings.nth(gain).locator("button").click()
        assert headings.nth(gain).get_attribute("aria-sort") == direction
        shown = column(page, gain)
        assert shown[-1] == "\N{EN DASH}"  # failures come last in both directions
        values = [float(text.replace("\N{MINUS SIGN}", "-")) for text in shown[:-1]]
        assert values == sorted(values, reverse=arrow < 0)
        assert len(values) == 13
    headings.nth(0).locator("button").press("Enter")
    assert headings.nth(gain).get_attribute("aria-sort") is None
    files = column(page, 0)
    assert files[-6:] == ["file 5", "file 5", "file 7", "file 7", "file 10", "file 10"]


def test_filtering(page: Page) -> None:
    page.locator("#find").fill("FILE 1")
    assert sorted(set(column(page, 0))) == ["file 1", "file 10"]
    expect(page.locator("#found")).to_have_text("4 of 14")
    page.locator("#estimator").select_option("old")
    assert column(page, 1) == ["old", "old"]
    page.locator("#find").fill("kind 1")
    assert len(column(page, 0)) == 3


def test_switching_keeps_the_position(page: Page, recording: Locator) -> None:
    """All sounds play in step; one is heard, and another one is heard without a new start."""
    buttons = recording.locator(".play")
    expect(buttons).to_have_text(
        ["Noisy", "Cleaned by mine", "Removed by mine", "Cleaned by old", "Clean"]
    )
    page.evaluate(
        "() => { window.starts = []; const start = AudioBufferSourceNode.prototype.start;"
        "AudioBufferSourceNode.prototype.start = function (...args) {"
        "window.starts.push(args); return start.apply(this, args); } }"
    )
    position = "Number(document.querySelector('.recording input').value)"
    recording.locator("input").fill("1")
    buttons.nth(0).click()
    until(page, f"{position} > 1.1")
    starts = page.evaluate("starts")
    assert [start[1] for start in starts] == [1] * 5
    assert len({start[0] for start in starts}) == 1
    buttons.nth(1).click()
    expect(buttons.nth(0)).to_have_attribute("aria-pressed", "false")
    expect(buttons.nth(1)).to_have_attribute("aria-pressed", "true")
    recording.locator(".toggle").click()
    expect(buttons.nth(0)).to_have_attribute("aria-pressed", "true")
    page.keyboard.press("b")
    expect(buttons.nth(1)).to_have_attribute("aria-pressed", "true")
    until(page, f"{position} > 1.5")
    assert len(page.evaluate("starts")) == 5
    buttons.nth(1).click()
    expect(buttons.nth(1)).to_have_attribute("aria-pressed", "false")
    assert page.evaluate(position) >= 1.5


def test_every_sound_can_be_played(page: Page) -> None:
    durations = page.evaluate(
        "Promise.all([...document.querySelectorAll('audio')].map(audio =>"
        "new Promise((done, fail) => {"
        "audio.onloadedmetadata = () => done(audio.duration); audio.onerror = fail;"
        "audio.preload = 'metadata'; audio.load(); })))"
    )
    assert durations == pytest.approx([8.0] * 15, abs=0.05)


def test_a_sound_ends(page: Page, recording: Locator) -> None:
    recording.locator("input").fill("7.8")
    recording.locator(".play").last.click()
    expect(recording.locator(".play").last).to_have_attribute("aria-pressed", "true")
    expect(recording.locator(".play").last).to_have_attribute("aria-pressed", "false", timeout=WAIT)
    expect(recording.locator("output")).to_have_text("0.0 of 8.0 s")


def test_another_recording_stops_the_first(page: Page, recording: Locator) -> None:
    recording.locator(".play").first.click()
    expect(recording.locator(".play").first).to_have_attribute("aria-pressed", "true")
    page.locator(".recording").nth(1).locator(".play").first.click()
    expect(recording.locator(".play").first).to_have_attribute("aria-pressed", "false")


def test_zoom_and_click(page: Page, recording: Locator) -> None:
    view = recording.locator(".view")
    widths = "view => [view.scrollWidth, view.clientWidth]"
    assert len(set(view.evaluate(widths))) == 1
    for _ in range(2):
        recording.get_by_label("Zoom in").click()
    whole, shown = view.evaluate(widths)
    assert whole == pytest.approx(4 * shown, abs=2)
    view.evaluate("view => { view.scrollLeft = view.scrollWidth / 2 }")
    picture = recording.locator(".picture").nth(1)
    left = view.bounding_box()["x"] - picture.bounding_box()["x"]
    picture.click(position={"x": left + 20, "y": 60})
    place = float(recording.locator("input").input_value())
    assert place == pytest.approx(8 * (left + 20) / whole, abs=0.02)
    recording.get_by_text("Reset").click()
    assert len(set(view.evaluate(widths))) == 1
    assert recording.locator(".axis span").first.inner_text() in ("0 s", "0.0 s")


def test_keyboard(page: Page, recording: Locator) -> None:
    view = recording.locator(".view")
    view.focus()
    width = view.evaluate("view => view.scrollWidth")
    page.keyboard.press("+")
    assert view.evaluate("view => view.scrollWidth") == pytest.approx(2 * width, abs=2)
    page.keyboard.press("0")
    page.keyboard.press("2")
    expect(recording.locator(".play").nth(1)).to_have_attribute("aria-pressed", "true")
    page.keyboard.press("x")
    expect(recording.locator(".play").nth(0)).to_have_attribute("aria-pressed", "true")
    page.keyboard.press(" ")
    expect(recording.locator(".play").nth(0)).to_have_attribute("aria-pressed", "false")


def test_the_page_works_without_scripts(browser: Browser, report: str) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(report)
    assert page.locator("audio[controls]").first.is_visible()
    assert page.locator(".still").first.is_visible()
    assert not page.locator(".play").first.is_visible()
    assert page.locator("#files tbody tr").count() == 14
    context.close()


def test_a_page_about_one_cleaned_recording(
    browser: Browser, tmp_path: Path, make_evaluation: Callable[..., Any]
) -> None:
    """It has no table of all recordings, whose scripts must not miss it."""
    result, pairs = make_evaluation(tmp_path, {"talk.wav": 3.0}, seconds=2.0)
    write_report(result, pairs, tmp_path / "page.html", cleaned=True)
    page = browser.new_page(viewport={"width": 390, "height": 844})
    messages: list[str] = []
    page.on("console", lambda message: messages.append(message.text))
    page.on("pageerror", lambda error: messages.append(str(error)))
    page.goto((tmp_path / "page.html").as_uri())
    assert page.locator("h1").inner_text() == "talk.wav"
    assert page.locator("#files").count() == 0
    page.locator(".play").first.click()
    page.keyboard.press("b")
    expect(page.locator(".play").nth(1)).to_have_attribute("aria-pressed", "true")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert messages == []
    page.close()
