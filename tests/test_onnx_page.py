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
def test_blocks_give_the_mask_of_the_whole_recording(name: str, rng: np.random.Generator) -> None:
    """With the inputs of the page; no block returns a frame twice, or one that is wrong."""
    session = onnxruntime.InferenceSession(find_model(name).onnx_path)
    metadata = session.get_modelmeta().custom_metadata_map
    past, future = int(metadata["past_frames"]), int(metadata["future_frames"])
    bins, frames, length = session.get_inputs()[0].shape[1], 200, 80
    spectrum = rng.normal(size=(1, bins, frames, 2)).astype(np.float32)
    inputs = {value.name for value in session.get_overridable_initializers()}
    assert all(f"`{name}`" in PAGE for name in inputs if not name.startswith("state"))
    keep = length - past - future
    pieces, state = [], {}
    for start in range(0, frames - past - future, keep):
        is_last = start + length >= frames
        flags = {"begins": int(start == 0), "ends": int(is_last), "keep": keep}
        block = {"spectrum": spectrum[:, :, start : start + length], **state}
        block |= {name: np.array([flag]) for name, flag in flags.items() if name in inputs}
        names = [value.name for value in session.get_outputs()]
        outputs = dict(zip(names, session.run(names, block), strict=True))
        pieces.append(outputs.pop("mask"))
        state = {name.removeprefix("next_"): value for name, value in outputs.items()}
        assert f"`{next(iter(state))}`" in PAGE
    whole = session.run(["mask"], {"spectrum": spectrum})[0]
    np.testing.assert_allclose(np.concatenate(pieces, axis=2), whole, atol=1e-5)


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
