"""build-dataset and dataset as a user calls them."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from helpers import TINY_SPEC, denoise, fails
from typer.testing import Result

from denoisecli.datasets.manifest import load_manifest
from denoisecli.spec.document import parse_spec
from denoisecli.training.batches import open_batches


@pytest.fixture
def folders(
    audio_file: Callable[..., Path], rng: np.random.Generator, tmp_path: Path
) -> tuple[Path, Path]:
    for number in range(8):
        audio_file(f"clean/s{number // 2}/{number}.wav", 0.1 * rng.standard_normal(9000 + number))
        audio_file(f"noise/{number}.wav", 0.1 * rng.standard_normal(9000))
        response = 0.2 * np.exp(-np.arange(4000) / 500) * rng.standard_normal(4000)
        audio_file(f"rooms/{number}.wav", response)
    (tmp_path / "clean" / "broken.wav").write_text("no sound")
    return tmp_path / "clean", tmp_path / "noise"


def build_dataset(*arguments: object) -> Result:
    """Build in this process, because others take seconds to start."""
    return denoise("build-dataset", *arguments, "--jobs", 1)


def test_all_options(folders: tuple[Path, Path], tmp_path: Path) -> None:
    data = tmp_path / "data"
    result = denoise(
        "build-dataset", *folders, "--snr=-5:20", "--split", "0.5,0.25,0.25", "--group-by",
        r"(s\d)/", "--segment", 2, "--join", 2, "--pad", "--min-active", 0.1, "--max-clipped", 0.2,
        "--mixtures-per-clip", 2, "--noises", "1:2", "--noise-draw", "length", "--level=-45:-12",
        "--reverb", tmp_path / "rooms", "--reverb-target", "dry", "--reverb-share", 0.9,
        "--valid-name", "dev", "--jobs", 1, "--seed", 3, "-o", data,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "train: 2 mixtures" in result.stderr
    assert "valid: 2 mixtures" in result.stderr
    assert "1 left out (is damaged or not an audio file of a known format: 1)" in result.stderr
    manifest = load_manifest(data)
    expected = {
        "snr_db": [-5, 20], "split": [0.5, 0.25, 0.25], "group_by": r"(s\d)/", "segment": 2,
        "join": 2, "pad": True, "min_active": 0.1, "max_clipped": 0.2, "mixtures_per_clip": 2,
        "noises": [1, 2], "noise_draw": "length", "level_dbfs": [-45, -12], "reverb_target": "dry",
        "reverb_share": 0.9, "seed": 3,
    }  # fmt: skip
    assert expected.items() <= manifest.recipe.model_dump(mode="json").items()
    assert {row.samples for row in manifest.mixtures} == {32000}
    assert (data / "dev").is_dir()

    shown = denoise("dataset", data, "--verify")
    assert shown.exit_code == 0, shown.output
    assert "8 waveform pairs" in shown.stdout
    assert "all 8 pairs agree with the manifest" in shown.stdout
    assert "clean broken.wav is damaged or not an audio file" in shown.stdout
    document = json.loads(denoise("dataset", data, "--json").stdout)
    assert document["sets"]["valid"]["mixtures"] == 2
    assert "problems" not in document

    shown = denoise(
        "dataset", data, "--plot", tmp_path / "data.png", "--export", 2, tmp_path / "listen",
        "--set", "valid",
    )  # fmt: skip
    assert shown.exit_code == 0, shown.output
    assert (tmp_path / "data.png").exists()
    assert len(list((tmp_path / "listen").iterdir())) == 6


def test_own_test_folders(folders: tuple[Path, Path], tmp_path: Path) -> None:
    common = ("--ratio", 0.2, "-o", tmp_path / "data", "--test-noise", folders[1])
    arguments = (folders[0] / "s0", tmp_path / "rooms")
    result = build_dataset(*arguments, *common, "--test-clean", folders[0] / "s1")
    assert result.exit_code == 0, result.output
    assert "train: 2 mixtures" in result.stderr
    assert "test: 2 mixtures" in result.stderr
    result = build_dataset(*arguments, *common)
    assert result.exit_code == 2
    assert "two folders" in result.stderr


def test_existing_pairs_are_trained_on(folders: tuple[Path, Path], tmp_path: Path) -> None:
    clean, noisy = folders[0], tmp_path / "noisy"
    for path in clean.rglob("*.wav"):
        if path.name != "broken.wav":
            sound, rate = soundfile.read(path)
            target = noisy / path.relative_to(clean)
            target.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(target, sound + 0.05 * np.sin(np.arange(sound.size)), rate)
    data = tmp_path / "data"
    result = build_dataset("--pairs", clean, noisy, "-o", data, "--group-noise-by", "file",
        "--valid-share", 0.2,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "valid: " in result.stderr
    assert denoise("dataset", data, "--verify").exit_code == 0
    batches = open_batches(data, parse_spec({**TINY_SPEC, "audio": {"sample_rate": 16000}}))
    assert batches.clips.keys() == {"train", "valid", "test"}
    fails(build_dataset("--pairs", clean, noisy, "--snr", 5, "-o", tmp_path / "x"), 2,
          "pairs are already mixed")  # fmt: skip
    result = build_dataset(clean, noisy, "--snr", 5, "-o", tmp_path / "x")
    assert "build with --pairs" in result.stderr.replace("\n", " ")


def test_weights(folders: tuple[Path, Path], tmp_path: Path) -> None:
    common = (*folders, "--snr=0", "--split", 0.5, "-o", tmp_path / "data")
    weights = ("--clean-weight", "*=3", "--clean-weight", "s1/2.wav=0", "--noise-weight", "7*=9.5")
    result = build_dataset(*common, *weights)
    assert result.exit_code == 0, result.output
    assert len(load_manifest(tmp_path / "data").mixtures) == 7 * 3
    recipe = load_manifest(tmp_path / "data").recipe
    assert recipe.clean_weights == {"*": 3, "s1/2.wav": 0}
    assert recipe.noise_weights == {"7*": 9.5}
    for option, value, message in (
        ("--clean-weight", "s0", "takes FOLDER=NUMBER, a whole number, but was given 's0'"),
        ("--clean-weight", "s0=1.5", "takes FOLDER=NUMBER, a whole number, but was given 's0=1.5'"),
        ("--noise-weight", "=2", "takes FOLDER=NUMBER, a number, but was given '=2'"),
        ("--noise-weight", "x=-1", "should be greater than or equal to 0, not -1.0"),
        ("--noise-weight", "x=nan", "noise_weights: input should be a finite number, not nan"),
        ("--clean-weight", "s9=2", "no clean recording is in the folder or matches the name s9"),
    ):
        result = build_dataset(*common, option, value, "--overwrite")
        assert result.exit_code == 2, result.output
        assert message in " ".join(result.stderr.split())
    result = build_dataset(*common, "--clean-weight", "*=0", "--overwrite")
    assert result.exit_code == 1
    assert load_manifest(tmp_path / "data").recipe == recipe


def test_verify_fails_honestly(folders: tuple[Path, Path], tmp_path: Path) -> None:
    data = tmp_path / "data"
    assert build_dataset(*folders, "--ratio", 0.2, "-o", data).exit_code == 0
    manifest = json.loads((data / "dataset.json").read_text())
    manifest["mixtures"][1]["snr_db"] += 1
    (data / "dataset.json").write_text(json.dumps(manifest))
    result = denoise("dataset", data, "--verify")
    assert result.exit_code == 1
    assert "train, pair 1: the SNR is" in result.stderr
    assert "1 problem" in result.stderr.splitlines()[-1]
    result = denoise("dataset", data, "--verify", "--json")
    assert result.exit_code == 1
    assert len(json.loads(result.stdout)["problems"]) == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--snr", "3:loud"], "--snr takes a number or a range LOW:HIGH, but was given '3:loud'"),
        (["--ratio", "0.2", "--split", "most"], "--split takes"),
        (
            ["--ratio", "0.2", "--noises", "1.5"],
            "--noises takes a whole number or a range LOW:HIGH",
        ),
        (["--ratio", "0.2", "--group-by", "speaker"], "regular expression with a group"),
        (["--ratio", "0.2", "--level", "3"], "-100..0 dBFS"),
        (["--ratio", "0.2", "--join", "4", "--segment", "2"], "longer than a segment"),
        (["--ratio", "0.2", "--noise-draw", "weight"], "'weight' is not one of"),
        (["--ratio", "0.2", "--kind", "mel"], "'mel' is not one of"),
        (["--ratio", "0.2", "--rooms", "-1"], "greater than or equal to 0"),
        (["--ratio", "0.2", "--cluster", "tcp://127.0.0.1:1"], "no Dask scheduler"),
    ],
)
def test_wrong_options(
    folders: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    words: str,
) -> None:
    monkeypatch.setattr("denoisecli.system.pools.CONNECT_SECONDS", 0.2)
    result = denoise("build-dataset", *folders, *arguments, "-o", tmp_path / "data")
    assert result.exit_code == (1 if "--cluster" in arguments else 2)
    assert words in result.stderr.replace("\n", " ")
    assert not (tmp_path / "data").exists()


def test_wrong_dataset(tmp_path: Path) -> None:
    result = denoise("dataset", tmp_path)
    assert result.exit_code == 1
    assert "is not a dataset" in result.stderr


def test_train_refuses_spectrograms(folders: tuple[Path, Path], tmp_path: Path) -> None:
    data = tmp_path / "data"
    result = build_dataset(*folders, "--ratio", 0.2, "--kind", "spectrogram", "-o", data)
    assert result.exit_code == 0, result.output
    fails(
        denoise("train", "tiny", "--data", data, "--run", tmp_path / "run"),
        1,
        f"{data} holds pairs of spectrograms, but waveforms are needed",
        "build it again with `denoise build-dataset --kind waveform`",
    )
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("command", ["build-dataset", "dataset"])
def test_without_tensorflow(
    folders: tuple[Path, Path],
    tiny_dataset: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: str,
) -> None:
    data = tmp_path / "data"
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    if command == "dataset":
        result = denoise("dataset", tiny_dataset, "--verify", "--export", 1, data)
        purpose = "reading the pairs of a dataset"
    else:
        result = build_dataset(*folders, "--ratio", 0.2, "-o", data)
        purpose = "building datasets"
    fails(result, 2, f'{purpose} needs TensorFlow: pip install "denoisecli[train]"')
    assert not data.exists()


def test_on_a_cluster(folders: tuple[Path, Path], tmp_path: Path) -> None:
    from distributed import LocalCluster

    with LocalCluster(
        n_workers=2, threads_per_worker=1, processes=False, dashboard_address=None
    ) as cluster:
        command = ("build-dataset", *folders, "--snr", 5, "--segment", 0.2)
        address = cluster.scheduler_address
        result = denoise(*command, "-o", tmp_path / "there", "--cluster", address)
    assert result.exit_code == 0, result.output
    assert denoise(*command, "-o", tmp_path / "here", "--jobs", 1).exit_code == 0
    for name in ("dataset.json", "train/dataset_spec.pb"):
        assert (tmp_path / "there" / name).read_bytes() == (tmp_path / "here" / name).read_bytes()


def test_stopped_and_resumed(
    folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ("build-dataset", *folders, "--snr", 5, "-o", tmp_path / "data", "--jobs", 1)

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("denoisecli.datasets.building._mix_all", stop)
    result = denoise(*command)
    assert result.exit_code == 130
    assert "continue with --resume" in result.stderr.replace("\n", " ")
    assert [path.name for path in (tmp_path / "data").iterdir()] == [".build"]
    monkeypatch.undo()
    result = denoise(*command, "--resume")
    assert result.exit_code == 0, result.output
    assert sorted([path.name for path in (tmp_path / "data").iterdir()]) == [
        "dataset.json",
        "test",
        "train",
    ]


def test_folders_that_cannot_be_used(audio_file: Callable[..., Path], tmp_path: Path) -> None:
    file = audio_file("noise/one.wav", np.ones(8000, np.float32) / 2)
    (tmp_path / "empty").mkdir()
    common = ("--ratio", "0.2", "-o", tmp_path / "data")
    fails(denoise("build-dataset", tmp_path / "none", file.parent, *common), 2, "none")
    fails(denoise("build-dataset", tmp_path / "empty", file.parent, *common), 2, "empty")
    fails(denoise("build-dataset", file, file.parent, *common), 2, "one.wav", "folder")
    assert not (tmp_path / "data").exists()


def test_wants_an_amount_of_noise(tmp_path: Path) -> None:
    fails(denoise("build-dataset", tmp_path, tmp_path, "--snr", "3:loud"), 2, "3:loud")
