from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers import mostly_slow, speech_like
from scipy.signal import lfilter

from denoisecli.audio.resampling import resample
from denoisecli.datasets.building import build
from denoisecli.datasets.duplicates import find_copies, note_on_noisy_speech
from denoisecli.datasets.manifest import load_manifest
from denoisecli.datasets.recipe import Recipe
from denoisecli.datasets.recordings import Recording
from denoisecli.errors import DatasetError
from denoisecli.system.pools import Workers, processes
from denoisecli.training.recordings import Folders, open_store

RATE = 16000


@pytest.mark.parametrize("seed", mostly_slow(range(4), 0))
def test_copies_stay_on_one_side_and_are_listed(
    audio_file: Callable[..., Path],
    speech: Callable[..., np.ndarray],
    rng: np.random.Generator,
    tmp_path: Path,
    seed: int,
) -> None:
    sounds = []
    for number in range(8):
        # Syllables of random pitch and length, which differ between the recordings.
        parts = [speech(0.2 + 0.3 * rng.random(), RATE, 90 + 160 * rng.random()) for _ in range(8)]
        sound = np.concatenate(parts).astype(np.float32)
        sounds.append(sound + 0.003 * rng.standard_normal(sound.size).astype(np.float32))
        audio_file(f"clean/{number}.wav", sounds[number])
        noise = 0.1 * rng.standard_normal(RATE).astype(np.float32)
        audio_file(f"noise/{number}.wav", noise)
        if number == 0:
            audio_file("noise/quieter.wav", 0.3 * noise)
    audio_file("clean/x0.ogg", sounds[0])
    audio_file("clean/x1.wav", resample(sounds[1], RATE, 8000), 8000)
    audio_file("clean/x2.flac", 0.2 * sounds[2])
    audio_file("clean/x3.wav", sounds[3][5000:])
    build(tmp_path / "clean", tmp_path / "noise", tmp_path / "data",
          Recipe(ratio=0.5, split=0.5, valid_share=0, seed=seed))  # fmt: skip
    manifest = load_manifest(tmp_path / "data")
    sides = {Path(row.clean).name: row.set for row in manifest.mixtures}
    for number, copy in enumerate(("x0.ogg", "x1.wav", "x2.flac", "x3.wav")):
        assert sides[f"{number}.wav"] == sides[copy]
    assert manifest.copies == [
        ["clean 0.wav", "clean x0.ogg"],
        ["clean 1.wav", "clean x1.wav"],
        ["clean 2.wav", "clean x2.flac"],
        ["clean 3.wav", "clean x3.wav"],
        ["noise 0.wav", "noise quieter.wav"],
    ]
    assert any("5 recordings are copies of others" in note for note in manifest.notes)


def test_a_copy_of_a_test_recording_is_not_trained_on(
    audio_file: Callable[..., Path], rng: np.random.Generator, tmp_path: Path
) -> None:
    for number in range(3):
        audio_file(f"clean/{number}.wav", 0.1 * rng.standard_normal(2 * RATE))
        audio_file(f"noise/{number}.wav", 0.1 * rng.standard_normal(2 * RATE))
    test = rng.standard_normal(2 * RATE)
    audio_file("test/own.wav", 0.1 * test)
    audio_file("clean/copy.wav", 0.05 * test)
    audio_file("test noise/own.wav", 0.1 * rng.standard_normal(2 * RATE))
    build(
        tmp_path / "clean",
        tmp_path / "noise",
        tmp_path / "data",
        Recipe(ratio=0.5, split=1.0),
        test_clean=tmp_path / "test",
        test_noise=tmp_path / "test noise",
    )
    manifest = load_manifest(tmp_path / "data")
    assert [(skip.file, skip.reason) for skip in manifest.skipped] == [
        ("copy.wav", "is a copy of test clean file own.wav")
    ]
    with pytest.raises(DatasetError, match=r"1 clean recordings can be used: own\.wav is a copy"):
        build(
            tmp_path / "test",
            tmp_path / "noise",
            tmp_path / "other",
            Recipe(ratio=0.5, split=1.0),
            test_clean=tmp_path / "clean",
            test_noise=tmp_path / "test noise",
        )


def varied_speech(rng: np.random.Generator, seconds: float) -> np.ndarray:
    """Return syllables of random pitch and length, at 16 kHz."""
    parts: list[np.ndarray] = []
    while sum(part.size for part in parts) < seconds * RATE:
        parts.append(speech_like(0.25 * rng.integers(1, 4), RATE, float(rng.integers(90, 250))))
    return np.concatenate(parts)[: round(seconds * RATE)]


@pytest.mark.parametrize("names", [("spk{:02d}.wav", "noisy_book_fileid_{:02d}.wav"),
                                   ("{:02d}.wav", "{:02d}.wav")])  # fmt: skip
def test_noisy_recordings_given_as_noise_are_noted(
    audio_file: Callable[..., Path],
    rng: np.random.Generator,
    tmp_path: Path,
    names: tuple[str, str],
) -> None:
    for number in range(4):
        clean = varied_speech(rng, 2 + number / 10)
        noise = 0.1 * clean.std() * rng.standard_normal(clean.size)
        audio_file(f"clean/{names[0].format(number)}", clean)
        audio_file(f"noise/{names[1].format(number)}", clean + noise)
        audio_file(f"noise/fan {number}.wav", 0.1 * rng.standard_normal(2 * RATE))
    folders = tmp_path / "clean", tmp_path / "noise"
    build(*folders, tmp_path / "data", Recipe(ratio=0.5, split=0.5, valid_share=0))
    manifest = load_manifest(tmp_path / "data")
    (note,) = (note for note in manifest.notes if "noise recordings" in note)
    assert note.startswith("4 of 8 noise recordings contain a clean recording, for example")
    assert manifest.copies == []
    assert sum(facts.noise_files for facts in manifest.sets.values()) == 8
    recipe = Recipe(ratio=0.5, split=0.5)
    store = open_store(Folders(*folders), recipe, tmp_path / "cache", jobs=1)
    assert note_on_noisy_speech(store.copies, 8) == [note]


@pytest.mark.parametrize(("lost", "found"), [(16, True), (18, False)])
def test_a_long_recording_that_was_trimmed_is_a_copy(
    tmp_path: Path, rng: np.random.Generator, lost: int, found: bool
) -> None:
    sound = varied_speech(rng, 45)
    sound += 0.002 * rng.standard_normal(sound.size).astype(np.float32)
    sounds = sound, 0.5 * sound[lost * RATE :], varied_speech(rng, 30)
    pack = tmp_path / "pack.f32"
    pack.write_bytes(np.concatenate(sounds).astype("<f4").tobytes())
    starts = np.cumsum([0, *(part.size for part in sounds)]).tolist()
    recordings = [
        Recording("clean", str(number), 0.1, str(number), part.size, pack, start)
        for number, (part, start) in enumerate(zip(sounds, starts, strict=False))
    ]
    with processes(1) as workers:
        assert find_copies(recordings, RATE, workers) == ([(0, 1)] if found else [])


def test_identical_recordings_share_their_copies(tmp_path: Path, rng: np.random.Generator) -> None:
    """However many there are, and wherever they are in the order."""
    sound = lfilter([1.0], [1.0, -0.9], rng.standard_normal(8 * 8000)).astype(np.float32)
    other = lfilter([1.0], [1.0, -0.9], rng.standard_normal(8 * 8000)).astype(np.float32)
    recordings = []
    for number, kind in enumerate(["near", *["same"] * 25, "other", "near"]):
        content = {"near": (0.5 * sound)[1000:], "same": sound, "other": other}[kind]
        pack = tmp_path / f"{number}.f32"
        content.astype(np.float32).tofile(pack)
        recordings.append(Recording("clean", str(number), 0.1, kind, content.size, pack, 0))
    pairs = find_copies(recordings, 8000, Workers())
    assert {number for pair in pairs for number in pair} == set(range(28)) - {26}
    assert {(0, number) for number in range(1, 26)} <= set(pairs)
    assert {(1, 27), (0, 27)} <= set(pairs)
