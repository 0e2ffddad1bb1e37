"""Recordings that batches are mixed from: decoded once, kept as 16-bit samples in a mapped file."""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int16
from pydantic import BaseModel, ValidationError

from denoisecli.datasets.decoding import DecodeTask, decode, decode_tasks
from denoisecli.datasets.duplicates import find_copies
from denoisecli.datasets.recipe import Recipe
from denoisecli.datasets.recordings import (
    FoundFile,
    Recording,
    Role,
    Skipped,
    find_recordings,
    load_recordings,
)
from denoisecli.datasets.rooms import require_pyroomacoustics
from denoisecli.errors import DenoiseError
from denoisecli.system.atomic_files import replacing, temporary_folder, write_text
from denoisecli.system.pools import Workers, cpu_cores, processes

INDEX = "recordings.json"

SUFFIX = ".i16"
"""Suffix of the file of the samples."""

SOURCES: tuple[Role, ...] = ("clean", "noise")
"""Roles of the recordings that mixtures are made of."""

SMALL_BYTES = 2**24
"""Size of recordings below which the start of other processes would take longer than it saves."""

_BLOCK = 2**22  # samples that are converted at a time


@dataclass(frozen=True)
class Folders:
    """Folders of recordings that a model is trained on.

    Attributes:
        clean: Folder of clean speech, searched recursively.
        noise: Folder of noise.
        music: Folder of further clean sound that the model must keep, such as music. Its name is
            that of a folder of `clean` for groups and weights.
    """

    clean: Path
    noise: Path
    music: Path | None = None

    def find(self) -> list[tuple[dict[Role, Path], list[FoundFile]]]:
        """Return the audio files with the folders that their names are relative to.

        Raises:
            UsageError: A folder does not exist, is a file, or has no audio files in it.
        """
        roots: dict[Role, Path] = {"clean": self.clean, "noise": self.noise}
        found = [(roots, find_recordings(roots))]
        if self.music is not None:
            music = self.music.absolute()
            files = find_recordings({"clean": music})
            named = [replace(file, name=f"{music.name}/{file.name}") for file in files]
            found.append(({"clean": music.parent}, named))
        return found


class _Entry(BaseModel):
    """A decoded recording, whose samples are ``scale`` times those in the file."""

    role: Role
    name: str
    rms: float
    digest: str
    samples: int
    start: int
    rate: int
    bandwidth: int
    scale: float


class _Index(BaseModel):
    """Content of the index file.

    The file of the samples has a name that only this index has: whatever ends the program, an index
    is never read with the samples of other recordings.
    """

    digest: str
    file: str = "recordings.i16"  # as earlier versions called it
    entries: list[_Entry]
    copies: list[tuple[int, int]]
    skipped: list[Skipped]


class RecordingStore:
    """Decoded recordings at one sample rate, read from a memory map.

    Pages that are used stay in memory as long as there is enough of it.

    Args:
        folder: Folder that `open_store` wrote.
        index: Content of its index file.
    """

    def __init__(self, folder: Path, index: _Index):
        self.digest = index.digest
        self.skipped = index.skipped
        path = folder / index.file
        self._samples = np.memmap(path, np.int16, "r")
        self._scales: dict[str, float] = {}
        listed = []
        for entry in index.entries:
            facts = entry.model_dump()
            self._scales[entry.digest] = facts.pop("scale")
            listed.append(Recording(pack=path, **facts))
        self.recordings: dict[Role, list[Recording]] = {}
        for recording in listed:
            self.recordings.setdefault(recording.role, []).append(recording)
        self.copies = [(listed[one], listed[other]) for one, other in index.copies]

    def read(
        self,
        recording: Recording,
        offset: int,
        target: Float[np.ndarray, "timesteps"],
        *,
        loop: bool = True,
    ) -> None:
        """Read a piece of a recording.

        Args:
            recording: The recording, or a part of it.
            offset: First sample, 0 or more.
            target: Array that is filled; full scale is -1..1.
            loop: Whether the recording begins again after its end. Otherwise, zeros follow.
        """
        scale = np.float32(self._scales[recording.digest])
        if not loop:
            held = max(0, recording.samples - offset)
            target[held:] = 0
            target = target[:held]
        done = 0
        while done < target.size:
            first = (offset + done) % recording.samples
            count = min(recording.samples - first, target.size - done)
            start = recording.start + first
            piece = self._samples[start : start + count]
            np.multiply(piece, scale, out=target[done : done + count])
            done += count


def open_store(
    folders: Folders,
    recipe: Recipe,
    cache: Path,
    *,
    jobs: int | None = None,
    on_message: Callable[[str], None] = lambda text: None,
) -> RecordingStore:
    """Decode recordings on all cores, unless the cache already holds these recordings.

    Recordings that cannot be used, and identical ones, are left out. The cache takes 2 bytes per
    sample.

    Args:
        folders: The recordings.
        recipe: Its sample rate, number of rooms, seed and share of clipped samples are used.
        cache: Folder of the cache.
        jobs: Number of processes (default: one per core, unless there is little to decode).
        on_message: Called with messages for the user.

    Raises:
        UsageError: A folder does not exist, is a file or has no audio files in it.
        DatasetError: No recording can be used.
        DenoiseError: The cache cannot be written.
    """
    found = folders.find()
    digest = _digest(found, recipe)
    index = _read_index(cache / INDEX)
    if index is None or index.digest != digest or not (cache / index.file).is_file():
        if recipe.rooms:
            require_pyroomacoustics()
        files = [file for _, part in found for file in part]
        on_message(f"decoding {len(files)} recordings")
        if jobs is None:
            is_small = sum(file.size for file in files) < SMALL_BYTES and not recipe.rooms
            jobs = 1 if is_small else cpu_cores()
        cache.mkdir(parents=True, exist_ok=True)
        try:
            with (
                temporary_folder(cache, ".decoding-") as work,
                processes(jobs) as workers,
            ):
                index = _decode(found, recipe, digest, work, cache, workers)
        except OSError as error:
            raise DenoiseError(f"cannot write {cache}: {error.strerror or error}") from error
    return RecordingStore(cache, index)


def _digest(found: Sequence[tuple[dict[Role, Path], list[FoundFile]]], recipe: Recipe) -> str:
    """Return a hash that changes with any recording and with what decoding depends on."""
    facts = [recipe.sample_rate, recipe.max_clipped, recipe.rooms, recipe.rooms and recipe.seed]
    files = [asdict(file) for _, part in found for file in part]
    return hashlib.blake2b(repr((facts, files)).encode(), digest_size=16).hexdigest()


def _read_index(path: Path) -> _Index | None:
    try:
        return _Index.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None


def _decode(
    found: Sequence[tuple[Mapping[Role, Path], list[FoundFile]]],
    recipe: Recipe,
    digest: str,
    work: Path,
    cache: Path,
    workers: Workers,
) -> _Index:
    tasks: list[DecodeTask] = []
    for number, (roots, files) in enumerate(found):
        part = recipe if number == 0 else recipe.model_copy(update={"rooms": 0})
        for task in decode_tasks(files, roots, work, part):
            tasks.append(replace(task, number=len(tasks)))
    for _ in workers.map(decode, tasks):
        pass
    recordings, skipped = load_recordings([task.index for task in tasks])
    listed = [recording for part in recordings.values() for recording in part]
    numbers = [number for number, recording in enumerate(listed) if recording.role in SOURCES]
    pairs = find_copies([listed[number] for number in numbers], recipe.sample_rate, workers)
    copies = [(numbers[one], numbers[other]) for one, other in pairs]
    samples = cache / f"recordings-{digest}{SUFFIX}"
    with replacing(samples, overwrite=True) as path, path.open("wb") as file:
        entries = []
        for recording in listed:
            facts = asdict(recording) | {"start": file.tell() // 2}
            del facts["pack"]
            scale = max(float(np.abs(block).max()) for block in _blocks(recording)) / 32767
            for block in _blocks(recording):
                file.write(to_int16(block, scale).tobytes())
            entries.append(_Entry(**facts, scale=scale))
    index = _Index(
        digest=digest, file=samples.name, entries=entries, copies=copies, skipped=skipped
    )
    write_text(cache / INDEX, index.model_dump_json())
    for other in {*cache.glob(f"recordings*{SUFFIX}")} - {samples}:
        with suppress(OSError):
            other.unlink()
    return index


def _blocks(recording: Recording) -> Iterable[Float[np.ndarray, "timesteps"]]:
    for offset in range(0, recording.samples, _BLOCK):
        yield recording.read(offset, min(_BLOCK, recording.samples - offset))


def to_int16(sound: Float[np.ndarray, "timesteps"], scale: float) -> Int16[np.ndarray, "timesteps"]:
    """Return the nearest integers to samples, in units of ``scale``."""
    return np.rint(sound / np.float32(scale)).clip(-32768, 32767).astype(np.int16)
