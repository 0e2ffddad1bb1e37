"""The model in the hands of sherpa-onnx, which reads it with its own C++."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from denoisecli.audio.stft import istft
from denoisecli.cleaning.engines import FrameEngine
from denoisecli.cleaning.frames import FrameStream
from denoisecli.errors import ModelError
from denoisecli.models.catalogue import find_model
from denoisecli.models.export.sherpa import export_sherpa
from denoisecli.models.registry import build_model
from denoisecli.spec.document import parse_spec

# In a process of its own: two versions of ONNX Runtime do not belong in one.
PROGRAM = """
import sys
import numpy as np
import sherpa_onnx

model, sound, folder = sys.argv[1:]
sound = np.load(sound)
models = sherpa_onnx.OfflineSpeechDenoiserModelConfig(
    gtcrn=sherpa_onnx.OfflineSpeechDenoiserGtcrnModelConfig(model=model), num_threads=1
)
offline = sherpa_onnx.OfflineSpeechDenoiser(sherpa_onnx.OfflineSpeechDenoiserConfig(model=models))
np.save(folder + "/offline.npy", offline.run(sound, 48000).samples)
online = sherpa_onnx.OnlineSpeechDenoiser(sherpa_onnx.OnlineSpeechDenoiserConfig(model=models))
pieces = [online.run(sound[i : i + 480], 48000).samples for i in range(0, len(sound), 480)]
np.save(folder + "/online.npy", np.concatenate([*pieces, online.flush().samples]))
"""


def difference_db(found: np.ndarray, expected: np.ndarray) -> float:
    return float(10 * np.log10(np.square(found - expected).sum() / np.square(expected).sum()))


@pytest.mark.slow
def test_sherpa_onnx_cleans_as_we_do(speech, noise, tmp_path: Path) -> None:
    pytest.importorskip("sherpa_onnx")
    folder = find_model("speech-live")
    export_sherpa(folder.load_network(), tmp_path / "model.onnx")
    sound = (speech(1, 48000) + noise(1, 48000))[:47_900]
    np.save(tmp_path / "sound.npy", sound)
    arguments = [tmp_path / "model.onnx", tmp_path / "sound.npy", tmp_path]
    subprocess.run([sys.executable, "-c", PROGRAM, *map(str, arguments)], check=True)

    stream = FrameStream(folder.spec, FrameEngine(folder), 1)
    pieces = [*stream.process(sound[None]), *stream.finish()]
    expected = np.concatenate(pieces, axis=1)[0]
    online = np.load(tmp_path / "online.npy")
    assert online.shape == sound.shape
    assert difference_db(online, expected) < -100

    # The offline denoiser reflects the sound at its ends, where ours is silent.
    offline = np.load(tmp_path / "offline.npy")
    expected = reflected(FrameEngine(folder), sound)
    assert offline.shape == expected.shape
    assert difference_db(offline, expected) < -100


def reflected(engine: FrameEngine, sound: np.ndarray) -> np.ndarray:
    """Clean a recording whose ends are reflected before the STFT."""
    window = np.sin(np.pi * np.arange(1536) / 1536)
    padded = np.pad(sound, 768, mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(padded, 1536)[::768] * window
    state, cleaned = engine.start(1), []
    for spectrum in np.fft.rfft(frames).astype(np.complex64):
        result = engine.run(spectrum[None], state)
        assert result is not None
        cleaned.append(result[0][0])
    spectrum = np.stack(cleaned, axis=1)
    return istft(spectrum, n_fft=1536, hop_length=768, length=sound.size // 768 * 768)


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({}, "looks 2 frames ahead"),
        ({"causal": True, "stft": {"n_fft": 64, "hop_length": 16}}, "an n_fft of two hops"),
        ({"causal": True, "stft": {"window": "hann"}}, "needs the window sqrt_hann"),
    ],
)
def test_models_that_do_not_suit_it(sections, message: str, tmp_path: Path) -> None:
    levels = {"downsampling": [{"filters": 1}], "upsampling": [{"filters": 1}]}
    network = build_model(parse_spec({"name": "test", **levels, **sections}))
    with pytest.raises(ModelError, match=message):
        export_sherpa(network, tmp_path / "model.onnx")
