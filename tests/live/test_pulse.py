"""A real sound server with null sinks: a recording is played into one and taken from the other."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import librosa
import numpy as np
import pytest
import soundfile
from filelock import FileLock

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        shutil.which("pulseaudio") is None or shutil.which("pactl") is None,
        reason="PulseAudio is not installed",
    ),
]

RATE = 48000
DENOISE = [
    sys.executable,
    "-X",
    "faulthandler",
    "-c",
    "from denoisecli.cli.app import main; main()",
]


class Server:
    """A PulseAudio with two sinks: the monitor of the first one is the microphone."""

    def start(self):
        command = ["pulseaudio", "-n", "--daemonize=no", "--exit-idle-time=-1", "--use-pid-file=no"]
        command += ["-L", "module-native-protocol-unix"]
        for name in ("microphone", "loudspeaker"):
            command += ["-L", f"module-null-sink sink_name={name} rate={RATE} channels=1"]
        self.process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        until(lambda: "loudspeaker" in pactl("list", "short", "sinks"))

    def load(self, name: str) -> str:
        """Add a sink and return the index of its module."""
        return pactl("load-module", "module-null-sink", f"sink_name={name}").strip()

    def stop(self):
        self.process.terminate()
        self.process.wait(30)


@pytest.fixture
def server(tmp_path, monkeypatch):
    pytest.importorskip("sounddevice")
    for name in ("HOME", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setenv("PULSE_SOURCE", "microphone.monitor")
    monkeypatch.setenv("PULSE_SINK", "loudspeaker")
    # One at a time: on two cores, two servers take the time from each other.
    with FileLock(Path(tempfile.gettempdir()) / "denoise-sound-server.lock", timeout=300):
        server = Server()
        server.start()
        yield server
        server.stop()


def pactl(*arguments: str) -> str:
    return subprocess.run(["pactl", *arguments], capture_output=True, text=True).stdout


def until(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@contextmanager
def live(*arguments: str):
    """Run `denoise live` until the block ends; yield what it prints at the end."""
    command = [*DENOISE, "live", "--json", *arguments]
    facts: dict[str, float] = {}
    with tempfile.NamedTemporaryFile("w", encoding="utf-8") as messages:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=messages, text=True)

        def is_running() -> bool:
            text = Path(messages.name).read_text(encoding="utf-8")
            assert process.poll() is None, text
            return "running at" in text

        try:
            until(is_running)  # the sound server lists its streams before they have started
            yield facts
        finally:
            process.send_signal(signal.SIGINT)
            try:
                out, _ = process.communicate(timeout=60)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGABRT)  # prints where its threads are
                process.wait(30)
                raise
            finally:
                sys.stderr.write(Path(messages.name).read_text(encoding="utf-8"))
    facts.update(json.loads(out), code=process.returncode)


def is_listening() -> bool:
    return "protocol-native" in pactl("list", "short", "source-outputs")


def through(sound: np.ndarray, folder: Path) -> np.ndarray:
    """Play a recording to the microphone, and return what the virtual microphone gives."""
    soundfile.write(folder / "played.wav", sound, RATE)
    raw = folder / "taken.raw"
    with raw.open("wb") as file:
        options = [f"--rate={RATE}", "--channels=1", "--format=s16le", "--latency-msec=20"]
        taking = subprocess.Popen(["parec", "-d", "denoise_microphone", *options], stdout=file)
        until(lambda: raw.stat().st_size > 0)
        time.sleep(6)  # the delay settles to what the taker asks of the server
        playing = ["paplay", "-d", "microphone", "--latency-msec=20", folder / "played.wav"]
        subprocess.run(playing, check=True)
        time.sleep(1)
        taking.terminate()
        taking.wait(30)
    return np.fromfile(raw, "<i2").astype(np.float32) / 2**15


def aligned(taken: np.ndarray, sound: np.ndarray) -> np.ndarray:
    size = taken.size + sound.size
    product = np.fft.rfft(taken, size) * np.fft.rfft(sound, size).conj()
    start = int(np.argmax(np.fft.irfft(product)[: taken.size]))
    return taken[start : start + sound.size]


def si_sdr(estimate: np.ndarray, target: np.ndarray) -> float:
    part = np.dot(estimate, target) / np.dot(target, target) * target
    return float(10 * np.log10(np.square(part).sum() / np.square(estimate - part).sum()))


def taken_si_sdr(taken: np.ndarray, noisy: np.ndarray, clean: np.ndarray) -> float:
    """SI-SDR of magnitudes in dB, the median over parts of half a second.

    A sound server stretches sound by a few tenths of a percent to keep two clocks together, so
    that waveforms cannot be compared, but magnitudes of short parts can.
    """
    parts = [slice(start, start + RATE // 2) for start in range(RATE, 6 * RATE, RATE // 2)]
    pairs = [(aligned(taken, noisy[part]), clean[part]) for part in parts]
    values = [si_sdr(magnitudes(h), magnitudes(c)) for h, c in pairs if h.size == c.size]
    print(f"SI-SDR of magnitudes: {np.round(values, 1)} dB")
    return float(np.median(values))


def magnitudes(sound: np.ndarray) -> np.ndarray:
    return np.abs(librosa.stft(sound, n_fft=2048)).ravel()


def test_the_virtual_microphone_gives_clean_speech(server, speech, noise, tmp_path):
    clean = speech(6, RATE)
    noisy = clean + 0.5 * noise(6, RATE)
    record = tmp_path / "record.wav"
    with live("--virtual", "--record", str(record), "--buffer", "60") as facts:
        until(lambda: "denoise_microphone" in pactl("list", "short", "sources"))
        taken = through(noisy, tmp_path)
    assert "denoise" not in pactl("list", "short", "sinks")
    assert facts["interruptions"] == 0
    recorded, raw = (
        soundfile.read(tmp_path / name)[0] for name in ("record.wav", "record.raw.wav")
    )
    assert recorded.size == raw.size == round(facts["seconds"] * RATE)
    print(facts)
    heard, cleaned = aligned(raw, noisy), aligned(recorded, noisy)
    is_late = min(heard.size, cleaned.size) < clean.size  # the end had not come when it was stopped
    if facts["lost"] or facts["dropouts"] > 1 or is_late:  # one when the sound begins to be taken
        pytest.skip("other programs keep this computer from live sound")
    assert si_sdr(cleaned, clean) > si_sdr(heard, clean)
    assert taken_si_sdr(taken, noisy, clean) > taken_si_sdr(raw, noisy, clean)


@pytest.mark.parametrize("arguments", [(), ("--virtual",)])
def test_a_sound_server_that_is_started_again(server, arguments):
    with live(*arguments) as facts:
        server.stop()
        time.sleep(3)
        server.start()
        until(is_listening)
        if arguments:
            until(lambda: "denoise_microphone" in pactl("list", "short", "sources"))
            until(lambda: "protocol-native" in pactl("list", "short", "sink-inputs"))
        others = server.load("other")
    assert facts["interruptions"] >= 1
    assert "denoise" not in pactl("list", "short", "sinks")
    assert others in pactl("list", "short", "modules").split()


@pytest.mark.parametrize("arguments", [("--list-devices",), ("--virtual",), ()])
def test_a_sound_server_that_does_not_answer_is_an_error(server, arguments):
    server.process.send_signal(signal.SIGSTOP)
    try:
        result = subprocess.run(
            [*DENOISE, "live", *arguments], capture_output=True, text=True, timeout=60
        )
    finally:
        server.process.send_signal(signal.SIGCONT)
    assert result.returncode == 1
    assert "the sound system does not answer" in result.stderr


def test_ctrl_c_while_the_sound_server_does_not_answer(server):
    with live() as facts:
        server.process.send_signal(signal.SIGSTOP)
    server.process.send_signal(signal.SIGCONT)
    assert facts["code"] == 130


def test_killed_and_started_again(server):
    command = [*DENOISE, "live", "--virtual"]
    process = subprocess.Popen(command)
    until(lambda: "denoise_microphone" in pactl("list", "short", "sources"))
    os.kill(process.pid, signal.SIGKILL)
    process.wait(30)
    assert "denoise" in pactl("list", "short", "sinks")
    with live("--virtual"):
        assert pactl("list", "short", "sinks").count("denoise\t") == 1
    assert "denoise" not in pactl("list", "short", "sinks")
