import hashlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import librosa
import numpy as np
import pytest
import soundfile
import tensorflow as tf

from denoisecli.errors import DatasetError, UsageError
from denoisecli.pairs import Mixing, Recipe, mixed_pairs, to_spectrograms
from denoisecli.sources import scan
from denoisecli.stft import stft


@pytest.fixture
def folders(
    audio_file: Callable[..., Path], rng: np.random.Generator, tmp_path: Path
) -> tuple[Path, Path]:
    """Clean sounds of 0.5 to 1 s, noises shorter and longer than that, at several rates."""
    for number, rate in enumerate([16000, 8000, 44100, 16000, 48000, 16000]):
        seconds = 0.5 + number / 10
        audio_file(f"clean/{number}.wav", 0.1 * rng.standard_normal(round(seconds * rate)), rate)
    for number, (seconds, rate) in enumerate([(0.3, 16000), (3, 16000), (2, 44100)]):
        audio_file(f"noise/{number}.flac", 0.05 * rng.standard_normal(int(seconds * rate)), rate)
    return tmp_path / "clean", tmp_path / "noise"


def fingerprint(pairs: tf.data.Dataset) -> list[str]:
    return [
        hashlib.sha256(noisy.tobytes() + clean.tobytes()).hexdigest()
        for noisy, clean in pairs.as_numpy_iterator()
    ]


def snr(noisy: np.ndarray, clean: np.ndarray) -> float:
    return float(10 * np.log10(np.mean(clean**2) / np.mean((noisy - clean) ** 2)))


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"ratio": 0.2, "snr_db": 5.0},
        {"ratio": 1.01},
        {"ratio": -0.1},
        {"ratio": float("nan")},
        {"ratio": (0.5, 0.1)},
        {"snr_db": (5.0, -5.0)},
        {"snr_db": float("inf")},
        {"snr_db": 5.0, "match_level": False},
        {"ratio": 0.2, "split": 0.0},
        {"ratio": 0.2, "split": 1.0},
        {"ratio": 0.2, "sample_rate": 0},
        {"ratio": 0.2, "segment": 0.01},
        {"ratio": 0.2, "segment": float("nan")},
        {"ratio": 0.2, "mixes_per_clip": 0},
        {"ratio": 0.2, "window": "round"},
        {"ratio": 0.2, "hop_length": 0},
        {"ratio": 0.2, "seed": -1},
    ],
)
def test_recipe_refuses(arguments: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        Recipe(**arguments)


@pytest.mark.parametrize("snr_db", [-5.0, 0.0, 12.0])
def test_pairs_have_the_snr(folders: tuple[Path, Path], snr_db: float) -> None:
    pairs = mixed_pairs(*folders, Recipe(snr_db=snr_db))
    assert pairs.element_spec == (tf.TensorSpec((None,), tf.float32),) * 2
    lengths = []
    for noisy, clean in pairs.as_numpy_iterator():
        assert noisy.shape == clean.shape
        assert np.abs(noisy).max() <= 1
        assert snr(noisy, clean) == pytest.approx(snr_db, abs=1e-3)
        lengths.append(noisy.size)
    assert sorted(lengths) == [8000, 9600, 11200, 12800, 14400, 16000]


def test_ranges_are_drawn_from(folders: tuple[Path, Path]) -> None:
    recipe = Recipe(snr_db=(-5.0, 20.0), mixes_per_clip=20)
    drawn = np.array([snr(*pair) for pair in mixed_pairs(*folders, recipe).as_numpy_iterator()])
    assert drawn.size == 120
    assert -5.01 < drawn.min() < -3 < 18 < drawn.max() < 20.01
    assert abs(np.median(drawn) - 7.5) < 2.5  # even in dB
    recipe = Recipe(ratio=(0.1, 0.4), mixes_per_clip=20)
    ratios = [recipe.draw_ratio(np.random.default_rng(seed)) for seed in range(200)]
    assert 0.1 <= min(ratios) < 0.12 < 0.38 < max(ratios) <= 0.4


def test_the_rows_tell_how_to_mix_again(
    audio_file: Callable[..., Path], rng: np.random.Generator, tmp_path: Path
) -> None:
    audio_file("clean/a.wav", 0.6 * rng.standard_normal(20000))  # passes full scale
    audio_file("clean/b.wav", 0.1 * rng.standard_normal(50000))
    audio_file("noise/short.wav", 0.3 * rng.standard_normal(5000))
    audio_file("noise/long.flac", 0.3 * rng.standard_normal(90000))
    clean, noise, _ = scan(tmp_path / "clean", tmp_path / "noise")
    recipe = Recipe(ratio=(0.1, 0.9), mixes_per_clip=4, segment=1.0)
    mixing = Mixing(clean, noise, recipe)
    pairs = list(mixing.pairs().as_numpy_iterator())
    assert len(pairs) == len(mixing.rows) == 4 * (2 + 4)
    assert {row["noise"] for row in mixing.rows} == {"short.wav", "long.flac"}
    assert {row["gain"] < 1 for row in mixing.rows} == {True, False}
    for (noisy, clean_part), row in zip(pairs, mixing.rows, strict=True):
        start, length = row["clean_offset"], row["samples"]
        clean_file, _ = soundfile.read(tmp_path / "clean" / row["clean"])
        noise_file, _ = soundfile.read(tmp_path / "noise" / row["noise"])
        wanted = row["noise_offset"] + np.arange(length)
        piece = noise_file[wanted % noise_file.size]
        expected = row["gain"] * (1 - row["ratio"]) * clean_file[start : start + length]
        np.testing.assert_allclose(clean_part, expected, atol=1e-5)
        expected += row["gain"] * row["ratio"] * row["noise_gain"] * piece
        np.testing.assert_allclose(noisy, expected, atol=1e-5)


def test_levels_can_be_left(
    audio_file: Callable[..., Path], rng: np.random.Generator, tmp_path: Path
) -> None:
    audio_file("clean/a.wav", 0.1 * rng.standard_normal(16000))
    audio_file("noise/n.wav", 0.05 * rng.standard_normal(32000))
    recipe = Recipe(ratio=0.5, match_level=False)
    ((noisy, clean),) = mixed_pairs(
        tmp_path / "clean", tmp_path / "noise", recipe
    ).as_numpy_iterator()
    assert snr(noisy, clean) == pytest.approx(6, abs=0.3)


def test_same_seed_same_pairs(folders: tuple[Path, Path]) -> None:
    recipe = Recipe(snr_db=(-5.0, 20.0), mixes_per_clip=3)
    reference = fingerprint(mixed_pairs(*folders, recipe, jobs=1))
    pairs = mixed_pairs(*folders, recipe, jobs=5)
    assert fingerprint(pairs) == reference
    assert fingerprint(pairs) == reference  # read once more
    assert len(set(reference)) == 18
    other = Recipe(snr_db=(-5.0, 20.0), mixes_per_clip=3, seed=1)
    assert set(fingerprint(mixed_pairs(*folders, other))).isdisjoint(reference)


def test_noise_is_drawn_by_folder(
    audio_file: Callable[..., Path], rng: np.random.Generator, tmp_path: Path
) -> None:
    audio_file("clean/a.wav", 0.1 * rng.standard_normal(2000))
    for number in range(30):
        audio_file(f"noise/many/{number}.wav", 0.1 * rng.standard_normal(2000))
    audio_file("noise/few/x/1.wav", 0.1 * rng.standard_normal(2000))
    audio_file("noise/top.wav", 0.1 * rng.standard_normal(2000))
    clean, noise, _ = scan(tmp_path / "clean", tmp_path / "noise")
    mixing = Mixing(clean, noise, Recipe(ratio=0.5, mixes_per_clip=300))
    assert sum(1 for _ in mixing.pairs()) == 300
    drawn = Counter(row["noise"].rpartition("/")[0] for row in mixing.rows)
    assert drawn.keys() == {"many", "few/x", ""}
    assert 70 < min(drawn.values()) <= max(drawn.values()) < 130


def test_pauses_in_noise_are_avoided(
    audio_file: Callable[..., Path], rng: np.random.Generator, tmp_path: Path
) -> None:
    strokes = 1e-4 * rng.standard_normal(160000)
    strokes[80000:90000] += 0.1 * rng.standard_normal(10000)
    audio_file("clean/a.wav", 0.1 * rng.standard_normal(8000))
    audio_file("noise/strokes.wav", strokes, subtype="FLOAT")
    clean, noise, _ = scan(tmp_path / "clean", tmp_path / "noise")
    mixing = Mixing(clean, noise, Recipe(ratio=0.5, mixes_per_clip=30))
    assert sum(1 for _ in mixing.pairs()) == 30
    assert all(72000 < row["noise_offset"] < 90000 for row in mixing.rows)

    # One click in 10 s is nearly never met by 0.1 s.
    click = np.zeros(1_600_000)
    click[800_000] = 0.5
    audio_file("clean/a.wav", 0.1 * rng.standard_normal(1600))
    audio_file("noise/strokes.wav", click)
    clean, noise, _ = scan(tmp_path / "clean", tmp_path / "noise")
    mixing = Mixing(clean, noise, Recipe(ratio=0.5))
    with pytest.raises(tf.errors.OpError):
        list(mixing.pairs())
    assert isinstance(mixing.error, DatasetError)
    assert "strokes.wav" in str(mixing.error)


def test_segments(
    audio_file: Callable[..., Path], rng: np.random.Generator, tmp_path: Path
) -> None:
    sound = 0.1 * rng.standard_normal(5 * 16000 + 1000)  # the rest is shorter than 0.1 s
    sound[32000:48000] = 0
    audio_file("clean/a.wav", sound)
    audio_file("clean/b.wav", 0.1 * rng.standard_normal(20000))
    audio_file("noise/n.wav", 0.1 * rng.standard_normal(4000))
    clean, noise, _ = scan(tmp_path / "clean", tmp_path / "noise")
    mixing = Mixing(clean, noise, Recipe(ratio=0.2, segment=1.0))
    counts: list[int] = []
    mixing.on_clip = counts.append
    assert sum(1 for _ in mixing.pairs()) == 6
    assert counts == list(range(1, 8))
    places = sorted((row["clean"], row["clean_offset"], row["samples"]) for row in mixing.rows)
    assert places == [
        *[("a.wav", second * 16000, 16000) for second in (0, 1, 3, 4)],
        ("b.wav", 0, 16000),
        ("b.wav", 16000, 4000),
    ]
    assert [(skip.file, skip.reason) for skip in mixing.skipped] == [
        ("a.wav", "is silent from 2.00 s to 3.00 s")
    ]


@pytest.mark.parametrize(
    ("n_fft", "hop_length", "window"),
    [(512, 256, "sqrt_hann"), (320, 160, "hann"), (400, 100, "hamming")],
)
def test_spectrograms(rng: np.random.Generator, n_fft: int, hop_length: int, window: str) -> None:
    lengths = [1, 255, 256, 257, 512, 5000]
    vectors = [np.float32(rng.uniform(-1, 1, length)) for length in lengths]
    spec = tf.TensorSpec((None,), tf.float32)
    pairs = tf.data.Dataset.from_generator(
        lambda: ((vector, vector / 2) for vector in vectors), output_signature=(spec, spec)
    )
    settings = {"n_fft": n_fft, "hop_length": hop_length, "window": window}
    mapped = to_spectrograms(pairs, **settings)
    assert [s.shape.as_list() for s in mapped.element_spec] == [[n_fft // 2 + 1, None]] * 2
    for vector, (noisy, clean) in zip(vectors, mapped.as_numpy_iterator(), strict=True):
        assert noisy.dtype == clean.dtype == np.float32
        expected = np.abs(stft(vector, **settings))
        np.testing.assert_allclose(noisy, expected, atol=1e-4)
        np.testing.assert_allclose(clean, expected / 2, atol=1e-4)
    if window == "hann":
        peer = np.abs(librosa.stft(vectors[-1], n_fft=n_fft, hop_length=hop_length, window="hann",
                                   pad_mode="constant"))  # fmt: skip
        np.testing.assert_allclose(noisy, peer, atol=1e-4)
