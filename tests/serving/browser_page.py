"""The page in headless Chromium.

It is not collected with the other tests, because it needs a browser: install the extra [browser]
and Chromium (a package of the system, or `playwright install chromium`), then run
`python -m pytest tests/serving/browser_page.py`.
"""

import io
import os
import re
import shutil
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
import uvicorn
from helpers import constant_mask, speech_like, worker_thread
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from denoisecli.serving.app import App, Settings
from denoisecli.serving.server import listening

WAIT = 30_000  # ms
RATE = 16000
MAX_BYTES = 2**20

TAP = """
const connect = AudioNode.prototype.connect;
AudioNode.prototype.connect = function (target, ...rest) {
  if (target === this.context.destination) {
    const splitter = this.context.createChannelSplitter(2);
    connect.call(this, splitter);
    window.taps = [0, 1].map((channel) => {
      const tap = this.context.createAnalyser();
      tap.fftSize = 8192;
      connect.call(splitter, tap, channel);
      return tap;
    });
  }
  return connect.call(this, target, ...rest);
};
window.heard = () => taps.map((tap) => {
  const samples = new Float32Array(tap.fftSize);
  tap.getFloatTimeDomainData(samples);
  return Math.sqrt(samples.reduce((sum, value) => sum + value * value, 0) / samples.length);
});
"""
"""Measures what reaches the loudspeaker: `heard()` returns the RMS of the left and the right."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    expect.set_options(timeout=WAIT)
    names = ("chromium", "chromium-browser", "google-chrome")
    own = next((path for name in names if (path := shutil.which(name))), None)
    options = [
        *([] if os.getuid() else ["--no-sandbox"]),
        "--use-fake-device-for-media-stream",
        "--use-fake-ui-for-media-stream",
    ]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=own, args=options)
        yield browser
        browser.close()


@pytest.fixture
def address(tmp_path: Path, model_folder: Callable[..., Path]) -> Iterator[str]:
    """Return the address of a server whose models leave a quarter and half."""
    root, runs = tmp_path / "root", tmp_path / "runs"
    root.mkdir()
    runs.mkdir()
    quarter = model_folder(constant_mask(0.25))
    model_folder(constant_mask(0.5)).rename(runs / "half")
    settings = Settings(model=str(quarter), models_folder=runs, max_bytes=MAX_BYTES)
    app = App(settings, root, start_worker=worker_thread)
    with listening("127.0.0.1", None) as bound:
        server = uvicorn.Server(
            uvicorn.Config(app, log_level="critical", ws="none", timeout_graceful_shutdown=1)
        )
        thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
        thread.start()
        yield f"http://127.0.0.1:{bound.getsockname()[1]}/"
        server.should_exit = True
        thread.join()
    assert list(root.iterdir()) == []


@pytest.fixture(params=[(1280, 900), (390, 844)], ids=["desktop", "phone"])
def context(request: pytest.FixtureRequest, browser: Browser) -> Iterator[BrowserContext]:
    width, height = request.param
    context = browser.new_context(viewport={"width": width, "height": height})
    context.set_default_timeout(WAIT)
    yield context
    context.close()


@pytest.fixture
def page(context: BrowserContext, address: str) -> Iterator[Page]:
    """The page; console messages and requests to other hosts are errors."""
    page, messages = opened(context, address)
    yield page
    assert messages == []


def opened(context: BrowserContext, address: str) -> tuple[Page, list[str]]:
    page = context.new_page()
    messages: list[str] = []
    page.add_init_script(TAP)
    page.on("console", lambda message: messages.append(message.text))
    page.on("pageerror", lambda error: messages.append(str(error)))
    page.on(
        "request",
        lambda request: request.url.startswith(address) or messages.append(request.url),
    )
    page.goto(address)
    page.wait_for_selector("body.ready")
    return page, messages


@pytest.fixture
def takes(tmp_path: Path) -> Path:
    """Return a folder with two recordings, one of them in a folder, a broken one and notes."""
    folder = tmp_path / "takes"
    (folder / "second").mkdir(parents=True)
    voice = speech_like(3.0, RATE)
    soundfile.write(folder / "talk.wav", np.stack([voice, voice / 2]).T, RATE)
    soundfile.write(folder / "second" / "talk.flac", voice, RATE)
    (folder / "broken.wav").write_bytes(b"no sound at all")
    (folder / "notes.txt").write_text("notes")
    return folder


def add(page: Page, *paths: Path) -> None:
    page.set_input_files("#files", paths)
    page.wait_for_selector("#studio:not([hidden])")


def heard(page: Page) -> list[float]:
    """Return the RMS of both channels while the recording plays."""
    if page.locator("#play").get_attribute("aria-pressed") == "true":
        page.click("#play")
    page.locator("#seek").fill("0.5")
    page.click("#play")
    for _ in range(100):
        if page.evaluate("document.getElementById('seek').value") > "1.1":
            break
        page.wait_for_timeout(20)
    rms = page.evaluate("heard()")
    page.click("#play")
    return rms


def test_drop_a_folder(page: Page, takes: Path) -> None:
    """Folders are searched, other files are left out, and errors are sentences."""
    session = page.context.new_cdp_session(page)
    box = page.locator("#drop").bounding_box()
    data = {"items": [], "files": [str(takes)], "dragOperationsMask": 1}
    place = {"x": box["x"] + 20, "y": box["y"] + 20, "data": data}
    session.send("Input.dispatchDragEvent", {"type": "dragEnter", **place})
    expect(page.locator("body")).to_have_class("empty ready dropping")
    session.send("Input.dispatchDragEvent", {"type": "dragOver", **place})
    session.send("Input.dispatchDragEvent", {"type": "drop", **place})
    expect(page.locator("#message")).to_have_text("1 file left out: not recordings.")
    expect(page.locator("#list .name")).to_have_text(
        ["takes/broken.wav", "takes/second/talk.flac", "takes/talk.wav"]
    )
    expect(page.locator("#list li[data-stage=done]")).to_have_count(2)
    failed = page.locator("#list li[data-stage=failed] .status")
    expect(failed).to_contain_text("takes/broken.wav is damaged or not an audio file")
    # The one that succeeded first, of two that are cleaned at the same time.
    expect(page.locator("#title")).to_have_text(re.compile(r"talk\.(flac|wav)"))


def test_choose_a_folder(page: Page, takes: Path) -> None:
    page.set_input_files("#folder", takes)
    expect(page.locator("#list li[data-stage=done]")).to_have_count(2)


def test_a_recording_plays_after_another_was_looked_at(page: Page, takes: Path) -> None:
    add(page, takes / "talk.wav")
    page.set_input_files("#files", takes / "broken.wav")
    expect(page.locator("#list li[data-stage=failed]")).to_have_count(1)
    names = page.locator("#list .name")
    names.filter(has_text="broken.wav").click()
    expect(page.locator("#wait")).to_be_visible()
    names.filter(has_text="talk.wav").click()
    assert min(heard(page)) > 1e-3


def test_a_model_that_keys_choose_is_used_once_it_is_confirmed(page: Page, takes: Path) -> None:
    add(page, takes / "talk.wav")
    page.focus("#model")
    chosen = page.locator("#model").input_value()
    for key in ("Home", "End"):  # one of them is another model
        if page.locator("#model").input_value() == chosen:
            page.keyboard.press(key)
    assert page.locator("#model").input_value() != chosen
    expect(page.locator("#studio")).to_be_visible()
    page.keyboard.press("Enter")
    expect(page.locator("#wait")).to_be_visible()
    expect(page.locator("#studio")).to_be_visible()
    assert page.locator("#model").input_value() != chosen


def test_what_is_heard_follows_the_switch_and_the_slider(page: Page, tmp_path: Path) -> None:
    """The mixture is computed in the page, in step, for each channel."""
    tone = 0.4 * np.sin(2 * np.pi * 440 * np.arange(8 * RATE) / RATE)
    soundfile.write(tmp_path / "tone.wav", np.stack([tone, tone / 2]).T, RATE)
    add(page, tmp_path / "tone.wav")
    page.check("input[value=original]")
    left, right = heard(page)
    assert left == pytest.approx(0.4 / 2**0.5, rel=0.1)
    assert right == pytest.approx(left / 2, rel=0.1)
    for mode, strength, gain in (
        ("cleaned", "100", 0.25),
        ("cleaned", "40", 0.7),
        ("removed", "100", 0.75),
        ("removed", "50", 0.375),
    ):
        page.locator("#strength").fill(strength)
        page.check(f"input[value={mode}]")
        assert heard(page) == pytest.approx([gain * left, gain * right], rel=0.15)


def test_a_switch_keeps_the_position(page: Page, takes: Path) -> None:
    add(page, takes / "talk.wav")
    page.locator("#seek").fill("1")
    page.click("#play")
    page.wait_for_timeout(300)
    page.keyboard.press("a")
    expect(page.locator("input[value=original]")).to_be_checked()
    expect(page.locator("#play")).to_have_attribute("aria-pressed", "true")
    assert float(page.locator("#seek").input_value()) > 1.0
    page.keyboard.press("Space")
    expect(page.locator("#play")).to_have_attribute("aria-pressed", "false")


def test_the_cursor_follows_and_a_click_seeks(page: Page, takes: Path) -> None:
    add(page, takes / "talk.wav")
    pictures = page.locator("#pictures")
    page.wait_for_selector("#pictures[data-ready]")
    pictures.scroll_into_view_if_needed()
    box = pictures.bounding_box()
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + 30)
    expect(page.locator("#clock")).to_have_text("0:01.5 / 0:03.0")
    cursor = page.locator("#cursor").bounding_box()
    assert cursor["x"] == pytest.approx(box["x"] + box["width"] / 2, abs=2)
    page.click("#play")
    page.wait_for_timeout(500)
    assert page.locator("#cursor").bounding_box()["x"] > cursor["x"] + 5
    page.click("#play")
    colours = (
        "canvas => new Set(canvas.getContext('2d').getImageData(0, 0, canvas.width, 50).data).size"
    )
    assert page.locator("#picture-noisy").evaluate(colours) > 20
    assert page.locator("#picture-clean").evaluate(colours) > 20


def test_keyboard(page: Page, takes: Path) -> None:
    add(page, takes / "talk.wav", takes / "second" / "talk.flac")
    expect(page.locator("#list li[data-stage=done]")).to_have_count(2)
    page.locator("#player").focus()
    page.keyboard.press("-")
    page.keyboard.press("-")
    expect(page.locator("#strength-value")).to_have_text("90 %")
    expect(page.locator("#clean-caption")).to_have_text("Cleaned, 90 %")
    page.keyboard.press("n")
    expect(page.locator("#clean-caption")).to_have_text("Removed noise")
    page.keyboard.press("ArrowRight")
    expect(page.locator("#clock")).to_have_text("0:02.0 / 0:03.0")
    first = page.locator("#title").inner_text()
    page.keyboard.press("ArrowDown")
    expect(page.locator("#title")).not_to_have_text(first)
    page.keyboard.press("?")
    expect(page.locator("#keys")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#keys")).not_to_be_visible()


def test_download_one(page: Page, takes: Path) -> None:
    add(page, takes / "talk.wav")
    page.locator("#strength").fill("50")
    page.select_option("#format", ".flac")
    with page.expect_download() as waiting:
        page.click("#download")
    assert waiting.value.suggested_filename == "talk.clean.flac"
    cleaned, _ = soundfile.read(waiting.value.path())
    noisy, _ = soundfile.read(takes / "talk.wav")
    np.testing.assert_allclose(cleaned, 0.625 * noisy, atol=2e-4)


def test_download_all_with_the_strength_of_one(page: Page, takes: Path) -> None:
    add(page, takes / "talk.wav", takes / "second" / "talk.flac")
    expect(page.locator("#list li[data-stage=done]")).to_have_count(2)
    page.locator("#strength").fill("0")
    page.click("#for-all")
    with page.expect_download() as waiting:
        page.click("#download-all")
    archive = zipfile.ZipFile(waiting.value.path())
    assert sorted(archive.namelist()) == ["talk.clean.flac", "talk.clean.wav"]
    cleaned, _ = soundfile.read(io.BytesIO(archive.read("talk.clean.wav")))
    noisy, _ = soundfile.read(takes / "talk.wav")
    np.testing.assert_allclose(cleaned, noisy, atol=2e-4)


def test_another_model(page: Page, takes: Path) -> None:
    add(page, takes / "talk.wav")
    expect(page.locator("#list .status")).to_contain_text("\N{MINUS SIGN}12")
    page.select_option("#model", "runs/half")
    expect(page.locator("#list .status")).to_contain_text("\N{MINUS SIGN}6")
    expect(page.locator("#model")).to_have_value("runs/half")


def test_record_from_the_microphone(page: Page) -> None:
    page.click("#record")
    expect(page.locator("#recorder")).to_be_visible()
    expect(page.locator("#recorder-clock")).to_have_text(re.compile("0:0[1-9]"))
    page.click("#recorder-stop")
    page.wait_for_selector("#studio:not([hidden])")
    expect(page.locator("#title")).to_contain_text("recording 20")
    assert max(heard(page)) >= 0  # it plays
    page.click("#record")
    page.click("#recorder-cancel")
    expect(page.locator("#list li")).to_have_count(1)


def test_remove(page: Page, takes: Path) -> None:
    add(page, takes / "talk.wav", takes / "second" / "talk.flac")
    page.get_by_label("Remove talk.wav").click()
    expect(page.locator("#list li")).to_have_count(1)
    page.get_by_label("Remove talk.flac").click()
    expect(page.locator("#player")).not_to_be_visible()
    expect(page.locator("#choose-files")).to_be_focused()


def test_a_reload_keeps_the_recordings(page: Page, takes: Path) -> None:
    add(page, takes / "talk.wav")
    page.locator("#strength").fill("70")
    page.reload()
    page.wait_for_selector("#studio:not([hidden])")
    expect(page.locator("#strength-value")).to_have_text("70 %")


def test_a_link_opens_a_job_that_a_program_has_sent(page: Page, address: str, takes: Path) -> None:
    content = (takes / "talk.wav").read_bytes()
    file = {"name": "talk.wav", "mimeType": "audio/wav", "buffer": content}
    job = page.request.post(f"{address}api/jobs", multipart={"file": file}).json()
    page.goto(f"{address}?job={job['id']}")
    page.wait_for_selector("#studio:not([hidden])")
    expect(page.locator("#title")).to_have_text("talk.wav")
    assert page.url == address


def test_files_that_are_too_large_are_not_sent(page: Page, tmp_path: Path) -> None:
    (tmp_path / "large.wav").write_bytes(bytes(MAX_BYTES + 1))
    page.set_input_files("#files", tmp_path / "large.wav")
    expect(page.locator("#wait-text")).to_have_text("Larger than 1.0 MB, the limit of this server.")


def test_a_server_that_is_gone(context: BrowserContext, address: str, takes: Path) -> None:
    page, _ = opened(context, address)
    context.set_offline(True)
    page.set_input_files("#files", takes / "talk.wav")
    expect(page.locator("#wait-text")).to_contain_text("The server does not answer.")


def test_two_users_at_once(browser: Browser, address: str, takes: Path) -> None:
    users = []
    for name in ("talk.wav", "second/talk.flac"):
        page, messages = opened(browser.new_context(), address)
        page.set_input_files("#files", takes / name)
        users.append((page, messages, Path(name).name))
    for page, messages, name in users:
        expect(page.locator("#list li[data-stage=done] .name")).to_have_text([name])
        assert messages == []
        page.context.close()


def test_nothing_is_wider_than_the_page_and_everything_has_a_name(page: Page, takes: Path) -> None:
    fits = "document.documentElement.scrollWidth <= innerWidth"
    assert page.evaluate(fits)
    add(page, takes / "talk.wav", takes / "second" / "talk.flac")
    assert page.evaluate(fits)
    nameless = page.evaluate(
        "[...document.querySelectorAll('button, select, input, canvas, progress, dialog')]"
        ".filter((e) => !e.hidden && !e.ariaLabel && !e.getAttribute('aria-labelledby')"
        " && !e.labels?.length && !e.textContent.trim()).map((e) => e.outerHTML)"
    )
    assert nameless == []
