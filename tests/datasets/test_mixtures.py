from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from denoisecli.audio import level
from denoisecli.audio.level import snr_db
from denoisecli.audio.stft import stft
from denoisecli.datasets.decoding import decode, divide
from denoisecli.datasets.mixtures import Mixed, Mixing, checksum, noise_shares
from denoisecli.datasets.recipe import Recipe
from denoisecli.datasets.recordings import Skipped, find, load
from denoisecli.errors import DatasetError


@pytest.fixture
def mixing(tmp_path: Path) -> Callable[..., Mixing]:
    """Make ``mixing(**arguments of Recipe)`` of the folders clean, noise and perhaps room."""

    def make(**arguments: Any) -> Mixing:
        recipe = Recipe(**arguments)
        roots: Any = {
            role: tmp_path / role
            for role in ("clean", "noise", "room")
            if (tmp_path / role).exists()
        }
        folder = tmp_path / f"packs{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        tasks = divide(find(roots), roots, folder, sample_rate=recipe.sample_rate)
        for task in tasks:
            decode(task)
        return Mixing(load([task.index for task in tasks])[0], recipe)

    return make


@pytest.fixture
def folders(audio_file: Callable[..., Path], rng: np.random.Generator) -> None:
    """Clean sounds of 0.5 to 1 s, noises shorter and longer than that, at several rates."""
    for number, rate in enumerate([16000, 8000, 44100, 16000, 48000, 16000]):
        seconds = 0.5 + number / 10
        audio_file(f"clean/{number}.wav", 0.1 * rng.standard_normal(round(seconds * rate)), rate)
    for number, (seconds, rate) in enumerate([(0.3, 16000), (3, 16000), (2, 44100)]):
        audio_file(f"noise/{number}.flac", 0.05 * rng.standard_normal(int(seconds * rate)), rate)


def made(mixing: Mixing) -> list[Mixed]:
    mixes = [mixing.make(number) for number in range(len(mixing))]
    return [mix for mix in mixes if isinstance(mix, Mixed)]


@pytest.mark.parametrize("snr", [-5.0, 0.0, 12.0])
@pytest.mark.usefixtures("folders")
def test_pairs_have_the_snr(mixing: Callable[..., Mixing], snr: float) -> None:
    mixes = made(mixing(snr_db=snr, noises=(1, 3)))
    for mix in mixes:
        assert mix.noisy.dtype == mix.clean.dtype == np.float32
        assert mix.noisy.shape == mix.clean.shape
        assert np.abs(mix.noisy).max() <= 1
        assert snr_db(mix.noisy, mix.clean) == pytest.approx(snr, abs=1e-3)
        assert mix.row["level_dbfs"] == pytest.approx(level.dbfs(level.rms(mix.noisy)))
        assert mix.row["crc32"] == checksum(mix.noisy, mix.clean)
    assert sorted(mix.noisy.size for mix in mixes) == [8000, 9600, 11200, 12800, 14400, 16000]
    assert {len(mix.row.get("more_noises", [])) for mix in mixes} > {0}


@pytest.mark.parametrize("match_level", [True, False])
def test_the_rows_tell_how_to_mix_again(
    mixing: Callable[..., Mixing],
    audio_file: Callable[..., Path],
    rng: np.random.Generator,
    tmp_path: Path,
    match_level: bool,
) -> None:
    audio_file("clean/a.wav", 0.6 * rng.standard_normal(20000))  # passes full scale
    audio_file("clean/b.wav", 0.1 * rng.standard_normal(50000))
    for name in "cde":
        audio_file(f"clean/{name}.wav", 0.1 * rng.standard_normal(4000))
    audio_file("noise/short.wav", 0.3 * rng.standard_normal(5000))
    audio_file("noise/long.flac", 0.3 * rng.standard_normal(90000))
    recipe: dict[str, Any] = {"ratio": (0.1, 0.9), "mixes_per_clip": 4, "noises": (1, 3)}
    mixes = made(mixing(**recipe, segment=1.0, join=1.0, pad=True, match_level=match_level))
    assert len(mixes) == 4 * (2 + 4 + 2)
    assert {mix.row["gain"] < 1 for mix in mixes} == {True, False}
    for mix in mixes:
        row, expected = mix.row, np.zeros(16000)
        for piece in row.get("joined", [{**row, "at": 0}]):
            sound, _ = soundfile.read(tmp_path / "clean" / piece["clean"])
            sound = sound[row["clean_offset"] :][: piece["samples"]]
            expected[piece["at"] : piece["at"] + sound.size] = sound
        expected *= row["gain"] * (1 - row["ratio"])
        np.testing.assert_allclose(mix.clean, expected, atol=1e-5)
        for noise in (row, *row.get("more_noises", [])):
            sound, _ = soundfile.read(tmp_path / "noise" / noise["noise"])
            sound = sound[(noise["noise_offset"] + np.arange(16000)) % sound.size]
            expected += row["gain"] * row["ratio"] * noise["noise_gain"] * sound
            assert match_level or noise["noise_gain"] == 1
        np.testing.assert_allclose(mix.noisy, expected, atol=1e-5)


@pytest.mark.usefixtures("folders")
def test_levels(mixing: Callable[..., Mixing]) -> None:
    mixes = made(mixing(snr_db=5.0, level_dbfs=(-45.0, -12.0), mixes_per_clip=20))
    levels = np.array([level.dbfs(level.rms(mix.noisy)) for mix in mixes])
    assert -45.01 < levels.min() < -43 < -14 < levels.max() < -11.99
    assert snr_db(mixes[0].noisy, mixes[0].clean) == pytest.approx(5, abs=1e-3)
    for mix in made(mixing(ratio=0.5, level_dbfs=0.0)):  # cannot be met by noise
        peak = max(np.abs(mix.noisy).max(), np.abs(mix.clean).max())
        assert 0.999999 < peak <= 1
        assert mix.row["level_dbfs"] < -5


def test_further_noises_are_softer(
    mixing: Callable[..., Mixing], audio_file: Callable[..., Path], rng: np.random.Generator
) -> None:
    for number in range(4):
        audio_file(f"clean/{number}.wav", 0.1 * rng.standard_normal(16000))
        audio_file(f"noise/{number}.wav", 0.1 * rng.standard_normal(32000))
    rows = [mix.row for mix in made(mixing(snr_db=0.0, noises=2, mixes_per_clip=10))]
    gains = np.array([row["more_noises"][0]["noise_gain"] / row["noise_gain"] for row in rows])
    assert -10.5 < 20 * np.log10(gains.min()) < -8
    assert -2 < 20 * np.log10(gains.max()) < 0.5


@pytest.mark.parametrize("target", ["dry", "early"])
@pytest.mark.usefixtures("folders")
def test_rooms(
    mixing: Callable[..., Mixing],
    audio_file: Callable[..., Path],
    rng: np.random.Generator,
    target: str,
) -> None:
    without = made(mixing(snr_db=60.0))
    response = np.zeros(8000)
    response[[0, 3200]] = 0.9, 0.45  # an echo after 0.2 s at half the amplitude
    audio_file("room/hall.wav", np.array([response, np.zeros(8000)]))
    settings: dict[str, Any] = {"reverb_target": target, "mixes_per_clip": 1}
    mixes = made(mixing(snr_db=60.0, reverb_share=1.0, **settings))
    for mix, plain in zip(mixes, without, strict=True):
        assert mix.row["room"] == "hall.wav"
        dry = plain.clean * mix.row["gain"] / plain.row["gain"]
        np.testing.assert_allclose(mix.clean, dry, atol=1e-5)
        dry[3200:] += 0.5 * dry[:-3200]
        np.testing.assert_allclose(mix.noisy, dry, atol=2e-3)
        assert mix.row["snr_db"] == pytest.approx(60)
        found = snr_db(mix.noisy, mix.clean)
        assert (
            found == pytest.approx(mix.row["target_snr_db"], abs=1e-3) == pytest.approx(6.6, abs=2)
        )
    mixes = made(mixing(snr_db=60.0, reverb_share=0.5, mixes_per_clip=20))
    assert 40 < sum("room" in mix.row for mix in mixes) < 80


@pytest.mark.usefixtures("folders")
def test_mixes_depend_on_their_number_alone(mixing: Callable[..., Mixing]) -> None:
    recipe: dict[str, Any] = {"snr_db": (-5.0, 20.0), "mixes_per_clip": 3}
    one, other = mixing(**recipe), mixing(**recipe)
    forwards = [mix.row for mix in made(one)]
    last = other.make(17)
    assert isinstance(last, Mixed)
    assert last.row == forwards[17]
    assert len({row["crc32"] for row in forwards}) == 18
    for settings in ({**recipe, "seed": 1}, {**recipe, "noises": 2}):
        rows = [mix.row for mix in made(mixing(**settings))]
        assert {row["crc32"] for row in rows}.isdisjoint(row["crc32"] for row in forwards)
    ranges = one.tasks(3)
    assert [number for span in ranges for number in range(*span)] == list(range(3, 18))
    assert one.tasks(18) == []


def test_noises_are_drawn_evenly_over_folders(
    mixing: Callable[..., Mixing], audio_file: Callable[..., Path], rng: np.random.Generator
) -> None:
    audio_file("clean/a.wav", 0.1 * rng.standard_normal(2000))
    for number in range(10):
        audio_file(f"noise/many/{number}.wav", 0.1 * rng.standard_normal(2000))
    audio_file("noise/few/x/1.wav", 0.1 * rng.standard_normal(2000))
    audio_file("noise/top.wav", 0.1 * rng.standard_normal(8000))
    shares = {}
    for by in ("folder", "file", "length"):
        mixes = made(mixing(ratio=0.5, mixes_per_clip=300, noise_draw=by))
        shares[by] = Counter(mix.row["noise"].rpartition("/")[0] for mix in mixes)
    assert shares["folder"].keys() == {"many", "few/x", ""}
    assert 70 < min(shares["folder"].values()) <= max(shares["folder"].values()) < 130
    assert 225 < shares["file"]["many"] < 275
    assert 50 < shares["length"][""] < 110
    noises = mixing(ratio=0.5).sources["noise"]
    assert sum(noise_shares(noises, "folder")) == pytest.approx(3)


def test_weights(
    mixing: Callable[..., Mixing], audio_file: Callable[..., Path], rng: np.random.Generator
) -> None:
    for name in ("a/1", "a/2", "b/x/3", "ab/4"):
        audio_file(f"clean/{name}.wav", 0.1 * rng.standard_normal(2000))
        audio_file(f"noise/{name}.wav", 0.1 * rng.standard_normal(4000))
    twice: dict[str, Any] = {"ratio": 0.5, "mixes_per_clip": 2}
    plain = [mix.row for mix in made(mixing(**twice))]
    assert [mix.row for mix in made(mixing(**twice, clean_weights={"c": 5, "ab": 1}))] == plain
    mixes = made(mixing(**twice, clean_weights={"a": 3, "*/2.wav": 2, "b": 0}))
    count = Counter(mix.row["clean"] for mix in mixes)
    assert count == {"a/1.wav": 6, "a/2.wav": 12, "ab/4.wav": 2}
    assert len({mix.row["noise_offset"] for mix in mixes}) > 15  # each mixed anew

    weights = {"a": 2.0, "b/": 0.5, "ab": 0.0}
    mixes = made(mixing(ratio=0.5, mixes_per_clip=100, noise_weights=weights))
    count = Counter(mix.row["noise"] for mix in mixes)
    assert count.keys() == {"a/1.wav", "a/2.wav", "b/x/3.wav"}
    assert 60 < count["b/x/3.wav"] < 100  # of 400: 0.5 in 2.5
    with pytest.raises(DatasetError, match="all noises of a set have a weight of 0"):
        mixing(ratio=0.5, noise_weights={"*": 0.0})
    with pytest.raises(DatasetError, match="all clean recordings of a set have a weight of 0"):
        mixing(ratio=0.5, clean_weights={"*": 0})


def test_pauses_in_noise_are_avoided(
    mixing: Callable[..., Mixing], audio_file: Callable[..., Path], rng: np.random.Generator
) -> None:
    strokes = 1e-4 * rng.standard_normal(160000)
    strokes[80000:90000] += 0.1 * rng.standard_normal(10000)
    audio_file("clean/a.wav", 0.1 * rng.standard_normal(8000))
    audio_file("noise/strokes.wav", strokes, subtype="FLOAT")
    mixes = made(mixing(ratio=0.5, mixes_per_clip=30))
    assert len(mixes) == 30
    assert all(72000 < mix.row["noise_offset"] < 90000 for mix in mixes)

    # One click in 10 s is nearly never met by 0.1 s.
    click = np.zeros(1_600_000)
    click[800_000] = 0.5
    audio_file("clean/a.wav", 0.1 * rng.standard_normal(1600))
    audio_file("noise/strokes.wav", click)
    with pytest.raises(DatasetError, match=r"strokes\.wav"):
        made(mixing(ratio=0.5))


def test_clips_that_cannot_be_used(
    mixing: Callable[..., Mixing], audio_file: Callable[..., Path], rng: np.random.Generator
) -> None:
    sound = 0.1 * rng.standard_normal(5 * 16000)
    sound[32000:48000] = 0
    sound[48000:60000] = 0
    audio_file("clean/a.wav", sound)
    audio_file("noise/n.wav", 0.1 * rng.standard_normal(4000))

    def result(**arguments: Any) -> tuple[int, list[Skipped]]:
        made = mixing(ratio=0.2, segment=1.0, **arguments)
        mixes = [made.make(number) for number in range(len(made))]
        skipped = [mix for mix in mixes if isinstance(mix, Skipped)]
        return sum(isinstance(mix, Mixed) for mix in mixes), skipped

    silent = Skipped("clean", "a.wav", "is silent from 2.00 s to 3.00 s")
    assert result() == (4, [silent])
    count, skipped = result(min_active=0.5, mixes_per_clip=3)
    assert count == 9
    assert sorted(skip.reason for skip in skipped) == [  # each once, though mixed three times
        "is active for only 26% from 3.00 s to 4.00 s",
        silent.reason,
    ]


@pytest.mark.usefixtures("folders")
def test_spectrograms(mixing: Callable[..., Mixing]) -> None:
    waves = made(mixing(snr_db=5.0))
    spectra = made(mixing(snr_db=5.0, kind="spectrogram", n_fft=400, hop_length=100))
    for wave, spectrum in zip(waves, spectra, strict=True):
        expected = np.abs(stft(wave.noisy, n_fft=400, hop_length=100))
        assert spectrum.noisy.dtype == np.float32
        np.testing.assert_allclose(spectrum.noisy, expected, atol=1e-6)
        assert spectrum.clean.shape == expected.shape
        assert spectrum.row["samples"] == wave.noisy.size
