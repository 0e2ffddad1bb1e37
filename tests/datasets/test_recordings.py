import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from denoisecli.datasets.decoding import decode, decode_tasks
from denoisecli.datasets.recipe import Recipe
from denoisecli.datasets.recordings import Recording, Role, find_recordings, load_recordings
from denoisecli.errors import AudioError, DatasetError, UsageError


@pytest.fixture
def loaded(tmp_path: Path) -> Callable[..., tuple[dict[Role, list[Recording]], dict[str, str]]]:
    """Decode and load folders below tmp_path: the recordings by role, the reasons by name."""

    def make(**folders: str) -> tuple[dict[Role, list[Recording]], dict[str, str]]:
        roots = {role.replace("_", " "): tmp_path / name for role, name in folders.items()}
        tasks = decode_tasks(find_recordings(roots), roots, tmp_path, Recipe(ratio=0.5))
        for task in tasks:
            decode(task)
        recordings, skipped = load_recordings([task.index for task in tasks])
        return recordings, {f"{skip.role} {skip.file}": skip.reason for skip in skipped}

    return make


def test_pieces(
    loaded: Callable[..., tuple], audio_file: Callable[..., Path], rng: np.random.Generator
) -> None:
    sounds = [rng.integers(-9000, 9000, 16000 + number, dtype=np.int16) for number in range(3)]
    for number, sound in enumerate(sounds):
        audio_file(f"clean/speaker/{number}.wav", sound)
    recordings, _ = loaded(clean="clean")
    for recording, sound in zip(recordings["clean"], sounds, strict=True):
        whole = np.float32(sound / 32768)
        assert (recording.samples, recording.folder) == (sound.size, "speaker")
        np.testing.assert_array_equal(recording.read(), whole)
        np.testing.assert_array_equal(recording.read(5000), whole[5000:])
        np.testing.assert_array_equal(recording.read(15000, 1000), whole[15000:16000])
        assert recording.rms == pytest.approx(np.std(whole.astype(float)), rel=1e-6)
    pack = recordings["clean"][0].pack
    pack.write_bytes(pack.read_bytes()[:70_000])
    with pytest.raises(AudioError, match="damaged"):
        recordings["clean"][2].read()
    pack.unlink()
    with pytest.raises(AudioError, match="cannot read"):
        recordings["clean"][0].read()


def test_copies_are_left_out(
    loaded: Callable[..., tuple], audio_file: Callable[..., Path], rng: np.random.Generator
) -> None:
    sounds = [rng.integers(-9000, 9000, 8000, dtype=np.int16) for _ in range(4)]
    for number, sound in enumerate(sounds):
        audio_file(f"clean/{number}.wav", sound)
        audio_file(f"noise/{number} again.flac", sound[::-1].copy())
    audio_file("clean/a copy of 2.flac", sounds[2])
    audio_file("noise/clean.wav", sounds[3])
    audio_file("test/of train.wav", sounds[0])
    recordings, reasons = loaded(clean="clean", noise="noise", test_clean="test")
    # The test set keeps what is in both, since it is what was given for it.
    assert [recording.name for recording in recordings["test clean"]] == ["of train.wav"]
    assert [recording.name for recording in recordings["clean"]] == ["1.wav", "2.wav", "3.wav"]
    assert len(recordings["noise"]) == 4
    assert reasons == {
        "clean 0.wav": "is identical to test clean file of train.wav",
        "clean a copy of 2.flac": "is identical to clean file 2.wav",
        "noise clean.wav": "is identical to clean file 3.wav",
    }


def test_nothing_left(
    loaded: Callable[..., tuple], audio_file: Callable[..., Path], rng: np.random.Generator
) -> None:
    audio_file("clean/a.wav", 0.1 * rng.standard_normal(16000))
    for number in range(5):
        audio_file(f"noise/{number}.wav", np.zeros(16000))
    with pytest.raises(DatasetError, match=r"none of the 5 noise .*0\.wav is silent.*\.\.\."):
        loaded(clean="clean", noise="noise")


@pytest.mark.skipif(sys.platform != "linux", reason="other file systems refuse such names")
def test_names_that_are_no_text_are_refused(
    audio_file: Callable[..., Path], tmp_path: Path
) -> None:
    """The manifest is UTF-8."""
    name = os.fsdecode(b"caf\xe9.wav")
    Path(audio_file("noise/cafe.wav", np.ones(800))).rename(tmp_path / "noise" / name)
    with pytest.raises(UsageError, match=r"caf\\udce9.wav.* is not UTF-8 text; rename it"):
        find_recordings({"noise": tmp_path / "noise"})


def test_find(audio_file: Callable[..., Path], tmp_path: Path) -> None:
    path = audio_file("clean/b/a.wav", np.ones(16000))
    audio_file("clean/.hidden/a.wav", np.ones(16000))
    (tmp_path / "clean" / "notes.txt").write_text("no sound")
    (file,) = find_recordings({"clean": tmp_path / "clean"})
    assert (file.role, file.name, file.size) == ("clean", "b/a.wav", path.stat().st_size)
    with pytest.raises(UsageError, match="is a file"):
        find_recordings({"clean": path})
    with pytest.raises(UsageError, match="does not exist"):
        find_recordings({"clean": tmp_path / "clean", "noise": tmp_path / "nothing"})
