import hashlib
from collections.abc import Callable
from pathlib import Path

import librosa
import numpy as np
import pytest
import tensorflow as tf

from denoisecli.audio.level import snr_db
from denoisecli.audio.stft import stft
from denoisecli.datasets.pairs import Recipe, mixed_pairs, to_spectrograms
from denoisecli.errors import DatasetError, UsageError


@pytest.fixture
def folders(
    audio_file: Callable[..., Path], rng: np.random.Generator, tmp_path: Path
) -> tuple[Path, Path]:
    for number, rate in enumerate([16000, 8000, 44100]):
        audio_file(f"clean/{number}.wav", 0.1 * rng.standard_normal(rate // 2 + number), rate)
    for number, seconds in enumerate([0.3, 3]):
        audio_file(f"noise/{number}.flac", 0.05 * rng.standard_normal(int(seconds * 16000)))
    return tmp_path / "clean", tmp_path / "noise"


def fingerprint(pairs: tf.data.Dataset) -> list[str]:
    return [
        hashlib.sha256(noisy.tobytes() + clean.tobytes()).hexdigest()
        for noisy, clean in pairs.as_numpy_iterator()
    ]


def test_pairs(folders: tuple[Path, Path]) -> None:
    pairs = mixed_pairs(*folders, Recipe(snr_db=3.0, kind="spectrogram"))
    assert pairs.element_spec == (tf.TensorSpec((None,), tf.float32),) * 2
    made = list(pairs.as_numpy_iterator())
    assert sorted(noisy.size for noisy, _ in made) == [8000, 8001, 8002]
    assert all(snr_db(*pair) == pytest.approx(3, abs=1e-3) for pair in made)


def test_same_seed_same_pairs(folders: tuple[Path, Path]) -> None:
    recipe = Recipe(snr_db=(-5.0, 20.0), mixes_per_clip=3)
    pairs = mixed_pairs(*folders, recipe)
    reference = fingerprint(pairs)
    assert fingerprint(pairs) == reference  # read once more
    assert fingerprint(mixed_pairs(*folders, recipe)) == reference
    assert len(set(reference)) == 9
    other = Recipe(snr_db=(-5.0, 20.0), mixes_per_clip=3, seed=1)
    assert set(fingerprint(mixed_pairs(*folders, other))).isdisjoint(reference)


def test_nothing_to_mix(folders: tuple[Path, Path], audio_file: Callable[..., Path]) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        mixed_pairs(folders[0], folders[1] / "none", Recipe(ratio=0.5))
    silent = audio_file("silent/a.wav", np.zeros(16000)).parent
    with pytest.raises(DatasetError, match=r"noise .* a\.wav is silent"):
        mixed_pairs(folders[0], silent, Recipe(ratio=0.5))


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
