"""The chain of all augmentations of a batch.

What changes only some examples is computed for those only.
"""

from typing import Any, TypeVar

import tensorflow as tf

from denoisecli.spec.training import Augmentation, FromDataset
from denoisecli.training.augmentation.distortion import Clipping, Masking
from denoisecli.training.augmentation.filters import BandLimit, Equalization, remove_rumble
from denoisecli.training.augmentation.mixing import Level, Remix
from denoisecli.training.augmentation.reverberation import Reverberation
from denoisecli.training.augmentation.synthetic_noise import Clicks, ColouredNoise, Hum
from denoisecli.training.augmentation.time import Speed, TimeShift

Value = TypeVar("Value", float, tuple[float, float])


def augment_batch(
    noisy: Any, clean: Any, settings: Augmentation, sample_rate: int, seed: Any
) -> tuple[Any, Any]:
    """Apply the augmentations of a spec to a batch.

    Speech and noise are changed first, each on its own; then they are mixed; then the mixture is
    changed together with its target; last the input alone is. Until then, noisy and clean differ by
    what the network has to remove: noise, late reverberation and rumble.

    Args:
        noisy: Mixtures of speech and noise.
        clean: Speech of these mixtures.
        settings: Section `training.augmentation` of the spec.
        sample_rate: Sample rate in Hz.
        seed: Stateless seed; the same seed gives the same result.

    Returns:
        The new input and its target.

    Shape:
        - noisy, clean and outputs: (batch, timesteps)
        - seed: (2,) integers
    """
    seeds = tf.unstack(tf.random.split(seed, 6))
    batch = tf.shape(noisy)[0]
    speech = _augment_source(clean, settings, sample_rate, seeds[0])
    noise = _augment_source(noisy - clean, settings, sample_rate, seeds[1])
    noise = _augment_noise(noise, settings, sample_rate, seeds[2])
    clean = speech
    if settings.reverberation > 0:
        rooms = Reverberation(
            settings.reverberation,
            settings.rt60_seconds,
            settings.direct_to_reverberant_db,
            sample_rate,
        )
        speech, clean = rooms.apply(speech, rooms.draw(batch, seeds[3]))
    if settings.target_highpass_hz is not None:
        clean = remove_rumble(clean, settings.target_highpass_hz, sample_rate)
    if settings.remix:
        remix = Remix(
            _resolved(settings.snr_db),
            _resolved(settings.second_noise),
            _resolved(settings.third_noise),
            settings.clean_only,
            settings.noise_only,
        )
        parameters = remix.draw(batch, seeds[4])
        speech, noise = remix.apply(speech, noise, parameters)
        clean *= parameters["speech_gain"][:, None]
    return _augment_mixture(speech + noise, clean, settings, sample_rate, seeds[5])


def _augment_source(signal: Any, settings: Augmentation, sample_rate: int, seed: Any) -> Any:
    """Change the speed and the equalization of speech or noise."""
    seeds = tf.unstack(tf.random.split(seed, 2))
    batch = tf.shape(signal)[0]
    if settings.speed > 0:
        speed = Speed(settings.speed, settings.speed_range, sample_rate)
        signal = speed.apply(signal, speed.draw(batch, seeds[0]))
    if settings.equalization_db > 0:
        equalization = Equalization(settings.equalization_db)
        signal = equalization.apply(signal, equalization.draw(batch, seeds[1]))
    return signal


def _augment_noise(noise: Any, settings: Augmentation, sample_rate: int, seed: Any) -> Any:
    """Add synthetic noise, and shift all of it against the speech."""
    seeds = tf.unstack(tf.random.split(seed, 4))
    batch, timesteps = tf.unstack(tf.shape(noise))
    kinds: tuple[ColouredNoise | Hum | Clicks, ...] = (
        ColouredNoise(settings.coloured_noise, settings.synthetic_noise_db, sample_rate),
        Hum(settings.hum, settings.synthetic_noise_db, sample_rate),
        Clicks(settings.clicks, settings.synthetic_noise_db, sample_rate),
    )
    for kind, kind_seed in zip(kinds, seeds[:3], strict=True):
        if kind.probability > 0:
            noise = kind.apply(noise, kind.draw(batch, kind_seed))
    if settings.time_shift:
        shift = TimeShift()
        noise = shift.apply(noise, shift.draw(timesteps, seeds[3]))
    return noise


def _augment_mixture(
    noisy: Any, clean: Any, settings: Augmentation, sample_rate: int, seed: Any
) -> tuple[Any, Any]:
    """Change the band and the level of both signals, then distort the input alone."""
    seeds = tf.unstack(tf.random.split(seed, 4))
    batch = tf.shape(noisy)[0]
    if settings.band_limit > 0:
        band = BandLimit(
            settings.band_limit, settings.low_cut_hz, settings.high_cut_hz, sample_rate
        )
        noisy, clean = band.apply(noisy, clean, band.draw(batch, seeds[0]))
    if settings.level_dbfs is not None:
        level = Level(_resolved(settings.level_dbfs))
        noisy, clean = level.apply(noisy, clean, level.draw(batch, seeds[1]))
    if settings.clipping > 0:
        clipping = Clipping(settings.clipping, settings.clipping_db)
        noisy = clipping.apply(noisy, clipping.draw(batch, seeds[2]))
    if settings.masking > 0:
        masking = Masking(settings.masking, settings.masking_db, sample_rate)
        noisy = masking.apply(noisy, masking.draw(batch, seeds[3]))
    return noisy, clean


def _resolved(value: Value | FromDataset) -> Value:
    """Return a value of the spec, which must not be "dataset" any more."""
    if isinstance(value, str):
        raise ValueError("the augmentation leaves a range to the dataset: see resolve_ranges")
    return value
