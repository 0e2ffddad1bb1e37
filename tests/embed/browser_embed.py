"""The page in examples/embed/browser, in Chromium: run by .ci/run where Chromium and npm exist."""

import functools
import http.server
import shutil
import subprocess
import threading
from pathlib import Path

import numpy as np
import pytest
import soundfile

from denoisecli.cleaning.engines import FrameEngine
from denoisecli.cleaning.frames import FrameStream
from denoisecli.models.catalogue import find_model

PAGE = Path(__file__).parents[2] / "examples" / "embed" / "browser"
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
RATE = 48000

CLEAN = """async (samples) => {
  const { openModel } = await import("./page.js");
  const { worker, facts } = await openModel();
  const channel = new MessageChannel();
  worker.postMessage({ port: channel.port1 }, [channel.port1]);
  const out = [];
  let seconds = 0;
  for (let i = 0; i < samples.length; i += facts.hop) {
    const reply = new Promise((resolve) => { channel.port2.onmessage = (e) => resolve(e.data); });
    channel.port2.postMessage(Float32Array.from(samples.slice(i, i + facts.hop)));
    const { clean, seconds: spent } = await reply;
    out.push(...clean);
    seconds += spent;
  }
  return { out, facts, load: seconds * facts.sampleRate / samples.length };
}"""


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """Serve the page as any static server does."""
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed")
    folder = tmp_path_factory.mktemp("page")
    shutil.copytree(PAGE, folder, dirs_exist_ok=True)
    shutil.copy(find_model("speech-live").stream_path, folder / "stream.onnx")
    install = ["npm", "install", "--no-audit", "--no-fund", "onnxruntime-web"]
    subprocess.run(install, check=True, cwd=folder, capture_output=True)
    handler = functools.partial(QuietHandler, directory=folder)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    playwright = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed")
    microphone = tmp_path_factory.mktemp("sound") / "microphone.wav"
    tone = 0.3 * np.sin(2 * np.pi * 300 * np.arange(2 * 48000) / 48000)
    soundfile.write(microphone, tone, 48000, "PCM_16")
    with playwright.sync_playwright() as running:
        chromium = running.chromium.launch(
            executable_path=CHROMIUM,
            args=[
                "--no-sandbox",
                "--autoplay-policy=no-user-gesture-required",
                "--use-fake-ui-for-media-stream",
                "--use-fake-device-for-media-stream",
                f"--use-file-for-fake-audio-capture={microphone}",
            ],
        )
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser, address):
    page = browser.new_page()
    errors = []
    page.on("pageerror", lambda error: errors.append(error))
    page.goto(address)
    yield page
    assert errors == []
    page.close()


def test_the_worker_cleans_as_we_do(page, speech, noise):
    sound = (speech(3, RATE) + noise(3, RATE))[: 180 * 768].astype(np.float32)
    result = page.evaluate(CLEAN, sound.tolist())
    folder = find_model("speech-live")
    stream = FrameStream(folder.spec, FrameEngine(folder), 1)
    expected = np.concatenate(list(stream.process(sound[None])), axis=1)[0]
    found = np.array(result["out"])[768:]  # the page returns a hop before the sound
    np.testing.assert_allclose(found[: expected.size], expected, atol=1e-4)
    assert result["facts"]["hop"] == 768
    assert result["facts"]["delay"] == pytest.approx(0.032)
    print(f"load of the worker {result['load']:.1%} of a core")


def test_the_page_cleans_a_microphone(page):
    page.click("#start")
    page.wait_for_function("window.running && window.running.report.hops >= 100", timeout=60_000)
    report = page.evaluate("window.running.report")
    print(f"load {report['load']:.1%}, delay {report['delay']:.3f} s, "
          f"{report['dropouts']} dropouts")  # fmt: skip
    assert 0.03 < report["delay"] < 0.2
    assert "hops of 16 ms" in page.text_content("#state")
    page.check("#bypass")
    peak = """async () => {
      const { context, node } = window.running;
      const meter = new AnalyserNode(context, { fftSize: 2048 });
      node.connect(meter);
      await new Promise((resolve) => setTimeout(resolve, 1000));
      const samples = new Float32Array(2048);
      meter.getFloatTimeDomainData(samples);
      return Math.max(...samples.map(Math.abs));
    }"""
    assert page.evaluate(peak) > 0.05
