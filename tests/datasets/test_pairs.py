from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from denoisecli.datasets.building import build
from denoisecli.datasets.inspection import verify
from denoisecli.datasets.manifest import load_manifest
from denoisecli.datasets.pairs import problem_of_pair
from denoisecli.datasets.recipe import Recipe
from denoisecli.datasets.recordings import Recording
from denoisecli.datasets.stored import load_pairs
from denoisecli.errors import DatasetError, UsageError

RATE = 8000


@pytest.fixture
def recording(tmp_path: Path) -> Callable[..., Recording]:
    """Make ``recording(sound)``."""

    def make(sound: np.ndarray) -> Recording:
        pack = tmp_path / f"{len(list(tmp_path.iterdir()))}.f32"
        sound.astype(np.float32).tofile(pack)
        return Recording("clean", pack.name, 0.1, pack.name, sound.size, pack, 0)

    return make


@pytest.fixture
def folders(
    audio_file: Callable[..., Path], speech: Callable[..., np.ndarray], rng: np.random.Generator
) -> tuple[Path, Path]:
    """Pairs in the layout of VoiceBank+DEMAND, the noisy ones in another format."""
    for number in range(12):
        clean = speech(1 + number / 10, RATE, 100 + 10 * number)
        clean = clean + 1e-3 * rng.standard_normal(clean.size)
        noisy = clean + 0.02 * (1 + number) * rng.standard_normal(clean.size)
        path = audio_file(f"clean/p{number // 4}_{number:03d}.wav", clean, RATE)
        audio_file(f"noisy/p{number // 4}_{number:03d}.flac", noisy.clip(-1, 1), RATE)
    return path.parent, path.parents[1] / "noisy"


@pytest.mark.parametrize("snr", [-15.0, 0.0, 30.0])
def test_a_pair_fits_at_any_snr(
    recording: Callable[..., Recording],
    speech: Callable[..., np.ndarray],
    noise: Callable[..., np.ndarray],
    snr: float,
) -> None:
    clean, sound = speech(4, RATE), noise(4, RATE)
    sound = sound * np.std(clean) / np.std(sound) * 10 ** (-snr / 20)
    pair = recording(clean), recording(clean + sound)
    assert problem_of_pair(*pair, RATE) is None
    pair = recording(clean), recording(0.1 * (clean + sound)[: -RATE // 200] + 0.2)
    assert problem_of_pair(*pair, RATE) is None


def test_a_pair_that_does_not_fit_has_a_reason(
    recording: Callable[..., Recording],
    speech: Callable[..., np.ndarray],
    rng: np.random.Generator,
) -> None:
    clean = speech(3, RATE) + 1e-3 * rng.standard_normal(3 * RATE)
    noisy = clean + 0.05 * rng.standard_normal(clean.size)
    for other, reason in (
        (noisy[: 2 * RATE], "lasts 2.00 s, but its clean recording 3.00 s"),
        (np.roll(noisy, 80), "is 10.0 ms behind its clean one"),
        (np.roll(noisy, -400), "is 50.0 ms ahead of its clean one"),
        (-noisy, "has the polarity of its clean recording inverted"),
        (0.1 * rng.standard_normal(clean.size), "does not contain its clean recording"),
    ):
        assert problem_of_pair(recording(clean), recording(other), RATE) == reason


@pytest.mark.parametrize("rate", [RATE, 16000])
def test_pairs_are_stored_as_they_are(
    folders: tuple[Path, Path], tmp_path: Path, rate: int
) -> None:
    recipe = Recipe(pairs=True, sample_rate=rate, group_by=r"^(p\d+)_", split=(0.4, 0.3, 0.3))
    build(*folders, tmp_path / "data", recipe)
    manifest = load_manifest(tmp_path / "data")
    assert len(manifest.mixtures) == 12
    low, high = manifest.mixing_recipe.snr_db
    assert -10 < low < high < 20
    assert list(verify(tmp_path / "data")) == []
    for name in manifest.sets:
        pairs = load_pairs(tmp_path / "data", name).as_numpy_iterator()
        for row, (noisy, clean) in zip(manifest.rows(name), pairs, strict=True):
            assert Path(row.clean).stem == Path(row.noise).stem
            if rate == RATE:
                for folder, file, found in (
                    (folders[0], row.clean, clean),
                    (folders[1], row.noise, noisy),
                ):
                    sound, _ = soundfile.read(folder / file, dtype="float32")
                    np.testing.assert_allclose(found, sound * row.gain / 2, atol=1e-6)
    speakers = [{row.clean[:2] for row in manifest.rows(name)} for name in manifest.sets]
    assert sum(map(len, speakers)) == len(set.union(*speakers)) == 3


def test_pairs_are_cut_and_mixed_by_no_other_noise(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    recipe = Recipe(pairs=True, sample_rate=RATE, segment=0.5)
    build(*folders, tmp_path / "data", recipe, jobs=1)
    rows = load_manifest(tmp_path / "data").mixtures
    assert len(rows) > 24
    assert all(row.clean_offset == row.noise_offset for row in rows)
    assert list(verify(tmp_path / "data")) == []


def test_few_pairs_are_split_in_time(
    audio_file: Callable[..., Path],
    speech: Callable[..., np.ndarray],
    rng: np.random.Generator,
    tmp_path: Path,
) -> None:
    clean = speech(60, RATE) + 1e-3 * rng.standard_normal(60 * RATE)
    audio_file("clean/take.wav", clean, RATE)
    audio_file("noisy/take.flac", clean + 0.02 * rng.standard_normal(clean.size), RATE)
    recipe = Recipe(pairs=True, sample_rate=RATE, segment=2.0)
    build(tmp_path / "clean", tmp_path / "noisy", tmp_path / "data", recipe, jobs=1)
    manifest = load_manifest(tmp_path / "data")
    assert {"train", "test"} <= set(manifest.sets)
    assert list(verify(tmp_path / "data")) == []
    for row in manifest.mixtures:
        assert Path(row.clean).stem == Path(row.noise).stem
        assert row.clean_offset == row.noise_offset


def test_pairs_that_do_not_fit_are_left_out(
    folders: tuple[Path, Path], audio_file: Callable[..., Path], tmp_path: Path
) -> None:
    rng = np.random.default_rng(3)
    audio_file("noisy/p0_000.flac", 0.1 * rng.standard_normal(RATE), RATE)
    audio_file("noisy/p9_000.flac", 0.1 * rng.standard_normal(RATE), RATE)
    (folders[1] / "p0_001.flac").unlink()
    clean, _ = soundfile.read(folders[0] / "p0_002.wav")
    audio_file("clean/p0_002.wav", 0 * clean, RATE)
    build(*folders, tmp_path / "data", Recipe(pairs=True, sample_rate=RATE))
    manifest = load_manifest(tmp_path / "data")
    assert {skip.file: skip.reason for skip in manifest.skipped} == {
        "p0_000.flac": "does not contain its clean recording",
        "p0_001.wav": "has no noisy recording of the same name",
        "p0_002.wav": "is silent",
        "p0_002.flac": "has a clean recording that is left out",
        "p9_000.flac": "has no clean recording of the same name",
    }
    assert len(manifest.mixtures) == 9
    for path in folders[1].iterdir():
        audio_file(f"noisy/{path.name}", 0.1 * rng.standard_normal(RATE), RATE)
    with pytest.raises(DatasetError, match="no pair of clean recordings can be used: "):
        build(*folders, tmp_path / "none", Recipe(pairs=True, sample_rate=RATE))


def test_a_clean_recording_may_have_several_noisy_ones(
    audio_file: Callable[..., Path],
    speech: Callable[..., np.ndarray],
    rng: np.random.Generator,
    tmp_path: Path,
) -> None:
    """As in corpora that have each sentence at several SNRs; they stay in one set."""
    for number in range(6):
        clean = speech(1, RATE, 100 + 20 * number) + 1e-3 * rng.standard_normal(RATE)
        for snr in ("00dB", "10dB"):
            noise = (0.1 if snr == "00dB" else 0.03) * rng.standard_normal(RATE)
            audio_file(f"clean/{number}_{snr}.wav", clean, RATE)
            audio_file(f"noisy/{number}_{snr}.wav", (clean + noise).clip(-1, 1), RATE)
    recipe = Recipe(pairs=True, sample_rate=RATE, split=0.6, seed=1)
    build(tmp_path / "clean", tmp_path / "noisy", tmp_path / "data", recipe)
    manifest = load_manifest(tmp_path / "data")
    assert not manifest.skipped
    sets: dict[str, set[str]] = {}
    for row in manifest.mixtures:
        assert row.noise == row.clean
        sets.setdefault(row.clean[0], set()).add(row.set)
    assert len(manifest.mixtures) == 12
    assert all(len(names) == 1 for names in sets.values())
    assert len({name for names in sets.values() for name in names}) >= 2
    for name in manifest.sets:
        for (noisy, clean), row in zip(
            load_pairs(tmp_path / "data", name).as_numpy_iterator(),
            manifest.rows(name),
            strict=True,
        ):
            expected = {"0": 0.1, "1": 0.03}[row.clean[2]]
            assert np.std(noisy / row.gain - clean / row.gain) == pytest.approx(
                expected / 2, rel=0.2
            )


@pytest.mark.slow
def test_many_noisy_recordings_of_a_sentence_stay_in_one_set(
    audio_file: Callable[..., Path],
    speech: Callable[..., np.ndarray],
    rng: np.random.Generator,
    tmp_path: Path,
) -> None:
    for number in range(4):
        clean = speech(1, RATE, 100 + 20 * number) + 1e-3 * rng.standard_normal(RATE)
        for version in range(24):
            noisy = clean + 0.03 * rng.standard_normal(RATE)
            audio_file(f"clean/{version:02d}_{number}.wav", clean, RATE)
            audio_file(f"noisy/{version:02d}_{number}.wav", noisy.clip(-1, 1), RATE)
    recipe = Recipe(pairs=True, sample_rate=RATE, split=0.5)
    build(tmp_path / "clean", tmp_path / "noisy", tmp_path / "data", recipe)
    rows = load_manifest(tmp_path / "data").mixtures
    assert len(rows) == 96
    assert len({(Path(row.clean).stem[-1], row.set) for row in rows}) == 4


def test_test_pairs_have_folders_of_their_own(
    folders: tuple[Path, Path],
    audio_file: Callable[..., Path],
    speech: Callable[..., np.ndarray],
    rng: np.random.Generator,
    tmp_path: Path,
) -> None:
    """A copy of theirs is not trained on, and a set without any pair is an error."""
    clean = speech(2, RATE, 333) + 1e-3 * rng.standard_normal(2 * RATE)
    noise = 0.05 * rng.standard_normal(clean.size)
    for name, gain in (("test/clean/t.wav", 1.0), ("clean/copy.wav", 0.5)):
        audio_file(name, gain * clean, RATE)
        audio_file(name.replace("clean", "noisy"), gain * (clean + noise), RATE)
    test = tmp_path / "test" / "clean", tmp_path / "test" / "noisy"
    recipe = Recipe(pairs=True, sample_rate=RATE, split=1)
    build(*folders, tmp_path / "data", recipe, test_clean=test[0], test_noise=test[1])
    manifest = load_manifest(tmp_path / "data")
    reasons = {(skip.role, skip.file): skip.reason for skip in manifest.skipped}
    assert reasons["clean", "copy.wav"] == "is a copy of test clean file t.wav"
    assert "copy.wav" not in {row.clean for row in manifest.mixtures}
    assert [row.clean for row in manifest.rows("test")] == ["t.wav"]
    assert {source.role for source in manifest.recordings if source.name == "t.wav"} == {
        "test clean",
        "test noise",
    }
    audio_file("test/noisy/t.wav", 0.1 * rng.standard_normal(clean.size), RATE)
    with pytest.raises(DatasetError, match="no pair of test clean recordings can be used"):
        build(*folders, tmp_path / "none", recipe, test_clean=test[0], test_noise=test[1])


def test_pairs_are_not_mixed_again(folders: tuple[Path, Path], tmp_path: Path) -> None:
    for arguments, message in (
        ({"snr_db": 5.0}, "already mixed"),
        ({"ratio": 0.5}, "already mixed"),
        ({"join": 3.0}, "cannot be joined"),
        ({"rooms": 3}, "cannot get rooms"),
    ):
        with pytest.raises(UsageError, match=message):
            Recipe(pairs=True, **arguments)
    with pytest.raises(UsageError, match="reverberation cannot be added"):
        build(*folders, tmp_path / "data", Recipe(pairs=True), reverb=folders[0])


def test_noisy_recordings_given_as_noise_are_noted(
    folders: tuple[Path, Path], audio_file: Callable[..., Path], tmp_path: Path
) -> None:
    recipe = Recipe(ratio=0.5, sample_rate=RATE)
    build(*folders, tmp_path / "data", recipe)
    notes = load_manifest(tmp_path / "data").notes
    assert sum("recordings, build with --pairs" in note for note in notes) == 1
    rng = np.random.default_rng(3)
    for path in folders[1].iterdir():
        audio_file(f"noisy/{path.name}", 0.1 * rng.standard_normal(RATE), RATE)
    build(*folders, tmp_path / "data", recipe, overwrite=True)
    notes = load_manifest(tmp_path / "data").notes
    assert sum("12 of 12 noise recordings have the name of a clean" in note for note in notes)
    for number, path in enumerate(sorted(folders[1].iterdir())):
        path.rename(path.with_name(f"noise {number}.flac"))
    build(*folders, tmp_path / "data", recipe, overwrite=True)
    assert not any("--pairs" in note for note in load_manifest(tmp_path / "data").notes)
