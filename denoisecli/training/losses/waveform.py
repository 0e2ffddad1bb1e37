"""Losses between the estimated and the clean waveform.

Every loss compares waveforms, so that it does not depend on how the network makes its estimate. The
spectral losses see the spectrum of what is heard, after the inverse STFT (Le Roux and Vincent,
"Consistent Wiener filtering for audio source separation", 2013). All losses and their gradients are
finite on silence.

Every loss takes `Signals` and returns one value per example, shape (batch,).
"""

from typing import Any

from keras import ops

from denoisecli.models.ops import raised
from denoisecli.spec.document import Spec
from denoisecli.spec.network import Stft
from denoisecli.spec.training import PERCEPTUAL_SAMPLE_RATE as SAMPLE_RATE
from denoisecli.training.losses.estoi import estoi
from denoisecli.training.losses.listening import ratings
from denoisecli.training.losses.pesq import degradation
from denoisecli.training.losses.signals import SILENCE, Signals
from denoisecli.training.losses.tensor_stft import stft

POWER_FLOOR = 1e-5
"""Power added to |X|² before compression: that of white noise at -74 dBFS in 512 samples."""

LEVEL_FLOOR = 1e-7
"""Power added to the mean of |X|² in a band before its level is taken: white noise at -94 dBFS.

Clean recordings may have more noise, which a model would learn to keep in pauses:
`augmentation.target_pause_db` attenuates it.
"""

_RATED_OF = 4  # `listening_quality` rates one in this many examples

RESOLUTIONS = (
    Stft(n_fft=256, hop_length=64, window="hann"),
    Stft(n_fft=512, hop_length=128, window="hann"),
    Stft(n_fft=1024, hop_length=256, window="hann"),
)
"""STFTs that `multi_resolution_stft` compares; lengths in samples."""


def compressed_magnitude(signals: Signals) -> Any:
    """Compute the mean squared difference of the compressed magnitudes, 0 or more.

    Magnitudes are raised to the power `features.compression` of the spec. Bins above 8 kHz weigh
    less, see `Signals.bin_weights`. Source: Ephrat et al.,
    "Looking to listen at the cocktail party", 2018; Braun and Tashev, "A consolidated view of loss
    functions for supervised deep learning-based speech enhancement", 2021, for the sum with
    `compressed_complex`.
    """
    power = signals.spec.features.compression
    x, y = (raised(_power(spectrum), power / 2) for spectrum in signals.spectra)
    return ops.mean(ops.square(x - y) * signals.bin_weights, axis=(1, 2))


def compressed_complex(signals: Signals) -> Any:
    """Compute the mean squared difference of complex spectra with compressed magnitudes, 0 or more.

    Source: Braun and Tashev 2021, equation 3.
    """
    power = signals.spec.features.compression
    difference = _squared_difference(*signals.spectra, power)
    return ops.mean(difference * signals.bin_weights, axis=(1, 2))


def band_levels(signals: Signals) -> Any:
    """Compute the mean absolute difference of the levels in bands of half an ERB, in dB, 0 or more.

    A band counts the same whatever its level: soft consonants above 8 kHz and the noise that is
    left in pauses weigh as much as vowels.
    """
    x, y = (
        ops.log10(ops.matmul(_squared(spectrum), signals.band_means) + LEVEL_FLOOR)
        for spectrum in signals.spectra
    )
    return 10 * ops.mean(ops.abs(x - y), axis=(1, 2))


def multi_resolution_stft(signals: Signals) -> Any:
    """Compute the mean of both compressed differences over three window lengths, 0 or more.

    Source: Yamamoto et al., "Parallel WaveGAN", 2020, for the resolutions. Compressed spectra take
    the place of logarithmic ones, which silence would dominate.
    """
    power = signals.spec.features.compression
    total = 0.0
    for settings in RESOLUTIONS:
        x, y = stft(signals.estimate, settings), stft(signals.clean, settings)
        magnitude = ops.square(raised(_power(x), power / 2) - raised(_power(y), power / 2))
        total += ops.mean(magnitude + _squared_difference(x, y, power), axis=(1, 2)) / 2
    return total / len(RESOLUTIONS)


def si_sdr(signals: Signals) -> Any:
    """Compute the negative SI-SDR in dB, -50 or more; 0 where the clean part is silent."""
    return -si_sdr_db(signals.estimate, signals.clean)


def waveform_l1(signals: Signals) -> Any:
    """Compute the mean absolute difference, relative to the RMS of the clean part, 0 or more.

    The RMS is that without the mean, and taken to be 0.01 (-40 dBFS) at least.
    """
    scale = ops.sqrt(ops.maximum(ops.var(signals.clean, axis=1), 1e-4))
    return ops.mean(ops.abs(signals.estimate - signals.clean), axis=1) / scale


def weighted_sdr(signals: Signals) -> Any:
    """Compute the negative cosine similarity of speech and of noise, weighted by energy, -1..1.

    Source: Choi et al., "Phase-aware speech enhancement with deep complex U-Net", 2019, section
    3.3.
    """
    estimate, clean = signals.estimate, signals.clean
    noise, noise_estimate = signals.noisy - clean, signals.noisy - estimate
    clean_energy = ops.sum(ops.square(clean), axis=1)
    noise_energy = ops.sum(ops.square(noise), axis=1)
    weight = clean_energy / (clean_energy + noise_energy + 1e-8)
    speech = weight * _cosine_similarity(estimate, clean)
    return -(speech + (1 - weight) * _cosine_similarity(noise_estimate, noise))


def perceptual(signals: Signals) -> Any:
    """Compute the degradation of wide-band PESQ (see `pesq`) at 16 kHz, 0 to about 6.

    It is 0 where the clean part is silent.
    """
    return ops.where(signals.audible, degradation(*signals.at_16k), 0.0)


def intelligibility(signals: Signals) -> Any:
    """Compute 1 - ESTOI (see `estoi`), about 0 to 1; 0 where the clean part is silent."""
    if signals.spec.stft_at(SAMPLE_RATE) is None:
        value = estoi(signals.estimate, signals.clean, signals.spec.audio.sample_rate)
    else:
        value = estoi(*signals.at_16k, SAMPLE_RATE)
    return ops.where(signals.audible, 1 - value, 0.0)


def listening_quality(signals: Signals) -> Any:
    """Compute 5 minus the overall rating that DNSMOS predicts (see `listening`), about 0 to 4.

    Its network costs more than the one that is trained. So only the first quarter of the batch is
    rated; the other examples count as 0, and the rated ones four times, so that the mean is
    theirs. Examples whose clean part is silent count as 0 as well.
    """
    estimate, _ = signals.at_16k
    batch = ops.shape(estimate)[0]
    rated = -(-batch // _RATED_OF)
    rating = ratings(estimate[:rated])[:, 2]
    loss = ops.where(signals.audible[:rated], 5 - rating, 0.0)
    scale = ops.cast(batch, loss.dtype) / ops.cast(rated, loss.dtype)
    return ops.concatenate([scale * loss, ops.zeros_like(estimate[rated:, 0])])


LOSSES = {
    loss.__name__: loss
    for loss in (
        compressed_magnitude,
        compressed_complex,
        band_levels,
        multi_resolution_stft,
        si_sdr,
        waveform_l1,
        weighted_sdr,
        perceptual,
        intelligibility,
        listening_quality,
    )
}
"""Loss by its name in a spec."""


def total_loss(estimate: Any, clean: Any, noisy: Any, spec: Spec, bandwidth: Any = None) -> Any:
    """Compute the weighted sum of the losses of a spec, averaged over the batch.

    Every example is first scaled to a mixture of -20 dBFS without its mean, so that soft recordings
    count as much as loud ones.

    Args:
        estimate: Estimated speech.
        clean: Clean speech.
        noisy: Mixtures.
        spec: Spec of the model.
        bandwidth: Highest frequency in Hz at which each stretch of the clean recordings has sound;
            what the estimate has above it, while there is speech, is left out (default: all
            recordings have the full band).

    Shape:
        - estimate, clean, noisy: (batch, timesteps)
        - bandwidth: (batch, stretches), stretches of equal length
        - output: a scalar
    """
    power = ops.var(noisy, axis=1, keepdims=True)
    gain = 0.1 / ops.sqrt(ops.maximum(power, SILENCE))
    signals = Signals(estimate * gain, clean * gain, noisy * gain, spec, bandwidth)
    terms = (loss.weight * ops.mean(LOSSES[loss.kind](signals)) for loss in spec.training.losses)
    return sum(terms, 0.0)


def si_sdr_db(estimate: Any, clean: Any) -> Any:
    """Compute the scale-invariant SDR in dB, 50 at most; 0 where the clean part is silent.

    Source: Le Roux et al., "SDR - half-baked or well done?", 2019, equation 2. Means are removed,
    as `denoisecli.evaluation.metrics.si_sdr` does.
    """
    estimate, clean = (x - ops.mean(x, axis=1, keepdims=True) for x in (estimate, clean))
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
    return _squared(spectrum) + POWER_FLOOR


def _squared(spectrum: tuple[Any, Any]) -> Any:
    real, imaginary = spectrum
    return ops.square(real) + ops.square(imaginary)


def _squared_difference(x: tuple[Any, Any], y: tuple[Any, Any], power: float) -> Any:
    """Compute |X - Y|² of spectra whose magnitudes are compressed."""
    x_gain, y_gain = (raised(_power(spectrum), (power - 1) / 2) for spectrum in (x, y))
    real, imaginary = (a * x_gain - b * y_gain for a, b in zip(x, y, strict=True))
    return ops.square(real) + ops.square(imaginary)
