import csv
import math
import os
import shutil
import subprocess
import sys
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from denoisecli.audio import files
from denoisecli.audio.resampling import resample
from denoisecli.errors import ModelError, UsageError
from denoisecli.evaluation import evaluate as module
from denoisecli.evaluation import formatting
from denoisecli.evaluation.estimators import Command, Estimator, Folder, Model
from denoisecli.evaluation.evaluate import DELAY_TOLERANCE, evaluate
from denoisecli.evaluation.pairs import Pair, folder_pairs
from denoisecli.evaluation.recognition import Recognizer
from denoisecli.evaluation.scores import partial_csv, partial_path
from denoisecli.system.pools import WorkerDied


class Dies(Estimator):
    """An estimator whose process dies on the second file."""

    def clean(self, name: str, noisy: Path, output: Path) -> Path:
        if name == "b":
            os._exit(9)
        return noisy


class Sleeps(Estimator):
    """An estimator of known processing time and memory."""

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
    """Pairs a, b and deep/c at about 0, 5 and 10 dB: two mono FLACs, a stereo WAV at 48 kHz."""
    for name, gain, step in (("a", 2.0, 1), ("b", 1.1, -1)):
        clean = speech(1.0, 16000)[::step]
        audio_file(f"clean/{name}.wav", clean)
        audio_file(f"noisy/{name}.flac", clean + gain * noise(1.0, 16000))
    clean = speech(1.0, 48000)
    audio_file("clean/deep/c.wav", clean, 48000)
    noisy = clean + 0.6 * noise(1.0, 48000)
    audio_file("noisy/deep/c.wav", np.stack([noisy, noisy]), 48000)
    return tmp_path / "clean", tmp_path / "noisy"


def test_end_to_end(folders, model_folder, tmp_path):
    """A model that halves, a program that fails on one file, and a folder of cleaned files."""
    from helpers import constant_mask  # not above: processes import this file, and that is slow

    clean, noisy = folders
    program = (
        "import shutil, sys; 'deep' in sys.argv[2] and sys.exit('not this one'); "
        "shutil.copyfile(sys.argv[1], sys.argv[2])"
    )
    steps = []
    keep = tmp_path / "kept"
    result = evaluate(
        [
            replace(p, noise="hiss", snr_db=20.0) if p.name == "a" else p
            for p in folder_pairs(*folders)
        ],
        {
            "half": Model(model_folder(constant_mask(0.5))),
            "program": Command(f'"{sys.executable}" -c "{program}" {{input}} {{output}}'),
            "perfect": Folder(clean),
        },
        metrics=["si_sdr", "snr", "stoi"],
        keep=keep,
        on_progress=lambda done, total: steps.append((done, total)),
    )

    assert list(result.costs) == ["input", "half", "program", "perfect"]
    assert steps == [(float(i), 24.0) for i in range(1, 25)]
    assert list(result.groups().values()) == [["b"], ["deep/c"], ["a"]]
    assert result.groups()["20 dB"] == ["a"]  # a known SNR is not measured
    assert result.groups("noise") == {"hiss": ["a"], "unknown": ["b", "deep/c"]}

    before = result.values("input", "si_sdr")
    assert before == pytest.approx(result.values("half", "si_sdr"), abs=0.02)
    for file, pair in zip(before, folder_pairs(clean, noisy), strict=True):
        c, n = (
            soundfile.read(path, always_2d=True)[0].mean(1) for path in (pair.clean, pair.noisy)
        )
        snr = 10 * np.log10(np.var(c) / np.var(n - c))
        tolerance = 0.01 if file != "deep/c" else 2  # resampling takes some of its noise away
        assert result.values("input", "snr")[file] == pytest.approx(snr, abs=tolerance)
    assert set(result.values("perfect", "snr").values()) == {100}
    assert result.gain("perfect", "si_sdr").low > 80

    assert [(s.file, s.estimator) for s in result.errors] == [("deep/c", "program")]
    assert "failed with exit code 1 and printed: not this one" in result.errors[0].error
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


def test_each_pair_is_read_once_for_all_estimators(folders, monkeypatch):
    read = []

    def read_mono(path, sample_rate=None):
        read.append(path)
        return files.read_mono(path, sample_rate)

    monkeypatch.setattr(module, "read_mono", read_mono)
    clean, noisy = folders
    chosen = folder_pairs(clean, noisy)
    estimators = {"clean": Folder(clean), "noisy": Folder(noisy), "also noisy": Folder(noisy)}
    result = evaluate(chosen, estimators, metrics=["si_sdr"])
    assert set(result.values("noisy", "si_sdr")) == {pair.name for pair in chosen}
    assert sorted(read) == sorted(
        [pair.noisy for pair in chosen] + 2 * [pair.clean for pair in chosen]  # once as an estimate
    )


def test_the_input_snr_is_that_of_the_pair(folders):
    """It does not depend on the metrics or the estimators."""
    result = evaluate(folder_pairs(*folders), {}, metrics=["lsd"])
    snrs = evaluate(folder_pairs(*folders), {}, metrics=["snr"]).values("input", "snr")
    assert {score.file: score.snr_db for score in result.scores} == snrs


def test_memory_is_unknown_where_the_system_does_not_report_its_peak(monkeypatch):
    monkeypatch.setattr(Path, "read_text", lambda path, **_: "Name:\tpython\nVmRSS:\t10 kB\n")
    assert math.isnan(module._peak_memory_mb())


@pytest.mark.slow
def test_cost(folders):
    """The cost is at least the known time and memory."""
    one = folder_pairs(*folders)[:2]
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
    result = evaluate(
        folder_pairs(clean, noisy), {"cleaned": Folder(cleaned)}, metrics=["snr", "lsd"]
    )
    errors = {(s.file, s.estimator): s.error for s in result.errors}
    assert set(errors) == {("a", "input"), ("a", "cleaned"), ("b", "cleaned")}
    assert "a.flac" in errors["a", "input"]
    assert "is 0.160 s longer than" in errors["b", "cleaned"]
    assert math.isnan(result.values("cleaned", "snr")["deep/c"])  # silent: NaN, not an error
    assert result.mean("cleaned", "snr").failed == 3
    assert result.gain("cleaned", "lsd").failed == 3
    assert result.groups() == {"5 dB": ["b"], "unknown": ["a", "deep/c"]}


def test_only_a_delay_of_a_few_samples_is_removed(folders, tmp_path, audio_file):
    """One is late by the tolerance, one by a sample more; c is unchanged."""
    clean, noisy = folders
    for name, late in (("a", DELAY_TOLERANCE), ("b", DELAY_TOLERANCE + 1)):
        sound, rate = soundfile.read(clean / f"{name}.wav")
        audio_file(f"cleaned/{name}.wav", np.r_[np.zeros(late), sound], rate)
    shutil.copytree(clean / "deep", tmp_path / "cleaned" / "deep")
    cleaned = {"cleaned": Folder(tmp_path / "cleaned")}
    result = evaluate(folder_pairs(clean, noisy), cleaned, metrics=["snr"])
    delays = {s.file: s.delay_seconds for s in result.scores if s.estimator == "cleaned"}
    assert delays == {"a": 4 / 16000, "b": 5 / 16000, "deep/c": 0}
    assert result.values("cleaned", "snr")["a"] == 100
    assert result.values("cleaned", "snr")["b"] < 10
    assert [score.file for score in result.delayed("cleaned")] == ["b"]
    assert result.delayed("input") == []
    (sentence,) = formatting.delays(result)
    assert sentence.startswith("cleaned: the output of 1 of 3 files is delayed, by 0.3 ms at most")
    aligned = evaluate(folder_pairs(clean, noisy), cleaned, metrics=["snr"], align=True)
    assert aligned.values("cleaned", "snr")["b"] == 100
    assert formatting.delays(aligned) == []


def test_delay_is_reported_and_removed_on_request(folders, tmp_path, audio_file):
    """One is late and longer, one is early and inverted; c is unchanged."""
    clean, noisy = folders
    sound, rate = soundfile.read(clean / "a.wav")
    audio_file("cleaned/a.wav", np.r_[np.zeros(320), sound, np.ones(700)], rate)
    audio_file("cleaned/b.wav", -soundfile.read(clean / "b.wav")[0][200:], rate)
    shutil.copytree(clean / "deep", tmp_path / "cleaned" / "deep")
    result = evaluate(
        folder_pairs(clean, noisy),
        {"cleaned": Folder(tmp_path / "cleaned")},
        metrics=["snr", "si_sdr"],
        jobs=2,
        align=True,
    )
    assert not result.errors
    delays = {s.file: s.delay_seconds for s in result.scores if s.estimator == "cleaned"}
    assert delays == {"a": 0.02, "b": -0.0125, "deep/c": 0}
    assert result.costs["cleaned"].delay_seconds == result.costs["input"].delay_seconds == 0
    assert result.values("cleaned", "snr")["a"] == 100
    assert result.values("cleaned", "si_sdr")["b"] > 15  # its first 12.5 ms are gone


def test_pauses_are_those_of_the_noisy_recording(audio_file, speech, noise, tmp_path):
    """Digital silence in the clean recording, as between joined clips, hides no pause."""
    rate = 16000
    clean = speech(4.0, rate)
    clean.reshape(4, -1)[:, : rate // 3] = 0
    hiss = noise(4.0, rate)
    noisy = clean + 10 ** (-50 / 20) * hiss / np.std(hiss)
    audio_file("clean/a.wav", clean, rate)
    audio_file("noisy/a.wav", noisy, rate)
    pairs = folder_pairs(tmp_path / "clean", tmp_path / "noisy")
    result = evaluate(pairs, {}, metrics=["noise_floor", "snr"])
    assert result.mean("input", "noise_floor").mean == pytest.approx(-50, abs=2)
    assert not result.blind
    alone = [Pair("a", None, tmp_path / "noisy" / "a.wav")]
    blind = evaluate(alone, {}, metrics=["noise_floor"])
    assert blind.blind
    assert blind.mean("input", "noise_floor").mean == pytest.approx(
        result.mean("input", "noise_floor").mean
    )


def test_metrics_hear_all_of_the_clean_recording(audio_file, noise, tmp_path):
    """A call at 30 kHz that is deleted is missed."""
    rate = 96000
    time = np.arange(rate) / rate
    call = 0.2 * np.sin(2 * np.pi * 30000 * time)
    rumble = 0.2 * noise(1.0, rate)
    audio_file("clean/bat.wav", call + 0.01 * rumble, rate)
    audio_file("noisy/bat.wav", call + rumble, rate)
    audio_file("deleted/bat.wav", 0.01 * rumble, rate)
    audio_file("kept/bat.wav", call + 0.1 * rumble, rate)
    result = evaluate(
        folder_pairs(tmp_path / "clean", tmp_path / "noisy"),
        {name: Folder(tmp_path / name) for name in ("deleted", "kept")},
        metrics=["si_sdr", "si_sdr_60hz", "snr", "segmental_snr", "lsd"],
    )
    for metric in ("si_sdr", "si_sdr_60hz", "snr", "segmental_snr"):
        values = [result.mean(name, metric).mean for name in ("deleted", "input", "kept")]
        assert values == sorted(values), metric
    assert result.mean("deleted", "lsd").mean > result.mean("kept", "lsd").mean
    assert result.sample_rates("si_sdr") == [96000]
    assert {score.sample_rate for score in result.scores} == {96000}


def test_estimates_of_another_rate_are_scored_at_that_of_the_clean_recording(
    audio_file, speech, noise, tmp_path
):
    clean = speech(1.0, 48000) + 0.1 * noise(1.0, 48000)
    audio_file("clean/a.wav", clean, 48000)
    audio_file("noisy/a.wav", clean + noise(1.0, 48000), 48000)
    audio_file("cleaned/a.wav", resample(clean, 48000, 16000), 16000)
    result = evaluate(
        folder_pairs(tmp_path / "clean", tmp_path / "noisy"),
        {"cleaned": Folder(tmp_path / "cleaned")},
        metrics=["snr", "lsd"],
    )
    assert not result.errors
    assert 5 < result.mean("cleaned", "snr").mean < 40
    assert result.mean("cleaned", "lsd").mean > 5  # nothing is left above 8 kHz


def test_mixtures_of_one_recording_are_a_cluster(audio_file, speech, noise, tmp_path):
    """Also at another level, and whatever the files are called."""
    for name, step, gain in (("x", 1, 1.0), ("y", 1, 0.3), ("z", -1, 1.0)):
        clean = gain * speech(1.0, 16000)[::step]
        audio_file(f"clean/{name}.wav", clean)
        audio_file(f"noisy/{name}.wav", clean + noise(1.0, 16000))
    result = evaluate(folder_pairs(tmp_path / "clean", tmp_path / "noisy"), {}, metrics=["snr"])
    assert {score.file: score.cluster for score in result.scores} == {"x": "x", "y": "x", "z": "z"}
    assert (result.clusters, result.mean("input", "snr").clusters) == (2, 2)


def test_scores_are_handed_out_pair_by_pair(folders, tmp_path):
    """The second pair stops the evaluation; the scores of the first are kept."""
    path = tmp_path / "scores.csv"

    def stop_at_second(scores):
        if scores[0].file == "b":
            raise KeyboardInterrupt
        add(scores)

    with pytest.raises(KeyboardInterrupt), partial_csv(path, ["snr"]) as add:
        evaluate(folder_pairs(*folders), {}, metrics=["snr"], on_scores=stop_at_second)
    with partial_path(path).open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["file"], row["estimator"]) == ("a", "input")
    assert math.isfinite(float(row["snr"]))
    assert not path.exists()


class Hears(Recognizer):
    """A recognizer that understands all of a clean recording, and half of any other."""

    def check(self):
        self.heard = []

    load = check

    def transcribe(self, path, language=None):
        self.heard.append((path.parent.name, language))
        words = ["one", "two", "three", "four"]
        return (words if path.parent.name == "clean" else words[:2]), "en"


def test_word_error_rate(folders):
    clean, noisy = folders
    pairs = folder_pairs(clean, noisy)[:2]
    recognizer = Hears("tiny")
    result = evaluate(
        pairs,
        {"perfect": Folder(clean)},
        metrics=["snr"],
        recognizer=recognizer,
        transcripts={"b": ["one", "two"]},
    )
    assert result.metrics == ["snr", "wer"]
    assert result.values("input", "wer") == {"a": 50.0, "b": 0.0}
    assert result.values("perfect", "wer") == {"a": 0.0, "b": 100.0}
    assert result.mean("input", "wer").mean == pytest.approx(100 * 2 / 6)  # of all words
    assert {score.words for score in result.scores} == {4, 2}
    assert result.scores[0].transcript == "one two"
    assert recognizer.heard[:3] == [("clean", None), ("noisy", "en"), ("clean", "en")]


@pytest.mark.slow
def test_a_process_that_dies_fails_its_remaining_files(folders):
    result = evaluate(folder_pairs(*folders), {"dies": Dies()}, metrics=["snr"])
    assert [s.file for s in result.errors] == ["b", "deep/c"]
    assert "process died" in result.errors[0].error
    assert math.isfinite(result.values("dies", "snr")["a"])


def test_a_scoring_process_that_dies_fails_the_remaining_pairs(folders, monkeypatch):
    class Dying:
        def map(self, function, tasks):
            yield function(tasks[0])
            raise WorkerDied

    monkeypatch.setattr(module, "processes", lambda jobs: nullcontext(Dying()))
    result = evaluate(folder_pairs(*folders), {}, metrics=["snr"], jobs=2)
    assert [s.file for s in result.errors] == ["b", "deep/c"]
    assert "process died" in result.errors[1].error
    assert math.isfinite(result.values("input", "snr")["a"])


def test_an_estimator_that_cannot_be_loaded_is_an_error(folders):
    with pytest.raises(ModelError, match="the weights are gone"):
        evaluate(folder_pairs(*folders), {"gone": CannotLoad()}, metrics=["snr"])


def test_wrong_use_is_refused_before_any_work(folders, tmp_path):
    some = folder_pairs(*folders)
    started = []

    def refused(match, chosen=some, estimators=None, **options):
        with pytest.raises(UsageError, match=match):
            evaluate(
                chosen,
                {} if estimators is None else estimators,
                on_progress=lambda *_: started.append(1),
                **options,
            )

    refused("no recordings", [])
    refused("several recordings named a", [some[0], some[0]])
    refused("'input' is reserved", estimators={"input": Dies()})
    for name in ("", "a/b", "..", ".hidden"):
        refused("cannot be the name of an estimator", estimators={name: Dies()})
    refused("no metric 'sdr'", metrics=["sdr"])
    refused("no estimator 'old' to compare with; choose from input", baseline="old")
    refused("at least 1, not 0", jobs=0)
    refused("no program", estimators={"x": Command("nosuchdenoiser {input} {output}")})
    (tmp_path / "only").mkdir()
    shutil.copy(some[0].clean, tmp_path / "only")
    refused("no cleaned file for b, deep/c", estimators={"x": Folder(tmp_path / "only")})
    refused("not an empty folder", keep=tmp_path)
    assert not started


def test_importing_is_cheap():
    """It loads neither TensorFlow nor ONNX Runtime nor the packages of the metrics."""
    program = (
        "import sys, denoisecli.evaluation.evaluate; "
        "print({'tensorflow', 'onnxruntime', 'librosa', 'pesq', 'pystoi'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "set()", done.stderr
