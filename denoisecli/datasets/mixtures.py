"""The mixtures of a set, each of a clip, noises and possibly a room, computed on demand."""

import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from denoisecli.audio.level import dbfs, rms, snr_db
from denoisecli.audio.stft import stft
from denoisecli.datasets.choices import Kind, NoiseDraw
from denoisecli.datasets.clips import Clip, Clips, active_share
from denoisecli.datasets.manifest import Joined, Row, UsedNoise
from denoisecli.datasets.mix import SILENCE_RMS, fit_noise, mix_pair
from denoisecli.datasets.recipe import Recipe, draw, limits, weight_of
from denoisecli.datasets.recordings import Recording, Role, Skipped
from denoisecli.datasets.rooms import reverberate
from denoisecli.errors import DatasetError
from denoisecli.types import AudioVector

QUIET_DB = -30.0
"""A piece of noise that is quieter than this, relative to its whole recording, is drawn again: the
pause between two keystrokes, raised to the level of speech, would be nothing but hiss."""

SOFTER_DB = (-10.0, 0.0)
"""Level of each further noise in a mixture relative to the first one; drawn evenly in dB."""

_DRAWS = 100  # attempts to find a piece of noise that is not quiet
_TASK_SECONDS = 60
_STREAMS = {"train": 1, "test": 2, "valid": 3}  # makes the random choices of the sets differ

Element = Float[np.ndarray, "..."]
"""One half of a pair: an AudioVector or a SpectrogramMatrix."""


@dataclass(frozen=True, eq=False)
class Pair:
    """A pair to be stored, and its row in the manifest.

    Attributes:
        noisy: The mixture.
        clean: Its clean part.
        row: The row.
        speech: The clean part with all of the reverberation that it has in the mixture, if the
            clean part lacks some.
    """

    noisy: Element
    clean: Element
    row: Row
    speech: AudioVector | None = None


class Mixtures:
    """The mixtures of one set. All random choices in one depend only on the seed and its number.

    Args:
        name: Name of the set: "train", "valid" or "test".
        recordings: The recordings of the set: "clean", "noise", and "room" if there are some.
        recipe: Defines how they are mixed.

    Attributes:
        recordings: The recordings of each role.

    Raises:
        DatasetError: All recordings of a role have a weight of 0.
    """

    def __init__(
        self, name: str, recordings: Mapping[Role, Sequence[Recording]], recipe: Recipe
    ) -> None:
        self.name, self.recordings = name, recordings
        self._recipe, self._stream = recipe, _STREAMS[name]
        self._clips = Clips(recordings["clean"], recipe)
        noises = recordings["noise"]
        weights = [weight_of(noise.name, recipe.noise_weights) for noise in noises]
        if not any(weights):
            raise DatasetError(
                "all noise recordings of a set have a weight of 0; increase the weight of some"
            )
        # Cumulative shares: a noise is drawn by where a random number falls among them.
        self._noise_bounds = np.cumsum(noise_shares(noises, recipe.noise_draw) * weights)
        # Every clip once, then again all clips that are mixed twice, and so on. Each round is
        # shuffled with all others, so that a small shuffle buffer suffices for training.
        counts = self._mixtures_of_clips()
        if counts.size and not counts.any():
            raise DatasetError(
                "all clean recordings of a set have a weight of 0; increase the weight of some"
            )
        rounds = [np.flatnonzero(counts > copy) for copy in range(counts.max(initial=0))]
        numbers = np.concatenate([*rounds, np.empty(0, np.intp)])
        copies = np.repeat(np.arange(len(rounds)), [clips.size for clips in rounds])
        rng = np.random.default_rng([recipe.seed, self._stream, 0, 1])
        order = rng.permutation(numbers.size)
        self._numbers, self._copies = numbers[order], copies[order]

    def __len__(self) -> int:
        return self._numbers.size

    def _mixtures_of_clips(self) -> Int[np.ndarray, "clips"]:
        """Return the number of mixtures of each clip."""
        recipe, clips = self._recipe, self._clips
        counts = np.full(len(clips), recipe.mixtures_per_clip)
        if recipe.clean_weights:
            for number in range(len(clips)):
                name = clips[number].pieces[0].recording.name
                counts[number] *= round(weight_of(name, recipe.clean_weights))
        return counts

    def spans(self) -> list[tuple[int, int]]:
        """Divide the numbers of all mixtures into ranges (start, end) of about a minute each."""
        spans, start, samples = [], 0, 0
        for number in range(len(self)):
            samples += self._clip(number)[0].samples
            if samples >= _TASK_SECONDS * self._recipe.sample_rate:
                spans.append((start, number + 1))
                start, samples = number + 1, 0
        return spans + ([(start, len(self))] if start < len(self) else [])

    def mix(self, number: int) -> Pair | Skipped | None:
        """Compute one mixture.

        Returns:
            The pair; or why its clip cannot be used; or None if it cannot be used and an earlier
            mixture of the same clip reported it.

        Raises:
            DatasetError: No piece of noise can be found that is not silent.
        """
        recipe = self._recipe
        rng = np.random.default_rng([recipe.seed, self._stream, number])
        clip, copy = self._clip(number)
        sound = clip.read()
        if reason := self._problem(clip, sound):
            return None if copy else Skipped("clean", clip.pieces[0].recording.name, reason)
        noise, used = self._draw_noises(clip.samples, rng)
        reverberant, target, room = self._draw_room(sound, rng)
        ratio = recipe.draw_ratio(rng)
        mixture = mix_pair(reverberant, noise, ratio, rng, match_level=recipe.match_level)
        noisy, clean = mixture.noisy, mixture.clean
        if room is not None:
            clean = np.float32(mixture.gain * (1 - ratio)) * target
        noisy, clean, change = self._set_level(noisy, clean, rng)
        speech = None
        if room is not None and recipe.kind == Kind.WAVEFORM:
            speech = np.float32(change) * mixture.clean
        first, *others = [
            UsedNoise(noise.noise, noise.noise_offset, noise.noise_gain * mixture.noise_gain)
            for noise in used
        ]
        halves = self._halves(noisy, clean)
        row = Row(
            set=self.name,
            clean=clip.pieces[0].recording.name,
            clean_offset=clip.pieces[0].offset,
            samples=clip.samples,
            joined=_joined(clip),
            noise=first.noise,
            noise_offset=first.noise_offset,
            noise_gain=first.noise_gain,
            more_noises=others,
            ratio=ratio,
            snr_db=finite(mixture.snr_db),
            gain=mixture.gain * change,
            level_dbfs=finite(dbfs(rms(noisy))),
            room=room,
            target_snr_db=None if room is None else finite(snr_db(noisy, clean)),
            crc32=checksum(*halves),
        )
        return Pair(*halves, row, speech)

    def _halves(self, noisy: AudioVector, clean: AudioVector) -> tuple[Element, Element]:
        """Return what is stored of a pair: its waveforms, or their spectrograms."""
        recipe = self._recipe
        if recipe.kind == Kind.WAVEFORM:
            return noisy, clean

        def magnitudes(sound: AudioVector) -> Element:
            return np.abs(
                stft(sound, n_fft=recipe.n_fft, hop_length=recipe.hop_length, window=recipe.window)
            )

        return magnitudes(noisy), magnitudes(clean)

    def _clip(self, number: int) -> tuple[Clip, int]:
        """Return the clip of a mixture, and how many earlier mixtures are of the same clip."""
        return self._clips[int(self._numbers[number])], int(self._copies[number])

    def _problem(self, clip: Clip, sound: AudioVector) -> str | None:
        """Return why a clip cannot be used, or None."""
        rate, offset = self._recipe.sample_rate, clip.pieces[0].offset
        last = clip.pieces[-1]
        sound = sound[: last.at + last.samples]
        span = f"from {offset / rate:.2f} s to {(offset + sound.size) / rate:.2f} s"
        if not rms(sound) > SILENCE_RMS:
            return f"is silent {span}"
        if self._recipe.min_active:
            share = active_share(sound, rate, clip.rms)
            if share < self._recipe.min_active:
                return f"is active for only {share:.0%} {span}"
        return None

    def _draw_noises(
        self, length: int, rng: np.random.Generator
    ) -> tuple[AudioVector, list[UsedNoise]]:
        """Draw noises and return their sum.

        If levels are matched, the first noise has an RMS of 1 and the others have less; otherwise
        all have the level they were recorded with.
        """
        low, high = limits(self._recipe.noises)
        total, used = np.zeros(length, np.float32), []
        for number in range(int(rng.integers(low, high + 1))):
            recording, offset, noise, level = self._draw_noise(length, rng)
            gain = 1.0
            if self._recipe.match_level:
                gain = 1 / level
                gain *= 10 ** (draw(SOFTER_DB, rng) / 20) if number else 1
            total += np.float32(gain) * noise
            used.append(UsedNoise(recording.name, offset, gain))
        return total, used

    def _draw_noise(
        self, length: int, rng: np.random.Generator
    ) -> tuple[Recording, int, AudioVector, float]:
        """Draw a noise recording and a piece of it, cut or looped to ``length`` samples.

        Returns:
            The recording, the first sample of the piece, the piece and its RMS.
        """
        noises = self.recordings["noise"]
        for _ in range(_DRAWS):
            position = rng.random() * self._noise_bounds[-1]
            number = int(np.searchsorted(self._noise_bounds, position, "right"))
            recording = noises[min(number, len(noises) - 1)]  # rounding may exceed the last bound
            spare = max(recording.samples - length, 0)
            start = int(rng.integers(spare + 1))
            recorded = recording.read(start, length if spare else None)
            piece, offset = fit_noise(recorded, length, rng)
            level = rms(piece)
            if level > max(SILENCE_RMS, 10 ** (QUIET_DB / 20) * recording.rms):
                return recording, start + offset, piece, level
        seconds = length / self._recipe.sample_rate
        raise DatasetError(
            f"{_DRAWS} random pieces of noise of {seconds:.1f} s were all nearly silent, the last "
            f"one from {recording.name}; remove the noise recordings that are mostly silent"
        )

    def _draw_room(
        self, dry: AudioVector, rng: np.random.Generator
    ) -> tuple[AudioVector, AudioVector, str | None]:
        """Add the reverberation of a random room, or not.

        Returns:
            The reverberant sound, the clean part, and the name of the room; without a room, the
            dry sound twice and None.
        """
        rooms = self.recordings.get("room", ())
        if not rooms or rng.random() >= self._recipe.reverb_share:
            return dry, dry, None
        room = rooms[int(rng.integers(len(rooms)))]
        recipe = self._recipe
        reverberant, target = reverberate(
            dry, room.read(), recipe.sample_rate, recipe.reverb_target
        )
        return reverberant, target, room.name

    def _set_level(
        self, noisy: AudioVector, clean: AudioVector, rng: np.random.Generator
    ) -> tuple[AudioVector, AudioVector, float]:
        """Scale a pair to the level of the recipe, within full scale; return the factor as well."""
        factor = 1.0
        if self._recipe.level_dbfs is not None:
            factor = 10 ** (draw(self._recipe.level_dbfs, rng) / 20) / rms(noisy)
        peak = float(max(noisy.max(), -noisy.min(), clean.max(), -clean.min()))
        factor = min(factor, 1 / peak)
        if factor == 1:
            return noisy, clean, 1.0
        noisy, clean = np.float32(factor) * noisy, np.float32(factor) * clean
        return noisy.clip(-1, 1), clean.clip(-1, 1), factor  # rounding may exceed 1 by the last bit


def noise_shares(noises: Sequence[Recording], noise_draw: NoiseDraw) -> Float[np.ndarray, "noises"]:
    """Return the probabilities with which noises are drawn, up to a common factor."""
    if noise_draw == NoiseDraw.LENGTH:
        return np.array([float(noise.samples) for noise in noises])
    if noise_draw == NoiseDraw.FILE:
        return np.ones(len(noises))
    sizes: dict[str, int] = {}
    for noise in noises:
        sizes[noise.folder] = sizes.get(noise.folder, 0) + 1
    return np.array([1 / sizes[noise.folder] for noise in noises])


def checksum(noisy: Element, clean: Element) -> str:
    """Return the CRC-32 of all samples of a pair, in hexadecimal."""
    value = 0
    for array in (noisy, clean):
        value = zlib.crc32(np.ascontiguousarray(array).data, value)
    return f"{value:08x}"


def _joined(clip: Clip) -> list[Joined]:
    if len(clip.pieces) == 1:
        return []
    return [Joined(piece.recording.name, piece.at, piece.samples) for piece in clip.pieces]


def finite(value: float) -> float | None:
    """Return None for an infinite value, which JSON cannot hold."""
    return value if math.isfinite(value) else None
