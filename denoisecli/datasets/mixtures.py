"""The mixes of a set: each made of a clip, noises and perhaps a room, whenever it is asked for."""

import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from denoisecli.audio import level
from denoisecli.audio.stft import stft
from denoisecli.datasets.clips import Clip, Clips, active_share
from denoisecli.datasets.mix import SILENCE_RMS, fit_noise, mix_pair
from denoisecli.datasets.recipe import NoiseDraw, Recipe, draw, weight_of
from denoisecli.datasets.recordings import Role, Skipped, Source
from denoisecli.datasets.rooms import reverberate
from denoisecli.errors import DatasetError
from denoisecli.types import AudioVector

QUIET_DB = -30.0
"""A piece of noise quieter than this, relative to its whole recording, is drawn anew: the pause
between two keystrokes, raised to the level of speech, would teach nothing but hiss."""

SOFTER_DB = (-10.0, 0.0)
"""Level of a further noise in a mix, relative to the first one; it is drawn evenly in dB."""

_DRAWS = 100  # of a piece of noise, before giving up
_TASK_SECONDS = 60

Row = dict[str, Any]
"""How one mix was made, as the manifest of a dataset has it.

With the offsets counted at the dataset's rate, a looped noise, and the sum over all noises,
``noisy = gain * ((1 - ratio) * clean + ratio * sum(noise_gain * noise))``.

- ``clean``, ``clean_offset``, ``samples``: recording, first sample, length of the clip. ``joined``
  lists all recordings, if there are several, and ``at`` which sample of the clip each begins.
- ``noise``, ``noise_offset``, ``noise_gain``: recording, first sample, factor. ``more_noises``
  lists the others, if there are several.
- ``ratio``, ``snr_db``: of clean sound and noise as they were mixed; null is infinite.
- ``gain``: what the pair was multiplied by, for its level or so as not to pass full scale.
- ``level_dbfs``: RMS of the noisy sound.
- ``room``: whose reverberation the clean sound has; then ``target_snr_db`` is the SNR of the stored
  pair, whose difference is the noise with what the target lacks of the reverberation.
- ``crc32``: of all samples of the stored pair.
"""

Element = Float[np.ndarray, "..."]
"""Half of a pair: an AudioVector or a SpectrogramMatrix."""


@dataclass(frozen=True, eq=False)
class Mixed:
    """A pair and how it was made."""

    noisy: Element
    clean: Element
    row: Row


class Mixing:
    """The mixes of one set, by number; what is random about one depends on its number alone.

    Args:
        sources: The recordings of the set: "clean", "noise", and "room" if there are some.
        recipe: How to mix.
        stream: Number of the set, 1 or more; sets of one seed are mixed differently.

    Attributes:
        sources: The recordings.
    """

    def __init__(
        self, sources: Mapping[Role, Sequence[Source]], recipe: Recipe, stream: int = 1
    ) -> None:
        self.sources = sources
        self._recipe, self._stream = recipe, stream
        self._clips = Clips(sources["clean"], recipe)
        # The sum of the shares of this noise and of all before it.
        noises = sources["noise"]
        weights = [weight_of(noise.name, recipe.noise_weights) for noise in noises]
        if not any(weights):
            raise DatasetError("all noises of a set have a weight of 0; give one of them more")
        self._noise_bounds = np.cumsum(noise_shares(noises, recipe.noise_draw) * weights)
        # Every clip once, then those again that are mixed twice, ... Shuffled, so that a small
        # shuffle buffer will do for training.
        times = self._times()
        if times.size and not times.any():
            raise DatasetError(
                "all clean recordings of a set have a weight of 0; give one of them more"
            )
        rounds = [np.flatnonzero(times > copy) for copy in range(times.max(initial=0))]
        numbers = np.concatenate([*rounds, np.empty(0, np.intp)])
        copies = np.repeat(np.arange(len(rounds)), [clips.size for clips in rounds])
        rng = np.random.default_rng([recipe.seed, stream, 0, 1])
        order = rng.permutation(numbers.size)
        self._numbers, self._copies = numbers[order], copies[order]

    def __len__(self) -> int:
        return self._numbers.size

    def _times(self) -> Int[np.ndarray, "clips"]:
        """How many mixes are made of each clip."""
        recipe, clips = self._recipe, self._clips
        times = np.full(len(clips), recipe.mixes_per_clip)
        if recipe.clean_weights:
            for number in range(len(clips)):
                name = clips[number].pieces[0].source.name
                times[number] *= round(weight_of(name, recipe.clean_weights))
        return times

    @property
    def recordings(self) -> list[Source]:
        """All recordings of the set."""
        return [source for part in self.sources.values() for source in part]

    def tasks(self, first: int = 0) -> list[tuple[int, int]]:
        """Divide the mixes from ``first`` on into ranges (start, end) of about a minute each."""
        ranges, start, samples = [], first, 0
        for number in range(first, len(self)):
            samples += self._clip(number)[0].samples
            if samples >= _TASK_SECONDS * self._recipe.sample_rate:
                ranges.append((start, number + 1))
                start, samples = number + 1, 0
        return ranges + ([(start, len(self))] if start < len(self) else [])

    def make(self, number: int) -> Mixed | Skipped | None:
        """Make one mix; None if its clip cannot be used, which was told with its first mix.

        Raises:
            DatasetError: no noise can be found that is not silent.
        """
        recipe = self._recipe
        rng = np.random.default_rng([recipe.seed, self._stream, number])
        clip, copy = self._clip(number)
        sound = clip.read()
        if reason := self._problem(clip, sound):
            return None if copy else Skipped("clean", clip.pieces[0].source.name, reason)
        noise, noise_rows = self._draw_noises(clip.samples, rng)
        heard, target, room = self._draw_room(sound, rng)
        ratio = recipe.draw_ratio(rng)
        mixed = mix_pair(heard, noise, ratio, rng, match_level=recipe.match_level)
        noisy, clean, gain = mixed.noisy, mixed.clean, mixed.gain
        if room is not None:
            clean = np.float32(gain * (1 - ratio)) * target
        noisy, clean, change = self._leveled(noisy, clean, rng)
        for row in noise_rows:
            row["noise_gain"] *= mixed.noise_gain
        row = {
            **_clip_row(clip),
            **noise_rows[0],
            **({"more_noises": noise_rows[1:]} if noise_rows[1:] else {}),
            "ratio": ratio,
            "snr_db": finite(mixed.snr_db),
            "gain": gain * change,
            "level_dbfs": finite(level.dbfs(level.rms(noisy))),
        }
        if room is not None:
            row |= {"room": room, "target_snr_db": finite(level.snr_db(noisy, clean))}
        if recipe.kind == "spectrogram":
            noisy, clean = (
                np.abs(
                    stft(
                        vector,
                        n_fft=recipe.n_fft,
                        hop_length=recipe.hop_length,
                        window=recipe.window,
                    )
                )
                for vector in (noisy, clean)
            )
        return Mixed(noisy, clean, {**row, "crc32": checksum(noisy, clean)})

    def _clip(self, number: int) -> tuple[Clip, int]:
        """Give the clip of a mix, and which of the mixes of this clip it is."""
        return self._clips[int(self._numbers[number])], int(self._copies[number])

    def _problem(self, clip: Clip, sound: AudioVector) -> str | None:
        """Say why a clip cannot be used."""
        rate, offset = self._recipe.sample_rate, clip.pieces[0].offset
        last = clip.pieces[-1]
        sound = sound[: last.at + last.samples]
        span = f"from {offset / rate:.2f} s to {(offset + sound.size) / rate:.2f} s"
        if not level.rms(sound) > SILENCE_RMS:
            return f"is silent {span}"
        if self._recipe.min_active:
            share = active_share(sound, rate, clip.rms)
            if share < self._recipe.min_active:
                return f"is active for only {share:.0%} {span}"
        return None

    def _draw_noises(self, length: int, rng: np.random.Generator) -> tuple[AudioVector, list[Row]]:
        """Draw noises and add them up; the first of them, and others at most, have an RMS of 1.

        Where levels are not matched, all have the level they were recorded with.
        """
        limits = self._recipe.noises
        low, high = limits if isinstance(limits, tuple) else (limits, limits)
        total, rows = np.zeros(length, np.float32), []
        for number in range(int(rng.integers(low, high + 1))):
            source, offset, noise, rms = self._draw_noise(length, rng)
            gain = 1.0
            if self._recipe.match_level:
                gain = 1 / rms
                gain *= 10 ** (draw(SOFTER_DB, rng) / 20) if number else 1
            total += np.float32(gain) * noise
            rows.append({"noise": source.name, "noise_offset": offset, "noise_gain": gain})
        return total, rows

    def _draw_noise(
        self, length: int, rng: np.random.Generator
    ) -> tuple[Source, int, AudioVector, float]:
        """Draw a noise and a piece of it, cut or looped to a length; gives its RMS as well."""
        noises = self.sources["noise"]
        for _ in range(_DRAWS):
            drawn = rng.random() * self._noise_bounds[-1]
            number = int(np.searchsorted(self._noise_bounds, drawn, "right"))
            source = noises[min(number, len(noises) - 1)]  # rounding may make it one too many
            spare = max(source.samples - length, 0)
            start = int(rng.integers(spare + 1))
            piece, offset = fit_noise(source.read(start, length if spare else None), length, rng)
            rms = level.rms(piece)
            if rms > max(SILENCE_RMS, 10 ** (QUIET_DB / 20) * source.rms):
                return source, start + offset, piece, rms
        seconds = length / self._recipe.sample_rate
        raise DatasetError(
            f"{_DRAWS} random pieces of noise of {seconds:.1f} s were all near silence, the last "
            f"one of {source.name}; remove the noises that are mostly silent"
        )

    def _draw_room(
        self, dry: AudioVector, rng: np.random.Generator
    ) -> tuple[AudioVector, AudioVector, str | None]:
        """Put a clip into a room, or not; gives what is heard, the target, and the room's name."""
        rooms = self.sources.get("room", ())
        if not rooms or rng.random() >= self._recipe.reverb_share:
            return dry, dry, None
        room = rooms[int(rng.integers(len(rooms)))]
        recipe = self._recipe
        heard, target = reverberate(dry, room.read(), recipe.sample_rate, recipe.reverb_target)
        return heard, target, room.name

    def _leveled(
        self, noisy: AudioVector, clean: AudioVector, rng: np.random.Generator
    ) -> tuple[AudioVector, AudioVector, float]:
        """Bring a pair to the level wanted, within full scale; gives what it was multiplied by."""
        factor = 1.0
        if self._recipe.level_dbfs is not None:
            factor = 10 ** (draw(self._recipe.level_dbfs, rng) / 20) / level.rms(noisy)
        peak = float(max(noisy.max(), -noisy.min(), clean.max(), -clean.min()))
        factor = min(factor, 1 / peak)
        if factor == 1:
            return noisy, clean, 1.0
        noisy, clean = np.float32(factor) * noisy, np.float32(factor) * clean
        return noisy.clip(-1, 1), clean.clip(-1, 1), factor  # rounding may exceed 1 by a last bit


def noise_shares(noises: Sequence[Source], noise_draw: NoiseDraw) -> Float[np.ndarray, "noises"]:
    """Give the probabilities with which noises are drawn, up to a common factor."""
    if noise_draw == "length":
        return np.array([float(noise.samples) for noise in noises])
    if noise_draw == "file":
        return np.ones(len(noises))
    sizes: dict[str, int] = {}
    for noise in noises:
        sizes[noise.folder] = sizes.get(noise.folder, 0) + 1
    return np.array([1 / sizes[noise.folder] for noise in noises])


def checksum(noisy: Element, clean: Element) -> str:
    """Give the CRC-32 of all samples of a pair."""
    value = 0
    for array in (noisy, clean):
        value = zlib.crc32(np.ascontiguousarray(array).data, value)
    return f"{value:08x}"


def finite(value: float) -> float | None:
    """Give a number as JSON has it, which knows no infinity."""
    return value if math.isfinite(value) else None


def _clip_row(clip: Clip) -> Row:
    first = clip.pieces[0]
    row: Row = {
        "clean": first.source.name,
        "clean_offset": first.offset,
        "samples": clip.samples,
    }
    if len(clip.pieces) > 1:
        row["joined"] = [
            {"clean": piece.source.name, "at": piece.at, "samples": piece.samples}
            for piece in clip.pieces
        ]
    return row
