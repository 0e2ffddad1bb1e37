"""What is removed from clean recordings before the network is trained to reproduce them.

Shape of all signals: (batch, timesteps).
"""

from typing import Any

import numpy as np
from keras import ops

from denoisecli.spec.training import Augmentation
from denoisecli.training.augmentation.filters import remove_rumble
from denoisecli.training.augmentation.ops import db_to_gain

HOP_SECONDS = 0.016
"""Length of the parts whose levels are compared."""

KEPT_PARTS = 3
"""Number of parts before and after a louder one that are as loud: the beginning and end of a word
may be as soft as a pause."""

MOST_DB = 24.0
"""Largest attenuation of a pause in dB."""


def clean_target(signal: Any, settings: Augmentation | None, sample_rate: int) -> Any:
    """Remove rumble from a target and attenuate its pauses, as far as the settings say.

    Args:
        signal: Clean recordings.
        settings: Section `training.augmentation` of the spec.
        sample_rate: Sample rate in Hz.
    """
    if settings is None:
        return signal
    if settings.target_highpass_hz is not None:
        signal = remove_rumble(signal, settings.target_highpass_hz, sample_rate)
    if settings.target_pause_db is not None:
        signal = attenuate_pauses(signal, settings.target_pause_db, sample_rate)
    return signal


def attenuate_pauses(signal: Any, threshold_db: float, sample_rate: int) -> Any:
    """Attenuate what is much softer than the loudest part, by a downward expander of ratio 1:2.

    Clean recordings have noise, which the network would learn to leave in pauses.

    Args:
        signal: Signals.
        threshold_db: Level in dB relative to the loudest part. What is softer by ``x`` dB becomes
            softer by another ``x`` dB, at most by `MOST_DB`.
        sample_rate: Sample rate in Hz.
    """
    timesteps = signal.shape[1]
    hop = max(1, round(HOP_SECONDS * sample_rate))
    parts = -(-timesteps // hop)
    padded = ops.pad(signal, ((0, 0), (0, parts * hop - timesteps)))
    padded = ops.reshape(padded, (-1, parts, hop))
    power = ops.max_pool(
        ops.mean(ops.square(padded), axis=2)[:, :, None], 2 * KEPT_PARTS + 1, 1, "same"
    )[:, :, 0]
    loudest = ops.max(power, axis=1, keepdims=True)
    level = 10 * ops.log10(ops.maximum(power, 1e-14) / ops.maximum(loudest, 1e-12))
    gain = db_to_gain(ops.clip(level - threshold_db, -MOST_DB, 0.0))
    # The gain changes linearly between the ends of parts, where the greater one of two counts.
    ends = ops.maximum(
        ops.concatenate([gain[:, :1], gain], axis=1), ops.concatenate([gain, gain[:, -1:]], axis=1)
    )
    ramp = ops.convert_to_tensor((np.arange(hop) / hop).astype(np.float32))
    gain = ends[:, :-1, None] * (1 - ramp) + ends[:, 1:, None] * ramp
    return ops.reshape(padded * gain, (-1, parts * hop))[:, :timesteps]
