import multiprocessing
import os
import pickle
import re
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import Future
from itertools import pairwise
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from helpers import constant_mask, smoothed_power_mask

from denoisecli.audio import level
from denoisecli.cleaning import masking
from denoisecli.cleaning.denoiser import Denoiser
from denoisecli.cleaning.masking import LIVE, Blocks, Masking
from denoisecli.errors import AudioError, ModelError, SpecError, UsageError
from denoisecli.models import catalogue

RATES = [8000, 11025, 16000, 22050, 44100, 48000, 96000]


NetworkFunction = Callable[[np.ndarray], np.ndarray]


class Network:
    """A function as an engine that carries no state."""

    ahead, reach = 0, None

    def __init__(self, function: NetworkFunction) -> None:
        self.function = function

    def submit(self, arrays: Any, state: object) -> "Future[dict[str, np.ndarray]]":
        future = Future()
        future.set_result({"mask": self.function(arrays["spectrum"])})
        return future


@pytest.fixture
def identity(model_folder: Callable[..., Path]) -> Path:
    return model_folder(constant_mask(1))


@pytest.fixture
def half(model_folder: Callable[..., Path]) -> Path:
    return model_folder(constant_mask(0.5))


@pytest.fixture
def nothing(model_folder: Callable[..., Path]) -> Path:
    return model_folder(constant_mask(0))


@pytest.fixture
def smoothing(model_folder: Callable[..., Path]) -> Path:
    return model_folder(smoothed_power_mask(), output={"mask": "magnitude"})


def band_level(sound: np.ndarray, sample_rate: int, low: float, high: float) -> float:
    """RMS in dB of the frequencies from low to high (Hz)."""
    spectrum = np.abs(np.fft.rfft(sound * np.hanning(sound.size)))
    frequencies = np.fft.rfftfreq(sound.size, 1 / sample_rate)
    return 10 * np.log10(
        np.square(spectrum[(frequencies >= low) & (frequencies < high)]).mean() + 1e-20
    )


@pytest.mark.parametrize("sample_rate", RATES)
@pytest.mark.parametrize("timesteps", [1, 2, 100, 30_001])
def test_identity_gives_the_input_back(
    identity: Path,
    half: Path,
    speech: Callable[..., np.ndarray],
    noise: Callable[..., np.ndarray],
    sample_rate: int,
    timesteps: int,
) -> None:
    seconds = timesteps / sample_rate
    sound = np.stack([speech(seconds, sample_rate), noise(seconds, sample_rate)])
    np.testing.assert_allclose(Denoiser(identity).clean(sound, sample_rate), sound, atol=1e-5)
    np.testing.assert_allclose(Denoiser(half).clean(sound, sample_rate), sound / 2, atol=1e-5)


@pytest.mark.parametrize("strength", [0.0, 0.25, 1.0])
def test_strength_mixes_the_original_back_in(
    half: Path, nothing: Path, speech: Callable[..., np.ndarray], strength: float
) -> None:
    sound = speech(1, 44100)
    cleaned = Denoiser(half, strength=strength).clean(sound, 44100)
    np.testing.assert_allclose(cleaned, (1 - strength / 2) * sound, atol=1e-5)
    if strength == 0:
        np.testing.assert_array_equal(Denoiser(nothing, strength=0.0).clean(sound, 44100), sound)


def test_blocks_do_not_show(
    smoothing: Path,
    speech: Callable[..., np.ndarray],
    noise: Callable[..., np.ndarray],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The whole in one block, and block by block, at a rate that needs resampling."""
    sound = np.stack([speech(8, 44100) + noise(8, 44100), noise(8, 44100)])
    monkeypatch.setattr(masking, "WHOLE", Blocks(100.0, 2.0, 2.0))
    whole = Denoiser(smoothing).clean(sound, 44100)
    assert level.rms(whole - sound) > 0.01  # the network does something
    for blocks in (Blocks(3.0, 2.0, 2.0), LIVE):
        stream = Denoiser(smoothing).stream(44100, 2, blocks=blocks)
        blockwise = [stream.process(sound[:, i : i + 10_007]) for i in range(0, 352_800, 10_007)]
        blockwise = np.concatenate([*blockwise, stream.finish()], axis=1)
        assert level.rms(blockwise - whole) < 1e-4 * level.rms(whole)


def test_low_rates_are_left_to_the_counterpart_of_a_bundled_model(
    half: Path,
    identity: Path,
    speech: Callable[..., np.ndarray],
    audio_file: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "pretrained").mkdir()
    half.rename(tmp_path / "pretrained" / "both")
    identity.rename(tmp_path / "pretrained" / "both-16k")
    monkeypatch.setattr(catalogue, "PRETRAINED", tmp_path / "pretrained")
    monkeypatch.chdir(tmp_path)
    Path("both").mkdir()  # recordings, for example
    denoiser = Denoiser("both")
    for rate, gain in ((8000, 1.0), (16000, 1.0), (22050, 0.5), (48000, 0.5)):
        sound = speech(0.5, rate)
        expected = pytest.approx(gain * level.rms(sound), rel=1e-3)
        assert level.rms(denoiser.clean(sound, rate)) == expected
        stream = denoiser.stream(rate)
        pieces = [stream.process(sound[None]), stream.finish()]
        assert level.rms(np.concatenate(pieces, axis=1)) == expected
        source, target = audio_file(f"{rate}.wav", sound, rate, "FLOAT"), tmp_path / f"{rate}.flac"
        denoiser.clean_file(source, target)
        assert level.rms(soundfile.read(target)[0]) == expected
    assert level.rms(Denoiser("both-16k").clean(sound, 48000)) > 0.9 * level.rms(sound)


def test_channels_are_cleaned_each_for_itself(
    smoothing: Path, speech: Callable[..., np.ndarray], noise: Callable[..., np.ndarray]
) -> None:
    sound = np.stack([speech(2, 16000), noise(2, 16000), 0 * noise(2, 16000)])
    together = Denoiser(smoothing).clean(sound, 16000)
    for channel, cleaned in zip(sound, together, strict=True):
        np.testing.assert_allclose(Denoiser(smoothing).clean(channel, 16000), cleaned, atol=1e-6)


def test_high_band_follows_the_gain_of_the_bands_below_it(
    identity: Path, half: Path, nothing: Path, noise: Callable[..., np.ndarray]
) -> None:
    sound = noise(4, 48000)
    before = band_level(sound, 48000, 9000, 20000)
    for model, change in ((identity, 0.0), (half, -6.02)):
        cleaned = Denoiser(model).clean(sound, 48000)
        assert band_level(cleaned, 48000, 9000, 20000) - before == pytest.approx(change, abs=0.05)
    assert level.rms(Denoiser(nothing).clean(sound, 48000)) < 1e-6


def test_high_band_gain_follows_in_time(
    identity: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mask that is 1 in the first half and 0 in the second, across several blocks."""
    monkeypatch.setattr(masking, "WHOLE", Blocks(1.0, 1.0, 1.0))
    sample_rate, seconds = 48000, 8
    switch = 4 * sample_rate
    sound = 0.1 * rng.standard_normal(seconds * sample_rate).astype(np.float32)
    sound[switch:] *= 0.5

    def gate(spectrum: np.ndarray) -> np.ndarray:  # loud frames pass, the others do not
        power = np.square(spectrum).mean(axis=(1, 3), keepdims=True)
        loud = (power > 0.16).astype(np.float32)  # 0.43 before the switch, 0.11 behind it
        return np.broadcast_to(loud, (*spectrum.shape[:3], 1)) * np.float32([1, 0])

    denoiser = Denoiser(identity)
    denoiser._masking = Masking(denoiser.spec, Network(gate))
    cleaned = denoiser.clean(sound, sample_rate)
    hop = 3 * 256
    kept, gone = cleaned[: switch - 2 * hop], cleaned[switch + 2 * hop :]
    np.testing.assert_allclose(kept, sound[: switch - 2 * hop], atol=1e-4)
    assert level.rms(gone) < 1e-5
    # no click at the switch: it never takes steps that the sound itself does not
    assert np.abs(np.diff(cleaned)).max() <= 1.01 * np.abs(np.diff(sound)).max()


def test_telephone_rate_is_not_emptied(half: Path, speech: Callable[..., np.ndarray]) -> None:
    sound = speech(3, 8000)
    cleaned = Denoiser(half).clean(sound, 8000)
    for low, high in ((100, 1000), (1000, 3000), (3500, 4000)):
        change = band_level(cleaned, 8000, low, high) - band_level(sound, 8000, low, high)
        assert change == pytest.approx(-6.02, abs=0.1)


@pytest.mark.parametrize("sample_rate", [8000, 16000, 48000])
def test_silence_stays_silence(smoothing: Path, sample_rate: int) -> None:
    silence = np.zeros((2, 2 * sample_rate), np.float32)
    assert not Denoiser(smoothing).clean(silence, sample_rate).any()


def test_stream_keeps_the_length_whatever_the_blocks(
    half: Path, noise: Callable[..., np.ndarray]
) -> None:
    sound = noise(2, 44100)[None]
    cuts = [0, 0, 1, 7, 7, 5000, 40_000, 88_199, 88_200]
    stream = Denoiser(half).stream(44100)
    pieces = [stream.process(sound[:, a:b]) for a, b in pairwise(cuts)]
    cleaned = np.concatenate([*pieces, stream.finish()], axis=1)
    np.testing.assert_allclose(cleaned, sound / 2, atol=1e-5)
    assert Denoiser(half).stream(44100).finish().shape == (1, 0)


@pytest.mark.parametrize("sample_rate", [4000, 8000, 16000, 44100, 48000, 192_000])
def test_stream_is_no_later_than_it_says(
    half: Path, rng: np.random.Generator, sample_rate: int
) -> None:
    stream = Denoiser(half).stream(sample_rate)
    assert 1.5 < stream.delay < 2
    taken = given = lag = 0
    step = sample_rate // 50
    for _ in range(250):
        taken += step
        given += stream.process(rng.uniform(-1, 1, (1, step)).astype(np.float32)).shape[1]
        lag = max(lag, taken - given)
    assert 0.9 * stream.delay < lag / sample_rate <= stream.delay


def test_stream_refuses(half: Path) -> None:
    with pytest.raises(UsageError, match="at least 1 channel"):
        Denoiser(half).stream(44100, 0)
    with pytest.raises(UsageError, match=r"must have the shape \(2, timesteps\), .*not \(1, 5\)"):
        Denoiser(half).stream(44100, 2).process(np.zeros((1, 5), np.float32))


@pytest.mark.parametrize("sample_rate", [8000, 16000, 44100])
def test_stream_refuses_the_same_at_every_rate(half: Path, sample_rate: int) -> None:
    stream = Denoiser(half).stream(sample_rate)
    with pytest.raises(UsageError, match=r"must be floating point in -1\.\.1, not int16"):
        stream.process(np.zeros((1, 5), np.int16))
    with pytest.raises(UsageError, match=r"must have the shape \(1, timesteps\)"):
        stream.process(np.zeros(5, np.float32))
    stream.process(np.zeros((1, 500), np.float64))
    assert stream.finish().dtype == np.float32
    for use in (lambda: stream.process(np.zeros((1, 5), np.float32)), stream.finish):
        with pytest.raises(UsageError, match="the stream has ended"):
            use()


@pytest.mark.parametrize("sample_rate", [16000, 44100])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_stream_leaves_the_buffer_to_the_caller(
    half: Path, noise: Callable[..., np.ndarray], sample_rate: int, dtype: type
) -> None:
    """Callbacks of sound cards fill the same buffer again and again."""
    sound = noise(2, sample_rate)[None]
    stream, size = Denoiser(half).stream(sample_rate), sample_rate // 50
    buffer = np.empty((1, size), dtype)
    pieces = []
    for start in range(0, sound.shape[1], size):
        buffer[:] = sound[:, start : start + size]
        pieces.append(stream.process(buffer))
    buffer[:] = 1
    cleaned = np.concatenate([*pieces, stream.finish()], axis=1)
    np.testing.assert_allclose(cleaned, sound / 2, atol=1e-5)


@pytest.mark.parametrize("limit", [0.0, 6.0, 20.0])
def test_attenuation_is_limited(
    nothing: Path, half: Path, speech: Callable[..., np.ndarray], limit: float
) -> None:
    sound = speech(1, 44100)
    floor = 10 ** (-limit / 20)
    cleaned = Denoiser(nothing, attenuation_limit_db=limit).clean(sound, 44100)
    np.testing.assert_allclose(cleaned, floor * sound, atol=1e-5)
    cleaned = Denoiser(half, attenuation_limit_db=limit).clean(sound, 44100)
    np.testing.assert_allclose(cleaned, (1 + floor) / 2 * sound, atol=1e-5)


def test_float64_is_taken(half: Path, speech: Callable[..., np.ndarray]) -> None:
    sound = speech(1, 16000).astype(np.float64)
    cleaned = Denoiser(half).clean(sound, 16000)
    assert cleaned.dtype == np.float32
    np.testing.assert_allclose(cleaned, sound / 2, atol=1e-5)


@pytest.mark.parametrize(
    ("sound", "message"),
    [
        (np.zeros(100, np.int16), "floating point in -1..1, not int16"),
        (np.zeros(0, np.float32), "at least one sample"),
        (np.zeros((2, 2, 50), np.float32), r"not \(2, 2, 50\)"),
        (np.array([0, 0, np.nan, 0], np.float32), "NaN or infinite sample at 0.000 s, channel 1"),
        (np.array([[0.0], [np.inf]]), "channel 2"),
        (np.array([0, -1e11, 0], np.float32), r"sample of -1e\+11 at 0\.000 s"),
        (np.zeros((50, 2)), r"would be 50 channels; .* pass audio\.T"),
        (np.zeros((1000, 2)), r"would be 1000 channels; .* pass audio\.T"),
    ],
)
def test_clean_refuses(identity: Path, sound: np.ndarray, message: str) -> None:
    with pytest.raises(AudioError, match=message):
        Denoiser(identity).clean(sound, 16000)


def test_denoiser_refuses(identity: Path, tmp_path: Path) -> None:
    for strength in (-0.1, 1.1, float("nan")):
        with pytest.raises(UsageError, match="the strength must be between 0 and 1"):
            Denoiser(identity, strength=strength)
    for limit in (-1.0, float("nan")):
        with pytest.raises(UsageError, match="limit must be at least 0 dB"):
            Denoiser(identity, attenuation_limit_db=limit)
    with pytest.raises(UsageError, match="no model 'nosuch'"):
        Denoiser("nosuch")
    with pytest.raises(UsageError, match="sample rate"):
        Denoiser(identity).clean(np.zeros(5, np.float32), 0)
    (identity / "model.onnx").unlink()
    with pytest.raises(UsageError, match=r"contains no model\.onnx"):
        Denoiser(identity)
    (identity / "model.onnx").write_text("no network")
    with pytest.raises(ModelError, match="cannot be loaded"):
        Denoiser(identity)
    (identity / "spec.json").write_text("{")
    with pytest.raises(SpecError):
        Denoiser(identity)


@pytest.mark.parametrize(
    ("source", "subtype", "target", "expected"),
    [
        ("x.wav", "PCM_16", "y.wav", "PCM_16"),
        ("x.wav", "PCM_24", "y.flac", "PCM_24"),
        ("x.wav", "FLOAT", "y.wav", "FLOAT"),
        ("x.flac", "PCM_16", "y.aiff", "PCM_16"),
        ("x.ogg", None, "y.wav", "PCM_16"),
        ("x.mp3", None, "y.wav", "PCM_16"),
        ("x.wav", "PCM_16", "y.mp3", "MPEG_LAYER_III"),
    ],
)
def test_file_keeps_its_properties(
    half: Path,
    audio_file: Callable[..., Path],
    speech: Callable[..., np.ndarray],
    tmp_path: Path,
    source: str,
    subtype: str | None,
    target: str,
    expected: str,
) -> None:
    sound = np.stack([speech(2, 44100), 0.5 * speech(2, 44100)])[:, :80_001]
    path = audio_file(source, sound, 44100, subtype)
    result = Denoiser(half).clean_file(path, tmp_path / target)
    info = soundfile.info(tmp_path / target)
    assert (info.samplerate, info.channels, info.frames) == (44100, 2, 80_001)
    assert info.subtype == expected
    assert result.seconds == pytest.approx(80_001 / 44100)
    assert result.real_time_factor == pytest.approx(result.wall_seconds / result.seconds)
    assert result.rms_out_dbfs - result.rms_in_dbfs == pytest.approx(-6.02, abs=0.01)
    assert result.clipped_samples == 0
    cleaned, _ = soundfile.read(tmp_path / target)
    lossy = source.endswith(("ogg", "mp3")) or target.endswith("mp3")
    assert np.abs(cleaned.T - sound / 2).max() < (0.1 if lossy else 1e-4)


def test_untouched_samples_keep_every_bit(
    nothing: Path, audio_file: Callable[..., Path], rng: np.random.Generator, tmp_path: Path
) -> None:
    steps = rng.integers(-(2**15), 2**15, 60_000)
    path = audio_file("x.wav", steps.astype(np.int16), 48000)
    Denoiser(nothing, strength=0.0).clean_file(path, tmp_path / "y.flac")
    np.testing.assert_array_equal(soundfile.read(tmp_path / "y.flac", dtype="int16")[0], steps)


def test_existing_target_is_refused(
    half: Path, audio_file: Callable[..., Path], speech: Callable[..., np.ndarray], tmp_path: Path
) -> None:
    path = audio_file("x.wav", speech(1, 16000))
    content = path.read_bytes()
    with pytest.raises(UsageError, match=r"x\.wav already exists"):
        Denoiser(half).clean_file(path, path)
    assert path.read_bytes() == content
    Denoiser(half).clean_file(path, path, overwrite=True)
    np.testing.assert_allclose(soundfile.read(path)[0], speech(1, 16000) / 2, atol=1e-4)
    assert [file.name for file in tmp_path.glob("*.wav")] == ["x.wav"]


def test_file_with_nan_leaves_no_output(
    half: Path, audio_file: Callable[..., Path], speech: Callable[..., np.ndarray], tmp_path: Path
) -> None:
    sound = speech(10, 48000)
    sound[450_000] = np.nan
    path = audio_file("x.wav", sound, 48000, "FLOAT")
    with pytest.raises(AudioError, match=r"x\.wav has a NaN or infinite sample at 9\.375 s"):
        Denoiser(half).clean_file(path, tmp_path / "out" / "y.wav")
    assert not list((tmp_path / "out").glob("*"))


def test_silent_file(smoothing: Path, audio_file: Callable[..., Path], tmp_path: Path) -> None:
    path = audio_file("x.wav", np.zeros((2, 48_000)), 48000)
    result = Denoiser(smoothing).clean_file(path, tmp_path / "y.wav")
    assert result.rms_in_dbfs == result.rms_out_dbfs == -np.inf
    assert not soundfile.read(tmp_path / "y.wav")[0].any()


def test_progress_reaches_the_end(
    half: Path,
    audio_file: Callable[..., Path],
    noise: Callable[..., np.ndarray],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(masking, "WHOLE", Blocks(2.0, 1.0, 1.0))
    calls = []
    path = audio_file("x.wav", noise(15, 16000))
    Denoiser(half).clean_file(
        path, tmp_path / "y.wav", on_progress=lambda done, total: calls.append((done, total))
    )
    assert len(calls) > 3
    assert calls == sorted(calls)
    assert calls[-1] == (15, 15)


@pytest.mark.slow
def test_nothing_piles_up(half: Path, noise: Callable[..., np.ndarray]) -> None:
    """A long stream is never far behind its input, so memory does not grow with the length."""
    stream = Denoiser(half).stream(44100, blocks=Blocks(2.0, 1.0, 1.0))
    block = noise(1, 44100)[None]
    taken = given = 0
    for _ in range(60):
        taken += block.shape[1]
        given += stream.process(block).shape[1]
        assert taken - given < 8 * 44100
    assert given + stream.finish().shape[1] == 60 * 44100


@pytest.mark.slow
def test_a_long_array_takes_linear_time(
    half: Path, noise: Callable[..., np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is joined for the blocks of the network stays in proportion to the length."""
    joined = 0
    concatenate = np.concatenate

    def counting(arrays: Any, *arguments: Any, **options: Any) -> np.ndarray:
        nonlocal joined
        result = concatenate(arrays, *arguments, **options)
        joined += result.size
        return result

    denoiser = Denoiser(half)
    monkeypatch.setattr(masking.np, "concatenate", counting)
    counts = []
    for seconds in (100, 400):
        joined = 0
        denoiser.clean(np.tile(noise(10, 4000), seconds // 10), 4000)
        counts.append(joined)
    assert counts[1] < 5 * counts[0]


def test_wrong_types_are_reported_in_a_sentence(half: Path) -> None:
    """In a process of its own, in which annotations are not checked."""
    program = (
        "import io, sys, numpy\n"
        "from denoisecli import Denoiser\n"
        "denoiser = Denoiser(sys.argv[1])\n"
        "for sound, rate in (([0.0], 16000), (numpy.zeros(9), 16000.5), (numpy.zeros(9), 8e3)):\n"
        "    try:\n"
        "        denoiser.clean(sound, rate)\n"
        "    except Exception as error:\n"
        "        print(error)\n"
        "from denoisecli.cleaning.file import FileOptions\n"
        "sound = numpy.zeros((1, 9), numpy.float32)\n"
        "for call in (\n"
        "    lambda: denoiser.stream(16000).process([0.0]),\n"
        "    lambda: denoiser.clean(sound, '48000'),\n"
        "    lambda: denoiser.clean(sound, None),\n"
        "    lambda: denoiser.stream(48000, 1.5),\n"
        "    lambda: Denoiser(sys.argv[1], strength='0.5'),\n"
        "    lambda: Denoiser(sys.argv[1], attenuation_limit_db='6'),\n"
        "    lambda: denoiser.clean_file(None, 'x.wav'),\n"
        "    lambda: denoiser.clean_file('x.wav', 3),\n"
        "    lambda: FileOptions(sample_rate=44100.5),\n"
        "    lambda: FileOptions(loudness='-16'),\n"
        "    lambda: denoiser.clean(sound, True),\n"
        "    lambda: denoiser.stream(48000, True),\n"
        "    lambda: Denoiser(5),\n"
        "    lambda: Denoiser(b'speech'),\n"
        "    lambda: Denoiser(threads=1.5),\n"
        "    lambda: Denoiser(threads='2'),\n"
        "    lambda: Denoiser(model_class=5),\n"
        "    lambda: denoiser.clean_file(io.StringIO(), 'x.wav'),\n"
        "    lambda: denoiser.clean_file('x.wav', io.BytesIO(), {'mono': True}),\n"
        "    lambda: FileOptions(mono='no'),\n"
        "    lambda: FileOptions(raw=5),\n"
        "    lambda: FileOptions(subtype=5),\n"
        "    lambda: FileOptions(track=True),\n"
        "    lambda: denoiser.stream(8000).process(sound + numpy.nan),\n"
        "):\n"
        "    try:\n"
        "        call()\n"
        "    except Exception as error:\n"
        "        print(error)\n"
    )
    command = [sys.executable, "-c", program, str(half)]
    result = subprocess.run(command, check=True, capture_output=True, text=True)
    lines = re.sub("<_io.StringIO.*>", "StringIO", result.stdout).splitlines()
    assert lines == [
        "audio must be a NumPy array, not list",
        "the sample rate must be a whole number of Hz, not 16000.5",
        "the sample rate must be a whole number of Hz, not 8000.0",
        "a block must be a NumPy array, not list",
        "the sample rate must be a whole number of Hz, not '48000'",
        "the sample rate must be a whole number of Hz, not None",
        "the number of channels must be a whole number, not 1.5",
        "the strength must be a number, not '0.5'",
        "the attenuation limit must be a number, not '6'",
        "a source must be a path or a binary file to read, not None",
        "a target must be a path or a binary file to write, not 3",
        "the sample rate must be a whole number of Hz, not 44100.5",
        "the loudness must be a number, not '-16'",
        "the sample rate must be a whole number of Hz, not True",
        "the number of channels must be a whole number, not True",
        "a model must be the path of a folder or a name, not 5",
        "a model must be the path of a folder or a name, not b'speech'",
        "the number of threads must be a whole number, not 1.5",
        "the number of threads must be a whole number, not '2'",
        "the class must be a string, not 5",
        "a source must be a path or a binary file to read, not StringIO",
        "the options must be FileOptions, not {'mono': True}",
        "mono must be True or False, not 'no'",
        "raw must be a RawFormat, not 5",
        "the subtype must be a string, not 5",
        "the track must be a whole number, not True",
        "the stream has a NaN or infinite sample at 0.000 s, channel 1",
    ]


def test_a_denoiser_is_pickled_as_its_arguments(
    half: Path, speech: Callable[..., np.ndarray]
) -> None:
    sound = speech(1, 16000)
    copy = pickle.loads(pickle.dumps(Denoiser(half, strength=0.5)))
    np.testing.assert_allclose(copy.clean(sound, 16000), 0.75 * sound, atol=1e-5)


def _clean_and_send(denoiser: Denoiser, sound: np.ndarray, connection: Connection) -> None:
    connection.send(denoiser.clean(sound, 16000))


def test_a_denoiser_finds_its_model_from_another_working_directory(
    half: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As a process that daemonizes, or a worker that was started elsewhere."""
    monkeypatch.chdir(half.parent)
    denoiser = Denoiser(half.name)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    copy = pickle.loads(pickle.dumps(denoiser))
    np.testing.assert_allclose(copy.clean(np.ones(800), 16000), np.full(800, 0.5), atol=1e-5)
    bundled = pickle.dumps(Denoiser("speech"))
    assert str(catalogue.PRETRAINED).encode() not in bundled  # another machine has another path


@pytest.mark.parametrize("sample_rate", [0, 48, 999])
def test_sample_rates_in_khz_are_incorrect_usage(half: Path, sample_rate: int) -> None:
    """They would take minutes."""
    with pytest.raises(UsageError, match=f"must be 1000 to 10000000 Hz, not {sample_rate}"):
        Denoiser(half).clean(np.ones(100), sample_rate)


@pytest.mark.parametrize("sample_rate", [800, 100_000_000])
def test_an_absurd_sample_rate_is_an_error_of_its_file(
    half: Path, audio_file: Callable[..., Path], tmp_path: Path, sample_rate: int
) -> None:
    path = audio_file("odd.wav", np.ones(1000), sample_rate)
    message = f"odd.wav cannot be cleaned: the sample rate must be .*, not {sample_rate}"
    with pytest.raises(AudioError, match=message):
        Denoiser(half).clean_file(path, tmp_path / "out.wav")


def test_a_name_that_is_too_long_for_a_path_is_no_model() -> None:
    with pytest.raises(UsageError, match="no model"):
        Denoiser("x" * 5000)


def test_no_more_threads_than_cores_are_started(half: Path) -> None:
    Denoiser(half, threads=10**6)  # each would cost memory and time


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_denoiser_works_after_a_fork(half: Path, speech: Callable[..., np.ndarray]) -> None:
    """The fork method is the default of multiprocessing on Linux before Python 3.14."""
    sound, denoiser = speech(1, 16000), Denoiser(half, threads=2)
    denoiser.clean(sound, 16000)  # its threads run
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_clean_and_send, args=(denoiser, sound, sender))
    process.start()
    try:
        assert receiver.poll(60)
        np.testing.assert_allclose(receiver.recv(), sound / 2, atol=1e-5)
        process.join(60)
        assert process.exitcode == 0
    finally:
        process.kill()
