"""The scripts that make and fetch recordings for training."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import keras
import numpy as np
import pytest
import scipy.signal

from denoisecli.errors import UsageError
from denoisecli.models.folder import Metrics, ModelFolder
from denoisecli.models.registry import build_model
from denoisecli.spec.document import parse_spec

SCRIPTS = Path(__file__).parents[2] / "examples" / "training-speech"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, SCRIPTS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look themselves up there
    spec.loader.exec_module(module)
    return module


noises, whispers, fetching, averaging, _, deepening = map(
    load, ("make_noises", "make_whispers", "fetch_more", "average", "widen", "deepen")
)


def power_share(sound: np.ndarray, low: float, high: float, sample_rate: int = 48000) -> float:
    power = np.abs(np.fft.rfft(sound)) ** 2
    frequency = np.fft.rfftfreq(sound.size, 1 / sample_rate)
    return power[(frequency >= low) & (frequency < high)].sum() / power.sum()


class FakeNetwork:
    def __init__(self, weight: float) -> None:
        self.weights = [np.array([weight])]

    def get_weights(self):
        return self.weights

    def set_weights(self, weights):
        self.weights = weights


def test_the_mean_of_two_models_has_no_figures_of_either(tmp_path, monkeypatch):
    written = {}
    networks = {"first": FakeNetwork(1.0), "second": FakeNetwork(3.0)}
    monkeypatch.setattr(ModelFolder, "load_network", lambda self: networks[self.path.name])
    monkeypatch.setattr(
        ModelFolder, "write_network", lambda self, network: written.update(mean=network) or 0.25
    )
    models = []
    for name, sources in (("first", "aa bb"), ("second", "bb cc")):
        models.append(ModelFolder(tmp_path / name))
        models[-1].path.mkdir()
        figures = {"validation": {"val_loss": 1.0}, "test": {"loss": 1.0}, "onnx_difference": 9.0}
        models[-1].write_metrics(Metrics(epochs=3, training_sources=sources, **figures))
    averaging.average(*models, 0.25, ModelFolder(tmp_path / "mean"))
    assert written["mean"].weights[0] == 2.5
    metrics = ModelFolder(tmp_path / "mean").read_metrics()
    assert (metrics.validation, metrics.test, metrics.onnx_difference) == ({}, {}, 0.25)
    assert (metrics.training_sources, metrics.epochs) == ("aa bb cc", 3)


def test_new_blocks_change_nothing_at_first(tmp_path, rng):
    gru = {"block": "recurrent", "axis": "time", "units": 4, "bidirectional": False}
    convolution = {"block": "convolution", "filters": 4, "kernel_size": [1, 3]}
    document = {
        "name": "small",
        "downsampling": [{"filters": 4, "strides": [4, 1]}],
        "valley": [gru, convolution],
        "upsampling": [{"filters": 4}],
    }
    network = build_model(parse_spec(document))
    model = ModelFolder(tmp_path / "small")
    model.path.mkdir()
    model.write_network(network)
    model.write_metrics(Metrics(training_sources="aa"))
    more = [gru, {**gru, "axis": "frequency", "units": 3}, {**gru, "units": 5}, convolution]
    (tmp_path / "deep.json").write_text(json.dumps({**document, "name": "deep", "valley": more}))
    deepening.deepen(model, tmp_path / "deep.json", ModelFolder(tmp_path / "deep"))
    deep = ModelFolder(tmp_path / "deep")
    assert deep.read_metrics().training_sources == "aa"
    spectrum = rng.standard_normal((1, 257, 9, 2)).astype(np.float32)
    expected = keras.ops.convert_to_numpy(network(spectrum))
    found = keras.ops.convert_to_numpy(deep.load_network()(spectrum))
    np.testing.assert_allclose(found, expected, atol=1e-6)
    with pytest.raises(UsageError, match="small is not deep with more recurrent blocks"):
        deepening.inserted(deep.spec, model.spec)


def test_whispers_of_files_of_one_name_do_not_replace_each_other():
    speech = Path("speech")
    names = {whispers.file_name(speech / name, speech) for name in ("a/1.wav", "b/1.wav")}
    assert names == {"a-1.flac", "b-1.flac"}


def test_clips_of_noise_are_written_by_kind(tmp_path, monkeypatch):
    arguments = ["x", str(tmp_path), "--minutes", "0.01", "--kinds", "beeps", "hiss"]
    monkeypatch.setattr(sys, "argv", arguments)
    noises.main()
    written = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.flac"))
    assert written == ["beeps/0000.flac", "hiss/0000.flac"]


def test_words_are_trimmed_and_strung_together(rng):
    rate = 16000
    word = np.concatenate([np.zeros(rate), 0.3 * rng.standard_normal(rate), np.zeros(rate)])
    word = word.astype(np.float32)
    trimmed = fetching.trim(word, rate)
    assert trimmed.size == pytest.approx(1.16 * rate, abs=0.03 * rate)
    assert trimmed[0] == trimmed[-1] == 0
    assert fetching.trim(np.zeros(rate, np.float32), rate).size == 0
    clips = fetching.string_words([trimmed] * 20, rate)
    assert len(clips) == 3
    assert max(clip.size for clip in clips) <= (fetching.LINE + fetching.PAUSE) * rate
    silent = sum(np.count_nonzero(clip == 0) for clip in clips)
    assert silent >= 20 * fetching.PAUSE * rate


def test_the_snr_is_that_of_speech_and_its_pauses(speech, rng):
    rate = 16000
    clean = speech(4, rate)
    clean[rate : 2 * rate] = 0
    for snr_db in (20, 40):
        noise = rng.standard_normal(clean.size) * np.std(clean[clean != 0]) * 10 ** (-snr_db / 20)
        sound = (clean + noise).astype(np.float32)
        assert fetching.signal_to_noise_db(sound, rate, 0.05) == pytest.approx(snr_db, abs=4)
        sound[: rate // 2] = 0  # an eighth, as MP3 files begin
        assert fetching.signal_to_noise_db(sound, rate, 0.2) == pytest.approx(snr_db, abs=6)


@pytest.mark.parametrize("sample_rate", [16000, 48000])
def test_a_whisper_keeps_the_envelope_and_loses_the_pitch(rng, sample_rate):
    timesteps, period = sample_rate, sample_rate // 125
    pulses = np.zeros(timesteps)
    pulses[::period] = 1
    voice = 0.01 * rng.standard_normal(timesteps) * (np.arange(timesteps) % period < period // 8)
    for formant, width in ((700, 100), (1800, 120)):
        radius = np.exp(-np.pi * width / sample_rate)
        turn = 2 * radius * np.cos(2 * np.pi * formant / sample_rate)
        pulses = scipy.signal.lfilter([1], [1, -turn, radius**2], pulses)
    voice = 0.1 * (voice + pulses / np.std(pulses)).astype(np.float32)
    voice[: sample_rate // 4] *= 1e-4  # a pause
    sound = whispers.whisper(voice, sample_rate, rng)
    assert sound.shape == voice.shape
    assert np.all(np.isfinite(sound))
    assert 9.9 < 20 * np.log10(np.std(voice) / np.std(sound)) < 25.1

    def pitch(sound: np.ndarray) -> float:
        part = sound[sample_rate // 2 :].astype(float)
        return np.dot(part[period:], part[:-period]) / np.dot(part, part)

    assert pitch(voice) > 0.9
    assert abs(pitch(sound)) < 0.3
    below, above = (power_share(s, 1400, 2400, sample_rate) for s in (voice, sound))
    assert above > 2 * below
    assert np.std(sound[: sample_rate // 8]) < 0.01 * np.std(sound)


def test_the_floor_is_lowered_and_the_voice_is_kept(rng):
    sample_rate, seconds = 24000, 2
    time = np.arange(seconds * sample_rate) / sample_rate
    voice = 0.2 * np.sin(2 * np.pi * 400 * time) * (time % 1 < 0.6)
    noisy = (voice + 0.0005 * rng.standard_normal(time.size)).astype(np.float32)
    quieter = fetching.lower_floor(noisy, sample_rate)
    assert quieter.shape == noisy.shape
    pause = (time % 1 > 0.7) & (time % 1 < 0.9)
    assert 20 * np.log10(np.std(noisy[pause]) / np.std(quieter[pause])) > 10
    assert 20 * np.log10(np.std(noisy[~pause]) / np.std(quieter[~pause])) == pytest.approx(
        0, abs=0.1
    )


def test_short_events_are_strung_together(rng):
    events = [np.full(800, level, np.float32) for level in np.linspace(0.1, 0.9, 60)]
    clips = fetching.string_together(events, 8000, rng)
    assert len(clips) > 1
    assert all(clip.size > 8 * 8000 for clip in clips[:-1])
    assert sum(np.count_nonzero(clip) for clip in clips) == 60 * 800
    assert max(np.abs(clip).max() for clip in clips) < 1


def test_only_credited_files_are_taken(tmp_path):
    checkout = tmp_path / "sounds"
    checkout.mkdir()
    rows = {"door": "**CC0 1.0**", "rain": "CC BY 3.0", "car": "CC BY-NC 3.0", "bell": "Sampling"}
    table = "".join(f"| {name}.ogg | someone | {licence} | |\n" for name, licence in rows.items())
    (checkout / "credits.md").write_text(f"| File | Author | License | Link |\n{table}")
    for name in (*rows, "unknown", "speech"):
        (checkout / f"{name}.ogg").touch()
    source = fetching.Source("noise/x", "a/b", "0" * 40, ("*.ogg",), ("speech",), credited=True)
    assert [path.stem for path in fetching.select(source, checkout)] == ["door", "rain"]
