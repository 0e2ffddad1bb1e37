"""Recordings decoded once: checked, and kept as one channel at the dataset's rate."""

import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from denoisecli.audio.reading import reader
from denoisecli.audio.resampling import StreamResampler, fit_length, resampled_length
from denoisecli.datasets.mix import SILENCE_RMS
from denoisecli.datasets.recipe import MIN_DURATION
from denoisecli.datasets.recordings import PACK, File, Role, Skipped
from denoisecli.datasets.rooms import synthetic_response
from denoisecli.errors import AudioError, UsageError
from denoisecli.types import AudioBlock, AudioVector

FULL_SCALE = 0.999
"""Samples of at least this size may have been larger before they were stored."""

MIN_SAMPLE_RATE = 1000
"""Hz; a lower one comes of a damaged header, and would make the recording hours long."""

_TASK_FILES, _TASK_BYTES = 32, 2**24  # a task takes files up to either


@dataclass(frozen=True)
class Task:
    """Some recordings to be decoded into one pack.

    Attributes:
        folder: Where packs are, each with a JSON file of what is in it.
        number: Number of the pack.
        files: Role, path and name of each recording; a synthetic room has its number as the path.
        sample_rate: Hz of what is stored.
        max_clipped: Share of samples at full scale that is allowed.
        seed: Of synthetic rooms.
    """

    folder: Path
    number: int
    files: tuple[tuple[Role, Path | int, str], ...]
    sample_rate: int
    max_clipped: float
    seed: int

    @property
    def pack(self) -> Path:
        """Where the samples go."""
        return self.folder / f"{self.number:06d}{PACK}"

    @property
    def index(self) -> Path:
        """What says what is in the pack; once it is there, the task is done."""
        return self.folder / f"{self.number:06d}.json"


def divide(
    files: Sequence[File],
    roots: Mapping[Role, Path],
    folder: Path,
    *,
    sample_rate: int,
    max_clipped: float = 1.0,
    rooms: int = 0,
    seed: int = 0,
) -> list[Task]:
    """Divide the decoding of recordings, and the making of rooms, into tasks.

    Args:
        files: From :func:`find`.
        roots: Folder of each role.
        folder: Where the decoded recordings go.
        sample_rate: Hz that they are resampled to.
        max_clipped: Share of samples at full scale above which a recording is skipped.
        rooms: Number of synthetic rooms.
        seed: Which rooms.
    """
    groups: list[list[tuple[Role, Path | int, str]]] = [[]]
    size = 0
    for file in files:
        if groups[-1] and (len(groups[-1]) == _TASK_FILES or size + file.size > _TASK_BYTES):
            groups.append([])
            size = 0
        # On a cluster, the working directory is another one.
        groups[-1].append((file.role, roots[file.role].absolute() / file.name, file.name))
        size += file.size
    for first in range(0, rooms, _TASK_FILES):
        numbers = range(first, min(first + _TASK_FILES, rooms))
        groups.append([("room", number, f"synthetic/{number}") for number in numbers])
    return [
        Task(folder.absolute(), number, tuple(group), sample_rate, max_clipped, seed)
        for number, group in enumerate(groups)
        if group
    ]


def decode(task: Task) -> float:
    """Do a task, unless it is done already, holding no whole recording in memory.

    Returns:
        The seconds of sound in the pack.
    """
    if not task.index.exists():
        # Whoever else may do the same task, after this program was killed, does it elsewhere.
        beside = task.pack.with_suffix(f".{os.getpid()}")
        try:
            with beside.open("w+b") as pack:
                facts = [_decoded(file, pack, task) for file in task.files]
            beside.replace(task.pack)
            beside.write_text(json.dumps(facts))
            beside.replace(task.index)
        finally:
            with suppress(FileNotFoundError):
                beside.unlink()
    return task.pack.stat().st_size / 4 / task.sample_rate


def _decoded(file: tuple[Role, Path | int, str], pack: BinaryIO, task: Task) -> dict[str, Any]:
    """Append a recording to a pack; give the facts about it, or the reason why it is not there."""
    role, path, name = file
    start = pack.tell()
    digest = hashlib.blake2b(digest_size=16)
    try:
        length, energy = 0, 0.0
        for block in _resampled(role, path, task):
            samples = np.ascontiguousarray(block).data
            pack.write(samples)
            digest.update(samples)
            length += block.size
            energy += float(np.square(block, dtype=np.float64).sum())
        rms = math.sqrt(energy / max(length, 1))
        if not math.isfinite(rms):
            raise AudioError("has samples too large to reckon with")
        if not rms > SILENCE_RMS:
            raise AudioError(f"is silent, at least at {task.sample_rate} Hz")
    except AudioError as error:
        pack.seek(start)
        pack.truncate()
        return asdict(Skipped(role, name, str(error)))
    return {
        "role": role,
        "name": name,
        "rms": rms,
        "digest": digest.hexdigest(),
        "samples": length,
        "start": start // 4,
    }


def _resampled(role: Role, path: Path | int, task: Task) -> Iterator[AudioVector]:
    """Give a recording block by block; raise AudioError with nothing but the reason as its text."""
    if isinstance(path, int):
        yield synthetic_response(path, task.seed, task.sample_rate)
        return
    frames = given = clipped = size = rate = 0
    try:
        with reader(path) as file:
            rate = file.info.sample_rate
            if rate < MIN_SAMPLE_RATE:
                raise AudioError(f"has a sample rate of {rate} Hz, less than {MIN_SAMPLE_RATE} Hz")
            resample = StreamResampler(rate, task.sample_rate, 1)
            for block in file:
                # The mean of several microphones would be another room than that of any of them.
                mono = block[:1] if role == "room" else block.mean(axis=0, keepdims=True)
                frames += block.shape[1]
                size += block.size
                if max(block.max(), -block.min()) >= FULL_SCALE:
                    clipped += int(np.count_nonzero(np.abs(block) >= FULL_SCALE))
                ready = _one(resample(mono))
                given += ready.size
                yield ready
            rest = _one(resample.finish())
    except (AudioError, UsageError) as error:  # wrong use: the file is gone, or PyAV is missing
        raise AudioError(str(error).removeprefix(f"{path} ").removeprefix(f"{path}: ")) from error
    except (ValueError, RuntimeError) as error:
        raise AudioError(f"cannot be resampled from {rate} Hz: {error}") from error
    seconds = frames / rate
    if role != "room" and seconds < MIN_DURATION:
        raise AudioError(f"is too short: {seconds:.3f} s, less than {MIN_DURATION} s")
    if role != "room" and clipped > task.max_clipped * size:
        raise AudioError(
            f"is clipped: {clipped / size:.2%} of its samples are at full scale, more than "
            f"{task.max_clipped:.2%}"
        )
    # As long as resampling the whole at once would make it.
    wanted = resampled_length(frames, rate, task.sample_rate)
    yield fit_length(rest, max(wanted - given, 0))


def _one(block: AudioBlock) -> AudioVector:
    return block[0]
