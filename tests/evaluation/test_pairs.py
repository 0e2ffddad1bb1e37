import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

from denoisecli.datasets.building import build
from denoisecli.datasets.manifest import load_manifest
from denoisecli.datasets.recipe import Recipe
from denoisecli.datasets.stored import load_pairs
from denoisecli.errors import DatasetError, UsageError
from denoisecli.evaluation.pairs import (
    Pair,
    find_recordings,
    folder_pairs,
    join_names,
    stored_pairs,
)


@pytest.fixture
def folders(audio_file, speech):
    for name in ("a", "b", "deep/c"):
        audio_file(f"clean/{name}.wav", speech(0.1, 16000))
    for name in ("a.flac", "b.flac", "deep/c.wav"):
        audio_file(f"noisy/{name}", speech(0.1, 16000))
    return audio_file("clean/a.wav", speech(0.1, 16000)).parent, Path(
        audio_file("noisy/a.flac", speech(0.1, 16000)).parent
    )


@pytest.fixture
def dataset(audio_file, speech, noise, tmp_path) -> Path:
    """A test set of nine mixtures of three recordings; one or two noises, in folders or not."""
    for number in range(4):
        audio_file(f"speech/s{number}.wav", speech(0.4 + 0.1 * number, 8000, 100 + number), 8000)
        for folder in ("rain/", "street/", ""):
            audio_file(f"noise/{folder}n{number}.wav", noise(0.6, 8000), 8000)
    recipe = Recipe(
        snr_db=(-5.0, 10.0),
        split=0.3,
        sample_rate=8000,
        mixtures_per_clip=3,
        noises=(1, 2),
        rooms=2,
    )
    build(tmp_path / "speech", tmp_path / "noise", tmp_path / "data", recipe)
    return tmp_path / "data"


def test_pairs_are_matched_by_name(folders):
    clean, noisy = folders
    assert folder_pairs(*folders) == [
        Pair("a", clean / "a.wav", noisy / "a.flac"),
        Pair("b", clean / "b.wav", noisy / "b.flac"),
        Pair("deep/c", clean / "deep" / "c.wav", noisy / "deep" / "c.wav"),
    ]
    assert folder_pairs(str(clean), str(noisy)) == folder_pairs(clean, noisy)


def test_recordings_without_a_counterpart(folders, audio_file, speech):
    clean, noisy = folders
    audio_file("noisy/deep/d.wav", speech(0.1, 16000))
    audio_file("noisy/e.wav", speech(0.1, 16000))
    with pytest.raises(UsageError, match=r"noisy has .* in the other folder: deep/d, e$"):
        folder_pairs(clean, noisy)
    (noisy / "a.flac").unlink()
    with pytest.raises(UsageError, match=r"clean has .* in the other folder: a$"):
        folder_pairs(clean, noisy)


def test_the_test_set_of_a_dataset(dataset):
    rows = load_manifest(dataset).rows("test")
    with stored_pairs(dataset) as found:
        assert len(found) == len({pair.name for pair in found}) == len(rows) == 9
        assert {pair.noise for pair in found} <= {"rain", "street", None}
        assert len({pair.noise for pair in found}) > 1
        stored = load_pairs(dataset, "test").as_numpy_iterator()
        for pair, row, (noisy, clean) in zip(found, rows, stored, strict=True):
            assert pair.name.endswith(f"_{Path(row.clean).stem}")
            assert (pair.noise or ".") == str(Path(row.noise).parent)
            for path, expected in ((pair.noisy, noisy), (pair.clean, clean)):
                sound, rate = soundfile.read(path, dtype="float32")
                assert rate == 8000
                np.testing.assert_array_equal(sound, expected)
            measured = 10 * np.log10(np.sum(clean**2) / np.sum((noisy - clean) ** 2))
            assert pair.snr_db == pytest.approx(measured, abs=0.01)
    assert not found[0].noisy.exists()


def test_a_dataset_without_noise_has_no_snr(audio_file, speech, noise, tmp_path):
    for number in range(2):
        audio_file(f"speech/{number}.wav", speech(0.4, 8000, 100 + number), 8000)
        audio_file(f"noise/{number}.wav", noise(0.6, 8000), 8000)
    recipe = Recipe(ratio=0.0, split=0.5, sample_rate=8000)
    build(tmp_path / "speech", tmp_path / "noise", tmp_path / "data", recipe)
    with stored_pairs(tmp_path / "data") as (pair,):
        assert (pair.snr_db, pair.noise) == (None, None)


def test_folders_that_are_not_usable_datasets(dataset, tmp_path):
    with pytest.raises(DatasetError, match="is not a dataset"), stored_pairs(tmp_path):
        pass
    shutil.rmtree(dataset / "test")
    with pytest.raises(DatasetError, match="holds no saved dataset"), stored_pairs(dataset):
        pass
    manifest = json.loads((dataset / "dataset.json").read_text())
    manifest["recipe"]["kind"] = "spectrogram"
    (dataset / "dataset.json").write_text(json.dumps(manifest))
    with pytest.raises(DatasetError, match="holds pairs of spectrograms"), stored_pairs(dataset):
        pass


def test_two_recordings_of_the_same_name(audio_file, speech, tmp_path):
    audio_file("sounds/a.wav", speech(0.1, 8000))
    audio_file("sounds/b/a.wav", speech(0.1, 8000))
    assert list(find_recordings(tmp_path / "sounds")) == ["a", "b/a"]
    audio_file("sounds/a.flac", speech(0.1, 8000))
    with pytest.raises(
        UsageError, match=r"two recordings of the same name: .*a\.flac and .*a\.wav"
    ):
        find_recordings(tmp_path / "sounds")


def test_long_lists_of_names_are_shortened():
    assert join_names(["b", "a"]) == "b, a"
    assert join_names([str(i) for i in range(12)]) == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2 more"
