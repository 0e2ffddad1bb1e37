"""The preview of a recording on the page: its sound before and after, spectrograms and figures."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from jaxtyping import Float

from denoisecli.audio import loudness
from denoisecli.audio.panels import WINDOW, StreamedPower, layout
from denoisecli.audio.reading import AudioReader
from denoisecli.audio.resampling import StreamResampler, fit_length, resampled_length
from denoisecli.audio.spectrogram import decibels
from denoisecli.audio.writing import writer
from denoisecli.evaluation.pauses import FRAME_SECONDS, MIN_SECONDS, find_frames, level_of
from denoisecli.types import AudioBlock, AudioChannels, AudioVector

_RATES = (8_000, 48_000)  # lowest and highest sample rate in Hz of the sound

_COLUMNS = 1200  # approximate width of the spectrograms
_ROWS = 256  # largest height of the spectrograms
_STEPS_PER_DB = 2  # of a byte of a spectrogram: 255 is 0 dBFS, 254 is -0.5 dBFS


def warm_up() -> None:
    """Import what the first preview would wait for."""
    silence = np.zeros(1, np.float32)
    _Pictures(_RATES[0], 1).add(silence, silence)


def write_preview(
    noisy: AudioReader,
    cleaned: Path,
    target: Path,
    spectrograms: Path,
    on_progress: Callable[[float], None],
) -> dict[str, Any]:
    """Write the sound and the spectrograms of a preview.

    The clean channels follow the noisy ones in one file, so that a player keeps them in step. More
    than two channels become their mean.

    Args:
        noisy: The recording.
        cleaned: File with the clean sound.
        target: FLAC file to write the sound to.
        spectrograms: File to write the spectrograms to.
        on_progress: Called with the share that is done, 0..1.

    Returns:
        ``preview_channels``, the number of noisy channels; ``spectrogram``, see `_Pictures`;
        ``pauses``, see `_Pauses`; and ``loudness``, see `_Loudness`.
    """
    with soundfile.SoundFile(cleaned) as file:
        own_rate = file.samplerate
        rate = min(max(own_rate, _RATES[0]), _RATES[1])
        channels = file.channels if file.channels <= 2 else 1
        resample = StreamResampler(own_rate, rate, 2 * channels)
        frames = resampled_length(file.frames, own_rate, rate)
        pictures, pauses, loud = _Pictures(rate, frames), _Pauses(rate), _Loudness(rate, channels)
        with writer(target, rate, 2 * channels, frames=frames, overwrite=True) as sound:

            def add(block: AudioBlock) -> None:
                sound.write(block)
                loud.add(block[:channels], block[channels:])
                both = block[:channels].mean(axis=0), block[channels:].mean(axis=0)
                pictures.add(*both)
                pauses.add(*both)
                on_progress(min(sound.frames / frames, 1.0))

            for block in noisy:
                clean = file.read(block.shape[1], dtype="float32", always_2d=True).T
                if block.shape[0] != channels:
                    block, clean = (part.mean(axis=0, keepdims=True) for part in (block, clean))
                add(resample(np.concatenate([block, clean])))
            add(fit_length(resample.finish(), max(frames - sound.frames, 0)))
    return {
        "preview_channels": channels,
        "spectrogram": pictures.write(spectrograms),
        "pauses": pauses.levels(),
        "loudness": loud.by_strength(),
    }


class _Pauses:
    """The level in the pauses, as ``evaluation.pauses`` defines them, before and after.

    Args:
        sample_rate: Sample rate in Hz.
    """

    def __init__(self, sample_rate: int) -> None:
        self._length = max(round(FRAME_SECONDS * sample_rate), 1)
        self._waiting: AudioChannels = np.zeros((2, 0), np.float32)
        # Sum of each frame, and of its squares; the latter are 0 for a constant frame.
        self._sums: list[Float[np.ndarray, "2 2 frames"]] = []

    def add(self, noisy: AudioVector, clean: AudioVector) -> None:
        """Append samples."""
        sound = np.concatenate([self._waiting, np.stack([noisy, clean])], axis=1)
        used = sound.shape[1] // self._length * self._length
        self._waiting = sound[:, used:]
        frames = sound[:, :used].reshape(2, -1, self._length).astype(np.float64)
        sounding = np.ptp(frames, axis=2) > 0
        self._sums.append(np.stack([frames.sum(axis=2), np.square(frames).sum(axis=2) * sounding]))

    def levels(self) -> list[float] | None:
        """Return the levels in dBFS; None if the recording is too short or silent."""
        sums, squares = np.concatenate(self._sums, axis=2) / self._length
        if not sums.size:
            return None
        mean = sums.mean(axis=1, keepdims=True)  # of the whole sound, up to a part of a frame
        powers = np.where(squares > 0, squares - 2 * mean * sums + mean**2, 0.0)
        found = find_frames(powers[0])
        if found is None or powers.shape[1] * FRAME_SECONDS < MIN_SECONDS:
            return None
        pauses, _ = found
        return [level_of(float(part[pauses].mean())) for part in powers]


class _Loudness:
    """The loudness of all mixtures of the noisy and the clean sound, if PyAV is installed.

    Args:
        sample_rate: Sample rate in Hz.
        channels: Number of channels.
    """

    def __init__(self, sample_rate: int, channels: int) -> None:
        self._meters = [
            loudness.LoudnessMeter(sample_rate, channels, true_peak=False)
            for _ in range(2 * loudness.is_installed())
        ]

    def add(self, noisy: AudioBlock, clean: AudioBlock) -> None:
        """Append samples."""
        for meter, block in zip(self._meters, (noisy, clean), strict=False):
            meter.add(block)

    def by_strength(self) -> list[float] | None:
        """Return the integrated loudness in LUFS at the strengths 0, 0.1, ... 1; None if unknown.

        What is removed is taken to be uncorrelated with the rest.
        """
        if not self._meters:
            return None
        noisy, clean = (10 ** (meter.finish().momentary / 10) for meter in self._meters)
        removed = np.maximum(noisy - clean, 0)
        values = [_integrated(clean + (1 - step / 10) ** 2 * removed) for step in range(11)]
        return None if math.isinf(min(values)) else values


def _integrated(powers: Float[np.ndarray, "blocks"]) -> float:
    """Return the integrated loudness of BS.1770 from the powers of its blocks, in LUFS."""
    sounds = powers[powers > 10 ** (loudness.SILENCE_LUFS / 10)]
    if not sounds.size:
        return -math.inf
    gate = sounds.mean() * 10 ** (-loudness.RELATIVE_GATE_LU / 10)
    return 10 * math.log10(sounds[sounds > gate].mean())


class _Pictures:
    """The spectrograms of the noisy and the clean sound.

    Args:
        sample_rate: Sample rate in Hz.
        timesteps: Length of the sound in samples.
    """

    def __init__(self, sample_rate: int, timesteps: int) -> None:
        self._sample_rate = sample_rate
        self._n_fft, hop_length, per_column = layout(timesteps, sample_rate, _COLUMNS)
        self._step = hop_length * per_column
        self._powers = [StreamedPower(self._n_fft, hop_length, per_column) for _ in range(2)]
        margin = np.zeros(self._n_fft // 2, np.float32)  # frames are centred on their samples
        self.add(margin, margin)

    def add(self, noisy: AudioVector, clean: AudioVector) -> None:
        """Append samples."""
        for power, sound in zip(self._powers, (noisy, clean), strict=True):
            power.add(sound)

    def write(self, path: Path) -> dict[str, int | float]:
        """Write the levels of the noisy and then of the clean sound, a byte each, row by row.

        Returns:
            ``rows`` and ``columns`` of each spectrogram, ``top_hz``, the frequency of its upper
            edge in Hz, and ``seconds``, the time that its columns span.
        """
        margin = np.zeros(self._n_fft // 2, np.float32)
        self.add(margin, margin)
        both = [power.result() for power in self._powers]
        columns = both[0].shape[1]
        bins = both[0].shape[0] - 1  # without 0 Hz
        step = -(-bins // _ROWS)
        with path.open("wb") as file:
            for power in both:
                highest = np.maximum.reduceat(power[1:], range(0, bins, step))[::-1]
                levels = decibels(np.sqrt(highest), n_fft=self._n_fft, window=WINDOW)
                steps = np.clip(np.rint(255 + _STEPS_PER_DB * levels), 0, 255)
                file.write(steps.astype(np.uint8).tobytes())
        return {
            "rows": -(-bins // step),
            "columns": columns,
            "top_hz": self._sample_rate / 2,
            "seconds": columns * self._step / self._sample_rate,
        }
