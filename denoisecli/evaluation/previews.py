"""Previews of sounds for the report: excerpts as Ogg Opus, spectrogram images and waveforms."""

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
"""Range of the colours of a spectrogram in dB."""

ROWS = 256
"""Height of a spectrogram in pixels."""

MAX_COLUMNS = 4000
"""Largest width of a spectrogram in pixels; WebP holds four times as many."""

WAVE_COLUMNS = 600
"""Width of a waveform in units; its height is 100."""

OPUS_RATES = (8000, 12000, 16000, 24000, 48000)
"""Sample rates in Hz that Opus supports."""

Levels = Float[np.ndarray, "bands frames"]
"""Levels of bands in dBFS."""

Excerpt = Float[np.ndarray, "excerpt_timesteps"]
"""An excerpt of an AudioVector."""

_WINDOW = "hann"
_WINDOW_SECONDS = 0.032
_COMPRESSION = 0.8  # of libsndfile: about 60 kbit/s, nearly transparent
_WEBP_QUALITY = 40


def playable_rate(sample_rate: int) -> int:
    """Return the lowest sample rate of Opus that is not below this rate, 48 kHz at most, in Hz."""
    return next((rate for rate in OPUS_RATES if rate >= sample_rate), OPUS_RATES[-1])


def opus(sound: AudioVector, sample_rate: int) -> str:
    """Encode a sound as a data URI of Ogg Opus; samples beyond full scale are clipped.

    Args:
        sound: The sound, full scale -1..1.
        sample_rate: Its sample rate in Hz, one of OPUS_RATES.
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
    """Compute the levels of ROWS equal bands up to half the sample rate in dBFS.

    They are 8 ms apart, or as much as a picture of MAX_COLUMNS needs.
    """
    shortest = 2 * ROWS
    n_fft = shortest * 2 ** max(round(math.log2(_WINDOW_SECONDS * sample_rate / shortest)), 0)
    shortest_hop = max(round(_WINDOW_SECONDS / 4 * sample_rate), 1)
    hop_length = max(shortest_hop, math.ceil(sound.size / MAX_COLUMNS))
    spectrum = stft(sound, n_fft=n_fft, hop_length=hop_length, window=_WINDOW)
    power = np.square(np.abs(spectrum[:-1])).reshape(ROWS, -1, spectrum.shape[1]).mean(axis=1)
    return decibels(np.sqrt(power), n_fft=n_fft, window=_WINDOW)


def ceiling(matrix: Levels) -> float:
    """Return the level of the brightest colour in dBFS, which 99.5 % of all values stay below."""
    loudest = float(np.quantile(matrix, 0.995))
    return 5.0 * math.ceil(loudest / 5) if loudest > FLOOR_DB else 0.0


def spectrogram_image(matrix: Levels, ceiling_db: float) -> str:
    """Draw levels as a data URI of a WebP image, low frequencies at the bottom, a column per frame.

    Args:
        matrix: Levels in dBFS.
        ceiling_db: Level of the brightest colour in dBFS; the darkest is DYNAMIC_RANGE below.
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
    """Return the points of an SVG polygon of a waveform, WAVE_COLUMNS wide and 100 high.

    Args:
        sound: The sound.
        peak: Amplitude at the upper and lower edge.
    """
    starts = np.unique(np.linspace(0, sound.size, WAVE_COLUMNS, endpoint=False).astype(int))
    scale = 49 / peak if peak > 0 else 0.0
    tops = np.round(50 - scale * np.maximum.reduceat(sound, starts)).astype(int) - 1
    bottoms = np.round(50 - scale * np.minimum.reduceat(sound, starts)).astype(int) + 1
    x = np.round(starts * WAVE_COLUMNS / sound.size).astype(int)
    points = [*zip(x, tops, strict=True), *reversed([*zip(x, bottoms, strict=True)])]
    return " ".join(f"{column},{height}" for column, height in points)


def excerpt(sound: AudioVector, orig_sr: int, target_sr: int, start: float, end: float) -> Excerpt:
    """Cut an excerpt out of a sound and resample it; beyond the sound it is silent.

    Args:
        sound: The whole sound.
        orig_sr: Its sample rate in Hz.
        target_sr: Sample rate of the excerpt in Hz.
        start: Start in s; may be negative.
        end: End in s; may be beyond the end of the sound.
    """
    first, last = round(start * orig_sr), round(end * orig_sr)
    inside = sound[max(first, 0) : max(last, 0)]
    padded = fit_length(np.pad(inside, (max(-first, 0), 0)), last - first)
    return fit_length(resample(padded, orig_sr, target_sr), round((end - start) * target_sr))


def _data_uri(media_type: str, content: bytes) -> str:
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"
