from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import onnx
import pytest

from denoisecli import Denoiser
from denoisecli.cleaning.engines import FrameEngine, OnnxEngine, open_frame_engine
from denoisecli.cleaning.frames import FrameStream
from denoisecli.cleaning.masking import Blocks, Masking, MaskStream
from denoisecli.errors import ModelError
from denoisecli.models.catalogue import find_model, model_names
from denoisecli.models.folder import ModelFolder
from denoisecli.models.registry import build_model
from denoisecli.spec.document import parse_spec

GRU = {"block": "recurrent", "axis": "time", "units": 4, "bidirectional": False}
MODELS = {
    "causal": {
        "causal": True,
        "stft": {"n_fft": 512, "hop_length": 200, "window": "hann"},  # the hops do not divide n_fft
        "valley": [GRU],
        "output": {"past_taps": 1},
    },
    "looks ahead": {"valley": [GRU], "output": {"future_taps": 1}},
}


@pytest.fixture(scope="module", params=MODELS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ModelFolder:
    """A model folder as training writes it, with weights that do something."""
    levels = {"downsampling": [{"filters": 3, "strides": [4, 1]}], "upsampling": [{"filters": 3}]}
    network = build_model(parse_spec({"name": "test", **levels, **MODELS[request.param]}))
    for seed, weight in enumerate(network.trainable_variables):
        if len(weight.shape) > 1:
            weight.assign(keras.random.normal(weight.shape, stddev=0.4, seed=seed))
    folder = ModelFolder(tmp_path_factory.mktemp("model"))
    folder.write_network(network)
    return folder


def streamed(stream: FrameStream | MaskStream, sound: np.ndarray, size: int) -> np.ndarray:
    blocks = [sound[:, i : i + size] for i in range(0, sound.shape[1], size)]
    pieces = [piece for b in blocks for piece in stream.process(b)] + list(stream.finish())
    return np.concatenate(pieces, axis=1)


@pytest.mark.parametrize(
    ("timesteps", "size", "sample_rate"),
    [
        (1, 1, 16000),
        (255, 100, 16000),
        (512, 512, 16000),
        (8001, 257, 16000),
        (8000, 8000, 16000),
        (8001, 257, 11025),
        (8001, 257, 44100),
    ],
)
def test_frames_are_those_of_the_whole(
    folder: ModelFolder,
    speech: Callable[..., np.ndarray],
    noise: Callable[..., np.ndarray],
    timesteps: int,
    size: int,
    sample_rate: int,
) -> None:
    """Of the recording in one block, to float32 rounding."""
    sound = np.stack([speech(1, 16000) + noise(1, 16000), noise(1, 16000)])[:, :timesteps]
    engine = OnnxEngine(folder, threads=1)
    whole = MaskStream(Masking(folder.spec, engine, sample_rate), Blocks(100.0))
    expected = streamed(whole, sound, timesteps)
    ours = FrameStream(folder.spec, FrameEngine(folder), 2, sample_rate)
    found = streamed(ours, sound, size)
    assert np.abs(found - sound).max() > 1e-4  # the network does something
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_the_output_is_behind_by_the_delay(
    folder: ModelFolder, noise: Callable[..., np.ndarray]
) -> None:
    lags, given = [], 0
    stream = FrameStream(folder.spec, FrameEngine(folder), 1)
    for taken, sample in enumerate(noise(0.2, 16000)[:, None, None], start=1):
        given += sum(piece.shape[1] for piece in stream.process(sample))
        lags.append(taken - given)
    assert max(lags) == stream.delay - 1


def test_streams_of_one_engine_are_independent(
    folder: ModelFolder, noise: Callable[..., np.ndarray]
) -> None:
    engine, sound = FrameEngine(folder), noise(0.5, 16000)[None]
    ours, other = (FrameStream(folder.spec, engine, 1) for _ in range(2))
    pieces = []
    for start in range(0, 8000, 500):
        pieces += ours.process(sound[:, start : start + 500])
        list(other.process(-2 * sound[:, start : start + 400]))
    alone = FrameStream(folder.spec, engine, 1)
    found = np.concatenate([*pieces, *ours.finish()], axis=1)
    np.testing.assert_array_equal(found, streamed(alone, sound, 8000))


def test_nothing_in_nothing_out(folder: ModelFolder) -> None:
    assert list(FrameStream(folder.spec, FrameEngine(folder), 1).finish()) == []


def test_a_denoiser_streams_frame_by_frame(
    folder: ModelFolder, speech: Callable[..., np.ndarray]
) -> None:
    denoiser, sound = Denoiser(folder.path), speech(1, 16000)[None]
    stream = denoiser.stream(16000)
    assert stream.delay == FrameStream(folder.spec, FrameEngine(folder), 1).delay / 16000
    blocks = denoiser.stream(16000, blocks=Blocks(100.0))
    found, expected = (
        np.concatenate([each.process(sound), each.finish()], axis=1) for each in (stream, blocks)
    )
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_the_stream_of_another_network_is_not_used(folder: ModelFolder, tmp_path: Path) -> None:
    assert open_frame_engine(ModelFolder(tmp_path)) is None
    model = onnx.load(folder.onnx_path)
    model.doc_string = "changed"
    onnx.save(model, tmp_path / "model.onnx")
    (tmp_path / "stream.onnx").write_bytes(folder.stream_path.read_bytes())
    assert open_frame_engine(ModelFolder(tmp_path)) is None
    assert open_frame_engine(folder) is not None


def test_damaged_metadata_and_wrong_frames(folder: ModelFolder, tmp_path: Path) -> None:
    model = onnx.load(folder.stream_path)
    onnx.helper.set_model_props(model, {"delay_frames": "-1"})
    onnx.save(model, tmp_path / "stream.onnx")
    with pytest.raises(ModelError, match=r"stream\.onnx is damaged: .* in its metadata"):
        FrameEngine(ModelFolder(tmp_path))
    engine = FrameEngine(folder)
    with pytest.raises(ModelError, match="does not fit its spec"):
        engine.run(np.zeros((1, 100), np.complex64), engine.start(1))


def test_values_that_are_not_finite(folder: ModelFolder) -> None:
    class Broken(FrameEngine):
        def run(
            self, spectrum: np.ndarray, state: np.ndarray, *, present: bool = True
        ) -> tuple[np.ndarray, np.ndarray]:
            return np.full_like(spectrum, np.nan), np.ones((*spectrum.shape, 2), np.float32)

    with pytest.raises(ModelError, match="not finite"):
        list(FrameStream(folder.spec, Broken(folder), 1).process(np.zeros((1, 600), np.float32)))


@pytest.mark.parametrize("name", model_names())
def test_bundled_models_have_a_network_for_streams(name):
    engine = open_frame_engine(find_model(name))
    assert engine is not None
    assert (engine.delay == 0) == find_model(name).spec.causal
