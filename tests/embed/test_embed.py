"""The programs in examples/embed."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import soundfile

from denoisecli.cleaning.engines import FrameEngine
from denoisecli.cleaning.frames import FrameStream
from denoisecli.models.catalogue import find_model

EXAMPLES = Path(__file__).parents[2] / "examples" / "embed"
RATE = 48000


def cleaned(model: str, sound: np.ndarray) -> np.ndarray:
    folder = find_model(model)
    stream = FrameStream(folder.spec, FrameEngine(folder), 1)
    pieces = [*stream.process(sound[None]), *stream.finish()]
    return np.concatenate(pieces, axis=1)[0]


@pytest.mark.parametrize("model", ["speech-live", "speech"])
def test_numpy(model, speech, noise, tmp_path):
    rate = find_model(model).spec.audio.sample_rate
    sound = (speech(1, rate) + noise(1, rate))[:-999]
    soundfile.write(tmp_path / "noisy.wav", sound, rate, "FLOAT")
    command = [sys.executable, EXAMPLES / "stream.py", find_model(model).stream_path]
    subprocess.run([*command, "noisy.wav", "clean.wav"], check=True, cwd=tmp_path)
    found, _ = soundfile.read(tmp_path / "clean.wav", dtype="float32")
    np.testing.assert_allclose(found, cleaned(model, sound), atol=1e-5)


def header_folder() -> Path | None:
    """Return the folder of ONNX Runtime's C header, which its wheel lacks."""
    folders = [os.environ.get("ONNXRUNTIME_INCLUDE", ""), "/usr/include/onnxruntime",
               "/usr/include/onnxruntime/core/session"]  # fmt: skip
    return next((Path(f) for f in folders if f and Path(f, "onnxruntime_c_api.h").is_file()), None)


@pytest.mark.slow
@pytest.mark.skipif(header_folder() is None, reason="ONNX Runtime's C header is not installed")
@pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")
def test_c(speech, noise, tmp_path):
    (library,) = Path(onnxruntime.__file__).parent.glob("capi/libonnxruntime.so.*.*.*")
    for name in ("libonnxruntime.so", "libonnxruntime.so.1"):
        (tmp_path / name).symlink_to(library)
    command = ["cc", "-O2", "-Wall", "-Wextra", "-Werror", EXAMPLES / "stream.c"]
    command += ["-I", header_folder(), "-L", tmp_path, "-l", "onnxruntime", "-lm"]
    subprocess.run([*command, f"-Wl,-rpath,{tmp_path}", "-o", tmp_path / "stream"], check=True)
    sound = (speech(2, RATE) + noise(2, RATE))[:30_000]  # the last hop is not whole

    def run(model):
        command = [tmp_path / "stream", find_model(model).stream_path]
        return subprocess.run(command, input=sound.tobytes(), capture_output=True)

    result = run("speech-live")
    assert result.returncode == 0, result.stderr
    found = np.frombuffer(result.stdout, np.float32)
    assert found.size == 768 + sound.size  # a hop late
    np.testing.assert_allclose(found[768:], cleaned("speech-live", sound), atol=1e-4)
    refused = run("speech")
    assert refused.returncode == 1
    assert b"do not look ahead" in refused.stderr


def test_voice_agents():
    command = [sys.executable, EXAMPLES / "voice_agents.py", "3", "0.5"]
    result = subprocess.run(command, check=True, capture_output=True, text=True)
    assert result.stdout.startswith("3 sessions of 0.5 s in ")
    assert "per session: " in result.stdout


@pytest.mark.slow
def test_sessions_of_voice_agents_return_clean_frames(speech, noise):
    """Every frame that goes in is one that comes out, of the delay ago."""
    program = f"""
import asyncio, sys
sys.path.insert(0, {str(EXAMPLES)!r})
import numpy as np
from voice_agents import DenoiseFilter, ThreadPoolExecutor, talk
from denoisecli import Denoiser

pcm = sys.stdin.buffer.read()

async def main():
    denoiser = Denoiser("speech-live")
    with ThreadPoolExecutor() as threads:
        sessions = [DenoiseFilter(denoiser, threads) for _ in range(2)]
        return await asyncio.gather(talk(sessions[0], pcm), talk(sessions[1], pcm[::-1]))

sys.stdout.buffer.write(asyncio.run(main())[0])
"""
    sound = (speech(1, 16000) + noise(1, 16000)).clip(-1, 1)
    pcm = np.round(sound * 2**15).clip(-(2**15), 2**15 - 1).astype("<i2")
    result = subprocess.run(
        [sys.executable, "-c", program], input=pcm.tobytes(), capture_output=True, check=True
    )
    found = np.frombuffer(result.stdout, "<i2") / 2**15
    assert found.size == sound.size
    expected = cleaned("speech-live-16k", (pcm / 2**15).astype(np.float32))
    np.testing.assert_array_equal(found[:512], 0)
    np.testing.assert_allclose(found[512:], expected[:-512], atol=1e-4)
