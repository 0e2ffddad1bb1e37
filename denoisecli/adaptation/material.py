"""The noise and the speech of an adaptation: found in recordings, divided, and mixed.

The last third of every source is held out: nothing of it is trained on.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files
from itertools import pairwise
from pathlib import Path

import numpy as np
from jaxtyping import Float

from denoisecli.adaptation.voice_activity import (
    CHUNK_SECONDS,
    MARGIN_SECONDS,
    SPEECH,
    has_speech,
    spans,
    voice_activity,
    widened,
)
from denoisecli.audio.downmix import mono_blocks
from denoisecli.audio.files import read_mono, write
from denoisecli.audio.level import dbfs, rms
from denoisecli.audio.reading import reader
from denoisecli.audio.resampling import resample
from denoisecli.cleaning.denoiser import Denoiser
from denoisecli.datasets.mix import SILENCE_RMS, fit_noise
from denoisecli.errors import AudioError, UsageError
from denoisecli.types import AudioBlock, AudioVector

HELD_OUT = 1 / 3
"""Share of every source, its last part, that is held out."""

LONGEST = 600.0
"""Seconds of a recording that are used, from its beginning."""

LONGEST_OF_ALL = 1800.0
"""Seconds of all recordings together that are used, so that memory is bounded."""

HIGH_SNR_DB = 25.0
"""Ratio in dB of the cleaned speech to what the model removed, above which the cleaned speech is
trained on as clean speech."""

MIXTURE_SECONDS = 4.0
"""Length of a held-out mixture in s."""

LEAST_NOISE = MIXTURE_SECONDS / HELD_OUT
"""Seconds of noise below which nothing is trained: the held-out part fills a mixture."""

SNRS_DB = (0.0, 5.0, 10.0)
"""SNRs of the held-out mixtures in dB."""

SPEECH_DBFS = -26.0
"""RMS level of the speech in a held-out mixture in dBFS."""

SPEEDS = (0.74, 0.85, 1.0, 1.18, 1.35)
"""Speeds at which the speech is played in training, so that a few voices become many."""

_NOISE_ALONE = (
    "if it is noise alone, give it with --noise, which takes one file or folder and can be repeated"
)
_LONGEST_PAUSE = 1.0  # s of a recording of clean speech, longer pauses of which are left out
_SHORTEST = 0.8  # s of a stretch of noise
_SHORTEST_SPEECH = 2.0  # s of a passage of speech
_PIECE = 6.0  # s of a recording that is trained on
_LEAST_PIECES = 12  # of noise, so that the training can validate with some of them
_SEAM = 0.05  # s over which the end of a piece is faded into its beginning

Stretch = Float[np.ndarray, "_"]
"""A part of a recording, of any length."""

Stretches = list[Stretch]
"""Parts of one source, in the order of time."""


Mixtures = list[tuple[AudioVector, AudioVector]]
"""Pairs of noisy and clean sound, all of the same length."""


@dataclass(frozen=True)
class Material:
    """Noise and speech at the sample rate of a model; a list for each source.

    Attributes:
        sample_rate: The sample rate in Hz.
        noise: Noise of each recording.
        speech: Speech of each recording or voice, to train with.
        held_out_noise: Noise of each recording, to compare models with.
        held_out_speech: Speech of each recording or voice, to compare models with.
        held_out_voices: Those of `held_out_speech` that come with the package.
        found: Seconds of noise that were found in noisy recordings.
        warnings: What the user should know about the recordings.
    """

    sample_rate: int
    noise: list[Stretches]
    speech: list[Stretches]
    held_out_noise: list[Stretches]
    held_out_speech: list[Stretches]
    held_out_voices: list[Stretches]
    found: float
    warnings: tuple[str, ...] = ()

    def seconds(self, sources: Sequence[Stretches]) -> float:
        """Return the total length of sources in s."""
        return sum(part.size for source in sources for part in source) / self.sample_rate


def voices() -> list[Path]:
    """Return the recordings of speech that come with the package."""
    folder = Path(str(files("denoisecli.adaptation") / "voices"))
    return sorted(folder.glob("*.opus"))


def gather(
    recordings: Sequence[Path],
    noise: Sequence[Path],
    speech: Sequence[Path],
    denoiser: Denoiser,
    on_progress: Callable[[float, float], None] = lambda done, total: None,
) -> Material:
    """Find the noise and the speech, and hold out the last third of each source.

    Args:
        recordings: Noisy recordings of speech. Their pauses are noise; where they are hardly noisy,
            their speech is trained on as the model cleans it.
        noise: Recordings of noise alone.
        speech: Clean recordings of speech.
        denoiser: The model that is adapted.
        on_progress: Called with the number of recordings read so far and their total.

    Raises:
        UsageError: There is too little noise, all recordings are silent, a clean recording has no
            speech, or no noisy recording has any.
        AudioError: A recording cannot be read.
    """
    rate = denoiser.spec.audio.sample_rate
    total = len(recordings) + len(noise) + len(speech)
    durations = [_duration(path) for path in (*recordings, *noise, *speech)]
    longest = _longest(durations)
    pauses: list[Stretches] = []
    spoken_parts: list[Stretches] = []
    without_speech: list[Path] = []
    warnings: list[str] = []
    for number, path in enumerate(recordings):
        on_progress(number, total)
        sound = _read(path, rate, longest, warnings)
        if sound is None:
            continue
        found, spoken = _divide(sound, denoiser.clean(sound, rate), rate)
        pauses.append(found)
        if spoken is None:
            without_speech.append(path)
        else:
            spoken_parts.append(spoken)
    if recordings and not pauses:
        raise UsageError(f"{recordings[0]}{_and_more(recordings)} is silent")
    if recordings and not spoken_parts:
        raise UsageError(
            f"there is no speech in the noisy recordings ({recordings[0]}{_and_more(recordings)}); "
            f"{_NOISE_ALONE}"
        )
    found_seconds = sum(part.size for source in pauses for part in source) / rate
    alone = [(path, _read(path, rate, longest, warnings)) for path in noise]
    heard = [(path, sound) for path, sound in alone if sound is not None]
    if noise and not heard:
        raise UsageError(f"{noise[0]}{_and_more(noise)} is silent")
    if any(longest < duration < math.inf for duration in durations):
        warnings.append(f"warning: only the first {longest:.0f} s of each recording are used")
    warnings += [
        f"warning: there is no speech in {path}; {_NOISE_ALONE}" for path in without_speech
    ]
    warnings += [
        f"warning: there is speech in {path}; with --noise, the model learns to remove it, too"
        for path, sound in heard
        if has_speech(voice_activity(sound, rate))
    ]
    all_noise = [*pauses, *(_audible(sound, rate) for _, sound in heard)]
    divided_noise = [pair for pair in map(_hold_out, all_noise) if all(pair)]
    clean = [(path, _read(path, rate, longest, warnings)) for path in speech]
    own = [_spoken(path, sound, rate) for path, sound in clean if sound is not None]
    on_progress(total, total)
    shipped = [[read_mono(path, rate)[0]] for path in voices()]
    divided_speech = [_hold_out(source) for source in [*own, *shipped]]
    material = Material(
        sample_rate=rate,
        noise=[first for first, _ in divided_noise],
        # Speech that a model has cleaned is no reference for comparing that model with another.
        speech=[*(first for first, _ in divided_speech), *filter(None, spoken_parts)],
        held_out_noise=[last for _, last in divided_noise],
        held_out_speech=[last for _, last in divided_speech],
        held_out_voices=[last for _, last in divided_speech[len(own) :]],
        found=found_seconds,
        warnings=tuple(warnings),
    )
    amount = material.seconds([*material.noise, *material.held_out_noise])
    if amount < LEAST_NOISE:
        raise UsageError(
            f"{amount:.0f} s of noise were found, and {LEAST_NOISE:.0f} s are needed, better a "
            "minute: give recordings with longer pauses, or record the noise alone and give it "
            "with --noise"
        )
    return material


def write_pieces(
    sources: Sequence[Stretches],
    folder: Path,
    sample_rate: int,
    *,
    repeats: bool = False,
    speeds: Sequence[float] = (),
) -> None:
    """Write pieces of sound to train with as WAV files in a new folder.

    There are at least _LEAST_PIECES, unless they would be very short, since the training validates
    with some of them. Their level does not matter, so that of loud pieces is lowered: the training
    would leave clipped recordings out.

    Args:
        sources: The sound.
        folder: Folder to write.
        sample_rate: Sample rate in Hz.
        repeats: Fade the end of each piece into its beginning, because it is looped where it is
            mixed with longer speech.
        speeds: Speeds that each piece is written at, into a folder of its own, instead of the file.
            They change its pitch and formants as well.
    """
    seam = round(_SEAM * sample_rate)
    total = sum(part.size for source in sources for part in source) / sample_rate
    length = round(max(min(_PIECE, total / _LEAST_PIECES), _SHORTEST) * sample_rate)
    stretches = (stretch for source in sources for stretch in source)
    for number, part in enumerate(part for stretch in stretches for part in _cut(stretch, length)):
        piece = _looped(part, seam) if repeats else part
        piece = piece / np.float32(max(1.0, 2 * np.abs(piece).max()))
        name = f"clip-{number:03d}"
        if not speeds:
            write(folder / f"{name}.wav", piece, sample_rate, subtype="FLOAT")
        for speed in speeds:
            other = resample(piece, round(speed * sample_rate), sample_rate)
            write(folder / name / f"speed-{speed:g}.wav", other, sample_rate, subtype="FLOAT")


def held_out_mixtures(material: Material, count: int, seed: int) -> Mixtures:
    """Mix held-out speech with held-out noise, each source and each of SNRS_DB equally often.

    Returns:
        (noisy, clean) of MIXTURE_SECONDS each.
    """
    rng = np.random.default_rng([seed, 1])
    speech = passages(material, count, rng)
    seam = round(_SEAM * material.sample_rate)
    noises = [_looped(_joined(source, seam), seam) for source in material.held_out_noise]
    order = rng.permutation(np.arange(count) % len(noises))
    snrs_db = rng.permutation(np.resize(SNRS_DB, count))
    pairs = []
    for clean, index, snr_db in zip(speech, order, snrs_db, strict=True):
        noise, _ = fit_noise(noises[index], clean.size, rng)
        pairs.append((with_noise(clean, noise, float(snr_db)), clean))
    return pairs


def with_noise(clean: AudioVector, noise: AudioVector, snr_db: float) -> AudioVector:
    """Return speech with noise of the same length at an SNR in dB."""
    gain = rms(clean) / max(rms(noise), SILENCE_RMS) * 10 ** (-snr_db / 20)
    return (clean + gain * noise).astype(np.float32)


def passages(material: Material, count: int, rng: np.random.Generator) -> list[AudioVector]:
    """Return passages of held-out speech of MIXTURE_SECONDS, each source equally often.

    Their level is SPEECH_DBFS.
    """
    length = round(MIXTURE_SECONDS * material.sample_rate)
    seam = round(_SEAM * material.sample_rate)
    sources = [_looped(_joined(source, seam), seam) for source in material.held_out_speech]
    found = []
    for number in range(count):
        source = sources[number % len(sources)]
        drawn = [fit_noise(source, length, rng)[0] for _ in range(4)]
        loudest = max(drawn, key=rms)  # or it could be a pause
        gain = 10 ** (SPEECH_DBFS / 20) / max(rms(loudest), SILENCE_RMS)
        found.append((gain * loudest).astype(np.float32))
    return found


def read_beginning(path: Path, seconds: float) -> tuple[AudioVector, int, str | None]:
    """Read the beginning of a recording as the mean of its channels, or as the loudest of them.

    Returns:
        The samples; their sample rate in Hz, which is that of the file; and why there are fewer
        than there should be, if that is so.

    Raises:
        AudioError: It cannot be read.
    """
    rate, problem = 0, None

    def beginning() -> Iterator[AudioBlock]:
        nonlocal rate, problem
        with reader(path, keep_readable=True) as recording:
            rate = recording.info.sample_rate
            frames = 0
            for block in recording:
                yield block
                frames += block.shape[1]
                if frames >= seconds * rate:
                    break
        problem = recording.problem

    blocks = mono_blocks(beginning)
    if not blocks:
        raise AudioError(problem or f"{path} has no samples")
    return np.concatenate(blocks, axis=1)[0, : round(seconds * rate)], rate, problem


def _duration(path: Path) -> float:
    """Return the duration of a recording in s, infinity if its header does not state it."""
    with reader(path, keep_readable=True) as recording:
        return recording.info.frames / recording.info.sample_rate or math.inf


def _longest(durations: Sequence[float]) -> float:
    """Return the seconds of each recording that are used: short ones leave more for the others."""
    left = LONGEST_OF_ALL
    for number, duration in enumerate(sorted(durations)):
        share = left / (len(durations) - number)
        if min(duration, LONGEST) > share:
            return share
        left -= min(duration, LONGEST)
    return LONGEST


def _read(path: Path, sample_rate: int, seconds: float, warnings: list[str]) -> Stretch | None:
    """Return the beginning of a recording, None if it is silent; append warnings about it."""
    sound, rate, problem = read_beginning(path, seconds)
    if problem is not None:
        warnings.append(f"warning: {problem}; what is before is used")
    if rms(sound) <= SILENCE_RMS:
        warnings.append(f"warning: {path} is silent and left out")
        return None
    return resample(sound, rate, sample_rate)


def _spoken(path: Path, sound: AudioVector, sample_rate: int) -> Stretches:
    """Return a recording of clean speech without its long pauses.

    Otherwise the held-out part could consist of pauses, and silence cannot be mixed at an SNR.

    Raises:
        UsageError: There is no speech in it.
    """
    probabilities = voice_activity(sound, sample_rate)
    if not has_speech(probabilities):
        raise UsageError(f"there is no speech in {path}, which was given with --speech")
    is_speech = probabilities >= SPEECH
    chunk = CHUNK_SECONDS * sample_rate
    kept = widened(is_speech, round(_LONGEST_PAUSE / 2 * sample_rate / chunk))
    if kept.all():
        return [sound]  # with its last samples, which make no chunk
    return [sound[a:b] for a, b in spans(kept, chunk, 0.0, sound.size)]


def _audible(sound: AudioVector, sample_rate: int) -> Stretches:
    """Return a recording of noise without its digital silence, which could be all held out."""
    chunk = CHUNK_SECONDS * sample_rate
    audible = ~_silent(sound, chunk, int(sound.size / chunk))
    if audible.all():
        return [sound]  # with its last samples, which make no chunk
    return [sound[a:b] for a, b in spans(audible, chunk, 0.0, sound.size)]


def _silent(sound: AudioVector, chunk: float, count: int) -> np.ndarray:
    """Return whether each chunk of a number of samples is digital silence."""
    edges = [round(number * chunk) for number in range(count + 1)]
    return np.array([rms(sound[a:b]) <= SILENCE_RMS for a, b in pairwise(edges)], bool)


def _and_more(paths: Sequence[Path]) -> str:
    return f" and {len(paths) - 1} more" if len(paths) > 1 else ""


def _divide(
    noisy: AudioVector, cleaned: AudioVector, sample_rate: int
) -> tuple[Stretches, Stretches | None]:
    """Return the pauses of a recording, and its speech as cleaned where it is hardly noisy.

    Speech is what the detector hears as such before or after cleaning: in loud noise it misses some
    of it, and the model may keep noise as if it were speech.

    Returns:
        Stretches of noise, and of speech; None instead of speech if there is none at all.
    """
    before, after = (voice_activity(sound, sample_rate) for sound in (noisy, cleaned))
    if not before.size:
        return [], None
    chunk = CHUNK_SECONDS * sample_rate
    margin = round(MARGIN_SECONDS * sample_rate / chunk)
    either = np.maximum(before, after)
    is_speech = either >= SPEECH
    digital = _silent(noisy, chunk, before.size)
    quiet = ~widened(is_speech, margin) & ~digital
    noise = [noisy[a:b] for a, b in spans(quiet, chunk, _SHORTEST * sample_rate, noisy.size)]
    if not has_speech(either):
        return noise, None
    spoken = spans(
        widened(is_speech, margin // 2), chunk, _SHORTEST_SPEECH * sample_rate, noisy.size
    )
    clear = [
        cleaned[a:b]
        for a, b in spoken
        if dbfs(rms(cleaned[a:b])) - dbfs(rms(noisy[a:b] - cleaned[a:b])) > HIGH_SNR_DB
    ]
    return noise, clear


def _hold_out(source: Stretches) -> tuple[Stretches, Stretches]:
    """Divide a source where its last third begins."""
    left = round((1 - HELD_OUT) * sum(part.size for part in source))
    first, last = [], []
    for part in source:
        cut = min(left, part.size)
        left -= cut
        first.append(part[:cut])
        last.append(part[cut:])
    return [part for part in first if part.size], [part for part in last if part.size]


def _cut(sound: Stretch, length: int) -> Stretches:
    """Cut a sound into equal parts of about a length."""
    return np.array_split(sound, max(1, round(sound.size / length)))


def _joined(source: Stretches, seam: int) -> Stretch:
    """Fade the end of each stretch into the beginning of the next one."""
    parts, last = [], source[0]
    for part in source[1:]:
        size = min(seam, last.size // 2, part.size // 2)
        rise = np.sqrt(np.linspace(0, 1, size, dtype=np.float32))
        end = last.size - size
        mixed = rise[::-1] * last[end:] + rise * part[:size]
        parts.append(last[:end])
        last = np.concatenate([mixed, part[size:]])
    return np.concatenate([*parts, last])


def _looped(sound: Stretch, seam: int) -> Stretch:
    """Fade the end of a sound into its beginning, so that it can be repeated without a click."""
    if sound.size < 4 * seam:
        return sound
    rise = np.sqrt(np.linspace(0, 1, seam, dtype=np.float32))
    looped = sound[:-seam].copy()
    looped[:seam] = rise * sound[:seam] + rise[::-1] * sound[-seam:]
    return looped
