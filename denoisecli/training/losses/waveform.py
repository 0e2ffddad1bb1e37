"""Losses between the estimated and the clean waveform.

Every loss compares waveforms, so that it does not depend on how the network makes its estimate. The
spectral losses see the spectrum of what is heard, after the inverse STFT (Le Roux and Vincent,
"Consistent Wiener filtering for audio source separation", 2013). All losses and their gradients are
finite on silence.

Shape of every loss:
    - estimate, clean, noisy: (batch, timesteps), full scale is -1..1
    - output: (batch,)
"""

from typing import Any

from keras import ops

from denoisecli.models.ops import raised
from denoisecli.spec.document import Spec
from denoisecli.spec.network import Stft
from denoisecli.training.losses.estoi import estoi
from denoisecli.training.losses.pesq import degradation
from denoisecli.training.losses.tensor_stft import stft

SILENCE = 1e-6
"""Mean power (-60 dBFS) below which an example is silent, and ratios to it are not computed."""

POWER_FLOOR = 1e-5
"""Power added to |X|² before compression: that of white noise at -74 dBFS in 512 samples."""

RESOLUTIONS = (
    Stft(n_fft=256, hop_length=64, window="hann"),
    Stft(n_fft=512, hop_length=128, window="hann"),
    Stft(n_fft=1024, hop_length=256, window="hann"),
)
"""STFTs that `multi_resolution_stft` compares; lengths in samples."""


def compressed_magnitude(estimate: Any, clean: Any, noisy: Any, spec: Spec) -> Any:
    """Compute the mean squared difference of the compressed magnitudes, 0 or more.

    Magnitudes are raised to the power `features.compression` of the spec. Source: Ephrat et al.,
    "Looking to listen at the cocktail party", 2018; Braun and Tashev, "A consolidated view of loss
    functions for supervised deep learning-based speech enhancement", 2021, for the sum with
    `compressed_complex`.
    """
    power = spec.features.compression
    x = raised(_power(stft(estimate, spec.stft)), power / 2)
    y = raised(_power(stft(clean, spec.stft)), power / 2)
    return ops.mean(ops.square(x - y), axis=(1, 2))


def compressed_complex(estimate: Any, clean: Any, noisy: Any, spec: Spec) -> Any:
    """Compute the mean squared difference of complex spectra with compressed magnitudes, 0 or more.

    Source: Braun and Tashev 2021, equation 3.
    """
    power = spec.features.compression
    difference = _squared_difference(stft(estimate, spec.stft), stft(clean, spec.stft), power)
    return ops.mean(difference, axis=(1, 2))


def multi_resolution_stft(estimate: Any, clean: Any, noisy: Any, spec: Spec) -> Any:
    """Compute the mean of both compressed differences over three window lengths, 0 or more.

    Source: Yamamoto et al., "Parallel WaveGAN", 2020, for the resolutions. Compressed spectra take
    the place of logarithmic ones, which silence would dominate.
    """
    power = spec.features.compression
    total = 0.0
    for settings in RESOLUTIONS:
        x, y = stft(estimate, settings), stft(clean, settings)
        magnitude = ops.square(raised(_power(x), power / 2) - raised(_power(y), power / 2))
        total += ops.mean(magnitude + _squared_difference(x, y, power), axis=(1, 2)) / 2
    return total / len(RESOLUTIONS)


def si_sdr(estimate: Any, clean: Any, noisy: Any, spec: Spec) -> Any:
    """Compute the negative SI-SDR in dB, -50 or more; 0 where the clean part is silent."""
    return -si_sdr_db(estimate, clean)


def waveform_l1(estimate: Any, clean: Any, noisy: Any, spec: Spec) -> Any:
    """Compute the mean absolute difference, relative to the RMS of the clean part, 0 or more.

    The RMS is taken to be 0.01 (-40 dBFS) at least.
    """
    scale = ops.sqrt(ops.maximum(ops.mean(ops.square(clean), axis=1), 1e-4))
    return ops.mean(ops.abs(estimate - clean), axis=1) / scale


def weighted_sdr(estimate: Any, clean: Any, noisy: Any, spec: Spec) -> Any:
    """Compute the negative cosine similarity of speech and of noise, weighted by energy, -1..1.

    Source: Choi et al., "Phase-aware speech enhancement with deep complex U-Net", 2019, section
    3.3.
    """
    noise, noise_estimate = noisy - clean, noisy - estimate
    clean_energy = ops.sum(ops.square(clean), axis=1)
    noise_energy = ops.sum(ops.square(noise), axis=1)
    weight = clean_energy / (clean_energy + noise_energy + 1e-8)
    speech = weight * _cosine_similarity(estimate, clean)
    return -(speech + (1 - weight) * _cosine_similarity(noise_estimate, noise))


def perceptual(estimate: Any, clean: Any, noisy: Any, spec: Spec) -> Any:
    """Compute the degradation of wide-band PESQ (see `pesq`), 0 to about 6.

    It is 0 where the clean part is silent. The sample rate must be 16 kHz.
    """
    audible = ops.mean(ops.square(clean), axis=1) > SILENCE
    return ops.where(audible, degradation(estimate, clean), 0.0)


def intelligibility(estimate: Any, clean: Any, noisy: Any, spec: Spec) -> Any:
    """Compute 1 - ESTOI (see `estoi`), about 0 to 1; 0 where the clean part is silent."""
    audible = ops.mean(ops.square(clean), axis=1) > SILENCE
    return ops.where(audible, 1 - estoi(estimate, clean, spec.audio.sample_rate), 0.0)


LOSSES = {
    loss.__name__: loss
    for loss in (
        compressed_magnitude,
        compressed_complex,
        multi_resolution_stft,
        si_sdr,
        waveform_l1,
        weighted_sdr,
        perceptual,
        intelligibility,
    )
}
"""Loss by its name in a spec."""


def total_loss(estimate: Any, clean: Any, noisy: Any, spec: Spec) -> Any:
    """Compute the weighted sum of the losses of a spec, averaged over the batch.

    Every example is first scaled to a mixture of -20 dBFS, so that soft recordings count as much as
    loud ones.

    Shape:
        - output: a scalar
    """
    power = ops.mean(ops.square(noisy), axis=1, keepdims=True)
    gain = 0.1 / ops.sqrt(ops.maximum(power, SILENCE))
    estimate, clean, noisy = estimate * gain, clean * gain, noisy * gain
    terms = (
        loss.weight * ops.mean(LOSSES[loss.kind](estimate, clean, noisy, spec))
        for loss in spec.training.losses
    )
    return sum(terms, 0.0)


def si_sdr_db(estimate: Any, clean: Any) -> Any:
    """Compute the scale-invariant SDR in dB, 50 at most; 0 where the clean part is silent.

    Source: Le Roux et al., "SDR - half-baked or well done?", 2019, equation 2.
    """
    clean_power = ops.sum(ops.square(clean), axis=1)
    scale = ops.sum(estimate * clean, axis=1) / ops.maximum(clean_power, 1e-8)
    target = scale[:, None] * clean
    signal = ops.sum(ops.square(target), axis=1)
    error = ops.sum(ops.square(estimate - target), axis=1)
    ratio = 10 * ops.log10((signal + 1e-8) / (error + 1e-5 * signal + 1e-8))
    audible = ops.mean(ops.square(clean), axis=1) > SILENCE
    return ops.where(audible, ratio, 0.0)


def _cosine_similarity(x: Any, y: Any) -> Any:
    norms = ops.sum(ops.square(x), axis=1) * ops.sum(ops.square(y), axis=1)
    return ops.sum(x * y, axis=1) / ops.sqrt(norms + 1e-8)


def _power(spectrum: tuple[Any, Any]) -> Any:
    """Compute |X|² with a floor."""
    real, imaginary = spectrum
    return ops.square(real) + ops.square(imaginary) + POWER_FLOOR


def _squared_difference(x: tuple[Any, Any], y: tuple[Any, Any], power: float) -> Any:
    """Compute |X - Y|² of spectra whose magnitudes are compressed."""
    x_gain, y_gain = (raised(_power(spectrum), (power - 1) / 2) for spectrum in (x, y))
    real, imaginary = (a * x_gain - b * y_gain for a, b in zip(x, y, strict=True))
    return ops.square(real) + ops.square(imaginary)
