"""Brings a cleaned recording to a loudness, after all of it is known."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from denoisecli.audio.level import LevelMeter, dbfs
from denoisecli.audio.loudness import (
    Limiter,
    Loudness,
    LoudnessMeter,
    block_samples,
    speech_gain_db,
)
from denoisecli.cleaning.tracks import Track
from denoisecli.types import AudioBlock

TOLERANCE_LU = 0.1
"""Largest distance from the wanted loudness in LU that is not corrected."""

NOTABLE_LU = 0.3
"""Distance from the wanted loudness in LU above which the user is warned."""

_PEAK_TOLERANCE_DB = 0.02
_MOST_PASSES = 5
_MOST_EXTRA_DB = 6.0  # more gain than this into the limiter distorts and adds little


@dataclass(frozen=True)
class Leveling:
    """Gain and limiter that bring a track to a loudness.

    Attributes:
        gain: Factor for all samples.
        ceiling_db: Largest sample in dBFS that a limiter leaves; None needs no limiter.
        loudness: Integrated loudness of the result in LUFS; -inf if it is too quiet to measure.
        true_peak: True peak of the result in dBFS.
        warnings: Warnings about the result.
        rms_dbfs: Level of the result in dBFS; NaN until it is written.
    """

    gain: float
    ceiling_db: float | None
    loudness: float
    true_peak: float
    warnings: tuple[str, ...] = ()
    rms_dbfs: float = math.nan


class Normalization:
    """Finds the gain and the limiter for a wanted loudness.

    Args:
        target: Integrated loudness in LUFS; None makes speech as loud as it is in the recording.
        true_peak: Largest true peak in dBTP.
        sample_rate: Sample rate of the recording in Hz.
        channels: Number of channels.

    Raises:
        UsageError: PyAV is not installed, or there are more than eight channels.
    """

    def __init__(
        self, target: float | None, true_peak: float, sample_rate: int, channels: int
    ) -> None:
        self._target = target
        self._true_peak = true_peak
        self._sample_rate = sample_rate
        self._noisy = LoudnessMeter(sample_rate, channels, true_peak=False)

    def add(self, noisy: AudioBlock) -> None:
        """Take the next samples of the recording, before cleaning."""
        if self._target is None:
            self._noisy.add(noisy)

    def level(self, track: Track) -> Leveling:
        """Measure a complete track with a spool, and decide how to write it."""
        measured = _measure(track, track.spooled(), true_peak=False)
        true_peak = _true_peak(track)
        if math.isinf(measured.integrated):
            warning = (
                "the recording is too short or too quiet to measure its loudness, which was left "
                "as it is"
            )
            gain_db = min(0.0, self._true_peak - true_peak)
            gain = 10 ** (gain_db / 20)
            return Leveling(gain, None, measured.integrated, true_peak + gain_db, (warning,))
        if self._target is None:
            noisy, clean = self._noisy.finish().momentary, measured.momentary
            # At another sample rate, the blocks may be of another length.
            seconds = block_samples(track.target_rate) / track.target_rate
            of_noisy = block_samples(self._sample_rate) / self._sample_rate
            ends = np.rint(np.arange(1, clean.size + 1) * seconds / of_noisy).astype(int)
            known = ends <= noisy.size
            gain_db = speech_gain_db(noisy[ends[known] - 1], clean[known])
        else:
            gain_db = self._target - measured.integrated
        target = measured.integrated + gain_db
        peak = true_peak + gain_db
        if peak <= self._true_peak:
            return Leveling(10 ** (gain_db / 20), None, target, peak)
        return self._limited(track, gain_db, target)

    def _limited(self, track: Track, gain_db: float, target: float) -> Leveling:
        """Find the gain before a limiter and its ceiling, by trying it on the whole track."""
        ceiling_db, first_gain_db = self._true_peak, gain_db
        for _ in range(_MOST_PASSES):
            gain = 10 ** (gain_db / 20)
            limiter = Limiter(track.target_rate, track.channels, ceiling_db)
            result = _measure(track, _leveled(track.spooled(), gain, limiter))
            over = result.true_peak - self._true_peak
            missing = target - result.integrated
            leveling = Leveling(gain, ceiling_db, result.integrated, result.true_peak)
            more = min(missing, first_gain_db + _MOST_EXTRA_DB - gain_db)
            if over <= _PEAK_TOLERANCE_DB and more <= TOLERANCE_LU:
                break
            ceiling_db -= max(over, 0.0)  # the peaks between the samples are higher
            gain_db += max(more, 0.0)
        warnings = []
        if leveling.true_peak > self._true_peak + _PEAK_TOLERANCE_DB:
            warnings.append(
                f"its true peak is {leveling.true_peak:.2f} dBTP instead of "
                f"{self._true_peak:g} dBTP"
            )
        if abs(target - leveling.loudness) > NOTABLE_LU:
            warnings.append(
                f"its peaks allow only {leveling.loudness:.1f} LUFS instead of {target:.1f} LUFS; "
                f"raise --true-peak{'' if self._target is None else ' or lower --loudness'}"
            )
        return replace(leveling, warnings=tuple(warnings))


def finish_normalized(tracks: Sequence[Track], normalization: Normalization) -> Leveling:
    """Bring the first track to its loudness and write all; the others get the same gain.

    Returns:
        How it was done, with the level of the first track as it was written.
    """
    for track in tracks:
        track.flush()
    leveling = normalization.level(tracks[0])
    limiter = None
    if leveling.ceiling_db is not None:
        limiter = Limiter(tracks[0].target_rate, tracks[0].channels, leveling.ceiling_db)
    meter = LevelMeter()
    for block in _leveled(tracks[0].spooled(), leveling.gain, limiter):
        tracks[0].sink.write(block)
        meter.add(block)
    for track in tracks[1:]:
        for block in _leveled(track.spooled(), leveling.gain, None):
            track.sink.write(block)
    return replace(leveling, rms_dbfs=meter.dbfs)


def _leveled(
    blocks: Iterator[AudioBlock], gain: float, limiter: Limiter | None
) -> Iterator[AudioBlock]:
    """Yield blocks times a gain and, if there is a limiter, through it."""
    for block in blocks:
        louder = block * np.float32(gain)
        if limiter is None:
            yield louder
        else:
            yield from limiter.process(louder)
    if limiter is not None:
        yield from limiter.finish()


def _true_peak(track: Track) -> float:
    """Return the true peak of a complete track in dBTP.

    FFmpeg rounds it to 0.001, which is 3 dB of -57 dBFS, so it measures the track at full scale.
    It does so at 192 kHz, and misses peaks of sound that has a higher sample rate.
    """
    if track.peak == 0:
        return -math.inf
    blocks = _leveled(track.spooled(), 1 / track.peak, None)
    return max(_measure(track, blocks).true_peak, 0.0) + dbfs(track.peak)


def _measure(track: Track, blocks: Iterator[AudioBlock], *, true_peak: bool = True) -> Loudness:
    meter = LoudnessMeter(track.target_rate, track.channels, true_peak=true_peak)
    for block in blocks:
        meter.add(block)
    return meter.finish()
