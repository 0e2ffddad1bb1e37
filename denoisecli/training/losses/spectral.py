"""Differentiable losses between the estimated and the clean waveform, in pure `keras.ops`.

Every loss is a function of two batches of waveforms, so each is independent of how the network
made its estimate, and the spectral ones see the spectrum that a listener would: behind the inverse
STFT (the "consistency" of Le Roux et al. 2013). All are finite, with finite gradients, on silence.

Shape of every loss:
    - estimate, clean, noisy: (batch, timesteps)
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
"""Mean power below which an example counts as silent (-60 dBFS); no ratio is taken there."""

POWER_FLOOR = 1e-5
"""Added to |X|^2 before compression; in a 512-sample window, white noise at -74 dBFS."""

RESOLUTIONS = (
    Stft(n_fft=256, hop_length=64, window="hann"),
    Stft(n_fft=512, hop_length=128, window="hann"),
    Stft(n_fft=1024, hop_length=256, window="hann"),
)
"""What `multi_resolution_stft` compares at, in samples."""


def compressed_magnitude(estimate: Any, clean: Any, noisy: Any, spec: Spec) -> Any:
    """Mean squared difference of magnitudes raised to the spec's compression.

    Source: Ephrat et al. 2018 (power-law compression); Braun and Tashev 2021 for the combination
    with `compressed_complex`.
    """
    power = spec.features.compression
    x = raised(_power(stft(estimate, spec.stft)), power / 2)
    y = raised(_power(stft(clean, spec.stft)), power / 2)
    return ops.mean(ops.square(x - y), axis=(1, 2))


def compressed_complex(estimate: Any, clean: Any, noisy: Any, spec: Spec) -> Any:
    """Mean squared difference of complex spectra, magnitudes compressed, phases kept.

    Source: Braun and Tashev 2021, equation 3.
    """
    power = spec.features.compression
    difference = _difference(stft(estimate, spec.stft), stft(clean, spec.stft), power)
    return ops.mean(difference, axis=(1, 2))


def multi_resolution_stft(estimate: Any, clean: Any, noisy: Any, spec: Spec) -> Any:
    """Mean over three window lengths of the compressed magnitude and complex differences.

    Source: Yamamoto et al. 2020 for the resolutions; here on compressed spectra, half magnitude
    and half complex, instead of on logarithms, which silence would dominate.
    """
    power = spec.features.compression
    total = 0.0
    for settings in RESOLUTIONS:
        x, y = stft(estimate, settings), stft(clean, settings)
        magnitude = ops.square(raised(_power(x), power / 2) - raised(_power(y), power / 2))
        total += ops.mean(magnitude + _difference(x, y, power), axis=(1, 2)) / 2
    return total / len(RESOLUTIONS)


def si_sdr(estimate: Any, clean: Any, noisy: Any, spec: Spec) -> Any:
    """Negative scale-invariant signal-to-distortion ratio in dB, at least -50.

    Source: Le Roux et al. 2019, "SDR - half-baked or well done?". Examples whose clean part is
    silent count as 0.
    """
    return -si_sdr_db(estimate, clean)


def waveform_l1(estimate: Any, clean: Any, noisy: Any, spec: Spec) -> Any:
    """Mean absolute difference of the samples, relative to the clean RMS or 0.01, if greater."""
    scale = ops.sqrt(ops.maximum(ops.mean(ops.square(clean), axis=1), 1e-4))
    return ops.mean(ops.abs(estimate - clean), axis=1) / scale


def weighted_sdr(estimate: Any, clean: Any, noisy: Any, spec: Spec) -> Any:
    """Negative cosine similarity of speech and of noise, weighted by their energies, -1..1.

    Source: Choi et al. 2019, "Phase-aware speech enhancement with deep complex U-Net", section 3.3.
    """
    noise, noise_estimate = noisy - clean, noisy - estimate
    clean_energy = ops.sum(ops.square(clean), axis=1)
    noise_energy = ops.sum(ops.square(noise), axis=1)
    share = clean_energy / (clean_energy + noise_energy + 1e-8)
    similarity = share * _cosine(estimate, clean) + (1 - share) * _cosine(noise_estimate, noise)
    return -similarity


def perceptual(estimate: Any, clean: Any, noisy: Any, spec: Spec) -> Any:
    """What wide-band PESQ takes off its best score, 0 to about 6 (see perceptual.py).

    Examples whose clean part is silent count as 0.
    """
    heard = ops.mean(ops.square(clean), axis=1) > SILENCE
    return ops.where(heard, degradation(estimate, clean), 0.0)


def intelligibility(estimate: Any, clean: Any, noisy: Any, spec: Spec) -> Any:
    """What ESTOI takes off 1, about 0 to 1 (see intelligibility.py).

    Examples whose clean part is silent count as 0.
    """
    heard = ops.mean(ops.square(clean), axis=1) > SILENCE
    return ops.where(heard, 1 - estoi(estimate, clean, spec.audio.sample_rate), 0.0)


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


def total_loss(estimate: Any, clean: Any, noisy: Any, spec: Spec) -> Any:
    """Weighted sum of the losses in the spec, mean over the batch: a scalar.

    Every example is first scaled to a mix of -20 dBFS, so that quiet recordings count as much as
    loud ones.
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
    """Scale-invariant SDR in dB, at most 50; 0 where the clean part is silent."""
    clean_power = ops.sum(ops.square(clean), axis=1)
    scale = ops.sum(estimate * clean, axis=1) / ops.maximum(clean_power, 1e-8)
    target = scale[:, None] * clean
    signal = ops.sum(ops.square(target), axis=1)
    error = ops.sum(ops.square(estimate - target), axis=1)
    ratio = 10 * ops.log10((signal + 1e-8) / (error + 1e-5 * signal + 1e-8))
    heard = ops.mean(ops.square(clean), axis=1) > SILENCE
    return ops.where(heard, ratio, 0.0)


def _cosine(x: Any, y: Any) -> Any:
    norms = ops.sum(ops.square(x), axis=1) * ops.sum(ops.square(y), axis=1)
    return ops.sum(x * y, axis=1) / ops.sqrt(norms + 1e-8)


def _power(spectrum: tuple[Any, Any]) -> Any:
    real, imaginary = spectrum
    return ops.square(real) + ops.square(imaginary) + POWER_FLOOR


def _difference(x: tuple[Any, Any], y: tuple[Any, Any], power: float) -> Any:
    """|X - Y|², the magnitudes of both compressed."""
    x_gain, y_gain = (raised(_power(spectrum), (power - 1) / 2) for spectrum in (x, y))
    real, imaginary = (a * x_gain - b * y_gain for a, b in zip(x, y, strict=True))
    return ops.square(real) + ops.square(imaginary)
