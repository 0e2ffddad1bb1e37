import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import tensorflow as tf

from denoisecli.audio.level import snr_db
from denoisecli.datasets.building import build
from denoisecli.datasets.inspection import export, kind_of_reason, summarize, verify
from denoisecli.datasets.manifest import load_manifest
from denoisecli.datasets.recipe import Recipe
from denoisecli.datasets.stored import load_pairs, save
from denoisecli.errors import DatasetError, UsageError


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, rng = tmp_path_factory.mktemp("inspection"), np.random.default_rng(0)
    for kind, count in (("clean", 12), ("noise", 4)):
        (folder / kind).mkdir()
        for number in range(count):
            sound = 0.1 * rng.standard_normal(4000 + 100 * number)
            soundfile.write(folder / kind / f"{number}.wav", sound, 8000)
    soundfile.write(folder / "clean" / "short.wav", np.ones(10), 8000)
    soundfile.write(folder / "clean" / "shorter.wav", np.ones(9), 8000)
    (folder / "clean" / "text.wav").write_text("no sound")
    recipe = Recipe(
        snr_db=(-5.0, 20.0),
        noises=(1, 2),
        level_dbfs=(-40.0, -20.0),
        rooms=3,
        sample_rate=8000,
        split=(0.5, 0.2, 0.3),
    )
    build(folder / "clean", folder / "noise", folder / "data", recipe)
    return folder / "data"


@pytest.fixture
def copy(data: Path, tmp_path: Path) -> Callable[..., Path]:
    """Make ``copy(change)``: a dataset whose manifest was changed by a function."""

    def make(change: Callable[[dict[str, Any]], None]) -> Path:
        manifest = json.loads((data / "dataset.json").read_text())
        change(manifest)
        for facts in manifest["sets"].values():
            if not (tmp_path / facts["folder"]).exists():
                (tmp_path / facts["folder"]).symlink_to(data / facts["folder"])
        (tmp_path / "dataset.json").write_text(json.dumps(manifest))
        return tmp_path

    return make


def test_summarize(data: Path) -> None:
    summary = summarize(data)
    json.dumps(summary.model_dump(mode="json"), allow_nan=False)
    manifest = load_manifest(data)
    assert (summary.mixtures, summary.kind, summary.sample_rate) == (12, "waveform", 8000)
    assert list(summary.sets) == ["train", "valid", "test"]
    snrs = [row.snr_db for row in manifest.rows("train")]
    assert summary.sets["train"].snr_db.model_dump() == pytest.approx(
        {"min": min(snrs), "mean": np.mean(snrs), "max": max(snrs)}
    )
    for key in ("snr_db", "level_dbfs"):
        histogram = getattr(summary, f"{key}_histogram")
        assert {name: sum(counts) for name, counts in histogram.counts.items()} == {
            name: part.mixtures for name, part in summary.sets.items()
        }
        values = [getattr(row, key) for row in manifest.mixtures]
        assert histogram.edges[0] <= min(values) <= max(values) <= histogram.edges[-1]
    assert summary.skipped.reasons == {
        "is too short": 2,
        "is damaged or not an audio file of a known format": 1,
    }


def test_summarize_without_noise(copy: Callable[..., Path]) -> None:
    def change(manifest: dict[str, Any]) -> None:
        for row in manifest["mixtures"]:
            row["snr_db"] = None
            del row["level_dbfs"]

    summary = summarize(copy(change))
    assert summary.snr_db_histogram is summary.level_dbfs_histogram is None
    assert summary.sets["test"].snr_db is None


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        ("is identical to clean file a.wav", "is identical"),
        ("is a copy of test clean file anna/hello.wav", "is a copy"),
        ("has no clean recording of the same name", "has no clean recording of the same name"),
        ("is silent from 2.00 s to 3.00 s", "is silent"),
        ("is silent, at least at 16000 Hz", "is silent"),
        ("is active for only 21% from 8.00 s to 8.27 s", "is active"),
        (
            "has a NaN or infinite sample at 2.5 s, channel 1",
            "has a NaN or infinite sample",
        ),
    ],
)
def test_kinds_of_reasons(reason: str, kind: str) -> None:
    assert kind_of_reason(reason) == kind


def test_verify_of_what_is_right(data: Path) -> None:
    steps: list[tuple[int, int]] = []
    assert list(verify(data, on_progress=lambda *step: steps.append(step))) == []
    assert steps == [(done, 12) for done in range(1, 13)]


@pytest.mark.parametrize(
    ("key", "value", "problem"),
    [
        ("target_snr_db", 50.0, "dB, not 50.00 dB"),
        ("samples", 1, "samples, not 1"),
        ("level_dbfs", -3.0, "dBFS, not -3.00 dBFS"),
        ("crc32", "0" * 8, "the checksum of the samples differs"),
    ],
)
def test_verify_compares_rows(
    copy: Callable[..., Path], key: str, value: Any, problem: str
) -> None:
    def change(manifest: dict[str, Any]) -> None:
        row = next(row for row in manifest["mixtures"] if row["set"] == "valid")
        row[key] = value

    problems = list(verify(copy(change)))
    assert any(problem in found and "valid, pair 0" in found for found in problems)
    # Fewer samples are fewer hours.
    assert len(problems) == (2 if key == "samples" else 1)


def test_verify_compares_the_whole(copy: Callable[..., Path]) -> None:
    def change(manifest: dict[str, Any]) -> None:
        train, test = (
            next(row for row in manifest["mixtures"] if row["set"] == name)
            for name in ("train", "test")
        )
        test["clean"] = train["clean"]
        test["noise"] = train["noise"]
        manifest["sets"]["valid"]["hours"] = 5
        manifest["sets"]["test"]["mixtures"] = 99

    problems = "\n".join(verify(copy(change)))
    assert "clean recording" in problems
    assert "noise recording" in problems
    assert "in the sets train and test" in problems
    assert "valid: the manifest states 5.0000 h" in problems
    assert "test: the manifest states 99 mixtures" in problems


def test_verify_of_damaged_samples(data: Path, copy: Callable[..., Path], tmp_path: Path) -> None:
    folder = copy(lambda manifest: None)
    (folder / "train").unlink()
    pairs = [tuple(map(np.array, pair)) for pair in load_pairs(data).as_numpy_iterator()]
    pairs[1][0][5] = np.nan
    pairs[2] = (pairs[2][0] * 1.5, pairs[2][1])
    pairs[3] = (pairs[3][0] / np.abs(pairs[3][0]).max() * 2, pairs[3][1])
    spec = (tf.TensorSpec((None,), tf.float32),) * 2
    save(
        tf.data.Dataset.from_generator(lambda: iter(pairs), output_signature=spec), folder / "train"
    )
    problems = list(verify(folder))
    for number, problem in (
        (1, "NaN or infinite"),
        (2, "checksum"),
        (2, "SNR"),
        (3, "exceeds full scale"),
    ):
        assert any(f"train, pair {number}: " in found and problem in found for found in problems)
    assert not any("train, pair 0" in found for found in problems)


def test_verify_of_damaged_files(data: Path, copy: Callable[..., Path]) -> None:
    folder = copy(lambda manifest: None)
    (snapshot,) = (data / "test").rglob("*.snapshot")
    intact = snapshot.read_bytes()
    try:
        damaged = bytearray(intact)
        damaged[len(intact) // 2] ^= 1
        snapshot.write_bytes(damaged)
        (problem,) = verify(folder)
        assert "test: pair" in problem
        assert "cannot be read" in problem
        snapshot.write_bytes(intact[:-7])
        (problem,) = verify(folder)
        assert "damaged" in problem
    finally:
        snapshot.write_bytes(intact)


def test_export(data: Path, tmp_path: Path) -> None:
    rows = export(data, 2, tmp_path / "listen", name="test")
    names = ["0000-clean", "0000-noise", "0000-noisy", "0001-clean", "0001-noise", "0001-noisy"]
    assert sorted(path.stem for path in (tmp_path / "listen").iterdir()) == names
    for number, row in enumerate(rows):
        noisy, clean, noise = (
            soundfile.read(tmp_path / "listen" / f"{number:04d}-{part}.wav", dtype="float32")[0]
            for part in ("noisy", "clean", "noise")
        )
        np.testing.assert_allclose(noisy - clean, noise, atol=1e-7)
        assert snr_db(noisy, clean) == pytest.approx(row.pair_snr_db, abs=0.01)
        assert row.set == "test"
    with pytest.raises(UsageError, match="already exists"):
        export(data, 1, tmp_path / "listen")
    export(data, 1, tmp_path / "listen", overwrite=True)
    assert len(export(data, 100, tmp_path / "all")) == load_manifest(data).sets["train"].mixtures
    with pytest.raises(UsageError, match="at least 1"):
        export(data, 0, tmp_path / "none")
    with pytest.raises(DatasetError, match="no set 'dev'"):
        export(data, 1, tmp_path / "none", name="dev")


def test_spectrograms(data: Path, tmp_path: Path) -> None:
    sources = data.parent
    recipe = Recipe(ratio=0.3, sample_rate=8000, kind="spectrogram")
    build(sources / "clean", sources / "noise", tmp_path / "spectra", recipe)
    assert list(verify(tmp_path / "spectra")) == []
    assert summarize(tmp_path / "spectra").kind == "spectrogram"
    with pytest.raises(DatasetError, match="pairs of spectrograms"):
        export(tmp_path / "spectra", 1, tmp_path / "listen")


@pytest.mark.parametrize("ratio", [0.0, 1.0])
def test_only_clean_or_only_noise_is_right(data: Path, tmp_path: Path, ratio: float) -> None:
    sources = data.parent
    recipe = Recipe(ratio=ratio, sample_rate=8000)
    build(sources / "clean", sources / "noise", tmp_path / "data", recipe)
    assert list(verify(tmp_path / "data")) == []
