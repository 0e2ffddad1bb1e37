import json
import shutil
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from helpers import constant_mask, denoise, fails, pink_noise

from denoisecli.adaptation import adapt as module
from denoisecli.adaptation import blending, judgement, material, page
from denoisecli.adaptation.adapt import WORK, AdaptResult, adapt
from denoisecli.adaptation.judgement import METRICS, SPEECH, YOURS, Comparison, Verdict, reasons
from denoisecli.adaptation.material import Material
from denoisecli.adaptation.recipe import LOSSES, adaptation_spec
from denoisecli.cleaning.denoiser import Denoiser
from denoisecli.cli import adapting
from denoisecli.errors import DenoiseError, Interrupted, UsageError
from denoisecli.models.catalogue import load_spec
from denoisecli.models.folder import ModelFolder
from denoisecli.spec.document import Spec, parse_spec
from denoisecli.training.mixed_batches import Mixing

RATE = 16000

ROWS = [Comparison(YOURS, metric, 0.5, 0.75, 0.25, 0.125, 0.375, 48) for metric in METRICS]


class Recorder:
    """An observer that keeps what it is told."""

    def __init__(self) -> None:
        self.messages: list[str] = []
        self.stages: list[str] = []

    def on_message(self, text: str) -> None:
        self.messages.append(text)

    def on_detail(self, text: str) -> None: ...

    def on_stage(self, stage: str, done: float, total: float) -> None:
        assert 0 <= done <= total
        if stage not in self.stages:
            self.stages.append(stage)


@pytest.fixture
def fan(audio_file: Callable[..., Path], rng: np.random.Generator) -> Path:
    """A minute of noise."""
    return audio_file("fan.wav", pink_noise(60, RATE, rng), RATE)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Train for a few steps on little sound, and compare on few mixtures."""
    voice = material.voices()[:1]  # minutes
    monkeypatch.setattr(material, "voices", lambda: voice)
    monkeypatch.setattr(module, "SECONDS", 1.5)
    monkeypatch.setattr(module, "LEAST_TRAINING", 0.01)
    for name in ("GENERATED", "CLEAN"):
        monkeypatch.setattr(judgement, name, 2)


@pytest.fixture
def untrained(quick: None, tiny_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the model of `tiny_run` for the result of the training."""

    def copy(spec: Spec, mixing: Mixing, run: Path, *_: Any, **options: Any) -> Path:
        return Path(shutil.copytree(tiny_run / "model", run / "model"))

    monkeypatch.setattr(module, "train", copy)


def judged(monkeypatch: pytest.MonkeyPatch, *reasons: str) -> None:
    """Replace the comparison of the models, which needs processes of their own, by its result."""
    monkeypatch.setattr(module, "judge", lambda *_: Verdict(ROWS, list(reasons)))


def fake_blend(
    spec: Spec, start: ModelFolder, trained: ModelFolder, share: float, target: Path
) -> None:
    shutil.copytree(trained.path, target, dirs_exist_ok=True)


@pytest.mark.slow
def test_a_better_model_is_written(
    fan: Path,
    tiny_run: Path,
    quick: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    judged(monkeypatch)
    observer = Recorder()
    output = tmp_path / "my studio"
    result = adapt([], output, observer, noise=[fan], model=tiny_run, minutes=0.01)
    assert result.output == output
    assert "noise: 40 s to train with, 20 s held out" in observer.messages[0]
    assert observer.stages[:2] == ["reading recordings", "training"]
    assert [path.name for path in tmp_path.glob(f"*{WORK}")] == []
    folder = ModelFolder(output)
    assert folder.spec.name == "my-studio"
    assert folder.spec.training.start_share == result.start_share
    assert "40 s of noise, drawn with weights 1 own and 1 generated" in folder.spec.description
    facts = module._Facts.model_validate_json((output / module.FACTS).read_bytes())
    assert facts.noise_weights == module.NOISE_WEIGHTS
    assert facts.training_minutes == pytest.approx(0.01)
    assert facts.result == result and result.start == str(tiny_run)
    metrics = folder.read_metrics()
    assert metrics.onnx_difference is not None
    assert (metrics.validation, metrics.test) == ({}, {})  # those of the weights before the mean
    sound = pink_noise(1, 4000, np.random.default_rng(0))
    assert Denoiser(output).clean(sound, 4000).shape == sound.shape


@pytest.mark.slow
def test_a_model_that_is_not_better_is_not_written(
    fan: Path,
    tiny_run: Path,
    untrained: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    judged(monkeypatch, "ESTOI on held-out noise is not significantly better")
    result = adapt([], tmp_path / "new", noise=[fan], model=tiny_run, minutes=0.01)
    assert result.output is None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fan.wav"]


@pytest.mark.slow
def test_an_interrupted_adaptation_continues(
    fan: Path,
    tiny_run: Path,
    untrained: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    judged(monkeypatch)
    output, work = tmp_path / "new", tmp_path / f"new{WORK}"
    real = module.train

    def interrupted(*arguments: Any, **options: Any) -> Path:
        raise Interrupted("stopped")

    def call(**options: Any) -> AdaptResult:
        return adapt([], output, noise=[fan], model=tiny_run, minutes=0.01, **options)

    monkeypatch.setattr(module, "train", interrupted)
    with pytest.raises(Interrupted):
        call()
    assert not output.exists()
    pieces = {path: path.stat().st_mtime_ns for path in (work / "noise").iterdir()}
    assert pieces
    with pytest.raises(UsageError, match="other recordings"):
        adapt([shutil.copy(fan, tmp_path / "take.wav")], output, noise=[fan], model=tiny_run)
    monkeypatch.setattr(module, "train", real)
    monkeypatch.setattr(module, "write_blend", interrupted)
    with pytest.raises(Interrupted):  # after the training
        call()
    assert {path: path.stat().st_mtime_ns for path in (work / "noise").iterdir()} == pieces
    monkeypatch.setattr(module, "write_blend", blending.write_blend)
    monkeypatch.setattr(module, "train", interrupted)  # as it is finished
    assert call().output == output
    assert not work.exists()


def test_the_model_that_suits_the_sample_rate_is_adapted(
    audio_file: Callable[..., Path], rng: np.random.Generator
) -> None:
    """As `clean` uses another one for recordings up to 16 kHz."""
    low, high = (
        audio_file(f"{rate}.wav", pink_noise(0.1, rate, rng), rate) for rate in (16000, 44100)
    )
    observer = Recorder()
    assert module._find_start("speech", [high, low], observer).path.name == "speech"
    assert observer.messages == []
    assert module._find_start("speech", [low], observer).path.name == "speech-16k"
    assert observer.messages == [
        "adapting speech-16k, the counterpart of speech for recordings up to 16 kHz"
    ]
    assert module._find_start("speech-live", [low], observer).path.name == "speech-live-16k"


def test_a_page_that_fails_or_is_interrupted_costs_nothing(
    fan: Path,
    model_folder: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    judged(monkeypatch)
    output = tmp_path / "new"
    start = model_folder(constant_mask(0.5))
    (start / "metrics.json").write_text("{}")

    def copy(spec: Spec, mixing: Mixing, run: Path, *_: Any, **options: Any) -> Path:
        return Path(shutil.copytree(start, run / "model"))

    monkeypatch.setattr(module, "train", copy)
    raised: list[Exception] = [Interrupted("stopped"), DenoiseError("the disk is full")]

    def evaluate(*_: Any, keep: Path, **options: Any) -> None:
        assert not keep.exists()  # or it would be refused
        (keep / "before").mkdir(parents=True)
        raise raised.pop(0)

    monkeypatch.setattr(page, "evaluate", evaluate)
    monkeypatch.setattr(module, "write_blend", fake_blend)
    sound = [[pink_noise(2, RATE, np.random.default_rng(0))]]
    found = Material(RATE, sound, sound, sound, sound, sound, 0.0)
    monkeypatch.setattr(module, "gather", lambda *_: found)
    monkeypatch.setattr(module, "_write_sources", lambda material, folder: folder.mkdir())
    monkeypatch.setattr(module, "seconds_to_judge", lambda *_: 1.0)
    monkeypatch.setattr(module, "comparison_sets", lambda *_: {})
    for expected, written in ((Interrupted, False), (DenoiseError, True)):
        with pytest.raises(expected):
            adapt([], output, noise=[fan], model=start, report=tmp_path / "page.html")
        assert output.exists() == written
        monkeypatch.setattr(module, "train", None)  # it is not trained again


def test_wrong_use_is_refused_at_once(fan: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="needs noisy recordings, or"):
        adapt([], tmp_path / "new")
    with pytest.raises(UsageError, match=r"missing\.wav does not exist"):
        adapt([tmp_path / "missing.wav"], tmp_path / "new")
    with pytest.raises(UsageError, match="already exists"):
        adapt([fan], tmp_path)
    with pytest.raises(UsageError, match="must be a new folder"):
        adapt([fan], ".")
    with pytest.raises(UsageError, match=r"\.html"):
        adapt([fan], tmp_path / "new", report=tmp_path / "page.txt")
    with pytest.raises(UsageError, match="more than 0 minutes"):
        adapt([fan], tmp_path / "new", minutes=0.0)


def test_what_is_given_alone_is_no_noisy_recording(
    fan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    roles: list[list[Path]] = []

    def gather(*files: list[Path]) -> None:
        roles.extend(files[:3])
        raise DenoiseError("stop here")

    monkeypatch.setattr(module, "gather", gather)
    takes = [shutil.copy(fan, fan.with_name(name)) for name in ("me.wav", "take.wav")]
    with pytest.raises(DenoiseError, match="stop here"):
        adapt([fan.parent], tmp_path / "new", noise=[fan], speech=[takes[0]])
    assert roles == [[fan.with_name("take.wav")], [fan], [fan.with_name("me.wav")]]


@pytest.mark.parametrize("name", ["speech", "speech-live", "tiny"])
def test_the_recipe_is_a_spec_that_keeps_the_network(name: str) -> None:
    start = load_spec(name)
    spec = adaptation_spec(start, "../my studio!", 5.0)
    assert spec.name == "my-studio"
    assert parse_spec(json.loads(spec.model_dump_json())) == spec
    for section in ("audio", "stft", "features", "downsampling", "valley", "upsampling", "output"):
        assert getattr(spec, section) == getattr(start, section)
    assert spec.training.losses == LOSSES


def test_folders_are_searched_for_all_that_can_be_cleaned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "reader", lambda path, keep_readable: nullcontext())
    for name in ("a.m4a", "b.wav", "c.txt"):
        (tmp_path / name).touch()
    assert module._expand([tmp_path], module._Silent()) == [tmp_path / "a.m4a", tmp_path / "b.wav"]


def test_a_class_of_the_users_own_is_asked_for_before_the_work(
    fan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = load_spec("tiny").model_copy(update={"model": "mine:Small"})
    monkeypatch.setattr(module, "_find_start", lambda *_: SimpleNamespace(spec=spec))
    with pytest.raises(UsageError, match="--model-class mine:Small"):
        adapt([fan], tmp_path / "new")
    assert not (tmp_path / "new.adapting").exists()


def test_the_recipe_fits_models_at_any_rate() -> None:
    document = json.loads(load_spec("tiny").model_dump_json())
    document["audio"]["sample_rate"] = 11025
    document["training"]["losses"] = ["si_sdr"]
    spec = adaptation_spec(parse_spec(document), "new", 5.0)
    assert {x.kind for x in LOSSES} - {x.kind for x in spec.training.losses} == {"perceptual"}
    assert parse_spec(json.loads(spec.model_dump_json())) == spec


def test_the_command_shows_what_was_gained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapting, "load_keras", lambda purpose: None)
    result = AdaptResult(tmp_path, "speech", 40.0, 0.0, 20.0, 200.0, 0.25, Verdict(ROWS, []), 4.25)
    monkeypatch.setattr(module, "adapt", lambda *_, **options: result)
    shown = denoise("adapt", "take.wav", "-o", tmp_path)
    assert shown.exit_code == 0, shown.output
    assert "held-out noise" in shown.stdout
    assert "+0.25" in shown.stdout
    assert "4.2 minutes (75% adapted, 25% speech)" in shown.stderr
    document = json.loads(denoise("adapt", "take.wav", "-o", tmp_path, "--json").stdout)
    assert document["output"] == str(tmp_path)
    assert document["verdict"]["comparisons"][0]["metric"] == METRICS[0]
    assert document["verdict"]["reasons"] == []


def test_the_command_says_that_nothing_was_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapting, "load_keras", lambda purpose: None)
    rows = [Comparison(YOURS, "si_sdr", 0.5, 0.52, 0.02, 0.01, 0.03, 48)]
    verdict = Verdict(rows, reasons(rows))
    result = AdaptResult(None, "speech", 40.0, 0.0, 20.0, 200.0, 0.25, verdict, 4.25)
    monkeypatch.setattr(module, "adapt", lambda *_, **options: result)
    shown = denoise("adapt", "take.wav", "-o", tmp_path)
    assert shown.exit_code == 0
    assert "already as good on these recordings; nothing was written" in shown.stderr
    assert "hardly better: +0.02" in shown.stderr
    fails(denoise("adapt", "-o", tmp_path / "new", "--minutes", "0"), 2, "minutes")


def test_the_command_tells_a_model_that_loses_elsewhere_from_one_that_gains_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapting, "load_keras", lambda purpose: None)
    of_noise = Comparison(YOURS, "estoi", 0.5, 0.5001, 0.0001, -0.001, 0.001, 48)
    unchanged = Comparison(YOURS, "si_sdr", 9.0, 9.001, 0.001, 0.0, 0.002, 48)
    elsewhere = Comparison(SPEECH, "si_sdr", 20.0, 19.7, -0.3, -0.4, -0.2, 9)
    for start, rows, words in (
        ("speech", [of_noise], "the bundled model is already as good on these recordings; nothing"),
        ("my-model", [of_noise, elsewhere], "my-model is already as good on these recordings;"),
        ("speech", [unchanged], "the training was too short to change the model; give it more"),
        ("speech", [elsewhere], "the adapted model is not worth keeping, so nothing was written: "),
    ):
        verdict = Verdict(rows, reasons(rows))
        result = AdaptResult(None, start, 40.0, 0.0, 20.0, 200.0, 0.25, verdict, 4.25)
        monkeypatch.setattr(module, "adapt", lambda *_, given=result, **options: given)
        shown = denoise("adapt", "take.wav", "-o", tmp_path)
        assert words in shown.stderr.replace("\n", " ")
        assert verdict.reasons[-1] in shown.stderr.replace("\n", " ")


@pytest.mark.slow
def test_a_model_is_adapted_and_compared_for_real(
    fan: Path,
    tiny_run: Path,
    quick: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sets = module.comparison_sets
    monkeypatch.setattr(
        module, "comparison_sets", lambda material, seed, *_: sets(material, seed, 4)
    )
    page = tmp_path / "page.html"
    result = adapt([], tmp_path / "new", noise=[fan], model=tiny_run, minutes=0.01, report=page)
    assert len(result.verdict.comparisons) == 6
    assert all(np.isfinite(one.gain) for one in result.verdict.comparisons)
    assert (result.output is not None) == result.verdict.is_better == (tmp_path / "new").exists()
    assert page.read_text().count("<audio") >= 2 or "data:audio" in page.read_text()
