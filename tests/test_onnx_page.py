"""The program in `docs/onnx.md` does what `denoise clean` does."""

import re
import shutil
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import soundfile
from helpers import pink_noise, speech_like

from denoisecli.cleaning.denoiser import Denoiser
from denoisecli.models.catalogue import find_model, model_names

PAGE = (Path(__file__).parents[1] / "docs" / "onnx.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", model_names())
def test_the_program_of_the_page(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    """Also for a length that is no multiple of the hop."""
    model = find_model(name)
    shutil.copy(model.onnx_path, tmp_path / "speech.onnx")
    monkeypatch.chdir(tmp_path)
    rate = model.spec.audio.sample_rate
    noisy = speech_like(3.001, rate) + pink_noise(3.001, rate, rng)
    soundfile.write("noisy.wav", noisy, rate, subtype="FLOAT")
    (program,) = re.findall(r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    found: dict[str, np.ndarray] = {}
    exec(program, found)
    expected = Denoiser(name).clean(noisy, rate)
    np.testing.assert_allclose(found["clean"], expected, atol=1e-4)
    assert np.abs(found["clean"] - noisy).max() > 0.05


@pytest.mark.parametrize("name", model_names())
def test_metadata_of_the_bundled_models(name: str) -> None:
    """The page lists all of them, and they are those of the spec."""
    model = find_model(name)
    metadata = onnxruntime.InferenceSession(model.onnx_path).get_modelmeta().custom_metadata_map
    for key in metadata:
        assert f"`{key}`" in PAGE or key in ("name", "second_stage")
    assert metadata["taps"] == " ".join(map(str, model.spec.output.offsets))
    assert int(metadata["sample_rate"]) == model.spec.audio.sample_rate
    assert (metadata["n_fft"], metadata["window"]) == (
        str(model.spec.stft.n_fft),
        model.spec.stft.window,
    )
