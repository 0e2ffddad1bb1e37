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
from denoisecli.datasets.choices import NoiseDraw
from denoisecli.datasets.decoding import decode, decode_tasks
from denoisecli.datasets.manifest import Joined
from denoisecli.datasets.mixtures import Mixtures, Pair, checksum, noise_shares
from denoisecli.datasets.recipe import Recipe
from denoisecli.datasets.recordings import Skipped, find_recordings, load_recordings
from denoisecli.errors import DatasetError


@pytest.fixture
def mixtures(tmp_path: Path) -> Callable[..., Mixtures]:
    """Make ``mixtures(**arguments of Recipe)`` of the folders clean, noise and perhaps room."""

    def make(**arguments: Any) -> Mixtures:
        recipe = Recipe(**arguments)
        roots: Any = {
            role: tmp_path / role
            for role in ("clean", "noise", "room")
            if (tmp_path / role).exists()
        }
        folder = tmp_path / f"packs{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        clipped_too = recipe.model_copy(update={"max_clipped": 1.0})
        tasks = decode_tasks(find_recordings(roots), roots, folder, clipped_too)
        for task in tasks:
            decode(task)
        return Mixtures("train", load_recordings([task.index for task in tasks])[0], recipe)

    return make


@pytest.fixture
def folders(audio_file: Callable[..., Path], rng: np.random.Generator) -> None:
    """Clean sounds of 0.5 to 1 s, noises shorter and longer than that, at several rates."""
    for number, rate in enumerate([16000, 8000, 44100, 16000, 48000, 16000]):
        seconds = 0.5 + number / 10
        audio_file(f"clean/{number}.wav", 0.1 * rng.standard_normal(round(seconds * rate)), rate)
    for number, (seconds, rate) in enumerate([(0.3, 16000), (3, 16000), (2, 44100)]):
        audio_file(f"noise/{number}.flac", 0.05 * rng.standard_normal(int(seconds * rate)), rate)


def pairs_of(mixtures: Mixtures) -> list[Pair]:
    results = [mixtures.mix(number) for number in range(len(mixtures))]
    return [result for result in results if isinstance(result, Pair)]


@pytest.mark.parametrize("snr", [-5.0, 0.0, 12.0])
@pytest.mark.usefixtures("folders")
def test_pairs_have_the_snr(mixtures: Callable[..., Mixtures], snr: float) -> None:
    pairs = pairs_of(mixtures(snr_db=snr, noises=(1, 3)))
    for pair in pairs:
        assert pair.noisy.dtype == pair.clean.dtype == np.float32
        assert pair.noisy.shape == pair.clean.shape
        assert np.abs(pair.noisy).max() <= 1
        assert snr_db(pair.noisy, pair.clean) == pytest.approx(snr, abs=1e-3)
        assert pair.row.level_dbfs == pytest.approx(level.dbfs(level.rms(pair.noisy)))
        assert pair.row.crc32 == checksum(pair.noisy, pair.clean)
    assert sorted(pair.noisy.size for pair in pairs) == [8000, 9600, 11200, 12800, 14400, 16000]
    assert {len(pair.row.more_noises) for pair in pairs} > {0}


@pytest.mark.parametrize("match_level", [True, False])
def test_the_rows_tell_how_to_mix_again(
    mixtures: Callable[..., Mixtures],
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
    recipe: dict[str, Any] = {"ratio": (0.1, 0.9), "mixtures_per_clip": 4, "noises": (1, 3)}
    pairs = pairs_of(mixtures(**recipe, segment=1.0, join=1.0, pad=True, match_level=match_level))
    assert len(pairs) == 4 * (2 + 4 + 2)
    assert {pair.row.gain < 1 for pair in pairs} == {True, False}
    for pair in pairs:
        row, expected = pair.row, np.zeros(16000)
        for piece in row.joined or [Joined(row.clean, 0, row.samples)]:
            sound, _ = soundfile.read(tmp_path / "clean" / piece.clean)
            sound = sound[row.clean_offset :][: piece.samples]
            expected[piece.at : piece.at + sound.size] = sound
        expected *= row.gain * (1 - row.ratio)
        np.testing.assert_allclose(pair.clean, expected, atol=1e-5)
        for noise in (row, *row.more_noises):
            sound, _ = soundfile.read(tmp_path / "noise" / noise.noise)
            sound = sound[(noise.noise_offset + np.arange(16000)) % sound.size]
            expected += row.gain * row.ratio * noise.noise_gain * sound
            assert match_level or noise.noise_gain == 1
        np.testing.assert_allclose(pair.noisy, expected, atol=1e-5)


@pytest.mark.usefixtures("folders")
def test_levels(mixtures: Callable[..., Mixtures]) -> None:
    pairs = pairs_of(mixtures(snr_db=5.0, level_dbfs=(-45.0, -12.0), mixtures_per_clip=20))
    levels = np.array([level.dbfs(level.rms(pair.noisy)) for pair in pairs])
    assert -45.01 < levels.min() < -43 < -14 < levels.max() < -11.99
    assert snr_db(pairs[0].noisy, pairs[0].clean) == pytest.approx(5, abs=1e-3)
    for pair in pairs_of(mixtures(ratio=0.5, level_dbfs=0.0)):  # cannot be met by noise
        peak = max(np.abs(pair.noisy).max(), np.abs(pair.clean).max())
        assert 0.999999 < peak <= 1
        assert pair.row.level_dbfs < -5


def test_further_noises_are_softer(
    mixtures: Callable[..., Mixtures], audio_file: Callable[..., Path], rng: np.random.Generator
) -> None:
    for number in range(4):
        audio_file(f"clean/{number}.wav", 0.1 * rng.standard_normal(16000))
        audio_file(f"noise/{number}.wav", 0.1 * rng.standard_normal(32000))
    rows = [pair.row for pair in pairs_of(mixtures(snr_db=0.0, noises=2, mixtures_per_clip=10))]
    gains = np.array([row.more_noises[0].noise_gain / row.noise_gain for row in rows])
    assert -10.5 < 20 * np.log10(gains.min()) < -8
    assert -2 < 20 * np.log10(gains.max()) < 0.5


@pytest.mark.parametrize("target", ["dry", "early"])
@pytest.mark.usefixtures("folders")
def test_rooms(
    mixtures: Callable[..., Mixtures],
    audio_file: Callable[..., Path],
    rng: np.random.Generator,
    target: str,
) -> None:
    without = pairs_of(mixtures(snr_db=60.0))
    response = np.zeros(8000)
    response[[0, 3200]] = 0.9, 0.45  # an echo after 0.2 s at half the amplitude
    audio_file("room/hall.wav", np.array([response, np.zeros(8000)]))
    settings: dict[str, Any] = {"reverb_target": target, "mixtures_per_clip": 1}
    pairs = pairs_of(mixtures(snr_db=60.0, reverb_share=1.0, **settings))
    for pair, plain in zip(pairs, without, strict=True):
        assert pair.row.room == "hall.wav"
        dry = plain.clean * pair.row.gain / plain.row.gain
        np.testing.assert_allclose(pair.clean, dry, atol=1e-5)
        dry[3200:] += 0.5 * dry[:-3200]
        np.testing.assert_allclose(pair.noisy, dry, atol=2e-3)
        assert pair.row.snr_db == pytest.approx(60)
        found = snr_db(pair.noisy, pair.clean)
        assert found == pytest.approx(pair.row.target_snr_db, abs=1e-3) == pytest.approx(6.6, abs=2)
    pairs = pairs_of(mixtures(snr_db=60.0, reverb_share=0.5, mixtures_per_clip=20))
    assert 40 < sum(pair.row.room is not None for pair in pairs) < 80


@pytest.mark.usefixtures("folders")
def test_mixtures_depend_on_their_number_alone(
    mixtures: Callable[..., Mixtures], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe: dict[str, Any] = {"snr_db": (-5.0, 20.0), "mixtures_per_clip": 3}
    one, other = mixtures(**recipe), mixtures(**recipe)
    forwards = [pair.row for pair in pairs_of(one)]
    last = other.mix(17)
    assert isinstance(last, Pair)
    assert last.row == forwards[17]
    assert len({row.crc32 for row in forwards}) == 18
    for settings in ({**recipe, "seed": 1}, {**recipe, "noises": 2}):
        rows = [pair.row for pair in pairs_of(mixtures(**settings))]
        assert {row.crc32 for row in rows}.isdisjoint(row.crc32 for row in forwards)
    monkeypatch.setattr("denoisecli.datasets.mixtures._TASK_SECONDS", 1.5)
    spans = one.spans()
    assert len(spans) > 3
    assert [number for span in spans for number in range(*span)] == list(range(18))


@pytest.mark.slow
def test_noises_are_drawn_evenly_over_folders(
    mixtures: Callable[..., Mixtures], audio_file: Callable[..., Path], rng: np.random.Generator
) -> None:
    audio_file("clean/a.wav", 0.1 * rng.standard_normal(2000))
    for number in range(10):
        audio_file(f"noise/many/{number}.wav", 0.1 * rng.standard_normal(2000))
    audio_file("noise/few/x/1.wav", 0.1 * rng.standard_normal(2000))
    audio_file("noise/top.wav", 0.1 * rng.standard_normal(8000))
    shares = {}
    for by in ("folder", "file", "length"):
        pairs = pairs_of(mixtures(ratio=0.5, mixtures_per_clip=300, noise_draw=by))
        shares[by] = Counter(pair.row.noise.rpartition("/")[0] for pair in pairs)
    assert shares["folder"].keys() == {"many", "few/x", ""}
    assert 70 < min(shares["folder"].values()) <= max(shares["folder"].values()) < 130
    assert 225 < shares["file"]["many"] < 275
    assert 50 < shares["length"][""] < 110
    noises = mixtures(ratio=0.5).recordings["noise"]
    assert sum(noise_shares(noises, NoiseDraw.FOLDER)) == pytest.approx(3)


def test_weights(
    mixtures: Callable[..., Mixtures], audio_file: Callable[..., Path], rng: np.random.Generator
) -> None:
    for name in ("a/1", "a/2", "b/x/3", "ab/4"):
        audio_file(f"clean/{name}.wav", 0.1 * rng.standard_normal(2000))
        audio_file(f"noise/{name}.wav", 0.1 * rng.standard_normal(4000))
    twice: dict[str, Any] = {"ratio": 0.5, "mixtures_per_clip": 2}
    plain = [pair.row for pair in pairs_of(mixtures(**twice))]
    same = mixtures(**twice, clean_weights={"c": 5, "ab": 1})
    assert [pair.row for pair in pairs_of(same)] == plain
    pairs = pairs_of(mixtures(**twice, clean_weights={"a": 3, "*/2.wav": 2, "b": 0}))
    count = Counter(pair.row.clean for pair in pairs)
    assert count == {"a/1.wav": 6, "a/2.wav": 12, "ab/4.wav": 2}
    assert len({pair.row.noise_offset for pair in pairs}) > 15  # each mixed anew

    weights = {"a": 2.0, "b/": 0.5, "ab": 0.0}
    pairs = pairs_of(mixtures(ratio=0.5, mixtures_per_clip=100, noise_weights=weights))
    count = Counter(pair.row.noise for pair in pairs)
    assert count.keys() == {"a/1.wav", "a/2.wav", "b/x/3.wav"}
    assert 60 < count["b/x/3.wav"] < 100  # of 400: 0.5 in 2.5
    with pytest.raises(DatasetError, match="all noise recordings of a set have a weight of 0"):
        mixtures(ratio=0.5, noise_weights={"*": 0.0})
    with pytest.raises(DatasetError, match="all clean recordings of a set have a weight of 0"):
        mixtures(ratio=0.5, clean_weights={"*": 0})


def test_pauses_in_noise_are_avoided(
    mixtures: Callable[..., Mixtures], audio_file: Callable[..., Path], rng: np.random.Generator
) -> None:
    strokes = 1e-4 * rng.standard_normal(160000)
    strokes[80000:90000] += 0.1 * rng.standard_normal(10000)
    audio_file("clean/a.wav", 0.1 * rng.standard_normal(8000))
    audio_file("noise/strokes.wav", strokes, subtype="FLOAT")
    pairs = pairs_of(mixtures(ratio=0.5, mixtures_per_clip=30))
    assert len(pairs) == 30
    assert all(72000 < pair.row.noise_offset < 90000 for pair in pairs)

    # One click in 10 s is nearly never met by 0.1 s.
    click = np.zeros(1_600_000)
    click[800_000] = 0.5
    audio_file("clean/a.wav", 0.1 * rng.standard_normal(1600))
    audio_file("noise/strokes.wav", click)
    with pytest.raises(DatasetError, match=r"strokes\.wav"):
        pairs_of(mixtures(ratio=0.5))


def test_clips_that_cannot_be_used(
    mixtures: Callable[..., Mixtures], audio_file: Callable[..., Path], rng: np.random.Generator
) -> None:
    sound = 0.1 * rng.standard_normal(5 * 16000)
    sound[32000:48000] = 0
    sound[48000:60000] = 0
    audio_file("clean/a.wav", sound)
    audio_file("noise/n.wav", 0.1 * rng.standard_normal(4000))

    def mixed(**arguments: Any) -> tuple[int, list[Skipped]]:
        all_mixtures = mixtures(ratio=0.2, segment=1.0, **arguments)
        results = [all_mixtures.mix(number) for number in range(len(all_mixtures))]
        skipped = [result for result in results if isinstance(result, Skipped)]
        return sum(isinstance(result, Pair) for result in results), skipped

    silent = Skipped("clean", "a.wav", "is silent from 2.00 s to 3.00 s")
    assert mixed() == (4, [silent])
    count, skipped = mixed(min_active=0.5, mixtures_per_clip=3)
    assert count == 9
    assert sorted(skip.reason for skip in skipped) == [  # each once, though mixed three times
        "is active for only 26% from 3.00 s to 4.00 s",
        silent.reason,
    ]


@pytest.mark.usefixtures("folders")
def test_spectrograms(mixtures: Callable[..., Mixtures]) -> None:
    waves = pairs_of(mixtures(snr_db=5.0))
    spectra = pairs_of(mixtures(snr_db=5.0, kind="spectrogram", n_fft=400, hop_length=100))
    for wave, spectrum in zip(waves, spectra, strict=True):
        expected = np.abs(stft(wave.noisy, n_fft=400, hop_length=100))
        assert spectrum.noisy.dtype == np.float32
        np.testing.assert_allclose(spectrum.noisy, expected, atol=1e-6)
        assert spectrum.clean.shape == expected.shape
        assert spectrum.row.samples == wave.noisy.size
