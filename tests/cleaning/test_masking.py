import shutil
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
import pytest
from helpers import constant_mask, smoothed_power_mask

from denoisecli.audio.stft import istft, stft
from denoisecli.cleaning import masking
from denoisecli.cleaning.engines import OnnxEngine
from denoisecli.cleaning.masking import (
    CARRIED,
    MAX_ATTENTION_BYTES,
    WHOLE,
    Blocks,
    Masking,
    MaskStream,
    blocks_of_files,
)
from denoisecli.errors import ModelError
from denoisecli.models.export.onnx_network import export_onnx
from denoisecli.models.export.onnx_stages import write_stages
from denoisecli.models.folder import ModelFolder
from denoisecli.models.registry import build_model
from denoisecli.spec.document import Spec, parse_spec


def make_spec(**sections: Any) -> Spec:
    level = [{"filters": 1}]
    return parse_spec({"name": "test", "downsampling": level, "upsampling": level, **sections})


def power_gain(spectrum: np.ndarray) -> np.ndarray:
    """A causal network: the gain p / (p + 1), p the power smoothed towards the past."""
    power = np.square(spectrum).sum(axis=-1, keepdims=True)
    smooth = sum(np.pad(power, [(0, 0), (0, 0), (i, 0), (0, 0)])[:, :, : power.shape[2]] * 0.8**i
                 for i in range(30))  # fmt: skip
    return (smooth / (smooth + 1)).astype(np.float32)


def blocks_of(sound: np.ndarray, size: int) -> list[np.ndarray]:
    return [sound[:, i : i + size] for i in range(0, sound.shape[1], size)]


NetworkFunction = Callable[[np.ndarray], np.ndarray]
Carrying = tuple[Spec, ModelFolder, OnnxEngine]


class Network:
    """A function as an engine that carries no state."""

    reach = None

    def __init__(self, function: NetworkFunction, ahead: int = 0) -> None:
        self.function = function
        self.ahead = ahead

    def submit(
        self, arrays: dict[str, np.ndarray], state: object
    ) -> "Future[dict[str, np.ndarray]]":
        assert list(arrays) == ["spectrum"]
        future = Future()
        future.set_result({"mask": self.function(arrays["spectrum"])})
        return future


class Wrapped:
    """An engine whose calls a test changes."""

    def __init__(self, engine: Any) -> None:
        self.engine = engine
        self.ahead = engine.ahead
        self.reach = engine.reach

    def submit(
        self, arrays: dict[str, np.ndarray], state: object
    ) -> "Future[dict[str, np.ndarray]]":
        return self.engine.submit(arrays, state)


def run(
    spec: Spec,
    engine: Any,
    sound: np.ndarray,
    size: int = 5000,
    blocks: Blocks = WHOLE,
) -> tuple[np.ndarray, list[np.ndarray]]:
    stream = MaskStream(Masking(spec, engine), blocks)
    pieces = [piece for block in blocks_of(sound, size) for piece in stream.process(block)]
    pieces += stream.finish()
    return np.concatenate(pieces, axis=1), pieces


@pytest.mark.parametrize("timesteps", [1, 255, 256, 257, 16000, 250_001])
@pytest.mark.parametrize("n_fft", [512, 320])
@pytest.mark.parametrize("ahead", [0, 2])
def test_blocks_are_the_whole(
    speech: Callable[..., np.ndarray],
    noise: Callable[..., np.ndarray],
    timesteps: int,
    n_fft: int,
    ahead: int,
) -> None:
    """An independent reference: the transform of the whole signal, masked, inverted."""
    options = {"n_fft": n_fft, "hop_length": 160 if n_fft == 320 else 128, "window": "hann"}
    sound = np.stack([speech(16, 16000), noise(16, 16000)])[:, :timesteps]
    spec = make_spec(stft=options, output={"mask": "magnitude"}, causal=True,
                     downsampling=[{"filters": 1, "strides": [2, 1]}])  # fmt: skip
    clean, _ = run(spec, Network(power_gain, ahead), sound, blocks=Blocks(5.0, 2.0, 2.0))

    padded = np.pad(sound, [(0, 0), (0, -timesteps % options["hop_length"])])
    spectra = np.stack([stft(channel, **options) for channel in padded])
    mask = power_gain(np.stack([spectra.real, spectra.imag], axis=-1))[..., 0]
    whole = np.stack([istft(one, length=timesteps, **options) for one in mask * spectra])
    np.testing.assert_allclose(clean, whole, atol=1e-6)


@pytest.mark.parametrize("stride", [2, 3, 8])
@pytest.mark.parametrize("lead_in", [0.0, 2.0])
def test_blocks_begin_at_the_strides_of_the_whole(
    speech: Callable[..., np.ndarray], stride: int, lead_in: float
) -> None:
    spec = make_spec(
        stft={"n_fft": 512, "hop_length": 160},
        output={"mask": "magnitude"},
        downsampling=[{"filters": 1, "strides": [1, stride]}],
    )

    def gain_of_group(spectrum: np.ndarray) -> np.ndarray:
        """The gain p / (p + 1), p the power of a group of frames."""
        frames = spectrum.shape[2]
        power = np.square(spectrum).sum(axis=-1, keepdims=True)
        power = np.pad(power, [(0, 0), (0, 0), (0, -frames % stride), (0, 0)])
        groups = power.reshape(*power.shape[:2], -1, stride, 1).sum(axis=3)
        return np.repeat(groups / (groups + 1), stride, axis=2)[:, :, :frames].astype(np.float32)

    sound = speech(12, 16000)[None, :-7]
    whole, _ = run(spec, Network(gain_of_group), sound, blocks=Blocks(100.0, 1.0, 1.0, lead_in))
    clean, _ = run(spec, Network(gain_of_group), sound, blocks=Blocks(1.3, 0.9, 0.7, lead_in))
    np.testing.assert_allclose(clean, whole, atol=1e-6)


def test_block_joins_with_context_on_both_sides(
    speech: Callable[..., np.ndarray],
    noise: Callable[..., np.ndarray],
    model_folder: Callable[..., Path],
) -> None:
    spec = make_spec(output={"mask": "magnitude"})
    engine = OnnxEngine(ModelFolder(model_folder(smoothed_power_mask())))
    sound = np.stack([speech(24, 16000) + noise(24, 16000), noise(24, 16000)])

    def clean(length: float, context: float) -> np.ndarray:
        return run(spec, engine, sound, 7777, Blocks(length, context, context))[0]

    def difference_db(cleaned: np.ndarray) -> float:
        return 10 * np.log10(np.square(cleaned - whole).mean() / np.square(whole).mean() + 1e-20)

    whole = clean(100.0, 4.0)
    assert difference_db(clean(5.0, WHOLE.before)) < -100
    assert difference_db(clean(5.0, 0.1)) > -60  # or else the test would prove nothing


RECURRENT = {"block": "recurrent", "axis": "time", "units": 6, "bidirectional": False}
DILATED = {"block": "convolution", "filters": 5, "dilation": [1, 3]}


@pytest.fixture(scope="module", params=["looks ahead", "causal", "convolutions only", "taps"])
def carrying(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Carrying:
    """A network that carries its state, with weights that make it remember."""
    taps = request.param == "taps"
    valleys = {"convolutions only": [DILATED], "taps": [RECURRENT, RECURRENT]}
    spec = make_spec(
        downsampling=[{"filters": 5, "strides": [4, 1], "kernel_size": [3, 1 if taps else 3]}],
        valley=valleys.get(request.param, [RECURRENT, DILATED, RECURRENT]),
        upsampling=[{"filters": 1, "kernel_size": [3, 1 if taps else 3]}],
        causal=request.param == "causal",
        output={"past_taps": 3, "future_taps": 2} if taps else {},
    )
    network = build_model(spec)
    for seed, weight in enumerate(network.trainable_variables):
        if len(weight.shape) > 1:
            weight.assign(keras.random.normal(weight.shape, stddev=0.5, seed=seed))
    folder = ModelFolder(tmp_path_factory.mktemp("carrying"))
    export_onnx(network, folder.onnx_path)
    write_stages(folder.onnx_path, folder.stage_paths)
    return spec, folder, OnnxEngine(folder, threads=2)


@pytest.mark.parametrize(("length", "timesteps"), [(0.0, 20_001), (0.1, 30_001), (2.0, 90_001)])
def test_blocks_with_a_state_are_the_whole(
    carrying: Carrying,
    speech: Callable[..., np.ndarray],
    noise: Callable[..., np.ndarray],
    length: float,
    timesteps: int,
) -> None:
    spec, _, engine = carrying
    sound = np.stack([speech(6, 16000) + noise(6, 16000), noise(6, 16000)])[:, :timesteps]
    whole, _ = run(spec, engine, sound, blocks=Blocks(100.0))
    assert np.abs(whole - sound).max() > 0.05  # the network does something
    clean, pieces = run(spec, engine, sound, 777, blocks=Blocks(length))
    assert len(pieces) >= 3
    np.testing.assert_allclose(clean, whole, atol=1e-5)


def test_stages_change_nothing(carrying: Carrying, noise: Callable[..., np.ndarray]) -> None:
    spec, folder, engine = carrying
    assert engine.ahead == (0 if len(spec.valley) == 1 else 1)
    alone = OnnxEngine(folder, threads=1)
    assert alone.ahead == 0
    sound = noise(4, 16000)[None]
    staged, _ = run(spec, engine, sound, blocks=Blocks(0.5))
    np.testing.assert_allclose(staged, run(spec, alone, sound, blocks=Blocks(0.5))[0], atol=1e-6)


def test_stages_of_another_network_are_not_used(carrying: Carrying, tmp_path: Path) -> None:
    _, folder, engine = carrying
    if engine.ahead == 0:
        return
    other = ModelFolder(shutil.copytree(folder.path, tmp_path / "other"))
    assert OnnxEngine(other, threads=2).ahead == 1
    model = onnx.load(other.onnx_path)
    model.doc_string = "changed"
    onnx.save(model, other.onnx_path)
    assert OnnxEngine(other, threads=2).ahead == 0


@pytest.mark.parametrize(
    ("timesteps", "size"),
    [(1, 777), (257, 777), (32_000, 777), (32_001, 777), (50_001, 100_000)],
)
def test_the_network_hears_the_reversed_beginning_first(
    carrying: Carrying, noise: Callable[..., np.ndarray], timesteps: int, size: int
) -> None:
    spec, _, engine = carrying
    sound = np.stack([noise(4, 16000), 0.1 * noise(4, 16000)])[:, :timesteps]
    length = min(32_000, timesteps - 1) // 256 * 256
    heard = np.concatenate([sound[:, 1 : length + 1][:, ::-1], sound], axis=1)
    expected, _ = run(spec, engine, heard, blocks=Blocks(100.0))
    clean, _ = run(spec, engine, sound, size, blocks=Blocks(0.5, lead_in=2.0))
    np.testing.assert_allclose(clean, expected[:, length:], atol=1e-5)


def test_files_have_a_lead_in_and_live_sound_has_none(carrying: Carrying) -> None:
    spec, _, engine = carrying
    chosen = Masking(spec, engine)
    assert chosen.blocks(live=False).lead_in == masking.LEAD_IN > 0
    assert chosen.blocks(live=True).lead_in == 0


def test_a_state_is_needed(carrying: Carrying, noise: Callable[..., np.ndarray]) -> None:
    """Or else the test above would prove nothing."""
    spec, _, engine = carrying
    forgetful = Wrapped(engine)
    forgetful.submit = lambda arrays, state: engine.submit(arrays, {})
    sound = noise(4, 16000)[None]
    whole, _ = run(spec, engine, sound, blocks=Blocks(100.0))
    clean, _ = run(spec, forgetful, sound, blocks=Blocks(0.5))
    if len(spec.valley) == 1:  # convolutions remember no more than blocks overlap
        np.testing.assert_allclose(clean, whole, atol=1e-5)
    else:
        assert np.abs(clean - whole).max() > 1e-3


# With state, the earlier networks cannot be imitated by this one.
@pytest.mark.parametrize("carrying", ["convolutions only"], indirect=True)
def test_networks_of_earlier_versions_return_wrong_frames_too(
    carrying: Carrying, noise: Callable[..., np.ndarray]
) -> None:
    spec, _, engine = carrying
    whole_block = {"begins": np.array([1]), "ends": np.array([1])}
    earlier = Wrapped(engine)
    earlier.submit = lambda arrays, state: engine.submit({**arrays, **whole_block}, state)
    sound = noise(4, 16000)[None]
    expected, _ = run(spec, engine, sound, blocks=Blocks(0.5))
    clean, _ = run(spec, earlier, sound, blocks=Blocks(0.5))
    np.testing.assert_allclose(clean, expected, atol=1e-5)


def test_delay_of_a_causal_network_is_a_window(
    noise: Callable[..., np.ndarray], carrying: Carrying
) -> None:
    spec, _, engine = carrying
    if spec.output.future_taps:
        assert engine.reach == (0, 0)  # or else taps would not be why blocks overlap
    if not spec.causal:
        assert Masking(spec, engine).blocks(live=True) == masking.LIVE
        return
    assert engine.reach == (10, 0)  # two convolutions of 3 frames, one of 3 with gaps of 3
    blocks = Masking(spec, engine).blocks(live=True)
    assert MaskStream(Masking(spec, engine), blocks).delay == 512


def test_an_error_reaches_every_block_behind_it(
    carrying: Carrying, noise: Callable[..., np.ndarray]
) -> None:
    spec, _, engine = carrying
    broken = Wrapped(engine)
    broken.submit = lambda arrays, state: engine.submit({"keep": arrays["keep"]}, state)
    with pytest.raises(ModelError, match="does not fit its spec"):
        run(spec, broken, noise(4, 16000)[None], blocks=Blocks(0.5))


def test_live_blocks_come_at_once(noise: Callable[..., np.ndarray]) -> None:
    """After every block in, the output is at most the delay behind."""
    spec = make_spec(output={"mask": "magnitude"})
    sound = noise(5, 16000)[None]
    live = Blocks(1.0, 2.0, 1.0, live=True)
    for blocks, behind in ((live, 0), (Blocks(1.0, 2.0, 1.0), 1)):
        stream = MaskStream(Masking(spec, Network(power_gain, ahead=1)), blocks)
        assert stream.delay == (63 + 63) * 256  # 1 s and 1 s, rounded up to the hops
        taken = given = lag = 0
        for block in blocks_of(sound, 100):
            taken += 100
            given += sum(piece.shape[1] for piece in stream.process(block))
            lag = max(lag, taken - given)
        assert stream.delay + behind * 63 * 256 > lag >= stream.delay + behind * 63 * 256 - 200
        assert given + sum(piece.shape[1] for piece in stream.finish()) == 80_000


def test_channels_go_through_the_network_one_by_one(rng: np.random.Generator) -> None:
    """Memory must not grow with their number."""
    sizes = []

    def watch(spectrum: np.ndarray) -> np.ndarray:
        sizes.append(len(spectrum))
        return np.ones((*spectrum.shape[:3], 1), np.float32)

    sound = rng.uniform(-1, 1, (5, 3000)).astype(np.float32)
    clean, _ = run(make_spec(output={"mask": "magnitude"}), Network(watch), sound)
    assert sizes == [1] * 5
    np.testing.assert_allclose(clean, sound, atol=1e-6)


def test_mask_that_does_not_fit_the_spec(rng: np.random.Generator) -> None:
    network = Network(lambda spectrum: np.ones((*spectrum.shape[:3], 1), np.float32))
    with pytest.raises(ModelError, match=r"returned a mask of shape \(1, 257, 2, 1\)"):
        run(make_spec(), network, rng.uniform(-1, 1, (1, 200)).astype(np.float32))


def test_values_that_are_not_finite(rng: np.random.Generator) -> None:
    network = Network(lambda spectrum: np.full_like(spectrum, np.nan))
    with pytest.raises(ModelError, match="not finite"):
        run(make_spec(), network, rng.uniform(-1, 1, (1, 200)).astype(np.float32))


def test_network_that_does_not_fit_its_spec(
    model_folder: Callable[..., Path], speech: Callable[..., np.ndarray]
) -> None:
    def broken() -> onnx.GraphProto:
        graph = constant_mask(1)
        graph.input[0].type.tensor_type.shape.dim[1].dim_value = 129
        return graph

    engine = OnnxEngine(ModelFolder(model_folder(broken())))
    with pytest.raises(ModelError, match="does not fit its spec"):
        run(make_spec(), engine, speech(1, 16000)[None])


def test_attention_along_time_gets_blocks_that_fit_into_memory() -> None:
    """Its memory grows with the square of the length; all others get the usual blocks."""
    level = [{"filters": 4, "strides": [4, 1]}]

    def blocks(*valley: Any, carries: bool = False) -> Blocks:
        document = {
            "name": "x",
            "downsampling": level,
            "upsampling": [{"filters": 4}],
            "valley": valley,
        }
        return blocks_of_files(parse_spec(document), carries=carries)

    assert blocks() == blocks({"block": "attention", "axis": "frequency"}) == WHOLE
    assert blocks(carries=True) == CARRIED
    shorter = blocks({"block": "attention", "axis": "time", "heads": 8})
    assert shorter.length / shorter.before == pytest.approx(WHOLE.length / WHOLE.before)
    assert shorter.lead_in == WHOLE.lead_in
    frames = (shorter.before + shorter.length + shorter.after) * 16000 / 256
    assert 8 * 65 * 8 * frames**2 == pytest.approx(MAX_ATTENTION_BYTES)
