import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
from helpers import pink_noise

from denoisecli.adaptation import adapt as module
from denoisecli.adaptation import material
from denoisecli.adaptation.adapt import WORK, adapt
from denoisecli.adaptation.judgement import (
    METRICS,
    OTHERS,
    SPEECH,
    YOURS,
    Comparison,
    Verdict,
    reasons,
)
from denoisecli.adaptation.material import Material, voices
from denoisecli.audio.files import read_mono
from denoisecli.cleaning.denoiser import Denoiser
from denoisecli.errors import DenoiseError, UsageError
from denoisecli.models.catalogue import load_spec

RATE = 16000


class Stop(Exception):
    """Ends an adaptation where its test is over."""


class Messages(list[str]):
    """An observer that keeps the messages."""

    def on_message(self, text: str) -> None:
        self.append(text)

    def on_detail(self, text: str) -> None: ...

    def on_stage(self, stage: str, done: float, total: float) -> None: ...


@pytest.fixture
def fan(audio_file: Callable[..., Path], rng: np.random.Generator) -> Path:
    return audio_file("fan.wav", pink_noise(13, RATE, rng), RATE)


@pytest.fixture
def stopping(monkeypatch: pytest.MonkeyPatch) -> None:
    """Raise Stop where recordings are read, and load no network."""

    def stop(*_: Any) -> Material:
        raise Stop

    monkeypatch.setattr(module, "gather", stop)
    monkeypatch.setattr(module, "Denoiser", lambda path: None)


def test_what_an_interrupted_call_has_written_is_no_recording(
    fan: Path, tmp_path: Path, stopping: None, audio_file: Callable[..., Path]
) -> None:
    """If its output is in the folder of the recordings."""
    before = module._files_by_role([tmp_path], [], [], Messages())
    audio_file("mine.adapting/clean/clip-000/speed-1.wav", np.zeros(9), RATE)
    assert module._files_by_role([tmp_path], [], [], Messages()) == before == {
        "recordings": [fan], "noise": [], "speech": []
    }  # fmt: skip


def test_what_cannot_be_read_in_a_folder_is_left_out(fan: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.wav").touch()
    (tmp_path / "damaged.flac").write_bytes(b"fLaC" + bytes(100))
    messages = Messages()
    assert module._expand([tmp_path], messages) == [fan]
    assert len(messages) == 2
    assert all(text.startswith("warning: left out: ") for text in messages)


def test_only_a_model_is_replaced(fan: Path, tmp_path: Path, stopping: None) -> None:
    """The folder of the recordings is not, nor is a file."""
    for output in (fan.parent, fan):
        with pytest.raises(UsageError, match="exists and is not a model folder"):
            adapt([], output, noise=[fan], overwrite=True)
    model = tmp_path / "model"
    model.mkdir()
    (model / "spec.json").touch()
    with pytest.raises(UsageError, match="already exists; give --overwrite"):
        adapt([], model, noise=[fan])
    with pytest.raises(Stop):
        adapt([], model, noise=[fan], overwrite=True)


def test_what_cannot_be_written_is_refused_before_any_work(
    fan: Path, tmp_path: Path, stopping: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DenoiseError, match=r"fan\.wav is not a folder"):
        adapt([], fan / "new", noise=[fan])
    with pytest.raises(DenoiseError, match=r"page\.html: .*fan\.wav is not a folder"):
        adapt([], tmp_path / "new", noise=[fan], report=fan / "page.html")
    with pytest.raises(UsageError, match=r"page\.html must be outside the new model folder"):
        adapt([], tmp_path / "new", noise=[fan], report=tmp_path / "new" / "page.html")
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(DenoiseError, match=f"no permission to write to {tmp_path}"):
        adapt([], tmp_path / "deep" / "new", noise=[fan])


def test_an_adaptation_that_continues_says_so(fan: Path, tmp_path: Path, stopping: None) -> None:
    work = tmp_path / f"new{WORK}"
    work.mkdir()
    files = {"recordings": [], "noise": [fan], "speech": []}
    start = module._find_start("speech", [fan], Messages())
    digest = module._digest(files, start)
    begun = module._Begun(run="a", inputs=digest, minutes=5, training_minutes=3)
    (work / "begun.json").write_text(begun.model_dump_json())
    for minutes, expected in ((5.0, ""), (2.0, ", with 2 minutes in place")):
        messages = Messages()
        with pytest.raises(Stop):
            adapt([], tmp_path / "new", messages, noise=[fan], minutes=minutes)
        assert messages[1:] == [f"continuing the adaptation{expected} of 5 minutes in {work}"]


@pytest.mark.parametrize(("minutes", "left"), [(5.0, 3.0), (4.0, 2.0), (0.1, 0.01), (6.0, 4.0)])
def test_fewer_minutes_end_a_training_that_is_continued(
    fan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, minutes: float, left: float
) -> None:
    trained: list[float] = []

    def train(*_: Any, minutes: float, **options: Any) -> None:
        trained.append(minutes)
        raise Stop

    sound = [[np.ones(RATE, np.float32)]]
    gathered = Material(RATE, sound, sound, sound, sound, sound, 0.0)
    monkeypatch.setattr(module, "Denoiser", lambda path: None)
    monkeypatch.setattr(module, "gather", lambda *_: gathered)
    monkeypatch.setattr(module, "comparison_sets", lambda *_: {})
    monkeypatch.setattr(module, "train", train)
    work = tmp_path / f"new{WORK}"
    work.mkdir()
    start = module._find_start("speech", [fan], Messages())
    digest = module._digest({"recordings": [], "noise": [fan], "speech": []}, start)
    begun = module._Begun(run="a", inputs=digest, minutes=5, training_minutes=3)
    (work / "begun.json").write_text(begun.model_dump_json())
    with pytest.raises(Stop):
        adapt([], tmp_path / "new", noise=[fan], minutes=minutes)
    assert trained == [pytest.approx(left)]


def test_what_is_left_of_a_finished_adaptation_is_removed(
    fan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, finished: None
) -> None:
    """As it was killed in the moment between writing the model and removing its folder."""
    output, work = tmp_path / "new", tmp_path / f"new{WORK}"
    rmtree = shutil.rmtree

    def killed(path: Path, *arguments: Any, **options: Any) -> None:
        if path == work:
            raise Stop
        rmtree(path, *arguments, **options)

    monkeypatch.setattr(shutil, "rmtree", killed)
    with pytest.raises(Stop):
        adapt([], output, noise=[fan])
    monkeypatch.setattr(shutil, "rmtree", rmtree)
    assert output.is_dir() and work.is_dir()
    with pytest.raises(UsageError, match="already exists"):
        adapt([], output, noise=[fan])
    assert not work.exists()


def test_speech_in_recordings_of_noise_is_reported(
    fan: Path, audio_file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    denoiser = Mock(Denoiser)
    denoiser.spec = load_spec("speech-16k")
    voice = read_mono(voices()[0], RATE)[0][: 2 * RATE]
    monkeypatch.setattr(material, "voices", lambda: [fan])
    talk = audio_file("talk.wav", voice, RATE)
    found = material.gather([], [fan, talk], [], denoiser)
    assert len(found.warnings) == 1
    assert f"there is speech in {talk}; with --noise" in found.warnings[0]
    messages = Messages()
    module._report_material(found, False, messages)
    assert messages[0] == found.warnings[0]


@pytest.fixture
def finished(monkeypatch: pytest.MonkeyPatch) -> None:
    """Adapt without a training: the model is better."""

    def blend(*arguments: Any) -> None:
        arguments[4].mkdir(exist_ok=True)
        (arguments[4] / "spec.json").touch()

    sound = [[np.ones(RATE, np.float32)]]
    gathered = Material(RATE, sound, sound, sound, sound, sound, 0.0)
    for name, value in {
        "Denoiser": lambda path: None,
        "gather": lambda *_: gathered,
        "_write_sources": lambda material, folder: folder.mkdir(),
        "seconds_to_judge": lambda *_: 1.0,
        "train": lambda *_, **options: None,
        "write_blend": blend,
        "comparison_sets": lambda *_: {},
        "judge": lambda *_: Verdict([], []),
    }.items():
        monkeypatch.setattr(module, name, value)


@pytest.mark.parametrize(
    ("worse", "shares", "is_written"),
    [
        ([None], [0.5], True),
        ([OTHERS, None], [0.5, 0.75], True),
        ([SPEECH, SPEECH], [0.5, 0.75], False),
        ([YOURS], [0.5], False),  # more of the start would gain even less
    ],
)
def test_more_of_the_start_is_taken_if_the_model_is_only_worse_elsewhere(
    fan: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    finished: None,
    worse: list[str | None],
    shares: list[float],
    is_written: bool,
) -> None:
    """`worse` is the set on which the model is worse, in the comparison of each share."""
    tried, found = [], iter(worse)
    blend = module.write_blend

    def note(*arguments: Any) -> None:
        tried.append(arguments[3])
        blend(*arguments)

    def judge(*_: Any) -> Verdict:
        gains = dict.fromkeys((YOURS, OTHERS, SPEECH), 1.0) | {next(found): -1.0}
        rows = [
            Comparison(name, metric, 0.0, gain, gain, gain, gain, 48)
            for name, gain in gains.items()
            if name
            for metric in METRICS
        ]
        return Verdict(rows, reasons(rows))

    monkeypatch.setattr(module, "write_blend", note)
    monkeypatch.setattr(module, "judge", judge)
    result = adapt([], tmp_path / "new", noise=[fan])
    assert tried == shares
    assert result.start_share == shares[-1]
    assert (result.output is not None) == is_written


def test_a_page_that_fails_does_not_hide_that_the_model_was_written(
    fan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, finished: None
) -> None:
    """Nor is what the page is made of removed."""

    def fail(*_: Any, **options: Any) -> None:
        raise DenoiseError("the disk is full")

    monkeypatch.setattr(module, "write_page", fail)
    messages, output = Messages(), tmp_path / "new"
    with pytest.raises(DenoiseError, match="the disk is full"):
        adapt([], output, messages, noise=[fan], report=tmp_path / "page.html")
    assert output.is_dir()
    assert messages[-1] == f"wrote {output}; the same command with --overwrite adds the page"
    module._remove_finished(tmp_path / f"new{WORK}", output)
    assert (tmp_path / f"new{WORK}").is_dir()
