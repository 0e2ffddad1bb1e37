"""Clusters: the pairs of an evaluation that share a clean recording.

Mixtures of one clean recording at several SNRs are not independent of each other. Confidence
intervals treat them as one, or else they are too narrow.
"""

import re
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from denoisecli.evaluation.pairs import Pair
from denoisecli.types import AudioVector

CORRELATION = 0.9
"""Two clean recordings are the same if their signatures correlate by more than this."""

_FRAME_SECONDS = 0.05
_MAX_FRAMES = 600
_BANDS = 8
_BLOCK = 256  # rows of the correlation matrix at a time
_SNR_SUFFIX = re.compile(r"[-_. ]*(snr)?[-_. ]*[-+]?\d+([.p]\d+)?[-_ ]?db$", re.IGNORECASE)

Signature = Float[np.ndarray, "signature"]


def signature(clean: AudioVector, sample_rate: int) -> Signature | None:
    """Compute how the bands of a recording fluctuate, at any level, in its first 30 s.

    Args:
        clean: The recording.
        sample_rate: Its sample rate in Hz.

    Returns:
        Square roots of the magnitudes of 8 bands in frames of 50 ms, without the mean of each band,
        normalized; None if the recording is too short, or if nothing in it changes.
    """
    length = round(_FRAME_SECONDS * sample_rate)
    frames = min(clean.size // max(length, 1), _MAX_FRAMES)
    if frames < 2 or length < 4 * _BANDS:
        return None
    magnitudes = np.abs(np.fft.rfft(clean[: frames * length].reshape(frames, length)))
    edges = np.linspace(0, magnitudes.shape[1], _BANDS, endpoint=False).astype(int)
    bands = np.sqrt(np.add.reduceat(magnitudes, edges, axis=1))
    loudest = bands.max()
    bands -= bands.mean(axis=0)
    norm = np.linalg.norm(bands)
    if norm <= 1e-6 * loudest:
        return None
    return (bands / norm).astype(np.float32).ravel()


def find_clusters(
    pairs: Sequence[Pair], rates: Sequence[int | None], signatures: Sequence[Signature | None]
) -> dict[str, str]:
    """Find the pairs that share a clean recording.

    The sources of a pair decide if they are known. Otherwise two pairs belong together if their
    names differ only in the SNR at their ends ("v01_00dB", "v01_05dB"), or if their clean
    recordings correlate.

    Args:
        pairs: The pairs.
        rates: Sample rate of each clean recording in Hz; None if it could not be read.
        signatures: Signature of each clean recording, or None.

    Returns:
        Name of the cluster, which is that of its first pair, by name of the pair.
    """
    from scipy.cluster.hierarchy import DisjointSet  # slow to import

    clusters = DisjointSet(range(len(pairs)))
    first: dict[str, int] = {}
    unknown: dict[int, list[int]] = {}  # by sample rate
    for index, pair in enumerate(pairs):
        keys = [f"source {source}" for source in pair.sources]
        if not keys:
            keys = [f"name {_SNR_SUFFIX.sub('', pair.name) or pair.name}"]
            rate = rates[index]
            if rate is not None and signatures[index] is not None:
                unknown.setdefault(rate, []).append(index)
        for key in keys:
            clusters.merge(first.setdefault(key, index), index)
    for indices in unknown.values():
        labels = _correlated([s for i in indices if (s := signatures[i]) is not None])
        for index, label in zip(indices, labels, strict=True):
            clusters.merge(index, indices[label])
    names: dict[int, str] = {}
    return {
        pair.name: names.setdefault(clusters[index], pair.name) for index, pair in enumerate(pairs)
    }


def _correlated(signatures: Sequence[Signature]) -> list[int]:
    """Return for each signature the index of one that stands for all that it is linked to.

    Two are linked if they correlate, or if both are linked to a third one.
    """
    matrix = np.zeros((len(signatures), max(row.size for row in signatures)), np.float32)
    for row, values in zip(matrix, signatures, strict=True):
        row[: values.size] = values
    labels = np.arange(len(matrix))
    for start in range(0, len(matrix), _BLOCK):
        same = matrix[start : start + _BLOCK] @ matrix.T > CORRELATION
        for index, matches in enumerate(same, start):
            linked = np.unique(labels[np.append(np.flatnonzero(matches), index)])
            if linked.size > 1:
                labels[np.isin(labels, linked)] = linked[0]
    return [int(label) for label in labels]
