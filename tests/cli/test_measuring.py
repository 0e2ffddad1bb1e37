"""`denoise evaluate` as a user calls it."""

import csv
import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
from helpers import constant_mask, denoise, fails

from denoisecli.cli.measuring import _make_estimators, _metric_names
from denoisecli.datasets.building import build
from denoisecli.datasets.manifest import load_manifest
from denoisecli.datasets.recipe import Recipe
from denoisecli.evaluation import evaluate as evaluation
from denoisecli.evaluation.metrics import METRICS
from denoisecli.evaluation.scores import Score
from denoisecli.models.folder import Metrics, ModelFolder


@pytest.fixture
def halving(model_folder: Callable[..., Path]) -> Path:
    return model_folder(constant_mask(0.5))


@pytest.fixture
def folders(
    audio_file: Callable[..., Path],
    speech: Callable[..., np.ndarray],
    noise: Callable[..., np.ndarray],
    tmp_path: Path,
) -> list[object]:
    """Return options with two pairs of files."""
    for name, gain in (("a", 2.0), ("b", 0.5)):
        audio_file(f"clean/{name}.wav", speech(1.0, 16000))
        audio_file(f"noisy/{name}.wav", speech(1.0, 16000) + gain * noise(1.0, 16000))
    return ["--clean", tmp_path / "clean", "--noisy", tmp_path / "noisy"]


def test_pairs_of_files(folders: list[object], halving: Path, tmp_path: Path) -> None:
    """All options at once."""
    shown = denoise(
        "evaluate", halving, *folders, "--estimate", tmp_path / "clean", "--baseline", "wiener",
        "--metrics", "si_sdr,lsd", "--csv", tmp_path / "s.csv", "--report", tmp_path / "r.html",
        "--keep", tmp_path / "kept", "--jobs", "1",
    )  # fmt: skip
    assert shown.exit_code == 0, shown.output
    lines = shown.stdout.splitlines()
    assert lines[0].startswith("2 files of 1 clean recording; mean ± half of the 95 % interval")
    assert lines[1] == "sample rates: SI-SDR, LSD: 16 kHz (the clean recordings)"
    assert lines[3].split() == ["estimator", "SI-SDR,", "dB", "LSD,", "dB"]
    assert "speed  load, s  memory, MiB  delay, ms" in shown.stdout
    assert [line.split()[0] for line in lines[4:8]] == ["input", halving.name, "clean", "wiener"]
    assert "input SNR" in shown.stdout
    assert "0 dB, 1 file " in shown.stdout
    assert "difference from input" in shown.stdout
    assert "worse by > 0.5 dB  smallest gains in SI-SDR, dB" in shown.stdout
    assert re.search(r"^clean +0 of 2 +[ab] \+", shown.stdout, re.MULTILINE)
    with (tmp_path / "s.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 8
    page = (tmp_path / "r.html").read_text()
    assert page.count("<audio") == 2 * 6
    assert "wrote" in shown.stderr
    assert (tmp_path / "kept" / halving.name / "a.wav").is_file()


def test_pesq_follows_the_rate_of_the_clean_recordings() -> None:
    default = "pesq,si_sdr"
    assert _metric_names(default, lowest_rate=8000) == ["pesq_nb", "si_sdr"]
    assert _metric_names(default, lowest_rate=16000) == ["pesq_wb", "si_sdr"]
    assert _metric_names("pesq,pesq_wb", lowest_rate=None) == ["pesq_wb"]
    assert set(METRICS) - set(_metric_names("all", lowest_rate=8000)) == {
        "pesq_wb", "csig", "cbak", "covl"
    }  # fmt: skip
    assert set(_metric_names("all", lowest_rate=48000)) == set(METRICS)


def test_recordings_at_8_khz(
    audio_file: Callable[..., Path],
    speech: Callable[..., np.ndarray],
    noise: Callable[..., np.ndarray],
    tmp_path: Path,
) -> None:
    audio_file("clean/a.wav", speech(1.0, 8000), 8000)
    audio_file("noisy/a.wav", speech(1.0, 8000) + noise(1.0, 8000), 8000)
    shown = denoise(
        "evaluate", "--clean", tmp_path / "clean", "--noisy", tmp_path / "noisy",
        "--estimate", tmp_path / "clean", "--jobs", "1",
    )  # fmt: skip
    assert shown.exit_code == 0, shown.output
    assert "SI-SDR, SI-SDR > 60 Hz: 8 kHz (the clean recordings)" in shown.stdout
    assert "PESQ-NB: 8 kHz" in shown.stdout
    assert "failed" not in shown.stdout


def test_pairs_by_other_names(
    audio_file: Callable[..., Path],
    speech: Callable[..., np.ndarray],
    noise: Callable[..., np.ndarray],
    tmp_path: Path,
) -> None:
    audio_file("clean/clean_fileid_7.wav", speech(1.0, 16000))
    audio_file("noisy/snr5_fileid_7.wav", speech(1.0, 16000) + noise(1.0, 16000))
    folders = ["--clean", tmp_path / "clean", "--noisy", tmp_path / "noisy"]
    options = ["--estimate", tmp_path / "noisy", "--metrics", "snr", "--json", "--jobs", "1"]
    fails(denoise("evaluate", *folders, *options), 2, "--match or --pairs")
    shown = denoise("evaluate", *folders, *options, "--match", r"fileid_(\d+)")
    assert shown.exit_code == 0, shown.output
    assert json.loads(shown.stdout)["scores"][0]["file"] == "snr5_fileid_7"
    table = tmp_path / "pairs.csv"
    table.write_text(
        "name,clean,noisy\nsnr5_fileid_7,clean/clean_fileid_7.wav,noisy/snr5_fileid_7.wav"
    )
    shown = denoise("evaluate", "--pairs", table, *options)
    assert shown.exit_code == 0, shown.output
    fails(denoise("evaluate", "--pairs", table, *folders), 2, "or --pairs")
    fails(denoise("evaluate", "--pairs", table, "--match", "(a)"), 2, "--match needs --clean")


def test_a_delay_is_a_warning(
    folders: list[object], audio_file: Callable[..., Path], tmp_path: Path
) -> None:
    for name in ("a", "b"):
        sound, rate = soundfile.read(tmp_path / "clean" / f"{name}.wav")
        audio_file(f"late/{name}.wav", np.r_[np.zeros(160), sound], rate)
    options = ["--estimate", tmp_path / "late", "--metrics", "snr", "--jobs", "1"]
    shown = denoise("evaluate", *folders, *options)
    assert "late: the output of 2 of 2 files is delayed, by 10.0 ms" in shown.stderr.replace(
        "\n", " "
    )
    assert "--align" not in denoise("evaluate", *folders, *options, "--align").stderr


def test_an_interrupted_evaluation_leaves_its_scores(
    folders: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*arguments: object, on_scores: Callable[..., None], **options: object) -> None:
        score = Score("a", "input", None, 0.0, 1.0, 0.1, 0.0, {"snr": 1.0})
        on_scores([score])
        raise KeyboardInterrupt

    monkeypatch.setattr(evaluation, "evaluate", interrupted)
    shown = denoise("evaluate", *folders, "--metrics", "snr", "--csv", tmp_path / "s.csv")
    assert shown.exit_code == 130
    assert "s.partial.csv" in shown.stderr.replace("\n", "")
    with (tmp_path / "s.partial.csv").open() as file:
        assert [row["snr"] for row in csv.DictReader(file)] == ["1.0"]
    assert not (tmp_path / "s.csv").exists()


def test_word_error_rate(
    folders: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class WhisperModel:
        def __init__(self, model: str, **options: object) -> None:
            assert model == "tiny"

        def transcribe(self, sound: np.ndarray, **options: object) -> tuple[object, object]:
            return iter([SimpleNamespace(text="hello world")]), SimpleNamespace(language="en")

    module = SimpleNamespace(WhisperModel=WhisperModel, __spec__=SimpleNamespace())
    monkeypatch.setitem(sys.modules, "faster_whisper", module)
    (tmp_path / "t.csv").write_text("name,text\na,Hello world.\nb,Hello world again.\n")
    options = ["--estimate", tmp_path / "clean", "--metrics", "snr", "--jobs", "1", "--asr", "tiny"]
    shown = denoise("evaluate", *folders, *options, "--transcripts", tmp_path / "t.csv")
    assert shown.exit_code == 0, shown.output
    assert "WER, %" in shown.stdout
    assert "WER: 16 kHz" in shown.stdout
    shown = denoise("evaluate", *folders, *options, "--json", "--transcripts", tmp_path / "t.csv")
    rates = json.loads(shown.stdout)["estimators"]["clean"]["mean"]["wer"]
    assert rates["mean"] == pytest.approx(100 * 1 / 5)
    fails(denoise("evaluate", *folders, "--language", "en"), 2, "need --asr")
    fails(denoise("evaluate", *folders, "--asr", tmp_path), 2, "no model.bin")


def test_json_and_another_baseline(folders: list[object], tmp_path: Path) -> None:
    shutil.copytree(tmp_path / "noisy", tmp_path / "other")
    shown = denoise(
        "evaluate", *folders, "--estimate", tmp_path / "clean", "--estimate", tmp_path / "other",
        "--compare-with", "other", "--metrics", "snr", "--json", "--jobs", "1",
    )  # fmt: skip
    assert shown.exit_code == 0, shown.output
    document = json.loads(shown.stdout)
    assert document["baseline"] == "other"
    assert list(document["estimators"]) == ["input", "clean", "other"]
    assert "gain" in document["estimators"]["clean"]


def test_a_bundled_model_keeps_its_name_beside_a_link_of_that_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "recordings").mkdir()
    (tmp_path / "speech").symlink_to("recordings")
    monkeypatch.chdir(tmp_path)
    assert list(_make_estimators(["speech"], None, None)) == ["speech"]


def test_models_have_the_names_of_their_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").mkdir()
    monkeypatch.chdir(tmp_path / "a")
    assert list(_make_estimators(["model", "../b/model", "../c"], None, None)) == ["a", "b", "c"]


def test_the_test_set_of_a_dataset(
    audio_file: Callable[..., Path],
    noise: Callable[..., np.ndarray],
    halving: Path,
    tmp_path: Path,
) -> None:
    for number in range(6):
        audio_file(f"speech/s{number}.wav", noise(0.5, 16000))
        audio_file(f"noise/{'rain' if number % 2 else 'wind'}/{number}.wav", noise(0.7, 16000))
    recipe = Recipe(snr_db=5.0, split=0.5, mixtures_per_clip=2)
    build(tmp_path / "speech", tmp_path / "noise", tmp_path / "data", recipe)
    page = tmp_path / "r.html"
    shown = denoise(
        "evaluate", halving, tmp_path / "data", "--metrics", "si_sdr", "--json", "--report", page,
        "--jobs", "1", "--report-files", "99",
    )  # fmt: skip
    assert shown.exit_code == 0, shown.output
    document = json.loads(shown.stdout)
    assert document["files"] == 2 * document["clean_recordings"] >= 2
    kinds = {score["noise"] for score in document["scores"]}
    assert kinds <= {"rain", "wind"}
    assert {round(score["snr_db"], 6) for score in document["scores"]} == {5.0}
    assert list(document["estimators"][halving.name]["by_noise"]) == sorted(kinds)
    assert (
        page.read_text().count("<audio") == 4 * document["files"]
    )  # files are there until the page is written


@pytest.mark.slow
def test_a_model_that_was_trained_on_the_test_set(
    audio_file: Callable[..., Path],
    noise: Callable[..., np.ndarray],
    halving: Path,
    tmp_path: Path,
) -> None:
    for number in range(4):
        audio_file(f"speech/s{number}.wav", noise(0.5, 16000))
        audio_file(f"noise/{number}.wav", noise(0.7, 16000))
    data = tmp_path / "data"
    build(tmp_path / "speech", tmp_path / "noise", data, Recipe(snr_db=5.0, split=0.5))
    hashes = " ".join(load_manifest(data).source_hashes("train", "test"))
    evaluating = ("evaluate", halving, data, "--metrics", "snr", "--jobs", "1")
    folder = ModelFolder(halving)
    folder.write_metrics(Metrics(dataset="other"))
    shown = denoise(*evaluating)
    assert "does not record its training recordings" in shown.stderr.replace("\n", " ")
    folder.write_metrics(Metrics(dataset="other", training_sources=hashes))
    shown = denoise(*evaluating)
    assert "was trained on recordings with the names of" in shown.stderr.replace("\n", " ")
    assert shown.exit_code == 0
    counterpart = denoise("evaluate", "speech", *evaluating[2:])  # which cleans what has 16 kHz
    assert "speech-16k does not record its training recordings" in counterpart.stderr


def test_a_failing_file_is_reported_and_the_page_is_written(
    folders: list[object], tmp_path: Path
) -> None:
    (tmp_path / "noisy" / "b.wav").write_text("no sound")
    shown = denoise(
        "evaluate", *folders, "--estimate", tmp_path / "clean", "--metrics", "snr",
        "--report", tmp_path / "r.html", "--jobs", "1",
    )  # fmt: skip
    fails(shown, 1, "2 of 4 results are missing", "b.wav")
    assert "(1 failed)" in shown.stdout
    assert "no sound" not in (tmp_path / "r.html").read_text()
    assert "b.wav" in (tmp_path / "r.html").read_text()


def test_wrong_use(folders: list[object], halving: Path, tmp_path: Path) -> None:
    fails(denoise("evaluate"), 2, "a model and a dataset")
    fails(denoise("evaluate", "speech"), 2, "--clean and --noisy")
    fails(denoise("evaluate", "speech", tmp_path, *folders), 2, "a model and a dataset")
    fails(denoise("evaluate", "speech", *folders[:2]), 2, "--clean and --noisy")
    fails(denoise("evaluate", "speech", tmp_path), 1, "dataset", "build-dataset")
    fails(denoise("evaluate", "speach", *folders), 2, "no model 'speach'")
    fails(denoise("evaluate", *folders, "--baseline", "sox"), 2, "NAME=COMMAND", "wiener", "sox")
    twice = ("--model", halving, "--model", halving)
    fails(denoise("evaluate", *folders, *twice), 2, f"named '{halving.name}'")
    fails(denoise("evaluate", *folders, "--metrics", "sdr"), 2, "no metric 'sdr'")
    fails(denoise("evaluate", *folders, "--compare-with", "old"), 2, "'old'")
    fails(denoise("evaluate", *folders, "--report", tmp_path / "r.pdf"), 2, ".html")
    (tmp_path / "there.csv").touch()
    fails(denoise("evaluate", *folders, "--csv", tmp_path / "there.csv"), 2, "--overwrite")


@pytest.mark.parametrize(
    ("package", "options", "extra"),
    [
        ("pesq", ["--metrics", "pesq_wb"], "metrics"),
        ("pystoi", ["--metrics", "all"], "metrics"),
        ("jinja2", ["--metrics", "snr", "--report", "report.html"], "metrics"),
        ("noisereduce", ["--metrics", "snr", "--baseline", "noisereduce"], "baselines"),
        ("faster_whisper", ["--metrics", "snr", "--asr", "tiny"], "asr"),
    ],
)
def test_missing_packages_are_named(
    folders: list[object],
    package: str,
    options: list[str],
    extra: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    fails(denoise("evaluate", *folders, *options), 2, f'pip install "denoisecli[{extra}]"')


def test_files_need_no_extras(
    folders: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in ("tensorflow", "pesq", "pystoi"):
        monkeypatch.setitem(sys.modules, package, None)
    shown = denoise(
        "evaluate", *folders, "--estimate", tmp_path / "clean", "--metrics", "snr", "--jobs", "1"
    )
    assert shown.exit_code == 0, shown.output


def test_help_names_all_metrics() -> None:
    shown = denoise("evaluate", "--help")
    assert set(METRICS) <= set(re.findall(r"\w+", shown.stdout))


@pytest.mark.slow
def test_recordings_without_a_clean_sound(
    folders: list[object], halving: Path, tmp_path: Path
) -> None:
    options = [
        "evaluate", halving, "--recordings", tmp_path / "noisy", "--jobs", "1",
        "--metrics", "noise_floor,speech_level,estimated_snr",
    ]  # fmt: skip
    shown = denoise(*options, "--json", "--report", tmp_path / "r.html")
    assert shown.exit_code == 0, shown.output
    results = json.loads(shown.stdout)
    gain = results["estimators"][halving.name]["gain"]
    assert gain["noise_floor"]["mean"] == pytest.approx(-6.02, abs=0.01)
    assert gain["estimated_snr"]["mean"] == pytest.approx(0, abs=0.01)
    assert results["metrics"]["speech_level"]["higher_is_better"] is None
    page = (tmp_path / "r.html").read_text()
    assert "Real recordings scored without a reference" in page
    assert page.count("<audio") == 2 * 3
    (tmp_path / "noisy" / "notes.txt").touch()
    shown = denoise(*options)
    assert "since they are not audio: notes.txt" in shown.stderr.replace("\n", " ")
    assert "(the recordings)" in shown.stdout
    assert "estimated SNR" in shown.stdout
    fails(denoise("evaluate", *folders, "--recordings", tmp_path), 2, "cannot be combined")
    result = denoise("evaluate", "--recordings", tmp_path / "noisy", "--metrics", "si_sdr,stoi")
    fails(result, 2, "si_sdr, stoi: without clean recordings there are only dnsmos_ovrl")


def test_names_of_metrics_without_a_clean_sound() -> None:
    ratings = ["dnsmos_ovrl", "dnsmos_sig", "dnsmos_bak"]
    assert _metric_names("dnsmos,noise_floor", lowest_rate=16000) == [*ratings, "noise_floor"]
    assert _metric_names("all", blind=True, lowest_rate=8000)[:3] == ratings
