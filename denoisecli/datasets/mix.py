"""Mix a clean sound with noise at a mixing ratio or a signal-to-noise ratio.

This is the one formula of ``denoise mix`` and of the mixtures of datasets.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from denoisecli.audio import files
from denoisecli.audio.formats import nearest_subtype
from denoisecli.audio.level import rms
from denoisecli.audio.reading import reader
from denoisecli.errors import AudioError, UsageError
from denoisecli.types import AudioVector

NoiseVector = Float[np.ndarray, "noise_timesteps"]
"""One channel of noise, of any length."""

SILENCE_RMS = 1e-6
"""Sound with an RMS up to this (-120 dBFS) is silent: it has no level that could be matched. As the
RMS leaves out the mean, a constant is silent."""


@dataclass(frozen=True, eq=False)
class Mixture:
    """A mixed pair: ``noisy = gain * ((1 - ratio) * clean + ratio * noise_gain * noise)``.

    Attributes:
        noisy: The noisy sound, shape (timesteps,), within full scale.
        clean: The clean part as it is in the mixture: ``noisy - clean`` is the noise.
        ratio: Share of the noise, 0..1.
        snr_db: SNR of the mixture in dB; infinite at the ratios 0 and 1.
        noise_offset: First sample of the noise that was used.
        noise_gain: Gain that matched the noise to the level of the clean sound.
        gain: Gain of the whole pair, below 1 if it would have exceeded full scale.
    """

    noisy: AudioVector
    clean: AudioVector
    ratio: float
    snr_db: float
    noise_offset: int
    noise_gain: float
    gain: float


def ratio_from_snr(snr_db: float) -> float:
    """Return the mixing ratio at which two sounds of equal level have an SNR.

    It is the inverse of ``snr_db = 20 log10((1 - ratio) / ratio)``.

    Args:
        snr_db: SNR in dB; ``inf`` means no noise, ``-inf`` only noise.

    Returns:
        The ratio, 0..1.

    Raises:
        UsageError: ``snr_db`` is NaN.
    """
    if math.isnan(snr_db):
        raise UsageError("the SNR is not a number; give it in dB, for example 5")
    # The exponent is never positive, so that a huge SNR underflows instead of overflowing.
    smaller = 10.0 ** (-abs(snr_db) / 20)
    return (smaller if snr_db > 0 else 1.0) / (1.0 + smaller)


def snr_from_ratio(ratio: float) -> float:
    """Return the SNR, ``20 log10((1 - ratio) / ratio)``, of two sounds of equal level.

    Args:
        ratio: Share of the noise, 0..1.

    Returns:
        The SNR in dB: ``inf`` at ratio 0, ``-inf`` at ratio 1.

    Raises:
        UsageError: ``ratio`` is outside 0..1.
    """
    _check_ratio(ratio)
    if ratio in (0, 1):
        return -math.inf if ratio else math.inf
    return 20 * (math.log10(1 - ratio) - math.log10(ratio))


def mix(clean: AudioVector, noise: AudioVector, ratio: float) -> AudioVector:
    """Mix two sounds of equal length: ``(1 - ratio) * clean + ratio * noise``.

    Args:
        clean: The clean sound, shape (timesteps,).
        noise: The noise, shape (timesteps,).
        ratio: Share of the noise, 0..1: 0 returns ``clean``, 1 returns ``noise``.

    Returns:
        The mixture, shape (timesteps,). Its peak is at most the larger of the two peaks.

    Raises:
        UsageError: ``ratio`` is outside 0..1.
        AudioError: The lengths differ.
    """
    _check_ratio(ratio)
    if clean.shape != noise.shape:
        raise AudioError(
            f"cannot mix {clean.size} samples of clean sound with {noise.size} of noise; "
            "fit_noise loops or cuts the noise to a length"
        )
    # A Python float keeps 32-bit samples 32-bit; NumPy's own would widen them.
    return float(1 - ratio) * clean + float(ratio) * noise


def fit_noise(noise: NoiseVector, length: int, rng: np.random.Generator) -> tuple[AudioVector, int]:
    """Cut noise to a length, or loop it if it is shorter, from a random sample on.

    Args:
        noise: The noise, shape (noise_timesteps,), at least one sample.
        length: Number of samples of the result, 0 or more.
        rng: Source of the offset; exactly one number is drawn.

    Returns:
        ``length`` samples of noise, and the position of the first of them in ``noise``.

    Raises:
        AudioError: The noise has no samples.
    """
    if noise.size == 0:
        raise AudioError("the noise has no samples")
    if noise.size >= length:
        offset = int(rng.integers(noise.size - length + 1))
        return noise[offset : offset + length], offset
    offset = int(rng.integers(noise.size))
    return np.resize(np.roll(noise, -offset), length), offset  # np.resize repeats


def mix_pair(
    clean: AudioVector,
    noise: NoiseVector,
    ratio: float,
    rng: np.random.Generator,
    *,
    match_level: bool = True,
) -> Mixture:
    """Mix a clean sound with a random piece of noise.

    The noise is looped or cut to the length of the clean sound and scaled to its RMS over the
    piece that is used, so that a ratio is the same SNR for every pair. A mixture that would exceed
    full scale is not clipped: the whole pair is scaled down by ``gain``.

    Args:
        clean: The clean sound, shape (timesteps,).
        noise: The noise, shape (noise_timesteps,), at the same sample rate.
        ratio: Share of the noise, 0..1.
        rng: Source of the offset into the noise.
        match_level: Scale the noise to the level of the clean sound. Otherwise the mixture is the
            plain linear combination, and its SNR depends on the two levels.

    Returns:
        The pair and all values needed to compute it again.

    Raises:
        UsageError: ``ratio`` is outside 0..1.
        AudioError: The clean sound or the piece of noise is silent, or has no samples.
    """
    _check_ratio(ratio)
    clean_level = _level(clean, "the clean sound")
    piece, offset = fit_noise(noise, clean.size, rng)
    noise_level = _level(piece, f"the noise, from sample {offset} on,")

    noise_gain = clean_level / noise_level if match_level else 1.0
    noisy = mix(clean, noise_gain * piece, ratio)
    clean_part = float(1 - ratio) * clean
    # In the type of the samples, so that a division by it makes the largest sample exactly 1.
    peak = max(np.abs(noisy).max(), np.abs(clean_part).max())
    if peak > 1:
        noisy, clean_part = noisy / peak, clean_part / peak
    return Mixture(
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
) -> Mixture:
    """Mix a clean recording with a noise recording, and write the mixture.

    Both are mixed down to one channel (the mean of their channels), and the noise is resampled to
    the sample rate of the clean recording: the output is mono, at that rate, of that length and, if
    its format can hold it, in the sample format of the clean recording.

    Args:
        clean: The clean recording.
        noise: The noise recording.
        output: The file to write; its suffix selects the format.
        ratio: Share of the noise, 0..1; see ``ratio_from_snr`` for an SNR.
        seed: Seed of the piece of noise; the same seed gives the same mixture.
        match_level: Scale the noise to the level of the clean sound first.
        overwrite: Replace an existing ``output``.

    Returns:
        The mixture that was written.

    Raises:
        UsageError: ``ratio`` is outside 0..1, a file does not exist, or ``output`` exists or has an
            unknown suffix.
        AudioError: A recording cannot be read, or is silent.
    """
    _check_ratio(ratio)
    clean_sound, sample_rate = files.read_mono(clean)
    noise_sound, _ = files.read_mono(noise, sample_rate)
    rng = np.random.default_rng(seed)
    try:
        mixture = mix_pair(clean_sound, noise_sound, ratio, rng, match_level=match_level)
    except AudioError as error:
        raise AudioError(f"cannot mix {clean} with {noise}: {error}") from error
    with reader(clean) as file:
        subtype = nearest_subtype(output, file.info.subtype)
    files.write(output, mixture.noisy, sample_rate, subtype=subtype, overwrite=overwrite)
    return mixture


def _check_ratio(ratio: float) -> None:
    if not 0 <= ratio <= 1:
        raise UsageError(f"the mixing ratio must be between 0 and 1, not {ratio:g}")


def _level(sound: AudioVector, name: str) -> float:
    """Return the RMS of a sound that must not be silent."""
    if sound.size == 0:
        raise AudioError(f"{name} has no samples")
    level = rms(sound)
    if not level > SILENCE_RMS:
        raise AudioError(f"{name} is silent (RMS {level:.1e}, less than {SILENCE_RMS:.0e})")
    return level
