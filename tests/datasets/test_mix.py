import math
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from denoisecli.audio.level import snr_db
from denoisecli.datasets.mix import (
    fit_noise,
    mix,
    mix_files,
    mix_pair,
    ratio_from_snr,
    snr_from_ratio,
)
from denoisecli.errors import AudioError, UsageError

RATE = 16000


def noise_of(seed: int, length: int = 4000, level: float = 0.1) -> np.ndarray:
    return (level * np.random.default_rng(seed).standard_normal(length)).astype(np.float32)


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def power(sound: np.ndarray) -> float:
    return float(np.var(sound, dtype=np.float64))


@given(st.floats(-100, 100))
def test_ratio_and_snr_are_inverse(snr_db: float) -> None:
    assert snr_from_ratio(ratio_from_snr(snr_db)) == pytest.approx(snr_db, abs=1e-6)


@pytest.mark.parametrize(
    ("snr_db", "ratio"),
    [(0.0, 0.5), (math.inf, 0), (-math.inf, 1), (20 * math.log10(4), 0.2), (-1e9, 1), (1e9, 0)],
)
def test_known_ratios(snr_db: float, ratio: float) -> None:
    assert ratio_from_snr(snr_db) == pytest.approx(ratio, abs=1e-12)


def test_extreme_ratios_have_infinite_snr() -> None:
    assert snr_from_ratio(0.0) == math.inf
    assert snr_from_ratio(1.0) == -math.inf


@pytest.mark.parametrize("ratio", [-0.1, 1.1, math.nan, math.inf])
def test_a_ratio_out_of_range_is_refused(ratio: float, tmp_path: Path) -> None:
    sound = noise_of(1)
    with pytest.raises(UsageError, match="between 0 and 1"):
        snr_from_ratio(ratio)
    with pytest.raises(UsageError, match="between 0 and 1"):
        mix(sound, sound, ratio)
    with pytest.raises(UsageError, match="between 0 and 1"):
        mix_pair(sound, sound, ratio, rng())
    with pytest.raises(UsageError, match="between 0 and 1"):
        mix_files(tmp_path / "a.wav", tmp_path / "b.wav", tmp_path / "c.wav", ratio=ratio, seed=0)


def test_an_snr_that_is_no_number_is_refused() -> None:
    with pytest.raises(UsageError, match="not a number"):
        ratio_from_snr(math.nan)


def test_mix_is_the_linear_combination() -> None:
    clean, noise = noise_of(1), noise_of(2)
    np.testing.assert_array_equal(mix(clean, noise, 0.0), clean)
    np.testing.assert_array_equal(mix(clean, noise, 1.0), noise)
    mixed = mix(clean, noise, np.float64(0.25))
    np.testing.assert_allclose(mixed, 0.75 * clean + 0.25 * noise, rtol=1e-6)
    assert mixed.dtype == np.float32


@given(st.integers(1, 50), st.integers(0, 120), st.integers(0, 2**32))
def test_fit_noise_reads_on_from_its_offset(size: int, length: int, seed: int) -> None:
    noise = np.arange(size, dtype=np.float32)
    piece, offset = fit_noise(noise, length, np.random.default_rng(seed))
    np.testing.assert_array_equal(piece, (offset + np.arange(length)) % size)
    assert 0 <= offset < max(size, 1) or length == 0
    if length <= size:
        assert offset + length <= size  # no seam where none is needed


def test_every_offset_is_drawn() -> None:
    noise, draw = np.zeros(10, np.float32), rng()
    assert {fit_noise(noise, 7, draw)[1] for _ in range(200)} == set(range(4))
    assert {fit_noise(noise, 25, draw)[1] for _ in range(400)} == set(range(10))


@given(
    ratio=st.floats(0.01, 0.99),
    clean_level=st.floats(1e-3, 3),
    noise_level=st.floats(1e-3, 3),
    noise_length=st.integers(200, 9000),
    match_level=st.booleans(),
)
def test_mix_pair_keeps_its_promises(
    ratio: float, clean_level: float, noise_level: float, noise_length: int, match_level: bool
) -> None:
    clean, noise = noise_of(1, level=clean_level), noise_of(2, noise_length, noise_level)
    pair = mix_pair(clean, noise, ratio, rng(), match_level=match_level)

    assert np.abs(pair.noisy).max() <= 1
    assert np.abs(pair.clean).max() <= 1
    assert pair.noisy.dtype == pair.clean.dtype == np.float32
    measured = 10 * np.log10(power(pair.clean) / power(pair.noisy - pair.clean))
    assert measured == pytest.approx(pair.snr_db, abs=0.01)
    if match_level:
        assert pair.snr_db == pytest.approx(snr_from_ratio(ratio), abs=1e-6)
    else:
        assert pair.noise_gain == 1
    assert 0 < pair.gain <= 1

    piece = np.resize(np.roll(noise, -pair.noise_offset), clean.size)
    again = (1 - ratio) * clean + ratio * pair.noise_gain * piece
    np.testing.assert_allclose(pair.noisy, pair.gain * again, atol=1e-6)
    np.testing.assert_allclose(pair.clean, pair.gain * (1 - ratio) * clean, atol=1e-6)


def test_a_mix_past_full_scale_is_scaled_down_not_clipped() -> None:
    clean = np.sin(np.arange(1000, dtype=np.float32))
    pair = mix_pair(clean, noise_of(3), 0.5, rng())
    assert pair.gain < 1
    assert np.abs(pair.noisy).max() == 1
    assert np.count_nonzero(np.abs(pair.noisy) > 0.999) == 1


def test_ratio_0_is_the_clean_sound_and_ratio_1_the_noise() -> None:
    clean, noise = noise_of(1), noise_of(2)
    only_clean = mix_pair(clean, noise, 0.0, rng())
    np.testing.assert_array_equal(only_clean.noisy, clean)
    np.testing.assert_array_equal(only_clean.clean, clean)
    assert only_clean.snr_db == math.inf
    only_noise = mix_pair(clean, noise, 1.0, rng())
    assert not only_noise.clean.any()
    assert power(only_noise.noisy) == pytest.approx(power(clean), rel=1e-5)
    assert only_noise.snr_db == -math.inf


def test_the_same_seed_gives_the_same_mix() -> None:
    clean, noise = noise_of(1), noise_of(2, 50000)
    first, again, other = (
        mix_pair(clean, noise, 0.3, np.random.default_rng(seed)) for seed in (5, 5, 6)
    )
    np.testing.assert_array_equal(first.noisy, again.noisy)
    assert first.noise_offset == again.noise_offset != other.noise_offset


@pytest.mark.parametrize("offset", [-0.4, 0.4])
def test_an_offset_changes_neither_snr_nor_gain(offset: float) -> None:
    clean, noise = noise_of(1), noise_of(2)
    plain = mix_pair(clean, noise, 0.5, rng())
    for sounds in ((clean + np.float32(offset), noise), (clean, noise + np.float32(offset))):
        pair = mix_pair(*sounds, 0.5, rng())
        assert pair.noise_gain == pytest.approx(plain.noise_gain, rel=1e-4)
        assert snr_db(pair.noisy, pair.clean) == pytest.approx(0, abs=1e-2)


@pytest.mark.parametrize(
    "silence",
    [np.zeros(500, np.float32), np.full(500, 1e-8, np.float32), np.full(500, 0.3, np.float32)],
)
@pytest.mark.parametrize("match_level", [True, False])
def test_silence_has_no_level_to_mix_at(silence: np.ndarray, match_level: bool) -> None:
    with pytest.raises(AudioError, match="clean sound is silent"):
        mix_pair(silence, noise_of(1), 0.5, rng(), match_level=match_level)
    with pytest.raises(AudioError, match=r"noise.* is silent"):
        mix_pair(noise_of(1), silence, 0.5, rng(), match_level=match_level)


def test_no_samples_cannot_be_mixed() -> None:
    empty = np.zeros(0, np.float32)
    with pytest.raises(AudioError, match="clean sound has no samples"):
        mix_pair(empty, noise_of(1), 0.5, rng())
    with pytest.raises(AudioError, match="noise has no samples"):
        mix_pair(noise_of(1), empty, 0.5, rng())


def write(path: Path, sound: np.ndarray, rate: int = RATE) -> Path:
    soundfile.write(path, sound.T, rate, subtype="FLOAT")
    return path


def test_files_are_mixed_at_the_rate_and_length_of_the_clean_one(tmp_path: Path) -> None:
    clean = write(tmp_path / "clean.wav", np.stack([noise_of(1, 5001), noise_of(2, 5001)]))
    noise = write(tmp_path / "noise.wav", noise_of(3, 3000), rate=8000)
    pair = mix_files(clean, noise, tmp_path / "mix.wav", ratio=0.2, seed=1)
    written, rate = soundfile.read(tmp_path / "mix.wav")
    assert rate == RATE
    assert written.shape == (5001,)
    np.testing.assert_allclose(written, pair.noisy, atol=1e-4)
    assert pair.snr_db == pytest.approx(20 * math.log10(4))

    with pytest.raises(UsageError, match="overwrite"):
        mix_files(clean, noise, tmp_path / "mix.wav", ratio=0.2, seed=1)
    again = mix_files(clean, noise, tmp_path / "mix.wav", ratio=0.2, seed=1, overwrite=True)
    np.testing.assert_array_equal(again.noisy, pair.noisy)


@pytest.mark.parametrize(
    ("subtype", "output", "written"),
    [
        ("PCM_24", "mix.wav", "PCM_24"),
        ("FLOAT", "mix.wav", "FLOAT"),
        ("PCM_16", "mix.wav", "PCM_16"),
        ("FLOAT", "mix.flac", "PCM_24"),
        ("PCM_24", "mix.ogg", "VORBIS"),
    ],
)
def test_the_mix_has_the_sample_format_of_the_clean_one(
    tmp_path: Path, subtype: str, output: str, written: str
) -> None:
    soundfile.write(tmp_path / "clean.wav", noise_of(1), RATE, subtype)
    noise = write(tmp_path / "noise.wav", noise_of(2))
    mix_files(tmp_path / "clean.wav", noise, tmp_path / output, ratio=0.2)
    assert soundfile.info(tmp_path / output).subtype == written


def test_bad_files_are_named(tmp_path: Path) -> None:
    sound = write(tmp_path / "sound.wav", noise_of(1))
    silent = write(tmp_path / "silent.wav", np.zeros(1000, np.float32))
    text = tmp_path / "text.wav"
    text.write_text("this is no sound")
    output = tmp_path / "mix.wav"
    with pytest.raises(AudioError, match=r"silent\.wav with .*clean sound is silent"):
        mix_files(silent, sound, output, ratio=0.2, seed=0)
    with pytest.raises(AudioError, match=r"with .*silent\.wav.*noise.* is silent"):
        mix_files(sound, silent, output, ratio=0.2, seed=0)
    with pytest.raises(AudioError, match=r"text\.wav"):
        mix_files(sound, text, output, ratio=0.2, seed=0)
    with pytest.raises(UsageError, match=r"missing\.wav"):
        mix_files(sound, tmp_path / "missing.wav", output, ratio=0.2, seed=0)
    with pytest.raises(UsageError, match=r"mix\.xyz"):
        mix_files(sound, sound, tmp_path / "mix.xyz", ratio=0.2, seed=0)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "silent.wav",
        "sound.wav",
        "text.wav",
    ]
