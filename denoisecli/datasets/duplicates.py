"""Near-duplicates: the same sound in another format, rate or level, trimmed, or with noise.

Fingerprints are compared first: signs of differences of the energies of bands, as in Haitsma and
Kalker, "A highly robust audio fingerprinting system" (ISMIR 2002). Cross-correlation verifies.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from functools import partial
from itertools import chain, combinations, pairwise

import numpy as np
from jaxtyping import Float

from denoisecli.audio.resampling import resample
from denoisecli.datasets.recordings import Recording
from denoisecli.system.pools import Workers
from denoisecli.types import AudioVector

COMPARED_SECONDS = 20
"""Duration of a recording that is compared, from its beginning on."""

MIN_CORRELATION = 0.6
"""Smallest correlation of two copies where they overlap; it is 0.7 at an SNR of 0 dB."""

MIN_OVERLAP_SECONDS = 3
"""Shortest overlap of two copies, unless it is half of the shorter one."""

_RATE = 4000  # Hz, which suffices for these bands
_UNLIKELY = 0.3  # correlation at _RATE below which two recordings are no copies
_FRAME, _HOP = 0.256, 0.016  # s
_BANDS = 25  # between these limits in Hz, which all sample rates share
_LIMITS = 200.0, 1900.0
_SKETCH = 96  # values that are kept of each recording: those of the lowest hash
_SHARED = 2  # values that two recordings must share to be compared
_COMMON = 20  # a value that more recordings have does not distinguish them
_TASK_FILES = 64  # recordings whose fingerprints a process computes at a time


Copies = Sequence[tuple[Recording, Recording]]
"""Pairs of recordings that are copies of each other."""


def _fingerprints(sample_rate: int, recordings: Sequence[Recording]) -> list[list[int]]:
    """Return the fingerprint of each recording; runs in any process."""
    limit = COMPARED_SECONDS * sample_rate
    return [fingerprint(one.read(0, min(one.samples, limit)), sample_rate) for one in recordings]


def fingerprint(sound: AudioVector, sample_rate: int) -> list[int]:
    """Return values of 24 bits that copies of a sound share with it."""
    rate = min(sample_rate, _RATE)
    sound = resample(sound, sample_rate, rate)
    size, hop = round(_FRAME * rate), round(_HOP * rate)
    if sound.size < size + hop:
        return []
    frames = np.lib.stride_tricks.sliding_window_view(sound, size)[::hop]
    edges = np.geomspace(*_LIMITS, _BANDS + 1) * size / rate
    bounds = np.minimum(np.round(edges).astype(int), size // 2)
    bands = np.empty((len(frames), _BANDS))
    window = np.hanning(size).astype(np.float32)
    for start in range(0, len(frames), 64):  # so that little memory is needed
        power = np.abs(np.fft.rfft(frames[start : start + 64] * window)) ** 2
        for band, (low, high) in enumerate(pairwise(bounds)):
            bands[start : start + 64, band] = power[:, low : max(high, low + 1)].sum(axis=1)
    levels = np.log(bands + 1e-12)
    changes = np.diff(np.diff(levels, axis=1), axis=0) > 0
    loud = bands.sum(axis=1)[1:] > 1e-3 * bands.sum(axis=1).max()
    values = np.unique(changes[loud] @ (1 << np.arange(_BANDS - 1)))
    hashes = (values.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(32)
    return [int(value) for value in values[np.argsort(hashes)][:_SKETCH]]


def find_copies(
    recordings: Sequence[Recording], sample_rate: int, workers: Workers
) -> list[tuple[int, int]]:
    """Return the pairs of indices of recordings that are copies of each other.

    Of identical recordings, one stands for all: the others are paired with it and with its copies.

    Args:
        recordings: The recordings.
        sample_rate: Their sample rate in Hz.
        workers: Compute the fingerprints.
    """
    identical: dict[str, list[int]] = defaultdict(list)
    for number, recording in enumerate(recordings):
        identical[recording.digest].append(number)
    # One of each is enough, and many of them would look like a value that is common to all.
    different = [numbers[0] for numbers in identical.values()]
    tasks = [
        [recordings[number] for number in different[start : start + _TASK_FILES]]
        for start in range(0, len(different), _TASK_FILES)
    ]
    prints = workers.map(partial(_fingerprints, sample_rate), tasks)
    owners: dict[int, list[int]] = defaultdict(list)
    for number, values in zip(different, chain.from_iterable(prints), strict=True):
        for value in values:
            owners[value].append(number)
    shared = Counter(
        pair
        for numbers in owners.values()
        if len(numbers) <= _COMMON
        for pair in combinations(numbers, 2)
    )
    pairs = {(numbers[0], number) for numbers in identical.values() for number in numbers[1:]}
    for (one, other), count in shared.items():
        if count >= _SHARED and are_copies(recordings[one], recordings[other], sample_rate):
            pairs |= {(one, number) for number in identical[recordings[other].digest]}
            pairs |= {(number, other) for number in identical[recordings[one].digest]}
    return sorted((min(pair), max(pair)) for pair in pairs)


def are_copies(one: Recording, other: Recording, sample_rate: int) -> bool:
    """Return whether two recordings correlate where they overlap, at any delay and level.

    Only the first COMPARED_SECONDS of each are compared: copies of long recordings are found only
    if these parts overlap by at least MIN_OVERLAP_SECONDS.
    """
    limit = COMPARED_SECONDS * sample_rate
    first, second = (sound.read(0, min(sound.samples, limit)) for sound in (one, other))
    if sample_rate > _RATE:  # quickly, since most are no copies
        low, other_low = (resample(sound, sample_rate, _RATE) for sound in (first, second))
        if _highest_correlation(low, other_low, _RATE) < _UNLIKELY:
            return False
    return _highest_correlation(first, second, sample_rate) >= MIN_CORRELATION


def _highest_correlation(
    first: Float[np.ndarray, "samples"], second: Float[np.ndarray, "others"], sample_rate: int
) -> float:
    """Return the absolute correlation at the best delay, 0 if the overlap there is too short."""
    from scipy.signal import correlate, correlation_lags  # slow to import

    first, second = first - first.mean(), second - second.mean()
    products = np.abs(correlate(second, first, method="fft"))
    lag = int(correlation_lags(second.size, first.size)[products.argmax()])
    a, b = first[max(0, -lag) :], second[max(0, lag) :]
    overlap = min(a.size, b.size)
    if overlap < min(0.5 * min(first.size, second.size), MIN_OVERLAP_SECONDS * sample_rate):
        return 0.0
    a, b = a[:overlap], b[:overlap]
    norm = float(np.linalg.norm(a) * np.linalg.norm(b))
    return abs(float(a @ b)) / norm if norm else 0.0


def note_on_noisy_speech(copies: Copies, noises: int) -> list[str]:
    """Return a note if noises contain clean recordings, as noisy recordings given as noise do.

    Args:
        copies: What `find_copies` found among the recordings of both kinds.
        noises: Number of all noises.
    """
    contained = {
        noise.name: clean.name
        for clean, noise in copies
        if clean.role.endswith("clean") and noise.role.endswith("noise")
    }
    if not contained:
        return []
    noise, clean = next(iter(contained.items()))
    return [
        f"{len(contained)} of {noises} noise recordings contain a clean recording, for example "
        f"{noise} contains {clean}; a model that is given speech as noise removes speech. If they "
        "are noisy recordings, build with --pairs, which matches equal names"
    ]
