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
    _default_name,
    files_left_out,
    find_recordings,
    folder_pairs,
    listed_pairs,
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
def dataset(audio_file, noise, tmp_path) -> Path:
    """A test set of three mixtures of each recording; one or two noises, in folders or not."""
    for number in range(4):
        audio_file(f"speech/s{number}.wav", noise(0.4 + 0.1 * number, 8000), 8000)
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
    with pytest.raises(UsageError, match=r"noisy has .* in the other folder: deep/d, e;"):
        folder_pairs(clean, noisy)
    (noisy / "a.flac").unlink()
    with pytest.raises(UsageError, match=r"clean has .* in the other folder: a; --match or"):
        folder_pairs(clean, noisy)


def test_names_are_matched_by_a_regular_expression(audio_file, speech, tmp_path):
    """As in the test set of the DNS challenge; a clean recording may have several noisy ones."""
    for number in (3, 12):
        audio_file(f"clean/clean_fileid_{number}.wav", speech(0.1, 8000))
    names = ["a_snr5_fileid_12", "b_snr0_fileid_3", "b_snr9_fileid_3"]
    for name in names:
        audio_file(f"noisy/{name}.wav", speech(0.1, 8000))
    found = folder_pairs(tmp_path / "clean", tmp_path / "noisy", r"fileid_(\d+)")
    assert [pair.name for pair in found] == names
    assert [pair.clean.stem[-2:] for pair in found] == ["12", "_3", "_3"]


@pytest.mark.parametrize(
    ("match", "message"),
    [
        (r"fileid_\d+", "must have one group in parentheses, not 0"),
        (r"(file)id_(\d+)", "one group in parentheses, not 2"),
        (r"fileid_(", "is not a regular expression"),
        (r"speaker(\d)", "is not in these names of .*clean: clean_fileid_3, clean_fileid_4"),
        (r"(fileid)_\d", "two recordings for 'fileid': clean_fileid_3 and clean_fileid_4"),
        (r"fileid_(\d+)", "clean has recordings without a counterpart .*: clean_fileid_4$"),
    ],
)
def test_regular_expressions_that_do_not_match(audio_file, speech, tmp_path, match, message):
    for number in (3, 4):
        audio_file(f"clean/clean_fileid_{number}.wav", speech(0.1, 8000))
    audio_file("noisy/noisy_fileid_3.wav", speech(0.1, 8000))
    with pytest.raises(UsageError, match=message):
        folder_pairs(tmp_path / "clean", tmp_path / "noisy", match)


def test_names_are_compared_in_one_unicode_form(audio_file, speech, tmp_path):
    """macOS decomposes an accented letter, Linux does not."""
    audio_file("clean/caf\u00e9.wav", speech(0.1, 8000))
    audio_file("noisy/cafe\u0301.wav", speech(0.1, 8000))
    (pair,) = folder_pairs(tmp_path / "clean", tmp_path / "noisy")
    assert pair.name == "caf\u00e9"
    assert pair.noisy.is_file()
    (pair,) = folder_pairs(tmp_path / "clean", tmp_path / "noisy", "(cafe\u0301)")
    assert pair.name == "caf\u00e9"


def test_pairs_from_a_list(folders, tmp_path):
    clean, noisy = folders
    table = tmp_path / "pairs.csv"
    table.write_text(
        "noisy,clean,name,noise,snr_db\n"
        f"noisy/a.flac,clean/b.wav,first,rain,5\n{noisy / 'b.flac'},clean/a.wav,,,\n"
        "noisy/deep/c.wav,clean/a.wav,,,\n"
    )
    first, second, third = listed_pairs(table)
    assert first == Pair("first", clean / "b.wav", noisy / "a.flac", "rain", 5.0)
    assert (second.clean, second.noisy) == (clean / "a.wav", noisy / "b.flac")
    assert (second.noise, second.snr_db) == (None, None)
    assert third.name == "noisy/deep/c"


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_a_list_with_another_delimiter(folders, tmp_path, delimiter):
    table = tmp_path / "pairs.csv"
    rows = (("clean", "noisy", "snr_db"), ("clean/b.wav", "noisy/a.flac", "2,5"))
    table.write_text("".join(delimiter.join(row) + "\n" for row in rows))
    (pair,) = listed_pairs(table)
    assert (pair.clean, pair.noisy) == (folders[0] / "b.wav", folders[1] / "a.flac")
    assert pair.snr_db == 2.5  # spreadsheets write them where the comma is the decimal point


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must have the headings clean and noisy"),
        ("a,b\nclean/a.wav,noisy/a.flac\n", "must have the headings clean and noisy"),
        ("clean,noisy\n", "and rows"),
        ("clean,noisy\nclean/a.wav,noisy/x.flac\n", "line 2: there is no noisy file"),
        ("clean,noisy\nclean/a.wav\n", "line 2: there is no noisy file"),
        ("clean,noisy\n\n\nclean/a.wav,noisy/x.flac\n", "line 4: there is no noisy file"),
        ("clean,noisy,name\nclean/a.wav,noisy/a.flac,.\n", "'.' is no name below a folder"),
        ("clean,noisy,snr_db\nclean/a.wav,noisy/a.flac,low\n", "the SNR 'low' is not a number"),
        ("clean,noisy,name\nclean/a.wav,noisy/a.flac,../a\n", "'../a' is no name below a folder"),
        ("clean,noisy,name\nclean/a.wav,noisy/a.flac,/a\n", "'/a' is no name below a folder"),
    ],
)
def test_lists_of_pairs_that_are_wrong(folders, tmp_path, text, message):
    table = tmp_path / "pairs.csv"
    table.write_text(text)
    with pytest.raises(UsageError, match=message):
        listed_pairs(table)
    with pytest.raises(UsageError, match="cannot read the pairs"):
        listed_pairs(tmp_path / "none.csv")


@pytest.mark.parametrize(
    ("noisy", "expected"),
    [
        ("./a.wav", "a"),
        ("../takes/a.wav", "takes/a"),
        (".x/.a.wav", ".x/.a"),
        ("/home/me/a.wav", "home/me/a"),
    ],
)
def test_default_names_are_paths_below_a_folder(noisy, expected):
    assert _default_name(noisy) == expected


def test_the_test_set_of_a_dataset(dataset):
    rows = load_manifest(dataset).rows("test")
    with stored_pairs(dataset) as found:
        recordings = {pair.sources for pair in found}
        assert len(found) == len({pair.name for pair in found}) == len(rows)
        assert len(rows) == 3 * len(recordings) > 3
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
            measured = 10 * np.log10(np.var(clean) / np.var(noisy - clean))
            assert pair.snr_db == pytest.approx(measured, abs=0.01)
    assert not found[0].noisy.exists()


def test_a_dataset_without_noise_has_no_snr(audio_file, noise, tmp_path):
    for number in range(2):
        audio_file(f"speech/{number}.wav", noise(0.4, 8000), 8000)
        audio_file(f"noise/{number}.wav", noise(0.6, 8000), 8000)
    recipe = Recipe(ratio=0.0, split=0.5, sample_rate=8000)
    build(tmp_path / "speech", tmp_path / "noise", tmp_path / "data", recipe)
    with stored_pairs(tmp_path / "data") as (pair,):
        assert (pair.snr_db, pair.noise) == (None, None)


def test_folders_that_are_not_usable_datasets(tiny_dataset, tmp_path):
    dataset = shutil.copytree(tiny_dataset, tmp_path / "data")
    with pytest.raises(DatasetError, match="is not a dataset"), stored_pairs(tmp_path):
        pass
    shutil.rmtree(dataset / "test")
    with pytest.raises(DatasetError, match="cannot be read"), stored_pairs(dataset):
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


def test_videos_and_media_files_are_recordings_and_the_rest_is_named(audio_file, speech, tmp_path):
    audio_file("sounds/a.wav", speech(0.1, 8000))
    for name in ("b.m4a", "deep/c.MKV", "notes.txt", ".hidden"):
        path = tmp_path / "sounds" / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    assert list(find_recordings(tmp_path / "sounds")) == ["a", "b", "deep/c"]
    assert [path.name for path in files_left_out(tmp_path / "sounds")] == ["notes.txt"]
