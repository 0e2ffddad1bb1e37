"""What is done to a batch of (noisy, clean) pairs while training, as TensorFlow graph code.

Each augmentation is a small class that draws its parameters apart from applying them, so that a
batch can be replayed. All randomness comes from the stateless seed that `augment_batch` is given.
What only some examples get is computed for those only.
"""

from typing import Any

import tensorflow as tf

from denoisecli.spec.training import Augmentation
from denoisecli.training.augmentation.filters import (
    BandLimit,
    Equalization,
    Reverberation,
    remove_rumble,
)
from denoisecli.training.augmentation.inputs import Clipping, Masking
from denoisecli.training.augmentation.mixing import Level, Remix
from denoisecli.training.augmentation.noises import Clicks, ColouredNoise, Hum
from denoisecli.training.augmentation.time import Speed, TimeShift


def augment_batch(
    noisy: Any, clean: Any, settings: Augmentation, sample_rate: int, seed: Any
) -> tuple[Any, Any]:
    """Apply what the spec's `training.augmentation` asks for.

    First speech and noise are changed, each for itself; then they are mixed; then the mix is
    changed together with the target; last the input alone (clipping, masking). Until then what
    noisy and clean differ by is what is to be removed: noise, late reverberation, rumble.

    Args:
        noisy: (batch, timesteps).
        clean: (batch, timesteps).
        settings: the section of the spec.
        sample_rate: in Hz.
        seed: (2,) integers; the same seed gives the same result.
    """
    seeds = tf.unstack(tf.random.split(seed, 6))
    batch = tf.shape(noisy)[0]
    speech = _source(clean, settings, sample_rate, seeds[0])
    noise = _source(noisy - clean, settings, sample_rate, seeds[1])
    noise = _more_noise(noise, settings, sample_rate, seeds[2])
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
            settings.snr_db,
            settings.second_noise,
            settings.third_noise,
            settings.clean_only,
            settings.noise_only,
        )
        parameters = remix.draw(batch, seeds[4])
        speech, noise = remix.apply(speech, noise, parameters)
        clean *= parameters["speech_gain"][:, None]
    return _mix(speech + noise, clean, settings, sample_rate, seeds[5])


def _source(signal: Any, settings: Augmentation, sample_rate: int, seed: Any) -> Any:
    """Speech or noise: speed, equalization."""
    seeds = tf.unstack(tf.random.split(seed, 2))
    batch = tf.shape(signal)[0]
    if settings.speed > 0:
        speed = Speed(settings.speed, settings.speed_range, sample_rate)
        signal = speed.apply(signal, speed.draw(batch, seeds[0]))
    if settings.equalization_db > 0:
        equalization = Equalization(settings.equalization_db)
        signal = equalization.apply(signal, equalization.draw(batch, seeds[1]))
    return signal


def _more_noise(noise: Any, settings: Augmentation, sample_rate: int, seed: Any) -> Any:
    """Noises that need no recording; shift against the speech."""
    seeds = tf.unstack(tf.random.split(seed, 4))
    batch, timesteps = tf.unstack(tf.shape(noise))
    kinds: tuple[ColouredNoise | Hum | Clicks, ...] = (
        ColouredNoise(settings.coloured_noise, settings.synthetic_noise_db, sample_rate),
        Hum(settings.hum, settings.synthetic_noise_db, sample_rate),
        Clicks(settings.clicks, settings.synthetic_noise_db, sample_rate),
    )
    for kind, kind_seed in zip(kinds, seeds[:3], strict=True):
        if kind.share > 0:
            noise = kind.apply(noise, kind.draw(batch, kind_seed))
    if settings.time_shift:
        shift = TimeShift()
        noise = shift.apply(noise, shift.draw(timesteps, seeds[3]))
    return noise


def _mix(
    noisy: Any, clean: Any, settings: Augmentation, sample_rate: int, seed: Any
) -> tuple[Any, Any]:
    """Both: band limits, level; then the input alone: clipping, masking."""
    seeds = tf.unstack(tf.random.split(seed, 4))
    batch = tf.shape(noisy)[0]
    if settings.band_limit > 0:
        band = BandLimit(
            settings.band_limit, settings.low_cut_hz, settings.high_cut_hz, sample_rate
        )
        noisy, clean = band.apply(noisy, clean, band.draw(batch, seeds[0]))
    if settings.level_dbfs is not None:
        level = Level(settings.level_dbfs)
        noisy, clean = level.apply(noisy, clean, level.draw(batch, seeds[1]))
    if settings.clipping > 0:
        clipping = Clipping(settings.clipping, settings.clipping_db)
        noisy = clipping.apply(noisy, clipping.draw(batch, seeds[2]))
    if settings.masking > 0:
        masking = Masking(settings.masking, settings.masking_db, sample_rate)
        noisy = masking.apply(noisy, masking.draw(batch, seeds[3]))
    return noisy, clean
