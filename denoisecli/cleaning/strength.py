"""The strength that suits a recording best, chosen by DNSMOS with a preference for less."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from denoisecli.audio import dnsmos
from denoisecli.audio.downmix import heard_channels
from denoisecli.audio.level import rms
from denoisecli.audio.reading import AudioReader
from denoisecli.types import AudioBlock, AudioChannels

STRENGTHS = (0.0, 0.5, 0.75, 1.0)
"""The strengths that are compared; 0 leaves the recording as it is."""

MARGIN = 0.05
"""Strengths whose OVRL is within this distance of the best one count as equal; the lowest is used.

Repeated ratings of the same sound, shifted by some samples, differ by as much.
"""

WORTHWHILE = 0.15
"""Least gain in OVRL that is worth a change of the recording."""

MAX_SIG_LOSS = 0.2
"""Largest loss in SIG: a strength that damages speech by more does not count."""

MAX_DROP_DB = 20.0
"""A recording that becomes quieter by more than this has no speech, and DNSMOS rates silence.

Speech in noise that is 10 dB louder becomes quieter by 12 dB, a bird by 50 dB.
"""

EXCERPTS = 6
"""Largest number of excerpts of 9 s that are compared, spread evenly over the recording."""

_LEAD_SECONDS = 2.0  # cleaned before an excerpt, so that the network knows the noise


@dataclass(frozen=True)
class Choice:
    """A strength and why it was chosen.

    Attributes:
        strength: The strength, one of STRENGTHS.
        ovrl: DNSMOS OVRL by strength; empty if the recording is silent or has no speech.
        note: A sentence on a recording that stays as it is; None otherwise.
    """

    strength: float
    ovrl: dict[float, float]
    note: str | None = None


Clean = Callable[[AudioChannels], Float[np.ndarray, "channels timesteps"]]
"""Cleans a sound, as strength 1 is to do it."""


def count_frames(recording: AudioReader) -> int:
    """Return the number of samples per channel of a recording that has not been read yet.

    It is read to its end if its header does not state them.
    """
    return recording.info.frames or sum(block.shape[1] for block in recording)


def choose_strength(
    recording: AudioReader,
    clean: Clean,
    *,
    amount: float = 1.0,
    frames: int | None = None,
    mono: bool = False,
) -> Choice:
    """Compare the strengths on excerpts of a recording, in bounded memory.

    Args:
        recording: The open recording, at its beginning.
        clean: Cleans an excerpt.
        amount: Share, 0..1, that it removes of what the network would remove.
        frames: Samples per channel of the recording (default: as many as its header states).
        mono: Compare the mean of the channels, cleaned as such.

    Returns:
        The least strength whose rating is within MARGIN of the best one; 0 if none gains
        WORTHWHILE, or if there seems to be no speech.

    Raises:
        UsageError: The package speechmos is not installed.
        AudioError: As when the recording is read.
    """
    rate = recording.info.sample_rate
    before = after = 0.0
    ratings: dict[float, list[dnsmos.Dnsmos]] = {strength: [] for strength in STRENGTHS}
    for lead, excerpt in _excerpts(recording, frames or recording.info.frames, rate):
        noisy = excerpt.mean(axis=0, keepdims=True) if mono else excerpt
        heard = heard_channels(noisy)
        cleaned = clean(noisy)
        before += rms(noisy) ** 2
        after += rms(noisy + (cleaned - noisy) / np.float32(amount or 1)) ** 2
        for strength, found in ratings.items():
            mixed = (noisy + np.float32(strength) * (cleaned - noisy))[:, lead:]
            rating = dnsmos.dnsmos(mixed[heard].mean(axis=0), rate)
            if rating is not None:
                found.append(rating)
    if not ratings[0.0]:
        return Choice(0.0, {}, "the recording is silent, so nothing was removed")
    if after < before * 10 ** (-MAX_DROP_DB / 10):
        return Choice(0.0, {}, "almost nothing would remain, so nothing was removed")
    means = {
        strength: dnsmos.Dnsmos(*np.mean(found or [dnsmos.Dnsmos(0.0, 0.0, 0.0)], axis=0).tolist())
        for strength, found in ratings.items()
    }
    ovrl = {strength: mean.ovrl for strength, mean in means.items()}
    allowed = [s for s in STRENGTHS if means[s].sig >= means[0.0].sig - MAX_SIG_LOSS]
    best = max(ovrl[strength] for strength in allowed)
    chosen = min(strength for strength in allowed if ovrl[strength] >= best - MARGIN)
    if ovrl[chosen] >= ovrl[0.0] + WORTHWHILE:
        return Choice(chosen, ovrl)
    if all(ovrl[strength] < ovrl[0.0] for strength in STRENGTHS[1:]):
        note = "according to DNSMOS, every strength makes it worse, so nothing was removed"
    else:
        note = "according to DNSMOS, no strength improves it clearly, so nothing was removed"
    return Choice(0.0, ovrl, note)


def _excerpts(
    blocks: Iterable[AudioBlock], frames: int, rate: int
) -> Iterable[tuple[int, AudioChannels]]:
    """Yield excerpts and the number of samples before them that are only context."""
    length = round(dnsmos.WINDOW_SECONDS * rate) + 1
    lead = round(_LEAD_SECONDS * rate)
    count = min(max(frames // length, 1), EXCERPTS)
    starts = np.linspace(0, max(frames - length, 0), count).round().astype(int)
    if count == 1 and frames:
        length = max(length, frames)  # a short recording is taken as a whole
    pending: list[AudioBlock] = []
    first = end = 0  # positions of pending in the recording
    waiting = [int(start) for start in starts]
    for block in blocks:
        pending.append(block)
        end += block.shape[1]
        while waiting and end >= waiting[0] + length:
            sound = np.concatenate(pending, axis=1)
            start = max(waiting[0] - lead, 0)
            yield waiting[0] - start, sound[:, start - first : waiting.pop(0) + length - first]
        keep = max(waiting[0] - lead, first) if waiting else end
        while pending and first + pending[0].shape[1] <= keep:
            first += pending.pop(0).shape[1]
    if waiting and pending:  # the recording is shorter than an excerpt, or than its header says
        start = max(waiting[0] - lead, first)
        sound = np.concatenate(pending, axis=1)
        if end > waiting[0]:
            yield waiting[0] - start, sound[:, start - first :]
