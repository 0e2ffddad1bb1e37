"""`denoise evaluate` as a user calls it."""

import csv
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers import constant_mask, denoise, fails

from denoisecli.cli.measuring import _make_estimators
from denoisecli.datasets.building import build
from denoisecli.datasets.recipe import Recipe
from denoisecli.evaluation.metrics import METRICS


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
    assert lines[0].startswith("2 files; mean ± half of the 95 % interval")
    assert lines[2].split() == ["estimator", "SI-SDR,", "dB", "LSD,", "dB"]
    assert "speed  load, s  memory, MiB  delay, ms" in shown.stdout
    assert [line.split()[0] for line in lines[3:7]] == ["input", halving.name, "clean", "wiener"]
    assert "input SNR" in shown.stdout
    assert "0 dB, 1 file " in shown.stdout
    assert "difference to input" in shown.stdout
    assert "worse by > 0.5 dB  smallest gains in SI-SDR, dB" in shown.stdout
    assert re.search(r"^clean +0 of 2 +[ab] \+", shown.stdout, re.MULTILINE)
    with (tmp_path / "s.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 8
    page = (tmp_path / "r.html").read_text()
    assert page.count("<audio") == 2 * 6
    assert "wrote" in shown.stderr
    assert (tmp_path / "kept" / halving.name / "a.wav").is_file()


def test_json_and_another_baseline(folders: list[object], tmp_path: Path) -> None:
    shown = denoise(
        "evaluate", *folders, "--estimate", tmp_path / "clean", "--baseline", "wiener",
        "--compare-with", "wiener", "--metrics", "snr", "--json", "--jobs", "1",
    )  # fmt: skip
    assert shown.exit_code == 0, shown.output
    document = json.loads(shown.stdout)
    assert document["baseline"] == "wiener"
    assert list(document["estimators"]) == ["input", "clean", "wiener"]
    assert "gain" in document["estimators"]["clean"]


def test_a_bundled_model_keeps_its_name_beside_a_link_of_that_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "recordings").mkdir()
    (tmp_path / "speech").symlink_to("recordings")
    monkeypatch.chdir(tmp_path)
    assert list(_make_estimators(["speech"], None, None)) == ["speech"]


def test_the_test_set_of_a_dataset(
    audio_file: Callable[..., Path],
    speech: Callable[..., np.ndarray],
    noise: Callable[..., np.ndarray],
    halving: Path,
    tmp_path: Path,
) -> None:
    for number in range(4):
        audio_file(f"speech/s{number}.wav", speech(0.5, 16000, 100 + number))
        audio_file(f"noise/{'rain' if number % 2 else 'wind'}/{number}.wav", noise(0.7, 16000))
    recipe = Recipe(snr_db=5.0, split=0.5, mixtures_per_clip=2)
    build(tmp_path / "speech", tmp_path / "noise", tmp_path / "data", recipe)
    page = tmp_path / "r.html"
    shown = denoise(
        "evaluate", halving, tmp_path / "data", "--metrics", "si_sdr", "--json", "--report", page,
        "--jobs", "1",
    )  # fmt: skip
    assert shown.exit_code == 0, shown.output
    document = json.loads(shown.stdout)
    assert document["files"] == 4
    assert {score["noise"] for score in document["scores"]} == {"rain", "wind"}
    assert {round(score["snr_db"], 6) for score in document["scores"]} == {5.0}
    assert list(document["estimators"][halving.name]["by_noise"]) == ["rain", "wind"]
    assert "By kind of noise" in page.read_text() or len(document["scores"]) == 8
    assert page.read_text().count("<audio") == 4 * 4  # files are there until the page is written


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
    fails(denoise("evaluate", *folders, *options), 2, f"pip install 'denoisecli[{extra}]'")


def test_a_dataset_needs_tensorflow_and_files_do_not(
    folders: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in ("tensorflow", "pesq", "pystoi"):
        monkeypatch.setitem(sys.modules, package, None)
    shown = denoise("evaluate", "speech", tmp_path, "--metrics", "snr")
    fails(shown, 2, "pip install 'denoisecli[train]'")
    shown = denoise(
        "evaluate", *folders, "--estimate", tmp_path / "clean", "--metrics", "snr", "--jobs", "1"
    )
    assert shown.exit_code == 0, shown.output


def test_help_names_all_metrics() -> None:
    shown = denoise("evaluate", "--help")
    assert set(METRICS) <= set(re.findall(r"\w+", shown.stdout))
