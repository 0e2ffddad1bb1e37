import numpy as np
import pytest
from conftest import constant_mask, smoothed_power_mask

from denoisecli import masking
from denoisecli.errors import ModelError, UsageError
from denoisecli.masking import Masking, OnnxEngine
from denoisecli.spec import parse_spec
from denoisecli.spectrogram import istft, stft


def make_spec(**sections):
    level = [{"filters": 1}]
    return parse_spec({"name": "test", "downsampling": level, "upsampling": level, **sections})


def power_gain(spectrum):
    """A causal network: the gain p / (p + 1), p the power smoothed towards the past."""
    power = np.square(spectrum).sum(axis=-1, keepdims=True)
    smooth = sum(np.pad(power, [(0, 0), (0, 0), (i, 0), (0, 0)])[:, :, : power.shape[2]] * 0.8**i
                 for i in range(30))  # fmt: skip
    return (smooth / (smooth + 1)).astype(np.float32)


def blocks_of(sound, size):
    return [sound[:, i : i + size] for i in range(0, sound.shape[1], size)]


def run(network, sound, size=5000):
    pieces = list(network(blocks_of(sound, size), 1.0))
    return np.concatenate([piece.clean for piece in pieces], axis=1), pieces


@pytest.mark.parametrize("timesteps", [1, 255, 256, 257, 16000, 250_001])
@pytest.mark.parametrize("n_fft", [512, 320])
def test_blocks_are_the_whole(speech, noise, monkeypatch, timesteps, n_fft):
    """An independent reference: the transform of the whole signal, masked, inverted."""
    monkeypatch.setattr(masking, "BLOCK_SECONDS", 5.0)
    options = {"n_fft": n_fft, "hop_length": 160 if n_fft == 320 else 128, "window": "hann"}
    sound = np.stack([speech(16, 16000), noise(16, 16000)])[:, :timesteps]
    spec = make_spec(stft=options, output={"mask": "magnitude"}, causal=True,
                     downsampling=[{"filters": 1, "strides": [2, 1]}])  # fmt: skip
    clean, pieces = run(Masking(spec, power_gain), sound)

    padded = np.pad(sound, [(0, 0), (0, -timesteps % options["hop_length"])])
    spectra = np.stack([stft(channel, **options) for channel in padded])
    mask = power_gain(np.stack([spectra.real, spectra.imag], axis=-1))[..., 0]
    whole = np.stack([istft(one, length=timesteps, **options) for one in mask * spectra])
    np.testing.assert_allclose(clean, whole, atol=1e-6)
    noisy = np.concatenate([piece.noisy for piece in pieces], axis=1)
    np.testing.assert_array_equal(noisy, sound)


def test_block_joins_with_context_on_both_sides(speech, noise, monkeypatch, model_folder):
    spec = make_spec(output={"mask": "magnitude"})
    engine = OnnxEngine(model_folder(smoothed_power_mask()) / "model.onnx")
    sound = np.stack([speech(40, 16000) + noise(40, 16000), noise(40, 16000)])

    def clean(block, context):
        monkeypatch.setattr(masking, "BLOCK_SECONDS", block)
        monkeypatch.setattr(masking, "CONTEXT_SECONDS", context)
        return run(Masking(spec, engine), sound, size=7777)[0]

    def difference_db(cleaned):
        return 10 * np.log10(np.square(cleaned - whole).mean() / np.square(whole).mean() + 1e-20)

    whole = clean(100.0, 4.0)
    assert difference_db(clean(5.0, masking.CONTEXT_SECONDS)) < -100
    assert difference_db(clean(5.0, 0.1)) > -60  # or else the test would prove nothing


def test_gains_are_those_of_the_bands_below_the_top(speech):
    def slope(spectrum):
        gains = np.linspace(0, 1, spectrum.shape[1], dtype=np.float32)
        return np.broadcast_to(gains[None, :, None, None], (*spectrum.shape[:3], 1))

    network = Masking(make_spec(output={"mask": "magnitude"}), slope)
    for top in (1.0, 0.5):
        (piece,) = network([speech(1, 16000)[None]], top)
        middle = top * np.mean(masking.GAIN_BAND)
        np.testing.assert_allclose(piece.gains, middle, atol=0.005)
        assert piece.gains.shape == (1, 1 + -(-16000 // 256))


def test_gains_are_not_above_one(speech, model_folder):
    engine = OnnxEngine(model_folder(constant_mask(1.5, -1)) / "model.onnx")
    (piece,) = Masking(make_spec(), engine)([speech(1, 16000)[None]], 1.0)
    assert (piece.gains == 1).all()


def test_many_channels_go_through_the_network_a_few_at_a_time(rng):
    sizes = []

    def watch(spectrum):
        sizes.append(len(spectrum))
        return np.ones((*spectrum.shape[:3], 1), np.float32)

    sound = rng.uniform(-1, 1, (5, 3000)).astype(np.float32)
    clean, _ = run(Masking(make_spec(output={"mask": "magnitude"}), watch), sound)
    assert max(sizes) == masking.MAX_BATCH
    np.testing.assert_allclose(clean, sound, atol=1e-6)


def test_mask_that_does_not_fit_the_spec(rng):
    network = Masking(make_spec(), lambda spectrum: np.ones((*spectrum.shape[:3], 1), np.float32))
    with pytest.raises(ModelError, match=r"gave a mask of shape \(1, 257, 2, 1\)"):
        run(network, rng.uniform(-1, 1, (1, 200)).astype(np.float32))


def test_values_that_are_not_finite(rng):
    network = Masking(make_spec(), lambda spectrum: np.full_like(spectrum, np.nan))
    with pytest.raises(ModelError, match="not finite"):
        run(network, rng.uniform(-1, 1, (1, 200)).astype(np.float32))


def test_engine_takes_any_batch_and_length(model_folder, rng):
    engine = OnnxEngine(model_folder(constant_mask(0.5, -0.25)) / "model.onnx", threads=1)
    for shape in ((1, 257, 1, 2), (3, 257, 50, 2)):
        mask = engine(rng.standard_normal(shape).astype(np.float32))
        assert mask.shape == shape
        np.testing.assert_allclose(mask, np.broadcast_to([0.5, -0.25], shape))


def test_engine_refuses(tmp_path, model_folder):
    with pytest.raises(ModelError, match=r"model\.onnx does not exist; `denoise export`"):
        OnnxEngine(tmp_path / "model.onnx")
    (tmp_path / "model.onnx").write_bytes(b"no network")
    with pytest.raises(ModelError, match=r"model\.onnx cannot be loaded"):
        OnnxEngine(tmp_path / "model.onnx")
    path = model_folder(constant_mask(1)) / "model.onnx"
    with pytest.raises(UsageError, match="threads must be at least 1"):
        OnnxEngine(path, threads=0)


def test_gpu_must_be_there(model_folder, monkeypatch):
    monkeypatch.setattr(
        masking.onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"]
    )
    with pytest.raises(UsageError, match="gpu needs CUDA and the package onnxruntime-gpu"):
        OnnxEngine(model_folder(constant_mask(1)) / "model.onnx", device="gpu")


def test_network_that_does_not_fit_its_spec(model_folder, speech):
    def broken():
        graph = constant_mask(1)
        graph.input[0].type.tensor_type.shape.dim[1].dim_value = 129
        return graph

    engine = OnnxEngine(model_folder(broken()) / "model.onnx")
    with pytest.raises(ModelError, match="does not fit its spec"):
        run(Masking(make_spec(), engine), speech(1, 16000)[None])
