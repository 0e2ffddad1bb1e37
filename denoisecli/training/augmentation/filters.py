"""Augmentations that filter: equalization, band limits, rumble, rooms.

Shapes: all signals are (batch, timesteps).
"""

from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from denoisecli.datasets.rooms import EARLY_SECONDS
from denoisecli.training.augmentation.tools import (
    choose,
    filtered,
    frequencies,
    gain,
    highpass_response,
    log_uniform,
    put,
    rms,
    uniform,
)

FIRST_REFLECTION_SECONDS = 0.003

DENSE_SECONDS = 0.04
"""From here reflections are as dense as samples; their density grows with the square of time."""

RUMBLE_STEEPNESS = 8.0
"""48 dB per octave."""


@dataclass(frozen=True)
class Equalization:
    """A random smooth frequency response, another for every example.

    Gains at `POINTS` frequencies, evenly spaced on the square root of frequency so that speech
    gets most of them, joined linearly in dB.
    """

    range_db: float
    POINTS = 8

    def draw(self, batch: Any, seed: Any) -> Any:
        """Gains in dB: (batch, POINTS)."""
        return uniform([batch, self.POINTS], (-self.range_db, self.range_db), seed)

    def apply(self, signal: Any, gains_db: Any) -> Any:
        """Filter by multiplication in the frequency domain (zero phase, RMS kept)."""
        bins = tf.shape(signal)[1] // 2 + 1
        position = tf.sqrt(tf.linspace(0.0, 1.0, bins)) * (self.POINTS - 1)
        low = tf.minimum(tf.cast(position, tf.int32), self.POINTS - 2)
        share = position - tf.cast(low, tf.float32)
        curve = tf.gather(gains_db, low, axis=1) * (1 - share)
        curve += tf.gather(gains_db, low + 1, axis=1) * share
        changed = filtered(signal, gain(curve))
        return changed * (rms(signal) / tf.maximum(rms(changed), 1e-8))[:, None]


@dataclass(frozen=True)
class BandLimit:
    """Some examples lose their highs, half of those their lows too: old, muffled, telephone."""

    share: float
    low_cut_hz: tuple[float, float]
    high_cut_hz: tuple[float, float]
    sample_rate: int
    STEEPNESS = (8.0, 64.0)

    def draw(self, batch: Any, seed: Any) -> dict[str, Any]:
        """Which examples, their cuts in Hz and how steep they are."""
        seeds = tf.unstack(tf.random.split(seed, 5))
        rows = choose(batch, self.share, seeds[0])
        shape = [tf.size(rows), 1]
        both = tf.random.stateless_uniform(shape, seeds[4]) < 0.5
        return {
            "rows": rows,
            "low_cut": tf.where(both, log_uniform(shape, self.low_cut_hz, seeds[1]), 1e-3),
            "high_cut": log_uniform(shape, self.high_cut_hz, seeds[2]),
            "steepness": log_uniform(shape, self.STEEPNESS, seeds[3]),
        }

    def apply(self, noisy: Any, clean: Any, parameters: dict[str, Any]) -> tuple[Any, Any]:
        """Filter both alike, with zero phase."""
        rows, steepness = parameters["rows"], parameters["steepness"]
        hertz = frequencies(tf.shape(noisy)[1], self.sample_rate)
        response = highpass_response(hertz, parameters["low_cut"], steepness)
        response *= 1 - highpass_response(hertz, parameters["high_cut"], steepness)
        noisy = put(noisy, rows, filtered(tf.gather(noisy, rows), response))
        return noisy, put(clean, rows, filtered(tf.gather(clean, rows), response))


@dataclass(frozen=True)
class Reverberation:
    """Some speech is put into a room: exponentially decaying noise follows the direct sound.

    As in Polack's model (1988), but the first reflections are few and strong, as the geometry of
    a room has it (Kuttruff, Room Acoustics).
    """

    share: float
    rt60_seconds: tuple[float, float]
    direct_to_reverberant_db: tuple[float, float]
    sample_rate: int

    def draw(self, batch: Any, seed: Any) -> dict[str, Any]:
        """Which examples, and the responses of their rooms without the direct sound."""
        seeds = tf.unstack(tf.random.split(seed, 5))
        rows = choose(batch, self.share, seeds[0])
        shape = [tf.size(rows), 1]
        rt60 = uniform(shape, self.rt60_seconds, seeds[1])
        reverberant = gain(-uniform(shape, self.direct_to_reverberant_db, seeds[2]))
        timesteps = round(self.rt60_seconds[1] * self.sample_rate)
        seconds = tf.range(timesteps, dtype=tf.float32) / self.sample_rate
        shape = [tf.size(rows), timesteps]
        density = tf.clip_by_value((seconds / DENSE_SECONDS) ** 2, 0.01, 1)
        density *= tf.cast(seconds >= FIRST_REFLECTION_SECONDS, tf.float32)
        present = tf.random.stateless_uniform(shape, seeds[3]) < density
        tail = tf.random.stateless_normal(shape, seeds[4]) * gain(-60 * seconds / rt60)
        tail = tf.where(present, tail * tf.math.rsqrt(tf.maximum(density, 0.01)), 0)
        energy = tf.reduce_sum(tf.square(tail), axis=1, keepdims=True)
        return {"rows": rows, "tail": tail * reverberant / tf.sqrt(tf.maximum(energy, 1e-8))}

    def apply(self, speech: Any, parameters: dict[str, Any]) -> tuple[Any, Any]:
        """Speech -> (speech in the room, the same with early reflections only)."""
        rows, tail = parameters["rows"], parameters["tail"]
        timesteps = tf.shape(speech)[1]
        tail = tail[:, :timesteps]
        tail = tf.pad(tail, [[0, 0], [0, timesteps - tf.shape(tail)[1]]])
        is_early = tf.range(timesteps) < round(EARLY_SECONDS * self.sample_rate)
        dry = tf.gather(speech, rows)
        spectrum = tf.signal.rfft(dry)

        def reflections(response: Any) -> Any:
            return tf.signal.irfft(spectrum * tf.signal.rfft(response), [timesteps])

        early = dry + reflections(tf.where(is_early, tail, 0))
        wet = early + reflections(tf.where(~is_early, tail, 0))
        level = (rms(dry) / tf.maximum(rms(wet), 1e-8))[:, None]
        return put(speech, rows, level * wet), put(speech, rows, level * early)


def remove_rumble(signal: Any, cut_hz: float, sample_rate: int) -> Any:
    """Take out what lies below `cut_hz` (-6 dB there), with zero phase."""
    hertz = frequencies(tf.shape(signal)[1], sample_rate)
    return filtered(signal, highpass_response(hertz, cut_hz, RUMBLE_STEEPNESS)[None])
