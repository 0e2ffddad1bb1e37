"""Clean sound and noise, mixed at a ratio or a signal-to-noise ratio."""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from denoisecli.audio import files as audio
from denoisecli.audio.level import rms
from denoisecli.errors import AudioError, UsageError
from denoisecli.types import AudioVector

NoiseVector = Float[np.ndarray, "noise_timesteps"]
"""One channel of noise, which need not be as long as the clean sound."""

SILENCE_RMS = 1e-6
"""What is quieter than this (-120 dBFS) is silence: it has no level that could be matched."""


@dataclass(frozen=True, eq=False)
class Mix:
    """A mixed pair: ``noisy = gain * ((1 - ratio) * clean + ratio * noise_gain * noise)``.

    Attributes:
        noisy: The mix, within full scale.
        clean: The clean part as it stands in the mix, so ``noisy - clean`` is the noise.
        ratio: Share of the noise, 0..1.
        snr_db: Signal-to-noise ratio of the mix in dB; infinite at the ratios 0 and 1.
        noise_offset: First sample of the noise that was used.
        noise_gain: What the noise was multiplied by to have the level of the clean sound.
        gain: What the whole pair was multiplied by; below 1 where it would have clipped.
    """

    noisy: AudioVector
    clean: AudioVector
    ratio: float
    snr_db: float
    noise_offset: int
    noise_gain: float
    gain: float


def ratio_from_snr(snr_db: float) -> float:
    """Give the mixing ratio at which two sounds of equal level have this SNR.

    The inverse of ``snr_db = 20 log10((1 - ratio) / ratio)``.

    Args:
        snr_db: Signal-to-noise ratio in dB; ``inf`` is no noise, ``-inf`` nothing but noise.

    Returns:
        The ratio, 0..1.

    Raises:
        UsageError: ``snr_db`` is not a number.
    """
    if math.isnan(snr_db):
        raise UsageError("the SNR is not a number; give it in dB, for example 5")
    # The exponent is never positive, so that a huge SNR underflows instead of overflowing.
    smaller = 10.0 ** (-abs(snr_db) / 20)
    return (smaller if snr_db > 0 else 1.0) / (1.0 + smaller)


def snr_from_ratio(ratio: float) -> float:
    """Give the SNR in dB, ``20 log10((1 - ratio) / ratio)``, of two sounds of equal level.

    Args:
        ratio: Share of the noise, 0..1.

    Returns:
        The SNR in dB: ``inf`` at ratio 0, ``-inf`` at ratio 1.

    Raises:
        UsageError: ``ratio`` is outside of 0..1.
    """
    _check_ratio(ratio)
    if ratio in (0, 1):
        return -math.inf if ratio else math.inf
    return 20 * (math.log10(1 - ratio) - math.log10(ratio))


def mix(clean: AudioVector, noise: AudioVector, ratio: float) -> AudioVector:
    """Mix two sounds of equal length: ``(1 - ratio) * clean + ratio * noise``.

    Args:
        clean: The clean sound.
        noise: The noise, as many samples as ``clean``.
        ratio: Share of the noise, 0..1: 0 gives ``clean``, 1 gives ``noise``.

    Returns:
        The mix; its peak is at most the larger of the two peaks.

    Raises:
        UsageError: ``ratio`` is outside of 0..1.
        AudioError: the lengths differ.
    """
    _check_ratio(ratio)
    if clean.shape != noise.shape:
        raise AudioError(
            f"cannot mix {clean.size} samples of clean sound with {noise.size} of noise; "
            "fit_noise loops or cuts the noise to a length"
        )
    # Python's float leaves 32-bit samples 32-bit; NumPy's own would widen them.
    return float(1 - ratio) * clean + float(ratio) * noise


def fit_noise(noise: NoiseVector, length: int, rng: np.random.Generator) -> tuple[AudioVector, int]:
    """Cut the noise to a length, or loop it if it is shorter, starting at a random sample.

    Args:
        noise: The noise, at least one sample.
        length: Samples wanted, 0 or more.
        rng: Where the offset is drawn from; exactly one number is drawn.

    Returns:
        ``length`` samples of noise, and the offset of the first of them in ``noise``.

    Raises:
        AudioError: the noise has no samples.
    """
    if noise.size == 0:
        raise AudioError("the noise has no samples")
    if noise.size >= length:
        offset = int(rng.integers(noise.size - length + 1))
        return noise[offset : offset + length], offset
    offset = int(rng.integers(noise.size))
    return np.resize(np.roll(noise, -offset), length), offset  # resize repeats


def mix_pair(
    clean: AudioVector,
    noise: NoiseVector,
    ratio: float,
    rng: np.random.Generator,
    *,
    match_level: bool = True,
) -> Mix:
    """Mix clean sound with a random piece of a noise.

    The noise is looped or cut to the length of the clean sound and scaled to its RMS over the
    piece used, so that a ratio means the same SNR for every pair. A mix that would pass full
    scale is not clipped: the whole pair is scaled down, and ``gain`` says by how much.

    Args:
        clean: The clean sound.
        noise: The noise, of any length, at the same sample rate.
        ratio: Share of the noise, 0..1.
        rng: Where the offset into the noise is drawn from.
        match_level: Scale the noise to the level of the clean sound; if false, the mix is the
            plain linear combination, and the SNR depends on the levels of the two.

    Returns:
        The pair, with everything that is needed to make it again.

    Raises:
        UsageError: ``ratio`` is outside of 0..1.
        AudioError: the clean sound or the piece of noise is silent, or one has no samples.
    """
    _check_ratio(ratio)
    clean_level = _level(clean, "the clean sound")
    piece, offset = fit_noise(noise, clean.size, rng)
    noise_level = _level(piece, f"the noise, from sample {offset} on,")

    noise_gain = clean_level / noise_level if match_level else 1.0
    noisy = mix(clean, noise_gain * piece, ratio)
    clean_part = float(1 - ratio) * clean
    # In the type of the samples, so that dividing by it makes the largest sample exactly 1.
    peak = max(np.abs(noisy).max(), np.abs(clean_part).max())
    if peak > 1:
        noisy, clean_part = noisy / peak, clean_part / peak
    return Mix(
        noisy=noisy,
        clean=clean_part,
        ratio=ratio,
        snr_db=snr_from_ratio(ratio) + 20 * math.log10(clean_level / (noise_gain * noise_level)),
        noise_offset=offset,
        noise_gain=noise_gain,
        gain=min(1.0, 1 / float(peak)),
    )


def mix_files(
    clean: Path,
    noise: Path,
    output: Path,
    *,
    ratio: float,
    seed: int = 0,
    match_level: bool = True,
    overwrite: bool = False,
) -> Mix:
    """Mix a clean recording with a noise recording and write the mix.

    Both are mixed down to one channel (the mean of their channels), and the noise is resampled
    to the clean recording's rate: the output is mono, at that rate and of that length.

    Args:
        clean: The clean recording.
        noise: The noise recording.
        output: Where the mix goes; the suffix chooses the format.
        ratio: Share of the noise, 0..1; see ``ratio_from_snr`` for an SNR.
        seed: Chooses the piece of the noise; the same seed gives the same mix.
        match_level: Scale the noise to the level of the clean sound first.
        overwrite: Replace an existing ``output``.

    Returns:
        The mix that was written.

    Raises:
        UsageError: ``ratio`` is outside of 0..1, a file is missing, ``output`` exists already or
            has an unknown suffix.
        AudioError: a recording cannot be read, or is silent.
    """
    _check_ratio(ratio)
    clean_sound, sample_rate = audio.read_mono(clean)
    noise_sound, _ = audio.read_mono(noise, sample_rate)
    rng = np.random.default_rng(seed)
    try:
        mixed = mix_pair(clean_sound, noise_sound, ratio, rng, match_level=match_level)
    except AudioError as error:
        raise AudioError(f"cannot mix {clean} with {noise}: {error}") from error
    audio.write(output, mixed.noisy, sample_rate, overwrite=overwrite)
    return mixed


def _check_ratio(ratio: float) -> None:
    if not 0 <= ratio <= 1:
        raise UsageError(f"the mixing ratio must be between 0 and 1, not {ratio:g}")


def _level(sound: AudioVector, name: str) -> float:
    """Give the RMS of a sound that must not be silent."""
    if sound.size == 0:
        raise AudioError(f"{name} has no samples")
    level = rms(sound)
    if not level > SILENCE_RMS:
        raise AudioError(f"{name} is silent (RMS {level:.1e}, less than {SILENCE_RMS:.0e})")
    return level
