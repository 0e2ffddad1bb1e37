"""Sounds made small enough for a page: a stretch of each, as a picture, an outline, Ogg Opus."""

import base64
import io
import math

import numpy as np
import soundfile
from jaxtyping import Float

from denoisecli.audio.resampling import fit_length, resample
from denoisecli.audio.spectrogram import FLOOR_DB, decibels
from denoisecli.audio.stft import stft
from denoisecli.types import AudioVector

DYNAMIC_RANGE = 70.0
"""Decibels that the colours of a spectrogram span."""

ROWS = 256
"""Height of a spectrogram in pixels."""

WAVE_COLUMNS = 600
"""Width of an outline in units; its height is 100."""

OPUS_RATES = (8000, 12000, 16000, 24000, 48000)
"""The sample rates in Hz that Opus takes."""

Levels = Float[np.ndarray, "bands frames"]
"""Level of each band in each frame in dBFS."""

Piece = Float[np.ndarray, "piece_timesteps"]
"""A stretch of an AudioVector."""

_WINDOW = "hann"
_WINDOW_SECONDS = 0.032
_COMPRESSION = 0.8  # libsndfile's scale: about 60 kbit/s, where Opus is hard to tell from the sound
_WEBP_QUALITY = 40


def playable_rate(sample_rate: int) -> int:
    """Give the lowest rate in Hz of Opus that holds a sound of this rate; 48 kHz at most."""
    return next((rate for rate in OPUS_RATES if rate >= sample_rate), OPUS_RATES[-1])


def opus(sound: AudioVector, sample_rate: int) -> str:
    """Encode a sound as Ogg Opus, in a data URI; what passes full scale is clamped.

    Args:
        sound: full scale -1..1.
        sample_rate: Hz, one of OPUS_RATES.
    """
    content = io.BytesIO()
    soundfile.write(
        content,
        np.clip(sound, -1, 1),
        sample_rate,
        format="OGG",
        subtype="OPUS",
        compression_level=_COMPRESSION,
    )
    return _data_uri("audio/ogg", content.getvalue())


def levels(sound: AudioVector, sample_rate: int) -> Levels:
    """Give the levels in dBFS of ROWS bands from 0 Hz to half the sample rate, every 8 ms."""
    least = 2 * ROWS
    n_fft = least * 2 ** max(round(math.log2(_WINDOW_SECONDS * sample_rate / least)), 0)
    hop_length = max(round(_WINDOW_SECONDS / 4 * sample_rate), 1)
    spectrum = stft(sound, n_fft=n_fft, hop_length=hop_length, window=_WINDOW)
    power = np.square(np.abs(spectrum[:-1])).reshape(ROWS, -1, spectrum.shape[1]).mean(axis=1)
    return decibels(np.sqrt(power), n_fft=n_fft, window=_WINDOW)


def ceiling(matrix: Levels) -> float:
    """Give the level in dBFS at which the colours should end: hardly anything is above it."""
    loudest = float(np.quantile(matrix, 0.995))
    return 5.0 * math.ceil(loudest / 5) if loudest > FLOOR_DB else 0.0


def spectrogram_image(matrix: Levels, ceiling_db: float) -> str:
    """Draw levels as a WebP picture, in a data URI: low frequencies below, a column per frame.

    Args:
        matrix: levels in dBFS.
        ceiling_db: level of the brightest colour; the darkest is DYNAMIC_RANGE below.
    """
    from matplotlib.image import imsave

    content = io.BytesIO()
    imsave(
        content,
        matrix,
        vmin=ceiling_db - DYNAMIC_RANGE,
        vmax=ceiling_db,
        cmap="magma",
        origin="lower",
        format="webp",
        pil_kwargs={"quality": _WEBP_QUALITY},
    )
    return _data_uri("image/webp", content.getvalue())


def outline(sound: AudioVector, peak: float) -> str:
    """Give the points of an SVG polygon around a waveform, WAVE_COLUMNS wide and 100 high.

    Args:
        sound: the sound.
        peak: the amplitude that reaches the edges.
    """
    starts = np.unique(np.linspace(0, sound.size, WAVE_COLUMNS, endpoint=False).astype(int))
    scale = 49 / peak if peak > 0 else 0.0
    tops = np.round(50 - scale * np.maximum.reduceat(sound, starts)).astype(int) - 1
    bottoms = np.round(50 - scale * np.minimum.reduceat(sound, starts)).astype(int) + 1
    x = np.round(starts * WAVE_COLUMNS / sound.size).astype(int)
    around = [*zip(x, tops, strict=True), *reversed([*zip(x, bottoms, strict=True)])]
    return " ".join(f"{column},{height}" for column, height in around)


def stretch(sound: AudioVector, own_rate: int, rate: int, start: float, end: float) -> Piece:
    """Cut a stretch out of a sound and resample it.

    Args:
        sound: the whole sound.
        own_rate: its sample rate in Hz.
        rate: the rate wanted in Hz.
        start: in seconds; what is before the sound is silence.
        end: in seconds; what is behind the sound is silence.
    """
    first, last = round(start * own_rate), round(end * own_rate)
    inside = sound[max(first, 0) : max(last, 0)]
    piece = fit_length(np.pad(inside, (max(-first, 0), 0)), last - first)
    return fit_length(resample(piece, own_rate, rate), round((end - start) * rate))


def _data_uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
