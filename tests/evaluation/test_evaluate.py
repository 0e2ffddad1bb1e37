import math
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from helpers import constant_mask

from denoisecli.errors import ModelError, UsageError
from denoisecli.evaluation.estimators import Command, Estimator, Folder, Model
from denoisecli.evaluation.evaluate import evaluate
from denoisecli.evaluation.pairs import pairs


class Dies(Estimator):
    """A denoiser that takes its process with it at the second file."""

    def clean(self, name: str, noisy: Path, output: Path) -> Path:
        if name == "b":
            os._exit(9)
        return noisy


class Sleeps(Estimator):
    """A denoiser that costs a known time and memory."""

    def load(self) -> None:
        time.sleep(0.1)
        self.weights = np.ones(300 * 2**17)  # 300 MiB

    def clean(self, name: str, noisy: Path, output: Path) -> Path:
        time.sleep(0.2)
        return noisy


class CannotLoad(Dies):
    def load(self) -> None:
        raise ModelError("the weights are gone")


@pytest.fixture
def folders(audio_file, speech, noise, tmp_path):
    """Pairs a, b and deep/c at about 0, 5 and 10 dB: a mono FLAC, a stereo WAV of 48 kHz."""
    for name, gain in (("a", 2.0), ("b", 1.1)):
        clean = speech(1.0, 16000)
        audio_file(f"clean/{name}.wav", clean)
        audio_file(f"noisy/{name}.flac", clean + gain * noise(1.0, 16000))
    clean = speech(1.0, 48000)
    audio_file("clean/deep/c.wav", clean, 48000)
    noisy = clean + 0.6 * noise(1.0, 48000)
    audio_file("noisy/deep/c.wav", np.stack([noisy, noisy]), 48000)
    return tmp_path / "clean", tmp_path / "noisy"


def test_end_to_end(folders, model_folder, tmp_path):
    """A model that halves, a program that fails on one file, and files cleaned before."""
    clean, noisy = folders
    program = (
        "import shutil, sys; 'deep' in sys.argv[2] and sys.exit('not this one'); "
        "shutil.copyfile(sys.argv[1], sys.argv[2])"
    )
    steps = []
    keep = tmp_path / "kept"
    result = evaluate(
        [replace(p, noise="hiss", snr_db=20.0) if p.name == "a" else p for p in pairs(*folders)],
        {
            "half": Model(model_folder(constant_mask(0.5))),
            "program": Command(f'"{sys.executable}" -c "{program}" {{input}} {{output}}'),
            "perfect": Folder(clean),
        },
        metrics=["si_sdr", "snr", "stoi"],
        keep=keep,
        progress=lambda done, total: steps.append((done, total)),
    )

    assert list(result.costs) == ["input", "half", "program", "perfect"]
    assert steps == [(float(i), 24.0) for i in range(1, 25)]
    assert list(result.groups().values()) == [["b"], ["deep/c"], ["a"]]
    assert result.groups()["20 dB"] == ["a"]  # what is known is not measured
    assert result.groups("noise") == {"hiss": ["a"], "unknown": ["b", "deep/c"]}

    before = result.values("input", "si_sdr")
    assert before == pytest.approx(result.values("half", "si_sdr"), abs=0.02)
    for file, pair in zip(before, pairs(clean, noisy), strict=True):
        c, n = (
            soundfile.read(path, always_2d=True)[0].mean(1) for path in (pair.clean, pair.noisy)
        )
        snr = 10 * np.log10(np.sum(c**2) / np.sum((n - c) ** 2))
        tolerance = 0.01 if file != "deep/c" else 2  # resampling takes some of its noise away
        assert result.values("input", "snr")[file] == pytest.approx(snr, abs=tolerance)
    assert set(result.values("perfect", "snr").values()) == {100}
    assert result.gain("perfect", "si_sdr").low > 80

    assert [(s.file, s.estimator) for s in result.errors] == [("deep/c", "program")]
    assert "failed with exit code 1 and said: not this one" in result.errors[0].error
    assert result.mean("program", "stoi").failed == 1
    assert result.mean("program", "stoi").count == 2
    assert result.values("program", "snr")["a"] == result.values("input", "snr")["a"]

    for name, cost in result.costs.items():
        timed = name in ("half", "program")
        assert math.isfinite(cost.real_time_factor) == math.isfinite(cost.load_seconds) == timed
    assert result.costs["half"].load_seconds > 0
    if sys.platform == "linux":
        assert 30 < result.costs["half"].peak_memory_mb < 4000
    kept = sorted(p.relative_to(keep).as_posix() for p in keep.rglob("*") if p.is_file())
    assert kept == ["half/a.wav", "half/b.wav", "half/deep/c.wav", "program/a.wav", "program/b.wav"]
    assert soundfile.info(keep / "half/deep/c.wav").channels == 2
    assert result.files["half"]["deep/c"] == keep / "half" / "deep" / "c.wav"
    assert result.files["input"]["a"] == noisy / "a.flac"
    assert list(result.files["program"]) == ["a", "b"]


def test_cost(folders):
    """What sleeps and takes memory for a known time and size costs at least that."""
    one = pairs(*folders)[:2]
    result = evaluate(one, {"sleeps": Sleeps()}, metrics=["snr"], baseline="sleeps")
    cost = result.costs["sleeps"]
    assert cost.load_seconds >= 0.1
    assert cost.real_time_factor >= 0.2  # files of 1 s each
    if sys.platform == "linux":
        assert cost.peak_memory_mb > 300
    assert {score.wall_seconds >= 0.2 for score in result.scores[2:]} == {True}
    assert result.files["sleeps"]["a"] == one[0].noisy
    assert result.compared == []


def test_bad_files_do_not_stop_the_others(folders, tmp_path, audio_file, speech):
    clean, noisy = folders
    cleaned = tmp_path / "cleaned"
    shutil.copytree(clean, cleaned)
    (noisy / "a.flac").write_text("no sound at all")
    audio_file("cleaned/b.wav", speech(1.16, 16000))
    audio_file("clean/deep/c.wav", np.zeros(16000, np.float32))
    result = evaluate(pairs(clean, noisy), {"cleaned": Folder(cleaned)}, metrics=["snr", "lsd"])
    errors = {(s.file, s.estimator): s.error for s in result.errors}
    assert set(errors) == {("a", "input"), ("a", "cleaned"), ("b", "cleaned")}
    assert "a.flac" in errors["a", "input"]
    assert "is 0.160 s longer than" in errors["b", "cleaned"]
    assert math.isnan(result.values("cleaned", "snr")["deep/c"])  # silent: NaN, not an error
    assert result.mean("cleaned", "snr").failed == 3
    assert result.gain("cleaned", "lsd").failed == 3
    assert result.groups() == {"5 dB": ["b"], "unknown": ["a", "deep/c"]}


def test_delay_is_reported_and_taken_out(folders, tmp_path, audio_file):
    """One later than its input and longer, one earlier and upside down; c is as it was."""
    clean, noisy = folders
    sound, rate = soundfile.read(clean / "a.wav")
    audio_file("cleaned/a.wav", np.r_[np.zeros(320), sound, np.ones(700)], rate)
    audio_file("cleaned/b.wav", -soundfile.read(clean / "b.wav")[0][200:], rate)
    shutil.copytree(clean / "deep", tmp_path / "cleaned" / "deep")
    result = evaluate(
        pairs(clean, noisy), {"cleaned": Folder(tmp_path / "cleaned")}, metrics=["snr", "si_sdr"]
    )
    assert not result.errors
    delays = {s.file: s.delay_seconds for s in result.scores if s.estimator == "cleaned"}
    assert delays == {"a": 0.02, "b": -0.0125, "deep/c": 0}
    assert result.costs["cleaned"].delay_seconds == result.costs["input"].delay_seconds == 0
    assert result.values("cleaned", "snr")["a"] == 100
    assert result.values("cleaned", "si_sdr")["b"] > 15  # its first 12.5 ms are gone


def test_a_process_that_dies(folders):
    result = evaluate(pairs(*folders), {"dies": Dies()}, metrics=["snr"])
    assert [s.file for s in result.errors] == ["b", "deep/c"]
    assert "the process died" in result.errors[0].error
    assert math.isfinite(result.values("dies", "snr")["a"])


def test_an_estimator_that_cannot_be_loaded(folders):
    with pytest.raises(ModelError, match="the weights are gone"):
        evaluate(pairs(*folders), {"gone": CannotLoad()}, metrics=["snr"])


def test_wrong_use_is_said_before_anything_is_done(folders, tmp_path):
    some = pairs(*folders)
    started = []

    def refused(match, chosen=some, estimators=None, **options):
        with pytest.raises(UsageError, match=match):
            evaluate(
                chosen,
                {} if estimators is None else estimators,
                progress=lambda *_: started.append(1),
                **options,
            )

    refused("no recordings", [])
    refused("several recordings named a", [some[0], some[0]])
    refused("'input' is kept", estimators={"input": Dies()})
    for name in ("", "a/b", "..", ".hidden"):
        refused("no name for an estimator", estimators={name: Dies()})
    refused("no metric 'sdr'", metrics=["sdr"])
    refused("nothing named 'old' to compare with, only input", baseline="old")
    refused("at least 1, not 0", jobs=0)
    refused("no program", estimators={"x": Command("nosuchdenoiser {input} {output}")})
    (tmp_path / "only").mkdir()
    shutil.copy(some[0].clean, tmp_path / "only")
    refused("no cleaned file for b, deep/c", estimators={"x": Folder(tmp_path / "only")})
    refused("not an empty folder", keep=tmp_path)
    assert not started


def test_importing_is_cheap():
    """Neither TensorFlow nor ONNX Runtime nor the packages of the metrics."""
    program = (
        "import sys, denoisecli.evaluation.evaluate; "
        "print({'tensorflow', 'onnxruntime', 'librosa', 'pesq', 'pystoi'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "set()", done.stderr
