"""The report in a real browser, Chromium without a window.

Not collected with the other tests, as it needs a browser: pip install -e '.[browser]', and
Chromium from the system or from `playwright install chromium`. Then: pytest tests/browser_report.py
"""

import os
import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright
from test_report import NASTY, make_evaluation

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
def report(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("report")
    gains = {f"file {i}": float(i) for i in (3, 10, 1, 7, 0, 5)}
    result, pairs = make_evaluation(folder, {**gains, NASTY: -2.0}, seconds=8.0, others=("old",))
    result.scores[-1].values["si_sdr"] = float("nan")
    write_report(result, pairs, folder / "report.html", files=3)
    return (folder / "report.html").as_uri()


@pytest.fixture(params=[(1280, 900), (390, 844)], ids=["desktop", "phone"])
def page(request: pytest.FixtureRequest, browser: Browser, report: str) -> Iterator[Page]:
    """The report from disk; what it writes to the console or asks the network for is an error."""
    width, height = request.param
    page = browser.new_page(viewport={"width": width, "height": height})
    page.set_default_timeout(WAIT)
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on(
        "request",
        lambda asked: asked.url.startswith(("file:", "data:")) or said.append(asked.url),
    )
    page.goto(report)
    yield page
    assert said == []
    page.close()


@pytest.fixture
def recording(page: Page) -> Locator:
    return page.locator(".recording").first


def column(page: Page, number: int) -> list[str]:
    rows = page.locator("#files tbody tr:visible")
    return rows.evaluate_all(f"rows => rows.map(row => row.cells[{number}].textContent)")


def until(page: Page, expression: str) -> None:
    """Wait for it; Playwright's own way is forbidden by the page's security policy."""
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
        assert shown[-1] == "\N{EN DASH}"  # what failed comes last, either way
        values = [float(text.replace("\N{MINUS SIGN}", "-")) for text in shown[:-1]]
        assert values == sorted(values, reverse=arrow < 0)
        assert len(values) == 13
    headings.nth(0).locator("button").press("Enter")
    assert headings.nth(gain).get_attribute("aria-sort") is None
    files = column(page, 0)
    assert files[-6:] == ["file 5", "file 5", "file 7", "file 7", "file 10", "file 10"]


def test_finding(page: Page) -> None:
    page.locator("#find").fill("FILE 1")
    assert sorted(set(column(page, 0))) == ["file 1", "file 10"]
    expect(page.locator("#found")).to_have_text("4 of 14")
    page.locator("#estimator").select_option("old")
    assert column(page, 1) == ["old", "old"]
    page.locator("#find").fill("kind 1")
    assert len(column(page, 0)) == 3


def test_players_play_and_keep_the_place(page: Page, recording: Locator) -> None:
    """One at a time; the next one goes on where the last one was."""
    buttons, sounds = recording.locator(".play"), recording.locator("audio")
    expect(buttons).to_have_text(
        ["Noisy", "Cleaned by mine", "Removed by mine", "Cleaned by old", "Clean"]
    )
    recording.locator("input").fill("1")
    buttons.nth(0).click()
    until(page, "document.querySelector('audio').currentTime > 1.1")
    buttons.nth(1).click()
    playing = "[...document.querySelectorAll('audio')].map(audio => !audio.paused)"
    until(page, f"{playing}.indexOf(true) === 1")
    assert page.evaluate(playing).count(True) == 1
    assert sounds.nth(1).evaluate("audio => audio.currentTime") >= 1.1
    expect(buttons.nth(0)).to_have_attribute("aria-pressed", "false")
    expect(buttons.nth(1)).to_have_attribute("aria-pressed", "true")
    buttons.nth(1).click()
    until(page, f"{playing}.indexOf(true) === -1")
    assert float(recording.locator("input").input_value()) >= 1.1


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
    recording.get_by_text("Whole").click()
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
    page.keyboard.press("2")
    expect(recording.locator(".play").nth(1)).to_have_attribute("aria-pressed", "false")


def test_without_scripts_there_is_all_but_comfort(browser: Browser, report: str) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(report)
    assert page.locator("audio[controls]").first.is_visible()
    assert page.locator(".still").first.is_visible()
    assert not page.locator(".play").first.is_visible()
    assert page.locator("#files tbody tr").count() == 14
    context.close()
