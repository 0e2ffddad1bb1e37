"""Training batches that are mixed anew from recordings, without a stored dataset."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Float

from denoisecli.audio.level import rms
from denoisecli.datasets.duplicates import note_on_noisy_speech
from denoisecli.datasets.manifest import source_hash
from denoisecli.datasets.mixtures import QUIET_DB, noise_shares
from denoisecli.datasets.recipe import Recipe, check_weights, weight_of
from denoisecli.datasets.recordings import Recording, Role
from denoisecli.datasets.splitting import split_into_sets
from denoisecli.errors import DatasetError, UsageError
from denoisecli.spec.document import Spec
from denoisecli.spec.training import Augmentation
from denoisecli.training.augmentation.chain import Chain, CompiledChain
from denoisecli.training.augmentation.reverberation import Tail, tail_of
from denoisecli.training.batch_source import BatchSource
from denoisecli.training.dataset_ranges import resolve, resolve_ranges
from denoisecli.training.recordings import SOURCES, Folders, RecordingStore, open_store
from denoisecli.training.run_folder import RECORDINGS
from denoisecli.training.segments import (
    CHUNKS,
    Places,
    SegmentOrder,
    bands_of_chunks,
    clip_gain,
    fade_edges,
    known_band,
    runs_of,
    stored_order,
)
from denoisecli.training.stream import Batch, Stream

SNR_DB = (-5.0, 20.0)
"""Range of SNRs in dB, where the spec leaves it open."""

NOISES = (1, 3)
"""Numbers of noises in a mixture, where the spec leaves them open."""

SPLIT = (0.9, 0.05, 0.05)
"""Shares of the recordings for training, validation and testing."""

REVERBERANT_SHARE = 0.5
"""Share of the speech that is put into rooms, if there are some and the spec has no share."""

_FIXED_BATCH = 32  # largest batch of mixtures that validate or test

MOST_SEGMENTS = 480
"""Largest number of segments to validate or to test with."""

OF_THE_MIXTURE = {
    *("remix", "snr_db", "second_noise", "third_noise", "level_dbfs"),
    *("target_highpass_hz", "target_pause_db"),
    *("reverberation", "rt60_seconds", "direct_to_reverberant_db"),
}
"""Settings of the augmentation that also hold for the sets that are not trained on."""

DRAWS = 8
"""Number of attempts to find a piece of noise that is not quiet."""


def _remixed(spec: Spec) -> Spec:
    """Return a spec whose augmentation, if it has one, mixes speech and noise."""
    training = spec.training
    if training.augmentation is None:
        return spec
    augmentation = training.augmentation.model_copy(update={"remix": True})
    return spec.model_copy(
        update={"training": training.model_copy(update={"augmentation": augmentation})}
    )


@dataclass(frozen=True)
class Mixing:
    """Recordings that the batches of a run are mixed from, and how they are mixed.

    Attributes:
        folders: Folders of recordings.
        rooms: Number of simulated rooms that speech is put into.
        cache: Folder of the decoded recordings; by default it is in the folder of the run, and is
            deleted when the run is finished.
        group_by: Grouping of recordings; see `Recipe.group_by`.
        group_noise_by: The same for noise.
        clean_weights: Factors on how often clean recordings are used, by folder or pattern.
        noise_weights: Factors on how often noises are drawn.
    """

    folders: Folders
    rooms: int = 0
    cache: Path | None = None
    group_by: str = "file"
    group_noise_by: str | None = None
    clean_weights: dict[str, int] = field(default_factory=dict)
    noise_weights: dict[str, float] = field(default_factory=dict)

    def recipe(self, spec: Spec) -> Recipe:
        """Return the recipe of the mixtures for a spec; only its sample rate and seed are used.

        Raises:
            UsageError: A field is not valid.
        """
        return Recipe(
            snr_db=SNR_DB,
            noises=NOISES,
            split=SPLIT,
            sample_rate=spec.audio.sample_rate,
            rooms=self.rooms,
            seed=spec.training.seed,
            group_by=self.group_by,
            group_noise_by=self.group_noise_by,
            clean_weights=self.clean_weights,
            noise_weights=self.noise_weights,
        )


@dataclass(frozen=True)
class Voices:
    """Clean recordings of a set, laid end to end.

    Attributes:
        recordings: The recordings; one occurs several times if it has a weight.
        chunks: Number of chunks of each.
        bands: Frequency in Hz up to which each is known.
    """

    recordings: tuple[Recording, ...]
    chunks: tuple[int, ...]
    bands: tuple[int, ...]


class MixedBatches(BatchSource):
    """Batches that are mixed from recordings.

    Segments of speech begin at random samples of a recording or where one begins, and successive
    epochs continue through all clean recordings, which are used equally often (or in proportion to
    their weights). Noises are drawn at random.

    Args:
        store: Decoded recordings.
        spec: Spec of the model.
        recipe: Recipe of the mixtures; see `Mixing`.
        folder: Folder of the clean recordings, for messages.

    Raises:
        DatasetError: There are too few recordings.
        UsageError: They cannot be grouped or weighted as the recipe says, or a weight is for a
            folder without recordings.
    """

    def __init__(self, store: RecordingStore, spec: Spec, recipe: Recipe, folder: Path):
        self.store, self.recipe, self.folder = store, recipe, folder
        self.spec, self.messages = resolve_ranges(_remixed(spec), recipe, is_built=False)
        own = spec.training.augmentation
        if own is not None and not own.remix:
            self.messages.append("training.augmentation.remix has no effect: all batches are mixed")
        text = store.digest + recipe.model_dump_json()
        self.dataset_id = hashlib.sha256(text.encode()).hexdigest()[:16]
        self._sets, notes = split_into_sets(self._used_recordings(), recipe, store.copies)
        self.messages += notes + self._notes()
        self._voices = {name: self._lay_out(name) for name in self._sets}
        for name, voices in self._voices.items():
            if sum(voices.chunks) < CHUNKS:
                raise DatasetError(
                    f"{folder} has less than a segment of {spec.training.segment_seconds:g} s for "
                    f"the {name} set; record more, or reduce training.segment_seconds"
                )
        self._noise_bounds = {name: self._bounds(name) for name in self._sets}
        segments = sum(self._voices["train"].chunks) // CHUNKS
        training = spec.training
        self.train_steps = training.steps_per_epoch or max(1, segments // training.batch_size)

    def _training_batches(self) -> Callable[[int], Batch]:
        size, seed = self.spec.training.batch_size, self.spec.training.seed
        order = SegmentOrder(self._voices["train"].chunks, seed)
        augment = self._augment["train"]

        def make(index: int) -> Batch:
            rng = np.random.default_rng([seed, 3, index])
            places = [order[index * size + row] for row in range(size)]
            return self._mix("train", places, rng, augment)

        return make

    def validation(self) -> Stream:
        """Return at most `MOST_SEGMENTS` mixtures of validation recordings, in batches."""
        return self._fixed("valid", 4)

    def test(self) -> Stream:
        """Return at most `MOST_SEGMENTS` mixtures of test recordings, in batches."""
        return self._fixed("test", 5)

    def source_hashes(self, *sets: str) -> set[str]:
        """Return the hashes of the recordings in sets."""
        return {
            source_hash(role, one.name)
            for name in sets
            for role in SOURCES
            for one in self._sets[name][role]
        }

    def _fixed(self, name: str, stream: int) -> Stream:
        seed = self.spec.training.seed
        segments = stored_order(self._voices[name].chunks)
        segments = segments[:: -(-len(segments) // MOST_SEGMENTS)]
        # Batches of one size, since a program is compiled for every size. It is not that of the
        # spec, so that the mixtures are the same with another one.
        count = -(-len(segments) // _FIXED_BATCH)
        size = len(segments) // count
        segments = segments[: count * size]
        augment = self._augment[name]

        def make(start: int) -> Batch:
            rng = np.random.default_rng([seed, stream, start])
            return self._mix(name, segments[start : start + size], rng, augment)

        return Stream(make, range(0, len(segments), size))

    def _mix(
        self,
        name: str,
        places: list[Places],
        rng: np.random.Generator,
        augment: CompiledChain,
    ) -> Batch:
        """Read the segments of a batch, and mix them."""
        voices = self._voices[name]
        speech, noise = np.empty((2, len(places), self.segment), np.float32)
        scales = augment.chain.settings.level_dbfs is not None
        for row, segment in enumerate(places):
            self._read_speech(voices, segment, rng, speech[row], scales=scales)
            self._read_noise(name, rng, noise[row])
        bands = bands_of_chunks(voices.bands, places, self.spec.audio.sample_rate)
        return augment(speech, noise, rng, bands=bands)

    @cached_property
    def _augment(self) -> dict[str, CompiledChain]:
        """What mixes the sets, by name: the augmentations of the spec for the training set."""
        rate, target = self.spec.audio.sample_rate, self.spec.training.target
        own = self.spec.training.augmentation
        settings = own or resolve(Augmentation(), self.recipe)
        share = settings.reverberation or (REVERBERANT_SHARE if self.recipe.rooms else 0.0)
        settings = settings.model_copy(update={"remix": True, "reverberation": share})
        plain = Augmentation(
            **settings.model_dump(include=OF_THE_MIXTURE),
            **{"clean_only": 0.0, "noise_only": 0.0, "equalization_db": 0.0},
        )
        of_sets = dict.fromkeys(self._sets, plain)
        if own is not None:
            of_sets["train"] = settings
        return {
            name: CompiledChain(Chain(settings, rate, target, self._rooms(name)))
            for name, settings in of_sets.items()
        }

    def _notes(self) -> list[str]:
        """Return what the user should know about the recordings."""
        notes = []
        if skipped := self.store.skipped:
            notes.append(
                f"{len(skipped)} recordings are left out; the first one, {skipped[0].file}, "
                f"{skipped[0].reason}"
            )
        notes += note_on_noisy_speech(self.store.copies, len(self.store.recordings["noise"]))
        rate, full = self.recipe.sample_rate, self.recipe.sample_rate // 2
        voices = self._sets["train"]["clean"]
        if narrow := sum(known_band(voice.bandwidth, rate) < full for voice in voices):
            notes.append(
                f"{narrow} of {len(voices)} clean recordings do not reach {full} Hz; nothing is "
                "learned from them above their bands"
            )
        clean, noise = (
            sum(one.samples for one in self._sets["train"][role]) / rate / 3600 for role in SOURCES
        )
        notes.append(f"mixing {clean:.2f} h of clean recordings with {noise:.2f} h of noise")
        return notes

    def _used_recordings(self) -> dict[Role, list[Recording]]:
        """Return all recordings but those with a weight of 0, which no set has.

        Raises:
            UsageError: None is left, or a weight is for a folder without recordings.
        """
        used = dict(self.store.recordings)
        for role in SOURCES:
            weights = self.recipe.clean_weights if role == "clean" else self.recipe.noise_weights
            check_weights(role, (one.name for one in used[role]), weights)
            used[role] = [one for one in used[role] if weight_of(one.name, weights) > 0]
            if not used[role]:
                raise UsageError(f"all {role} recordings have a weight of 0; increase some of them")
        return used

    def _rooms(self, name: str) -> list[Tail]:
        tails = []
        for room in self._sets[name].get("room", ()):
            response = np.empty(room.samples, np.float32)
            self.store.read(room, 0, response)
            tails.append(tail_of(response, self.recipe.sample_rate))
        return tails

    def _lay_out(self, name: str) -> Voices:
        recordings = []
        for one in self._sets[name]["clean"]:
            weight = weight_of(one.name, self.recipe.clean_weights) if name == "train" else 1
            recordings += [one] * round(weight)
        chunks = tuple(-(-one.samples // self.chunk) for one in recordings)
        rate = self.spec.audio.sample_rate
        bands = tuple(known_band(one.bandwidth, rate) for one in recordings)
        return Voices(tuple(recordings), chunks, bands)

    def _bounds(self, name: str) -> Float[np.ndarray, "noises"]:
        """Return the cumulative shares of the noises of a set."""
        noises = self._sets[name]["noise"]
        weights = [weight_of(noise.name, self.recipe.noise_weights) for noise in noises]
        bounds = np.cumsum(noise_shares(noises, self.recipe.noise_draw) * weights)
        return bounds / bounds[-1]

    def _read_speech(
        self,
        voices: Voices,
        places: Places,
        rng: np.random.Generator,
        target: Float[np.ndarray, "segment"],
        *,
        scales: bool,
    ) -> None:
        """Fill a segment with its chunks, of which successive ones are read in one piece.

        Recordings are scaled to about the same level if the level of the mixture is drawn anyway,
        or the softest ones would drown. They are faded where they follow each other within the
        segment.
        """
        for start, end in runs_of(places):
            clip, index = places[start]
            recording = voices.recordings[clip]
            piece = target[start * self.chunk : end * self.chunk]
            offset = int(index) * self.chunk
            if index > 0:  # a random cut, but only as far as the recording fills the piece
                spare = recording.samples - offset - piece.size
                offset += int(rng.integers(min(self.chunk, max(spare, 0) + 1)))
            self.store.read(recording, offset, piece, loop=False)
            if scales:
                piece *= clip_gain(recording.rms, rng)
            held = piece[: recording.samples - offset]
            follows = start * self.chunk + held.size < target.size
            fade_edges(held, self.spec.audio.sample_rate, start=start > 0, end=follows)

    def _read_noise(
        self, name: str, rng: np.random.Generator, target: Float[np.ndarray, "segment"]
    ) -> None:
        """Fill a segment with a piece of a random noise that is not quiet for that noise."""
        noises = self._sets[name]["noise"]
        for _ in range(DRAWS):
            number = np.searchsorted(self._noise_bounds[name], rng.random(), "right")
            noise = noises[min(int(number), len(noises) - 1)]
            spare = noise.samples - target.size  # if there is some, the noise is not looped
            offset = int(rng.integers(spare + 1 if spare >= 0 else noise.samples))
            self.store.read(noise, offset, target)
            if rms(target) > 10 ** (QUIET_DB / 20) * noise.rms:
                return


def mix_batches(
    mixing: Mixing,
    spec: Spec,
    run: Path,
    on_message: Callable[[str], None] = lambda text: None,
) -> MixedBatches:
    """Decode recordings, unless the cache holds them, and prepare batches of their mixtures.

    Args:
        mixing: The recordings.
        spec: Spec of the model.
        run: Folder of the run.
        on_message: Called with messages for the user.

    Raises:
        UsageError: A folder has no recordings, or they cannot be grouped or weighted.
        DatasetError: There are too few recordings.
        DenoiseError: The cache cannot be written.
    """
    recipe = mixing.recipe(spec)
    cache = mixing.cache or run / RECORDINGS
    store = open_store(mixing.folders, recipe, cache, on_message=on_message)
    return MixedBatches(store, spec, recipe, mixing.folders.clean)
