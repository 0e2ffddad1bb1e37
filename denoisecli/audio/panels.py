"""Recordings and spectrogram files, reduced to the columns of a picture."""

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from denoisecli.audio.downmix import Downmix
from denoisecli.audio.files import probe
from denoisecli.audio.reading import reader
from denoisecli.audio.spectrogram import Spectrogram, decibels, invert, magnitude, mel_filters
from denoisecli.audio.stft import stft
from denoisecli.errors import UsageError
from denoisecli.types import AudioVector, SpectrogramMatrix

_MATRICES = (".npz", ".npy")
_WINDOW_SECONDS = 0.032  # resolves both the harmonics and the syllables of speech

WINDOW = "hann"
"""Window of the STFT of pictures."""

Columns = Float[np.ndarray, "frequency columns"]
"""Power or level of each frequency in each column of a picture."""

Envelope = Float[np.ndarray, "2 columns"]
"""Smallest and largest sample of each column."""


@dataclass(frozen=True, eq=False)
class Panel:
    """The content of one file, reduced to about as many columns as the picture has pixels.

    Attributes:
        title: Name of the file.
        levels: Largest level in each column in dBFS; the rows span 0 Hz to half the sample rate.
        envelope: Smallest and largest sample in each column; None without a waveform.
        column_seconds: Length of a column in seconds.
        start: Time of the first column in seconds.
        seconds: Length of the part shown in seconds.
        duration: Length of the whole file in seconds.
        sample_rate: Sample rate in Hz.
    """

    title: str
    levels: Columns
    envelope: Envelope | None
    column_seconds: float
    start: float
    seconds: float
    duration: float
    sample_rate: int


def layout(timesteps: int, sample_rate: int, columns: int) -> tuple[int, int, int]:
    """Return n_fft, hop_length and frames per column for about this many columns.

    Args:
        timesteps: Length of the sound in samples.
        sample_rate: Its sample rate in Hz.
        columns: Approximate number of columns; a very short sound has fewer.
    """
    n_fft = max(16, 2 ** round(math.log2(_WINDOW_SECONDS * sample_rate)))
    # A short sound has overlapping frames, down to one a sample; a long one has pooled frames.
    hop_length = min(n_fft // 4, max(1, timesteps // columns))
    return n_fft, hop_length, -(-timesteps // (columns * hop_length))


def load_panel(
    source: Path,
    title: str,
    columns: int,
    *,
    start: float = 0.0,
    duration: float | None = None,
    waveform: bool = False,
    on_progress: Callable[[float], object] = lambda share: None,
) -> Panel:
    """Read a recording or a spectrogram file and reduce it to columns.

    Args:
        source: Recording, or spectrogram file (``.npz``).
        title: Title of the panel.
        columns: Approximate number of columns.
        start: Start of the part to read in seconds.
        duration: Length of the part to read in seconds; None reads everything after ``start``.
        waveform: Compute the envelope too.
        on_progress: Function called with the share of the file that was read, 0..1.

    Raises:
        UsageError: The file does not exist, ends before ``start``, or has no waveform.
        AudioError: The file cannot be read.
    """
    load = _load_spectrogram if source.suffix.lower() in _MATRICES else _load_recording
    panel = load(source, title, columns, start, duration, waveform, on_progress)
    on_progress(1.0)
    return panel


def _load_recording(
    source: Path,
    title: str,
    columns: int,
    start: float,
    duration: float | None,
    waveform: bool,
    on_progress: Callable[[float], object],
    channel: int | None = None,
) -> Panel:
    """Load a recording as the mean of its channels, or as one of them."""
    info = probe(source)
    first, stop = _sample_range(source, start, duration, info.frames, info.sample_rate)
    length = min(stop, info.frames) - first
    n_fft, hop_length, frames_per_column = layout(length, info.sample_rate, columns)
    step = hop_length * frames_per_column
    power, extremes = StreamedPower(n_fft, hop_length, frames_per_column), _Pooling(step)

    # Frames are centred on their samples: they reach half a window beyond the part shown.
    before, after = n_fft // 2, n_fft // 2 - 1
    power.add(np.zeros(max(before - first, 0), np.float32))
    position = 0
    with reader(source) as file:
        mean = Downmix(file)
        for block in mean if channel is None else (block[[channel]] for block in file):
            sound = block[0]
            power.add(sound[max(first - before - position, 0) : max(stop + after - position, 0)])
            part = sound[max(first - position, 0) : max(stop - position, 0)]
            extremes.add(np.stack([-part, part]))
            position += sound.size
            on_progress(min(position / min(stop, info.frames), 1.0))
            if position >= stop + after:
                break
    if mean.cancels:
        options = start, duration, waveform, on_progress, mean.loudest
        return _load_recording(source, title, columns, *options)
    if position <= first:
        raise _past_the_end(source, start, position / info.sample_rate)
    stop = min(stop, position)
    power.add(np.zeros(max(stop + after - position, 0), np.float32))
    lows, highs = extremes.result()
    return Panel(
        title=title,
        levels=decibels(np.sqrt(power.result()), n_fft=n_fft, window=WINDOW),
        envelope=np.stack([-lows, highs]) if waveform else None,
        column_seconds=step / info.sample_rate,
        start=first / info.sample_rate,
        seconds=(stop - first) / info.sample_rate,
        duration=info.duration,
        sample_rate=info.sample_rate,
    )


def _load_spectrogram(
    source: Path,
    title: str,
    columns: int,
    start: float,
    duration: float | None,
    waveform: bool,
    on_progress: Callable[[float], object],
) -> Panel:
    spec = Spectrogram.load(source)
    if waveform and (spec.phase is None or spec.scale == "mel"):
        raise UsageError(
            f"{source} has no exact waveform to draw: its phase was not kept, or its scale is mel"
        )
    first, stop = _sample_range(source, start, duration, spec.length, spec.sample_rate)
    first_frame, stop_frame = first // spec.hop_length, -(-stop // spec.hop_length)
    power = _power(spec)[:, :-1]  # the middle of the last frame lies beyond the end
    power = power[:, first_frame:stop_frame]
    frames_per_column = -(-power.shape[1] // columns)
    step = frames_per_column * spec.hop_length
    first, stop = first_frame * spec.hop_length, min(stop, spec.length)
    envelope = None
    if waveform:
        sound = invert(spec)[first:stop]
        lows, highs = _pooled(np.stack([-sound, sound]), step)
        envelope = np.stack([-lows, highs])
    return Panel(
        title=title,
        levels=decibels(
            np.sqrt(_pooled(power, frames_per_column)), n_fft=spec.n_fft, window=spec.window
        ),
        envelope=envelope,
        column_seconds=step / spec.sample_rate,
        start=first / spec.sample_rate,
        seconds=(stop - first) / spec.sample_rate,
        duration=spec.length / spec.sample_rate,
        sample_rate=spec.sample_rate,
    )


def _sample_range(
    source: Path, start: float, duration: float | None, length: int, sample_rate: int
) -> tuple[int, int]:
    """Return the first sample of the part to draw, and the one after its last."""
    first = round(start * sample_rate)
    if first >= length:
        raise _past_the_end(source, start, length / sample_rate)
    if duration is None:
        return first, sys.maxsize // 2  # the length in a header may be an estimate
    return first, max(first + 1, round((start + duration) * sample_rate))


def _past_the_end(source: Path, start: float, seconds: float) -> UsageError:
    return UsageError(f"{source} is {seconds:.2f} s long; it has nothing at {start:g} s")


def _power(spectrogram: Spectrogram) -> SpectrogramMatrix:
    """Return the power at each frequency of the STFT, for "mel" that of the nearest band."""
    if spectrogram.scale != "mel":
        return magnitude(spectrogram) ** 2
    assert spectrogram.n_mels is not None
    filters = mel_filters(spectrogram.sample_rate, spectrogram.n_fft, spectrogram.n_mels)
    bands = spectrogram.matrix / filters.sum(axis=1, keepdims=True)
    bins = np.fft.rfftfreq(spectrogram.n_fft, 1 / spectrogram.sample_rate)
    return bands[np.abs(bins[:, None] - spectrogram.frequencies).argmin(axis=1)]


class _Pooling:
    """The maxima of consecutive groups of a stream, along the last axis.

    Args:
        size: Length of a group; the last one may be smaller.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._count = 0
        self._maxima: list[Float[np.ndarray, "rows _"]] = []

    def add(self, values: Float[np.ndarray, "rows _"]) -> None:
        """Append values, shape (rows, timesteps)."""
        length = values.shape[1]
        if length == 0:
            return
        offset = self._count % self._size
        self._count += length
        starts = np.arange(-offset, length, self._size).clip(min=0)
        maxima = np.maximum.reduceat(values, starts, axis=1)
        if offset:  # the first group began in an earlier block
            last = self._maxima[-1]
            np.maximum(last[:, -1], maxima[:, 0], out=last[:, -1])
            maxima = maxima[:, 1:]
        if maxima.shape[1]:
            self._maxima.append(maxima)

    def result(self) -> Columns:
        """Return the maxima, shape (rows, columns)."""
        return np.concatenate(self._maxima, axis=1)


def _pooled(values: Float[np.ndarray, "rows _"], size: int) -> Columns:
    pooling = _Pooling(size)
    pooling.add(values)
    return pooling.result()


class StreamedPower:
    """The power spectrogram of a stream, with frames pooled into columns.

    Args:
        n_fft: Length of the window in samples.
        hop_length: Samples from one frame to the next.
        frames_per_column: Number of frames that share a column.
    """

    def __init__(self, n_fft: int, hop_length: int, frames_per_column: int) -> None:
        self._n_fft = n_fft
        self._hop_length = hop_length
        self._pooling = _Pooling(frames_per_column)
        self._waiting: AudioVector = np.zeros(0, np.float32)

    def add(self, sound: AudioVector) -> None:
        """Append samples; a frame begins at the first one."""
        self._waiting = np.append(self._waiting, sound)
        frames = (self._waiting.size - self._n_fft) // self._hop_length + 1
        if frames < 1:
            return
        used = frames * self._hop_length
        spectrum = stft(
            self._waiting[: used - self._hop_length + self._n_fft],
            n_fft=self._n_fft,
            hop_length=self._hop_length,
            window=WINDOW,
            center=False,
        )
        self._pooling.add(np.square(np.abs(spectrum)))
        self._waiting = self._waiting[used:]

    def result(self) -> Columns:
        """Return the largest power in each column."""
        return self._pooling.result()
