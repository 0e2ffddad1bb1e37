"""The recordings a dataset is made of: found, checked, split, and read piece by piece."""

import hashlib
import math
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
import soundfile

from denoisecli import audio
from denoisecli.errors import AudioError, DatasetError, UsageError
from denoisecli.formats import FORMATS, MEDIA
from denoisecli.mix import SILENCE_RMS
from denoisecli.reading import reader
from denoisecli.types import AudioVector

MIN_DURATION = 0.1
"""Recordings shorter than this (s) are skipped."""

# In the others, libsndfile's seek may land beside the mark (Vorbis: its issue 885) or be followed
# by garbage (MP3), and PyAV has none that is exact.
_SEEKABLE = (
    *("PCM_S8", "PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"),
    *("ULAW", "ALAW", "OPUS"),
)

Role = Literal["clean", "noise"]
GroupBy = Literal["file", "folder"]
Progress = Callable[[int, int], None]
"""Called with (done, total)."""

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Source:
    """A recording that passed the checks.

    Attributes:
        role: "clean" or "noise".
        path: Where the file is.
        name: The path below the folder that was searched, with forward slashes.
        sample_rate: The file's own rate in Hz.
        frames: Samples per channel at that rate.
        rms: Level of the mean of the channels over the whole recording; full scale is 1.
        digest: Hash of the decoded samples: the same for a WAV file and its FLAC copy.
        seekable: Whether a piece can be read without decoding all that is before it.
    """

    role: Role
    path: Path
    name: str
    sample_rate: int
    frames: int
    rms: float
    digest: str
    seekable: bool

    @property
    def folder(self) -> str:
        """The folder the file is in, below the folder that was searched."""
        return self.name.rpartition("/")[0]

    def length(self, sample_rate: int) -> int:
        """Give the number of samples of the whole recording at another sample rate (Hz)."""
        return audio.resampled_length(self.frames, self.sample_rate, sample_rate)

    def read(self, sample_rate: int, offset: int = 0, length: int | None = None) -> AudioVector:
        """Read a piece, holding no more of the file in memory than that.

        Args:
            sample_rate: Rate in Hz that the piece is resampled to.
            offset: First sample, counted at ``sample_rate``.
            length: Number of samples at ``sample_rate``; all up to the end if not given.

        Returns:
            The mean of the channels, ``length`` samples.

        Raises:
            AudioError: the file cannot be read any more.
        """
        if length is None:
            length = self.length(sample_rate) - offset
        start = round(offset * self.sample_rate / sample_rate)
        frames = math.ceil(length * self.sample_rate / sample_rate)
        piece = (self._seek if self.seekable else self._skip)(start, frames)
        if piece.size < min(frames, self.frames - start):
            raise AudioError(f"{self.path} has become shorter while it was in use")
        # Rounding to whole samples at both rates may leave one too many or too few.
        return audio.fit_length(audio.resample(piece, self.sample_rate, sample_rate), length)

    def _seek(self, start: int, frames: int) -> AudioVector:
        try:
            with soundfile.SoundFile(self.path) as file:
                file.seek(start)
                return file.read(frames, dtype="float32", always_2d=True).mean(axis=1)
        except soundfile.LibsndfileError as error:
            raise AudioError(f"cannot read {self.path} any more: {error.error_string}") from error

    def _skip(self, start: int, frames: int) -> AudioVector:
        parts, position = [], 0
        with reader(self.path) as file:
            for block in file:
                parts.append(block[:, max(start - position, 0) :].mean(axis=0))
                position += block.shape[1]
                if position >= start + frames:
                    break
        return np.concatenate(parts)[:frames]


@dataclass(frozen=True)
class Skipped:
    """A recording, or a part of one, that cannot be used, and why."""

    role: Role
    file: str
    reason: str


def check(role: Role, path: Path, name: str) -> Source:
    """Decode a recording from end to end, a block at a time, and see whether it can be used.

    Args:
        role: "clean" or "noise".
        path: The file.
        name: What the file is to be called.

    Raises:
        AudioError: with nothing but the reason as its text, to be put behind the file's name.
    """
    digest = hashlib.blake2b(digest_size=16)
    frames, energy = 0, 0.0
    try:
        with reader(path) as file:
            info = file.info
            for block in file:
                mono = block.mean(axis=0)
                digest.update(mono.tobytes())
                frames += mono.size
                energy += float(np.square(mono, dtype=np.float64).sum())
    except (AudioError, UsageError) as error:  # wrong use: the file is gone, or PyAV is missing
        raise AudioError(str(error).removeprefix(f"{path} ").removeprefix(f"{path}: ")) from error
    if frames < MIN_DURATION * info.sample_rate:
        seconds = frames / info.sample_rate
        raise AudioError(f"is too short: {seconds:.3f} s, less than {MIN_DURATION} s")
    rms = math.sqrt(energy / frames)
    if not math.isfinite(rms):
        raise AudioError("has samples too large to reckon with")
    if not rms > SILENCE_RMS:
        raise AudioError("is silent")
    digest.update(str(info.sample_rate).encode())
    seekable = info.frames > 0 and info.subtype in _SEEKABLE
    return Source(role, path, name, info.sample_rate, frames, rms, digest.hexdigest(), seekable)


def scan(
    clean: Path, noise: Path, *, jobs: int | None = None, progress: Progress | None = None
) -> tuple[list[Source], list[Source], list[Skipped]]:
    """Find and check all recordings below two folders.

    Of recordings with identical samples only the first is kept, clean ones before noises, so
    that a copy cannot come to lie on the other side of a split.

    Args:
        clean: Folder of clean recordings, searched recursively.
        noise: Folder of noise recordings, searched recursively.
        jobs: Files that are decoded at the same time.
        progress: Told the number of files done and of all files.

    Returns:
        The clean recordings and the noises, sorted by name, and what was skipped.

    Raises:
        UsageError: a folder is missing, is a file, or has no audio files below it.
        DatasetError: all recordings of a folder had to be skipped.
    """
    roots: dict[Role, Path] = {"clean": clean, "noise": noise}
    files = [
        (role, path, path.relative_to(root).as_posix())
        for role, root in roots.items()
        for path in audio.find_audio(root, (*FORMATS, *MEDIA))
    ]
    files.sort(key=lambda file: (file[0], file[2]))

    def checked(file: tuple[Role, Path, str]) -> Source | AudioError:
        try:
            return check(*file)
        except AudioError as error:
            return error

    kept: dict[Role, list[Source]] = {"clean": [], "noise": []}
    skipped: list[Skipped] = []
    seen: dict[str, str] = {}
    for done, ((role, _, name), result) in enumerate(
        zip(files, in_order(checked, files, jobs=jobs), strict=True), start=1
    ):
        if isinstance(result, AudioError):
            skipped.append(Skipped(role, name, str(result)))
        elif result.digest in seen:
            skipped.append(Skipped(role, name, f"is identical to {seen[result.digest]}"))
        else:
            seen[result.digest] = f"{role} file {name}"
            kept[role].append(result)
        if progress is not None:
            progress(done, len(files))
    for role, root in roots.items():
        if not kept[role]:
            reasons = [f"{skip.file} {skip.reason}" for skip in skipped if skip.role == role]
            raise DatasetError(
                f"none of the {len(reasons)} {role} recordings in {root} can be used: "
                + "; ".join(reasons[:3])
                + ("; ..." if len(reasons) > 3 else "")
            )
    return kept["clean"], kept["noise"], skipped


def split(
    sources: Sequence[Source], share: float, rng: np.random.Generator, group_by: GroupBy = "file"
) -> tuple[list[Source], list[Source]]:
    """Divide recordings at random into two lists, neither of them empty.

    Args:
        sources: The recordings, at least one.
        share: Share of the files that goes to the first list, between 0 and 1; it is met as
            closely as whole groups allow.
        rng: Where the order is drawn from.
        group_by: "file", or "folder" to keep all files of a folder (a speaker) together.

    Raises:
        DatasetError: there is only one file, or folder.
    """
    groups: dict[str, list[Source]] = {}
    for source in sorted(sources, key=_name):
        groups.setdefault(source.folder if group_by == "folder" else source.name, []).append(source)
    if len(groups) < 2:
        raise DatasetError(
            f"cannot split the {sources[0].role} recordings: all that can be used is one "
            f"{group_by}, and train and test need at least one {group_by} each"
        )
    shuffled = [list(groups.values())[i] for i in rng.permutation(len(groups))]
    sizes = np.cumsum([len(group) for group in shuffled[:-1]])
    cut = int(np.argmin(np.abs(sizes - share * len(sources)))) + 1
    first, second = chain(*shuffled[:cut]), chain(*shuffled[cut:])
    return sorted(first, key=_name), sorted(second, key=_name)


def _name(source: Source) -> str:
    return source.name


def in_order(
    function: Callable[[_Item], _Result], items: Iterable[_Item], *, jobs: int | None = None
) -> Iterator[_Result]:
    """Map in threads, results in the order of the items, with few of them held at a time.

    Threads suffice: decoding, resampling and arithmetic all release Python's lock.
    """
    jobs = jobs or min(8, os.cpu_count() or 1)
    pool = ThreadPoolExecutor(jobs)
    try:
        pending: deque[Future[_Result]] = deque()
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) > 2 * jobs:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
