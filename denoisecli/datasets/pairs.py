"""Existing pairs: noisy recordings and their clean ones, matched by name, checked and cut."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import PurePosixPath
from unicodedata import normalize

import numpy as np

from denoisecli.audio.level import dbfs, rms, snr_db
from denoisecli.audio.resampling import fit_length
from denoisecli.datasets.manifest import Row
from denoisecli.datasets.mixtures import Mixtures, Pair, checksum, finite
from denoisecli.datasets.recipe import Recipe
from denoisecli.datasets.recordings import Recording, Role, Skipped
from denoisecli.datasets.splitting import labelled
from denoisecli.system.pools import Workers

LENGTH_SECONDS = 0.01
"""Allowed difference of the lengths of a pair, in seconds."""

DELAY_SECONDS = 0.001
"""Allowed delay between the recordings of a pair, in seconds."""

MIN_CORRELATION = 0.05
"""Smallest correlation of a noisy recording with its clean one; it is 0.1 at an SNR of -20 dB."""

_CHECKED_SECONDS, _SEARCHED_SECONDS = 30, 1.0
_TASK_PAIRS = 32  # pairs that a process checks at a time


def check_pairs(
    pairs: Sequence[tuple[Recording, Recording]], sample_rate: int, workers: Workers
) -> list[str | None]:
    """Return for each pair (clean, noisy) why it does not fit, or None.

    Args:
        pairs: The pairs.
        sample_rate: Their sample rate in Hz.
        workers: Compare the recordings.
    """
    starts = range(0, len(pairs), _TASK_PAIRS)
    tasks = [pairs[start : start + _TASK_PAIRS] for start in starts]
    return [*chain.from_iterable(workers.map(partial(_problems, sample_rate), tasks))]


def _problems(sample_rate: int, pairs: Sequence[tuple[Recording, Recording]]) -> list[str | None]:
    """Return the problem of each pair; runs in any process."""
    return [problem_of_pair(clean, noisy, sample_rate) for clean, noisy in pairs]


def problem_of_pair(clean: Recording, noisy: Recording, sample_rate: int) -> str | None:
    """Return why a noisy recording does not fit its clean one, or None.

    The lengths may differ by 10 ms. The delay, at most 1 ms, is that of the largest
    cross-correlation within 1 s, computed from the first 30 s of both after a difference filter,
    which makes the maximum sharp.
    """
    from scipy.signal import correlate, correlation_lags  # slow to import

    if abs(clean.samples - noisy.samples) > LENGTH_SECONDS * sample_rate:
        seconds = [recording.samples / sample_rate for recording in (noisy, clean)]
        return f"lasts {seconds[0]:.2f} s, but its clean recording {seconds[1]:.2f} s"
    length = min(clean.samples, noisy.samples, _CHECKED_SECONDS * sample_rate)
    if length < 2:
        return "does not contain its clean recording"
    sounds = [np.diff(recording.read(0, length).astype(float)) for recording in (noisy, clean)]
    lags = correlation_lags(sounds[0].size, sounds[1].size)
    near = np.abs(lags) <= _SEARCHED_SECONDS * sample_rate
    products = correlate(*sounds, method="fft")[near]
    best = int(np.argmax(np.abs(products)))
    norm = float(np.linalg.norm(sounds[0]) * np.linalg.norm(sounds[1]))
    correlation = products[best] / max(norm, 1e-30)
    delay = lags[near][best] / sample_rate
    if abs(correlation) < MIN_CORRELATION:
        return "does not contain its clean recording"
    if abs(delay) > DELAY_SECONDS:
        if abs(correlation) < 4 * MIN_CORRELATION:  # it may be a chance
            return "does not contain its clean recording"
        return (
            f"is {abs(delay) * 1000:.1f} ms {'behind' if delay > 0 else 'ahead of'} its clean one"
        )
    return None if correlation > 0 else "has the polarity of its clean recording inverted"


def match_pairs(
    clean: Sequence[Recording], noisy: Sequence[Recording]
) -> tuple[list[tuple[Recording, Recording]], list[Skipped]]:
    """Match recordings by their names without the suffixes, and cut each pair to one length.

    Returns:
        The pairs (clean, noisy), and the recordings that are in no pair.
    """
    partners = {_key(recording.name): recording for recording in reversed(noisy)}
    pairs: list[tuple[Recording, Recording]] = []
    skipped = []
    for recording in clean:
        partner = partners.pop(_key(recording.name), None)
        if partner is None:
            reason = "has no noisy recording of the same name"
            skipped.append(Skipped(recording.role, recording.name, reason))
        else:
            pairs.append((recording, partner))
    used = {partner.name for _, partner in pairs}
    for recording in noisy:
        if recording.name not in used:
            reason = "has no clean recording of the same name"
            skipped.append(Skipped(recording.role, recording.name, reason))
    return pairs, skipped


def _key(name: str) -> str:
    return normalize("NFC", PurePosixPath(name).with_suffix("").as_posix())


def with_partners_left_out(
    unpaired: Sequence[Skipped], skipped: Sequence[Skipped]
) -> list[Skipped]:
    """Return recordings without a partner, with another reason if it is one that was left out."""
    left_out = {(one.role, _key(one.file)) for one in skipped}
    reasons = {"clean": "has a noisy recording that is left out"}
    reasons["noise"] = "has a clean recording that is left out"
    found = []
    for one in unpaired:
        kind = one.role.split()[-1]
        partner = one.role.replace(kind, "noise" if kind == "clean" else "clean")
        is_left_out = (partner, _key(one.file)) in left_out
        found.append(replace(one, reason=reasons[kind]) if is_left_out else one)
    return found


def partners_of(
    parts: Sequence[Recording], pairs: Sequence[tuple[Recording, Recording]]
) -> tuple[list[Recording], list[Recording]]:
    """Return recordings of a set, or parts of them, and their noisy ones, of equal lengths.

    The noisy part of a recording that is split in time gets the same label as the clean one.
    """
    known = {(clean.role, clean.name): (clean, noisy) for clean, noisy in pairs}
    cut, partners = [], []
    for part in parts:
        whole = known.get((part.role, part.name))
        clean, noisy = whole or next(pair for pair in pairs if _holds(pair[0], part))
        first = part.start - clean.start
        length = min(part.samples, noisy.samples - first)
        cut.append(replace(part, samples=length))
        label = PurePosixPath(part.name).stem.removeprefix(PurePosixPath(clean.name).stem)
        name = labelled(noisy.name, label)
        partners.append(replace(noisy, name=name, start=noisy.start + first, samples=length))
    return cut, partners


def _holds(recording: Recording, part: Recording) -> bool:
    """Return whether a part is one of a recording."""
    end = recording.start + recording.samples
    return recording.pack == part.pack and recording.start <= part.start < end


class StoredPairs(Mixtures):
    """The pairs of a set, whose noisy recordings already exist.

    ``recordings["noise"]`` are the noisy recordings, in the order of the clean ones.
    """

    def __init__(
        self, name: str, recordings: Mapping[Role, Sequence[Recording]], recipe: Recipe
    ) -> None:
        super().__init__(name, recordings, recipe)
        self._partners = {
            clean.name: noisy
            for clean, noisy in zip(recordings["clean"], recordings["noise"], strict=True)
        }

    def mix(self, number: int) -> Pair | Skipped | None:
        """Cut one pair; see :meth:`Mixtures.mix`."""
        rng = np.random.default_rng([self._recipe.seed, self._stream, number])
        clip, copy = self._clip(number)
        clean = clip.read()
        (piece,) = clip.pieces
        if reason := self._problem(clip, clean):
            return None if copy else Skipped("clean", piece.recording.name, reason)
        partner = self._partners[piece.recording.name]
        noisy = fit_length(partner.read(piece.offset, piece.samples), clip.samples)
        snr = snr_db(noisy, clean)
        noisy, clean, change = self._set_level(noisy, clean, rng)
        has_noise = np.isfinite(snr)
        halves = self._halves(noisy, clean)
        row = Row(
            set=self.name,
            clean=piece.recording.name,
            clean_offset=piece.offset,
            samples=clip.samples,
            noise=partner.name,
            noise_offset=piece.offset,
            noise_gain=1.0,
            ratio=0.5 if has_noise else 0.0,
            snr_db=finite(snr),
            gain=2 * change if has_noise else change,
            level_dbfs=finite(dbfs(rms(noisy))),
            crc32=checksum(*halves),
        )
        return Pair(*halves, row)
