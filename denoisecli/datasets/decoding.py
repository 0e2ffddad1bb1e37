"""Recordings are decoded once: checked, mixed down to one channel, resampled and kept in packs."""

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from denoisecli.audio.reading import reader
from denoisecli.audio.resampling import StreamResampler, fit_length, resampled_length
from denoisecli.datasets.mix import SILENCE_RMS
from denoisecli.datasets.recipe import MIN_DURATION, Recipe
from denoisecli.datasets.recordings import PACK, SIMULATED, FoundFile, Role, Skipped
from denoisecli.datasets.rooms import synthetic_response
from denoisecli.errors import AudioError, UsageError
from denoisecli.system.atomic_files import replacing, write_text
from denoisecli.types import AudioVector

FULL_SCALE = 0.999
"""Samples of at least this magnitude count as clipped."""

MIN_SAMPLE_RATE = 1000
"""Hz. A lower rate is that of a damaged header, and would make the recording hours long."""

_SPECTRUM_SAMPLES = 2048
_TASK_FILES, _TASK_BYTES = 32, 2**24  # a task ends at whichever it reaches first


@dataclass(frozen=True)
class DecodeTask:
    """Recordings to be decoded into one pack.

    Attributes:
        folder: Folder of the packs, each with a JSON index beside it.
        number: Number of the pack.
        files: Role, path and name of each recording; a synthetic room has a number as its path.
        sample_rate: Sample rate of the pack in Hz.
        max_clipped: Largest share of clipped samples that is allowed, 0..1.
        seed: Seed of the synthetic rooms.
    """

    folder: Path
    number: int
    files: tuple[tuple[Role, Path | int, str], ...]
    sample_rate: int
    max_clipped: float
    seed: int

    @property
    def pack(self) -> Path:
        """The file of the samples."""
        return self.folder / f"{self.number:06d}{PACK}"

    @property
    def index(self) -> Path:
        """The JSON file that lists the recordings of the pack; it is written last."""
        return self.folder / f"{self.number:06d}.json"


def decode_tasks(
    files: Sequence[FoundFile], roots: Mapping[Role, Path], folder: Path, recipe: Recipe
) -> list[DecodeTask]:
    """Divide the decoding of recordings and the simulation of rooms into tasks.

    Args:
        files: The recordings, from :func:`find_recordings`.
        roots: The folder of each role.
        folder: Folder of the packs.
        recipe: Its sample rate, share of clipped samples, number of rooms and seed are used.
    """
    groups: list[list[tuple[Role, Path | int, str]]] = [[]]
    size = 0
    for file in files:
        if groups[-1] and (len(groups[-1]) == _TASK_FILES or size + file.size > _TASK_BYTES):
            groups.append([])
            size = 0
        # Absolute, because the machines of a cluster have another working directory.
        groups[-1].append((file.role, roots[file.role].absolute() / file.name, file.name))
        size += file.size
    for first in range(0, recipe.rooms, _TASK_FILES):
        numbers = range(first, min(first + _TASK_FILES, recipe.rooms))
        groups.append([("room", number, f"{SIMULATED}{number}") for number in numbers])
    return [
        DecodeTask(
            folder.absolute(),
            number,
            tuple(group),
            recipe.sample_rate,
            recipe.max_clipped,
            recipe.seed,
        )
        for number, group in enumerate(groups)
        if group
    ]


def decode(task: DecodeTask) -> float:
    """Write the pack of a task, unless it exists, without holding a whole recording in memory.

    Returns:
        The duration of the pack in seconds.

    Raises:
        DenoiseError: The pack cannot be written.
    """
    if not task.index.exists():
        with replacing(task.pack, overwrite=True) as part, part.open("w+b") as pack:
            entries = [_append(file, pack, task) for file in task.files]
        write_text(task.index, json.dumps(entries))
    return task.pack.stat().st_size / 4 / task.sample_rate


def _append(file: tuple[Role, Path | int, str], pack: BinaryIO, task: DecodeTask) -> dict[str, Any]:
    """Append a recording to a pack, and return its entry in the index.

    The entry has the fields of a ``Recording``, or those of ``Skipped`` if it cannot be used.
    """
    role, path, name = file
    start = pack.tell()
    digest = hashlib.blake2b(digest_size=16)
    try:
        level, spectrum = _Level(), LongTermSpectrum()
        for block in _resampled(role, path, task, spectrum):
            samples = np.ascontiguousarray(block).data
            pack.write(samples)
            digest.update(samples)
            level.add(block)
        # The mean of an impulse response is part of it.
        rms = level.rms(with_mean=role == "room")
        if not math.isfinite(rms):
            raise AudioError("has samples whose power overflows")
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
        "samples": level.samples,
        "start": start // 4,
        "rate": spectrum.rate,
        "bandwidth": spectrum.bandwidth(),
    }


@dataclass
class _Level:
    """The RMS of a sound that is read in blocks."""

    samples: int = 0
    mean: float = 0.0
    deviations: float = 0.0  # sum of the squared deviations from the mean

    def add(self, block: AudioVector) -> None:
        """Add a block (Chan, Golub and LeVeque, "Updating formulae", 1979)."""
        if block.size == 0:
            return
        mean = float(block.mean(dtype=np.float64))
        change, total = mean - self.mean, self.samples + block.size
        self.deviations += float(np.square(block - mean, dtype=np.float64).sum())
        self.deviations += change**2 * self.samples * block.size / total
        self.mean += change * block.size / total
        self.samples = total

    def rms(self, *, with_mean: bool = False) -> float:
        """Return the RMS without, or with, the mean; 0 if there are no samples."""
        return math.sqrt(self.deviations / max(self.samples, 1) + with_mean * self.mean**2)


class LongTermSpectrum:
    """The mean power spectrum of a sound that is read in blocks, for its bandwidth."""

    def __init__(self) -> None:
        self.rate = 0
        self._power = np.zeros(_SPECTRUM_SAMPLES // 2 + 1)
        self._frames = 0

    def add(self, block: AudioVector, rate: int) -> None:
        """Add a block with a sample rate in Hz."""
        self.rate = rate
        size = min(block.size, _SPECTRUM_SAMPLES)
        if size == 0 or (size < _SPECTRUM_SAMPLES and self._frames):
            return  # the rest of a recording does not matter
        frames = block[: block.size // size * size].reshape(-1, size) * np.hanning(size)
        self._power += (np.abs(np.fft.rfft(frames, _SPECTRUM_SAMPLES)) ** 2).sum(axis=0)
        self._frames += len(frames)

    def bandwidth(self) -> int:
        """Return the highest frequency in Hz with more than -80 dB of the strongest one's power.

        What is not above the rounding noise of 16-bit samples does not count, nor does a DC
        offset. It is 0 if nothing is left.
        """
        # The mean over 8 bins, so that a single spurious tone does not count.
        bands = self._power[1:].reshape(-1, 8).mean(axis=1) / max(self._frames, 1)
        rounding = (2**-15) ** 2 / 12 * np.square(np.hanning(_SPECTRUM_SAMPLES)).sum()
        audible = np.flatnonzero(bands > max(1e-8 * bands.max(), 10 * rounding))
        return round((audible[-1] + 1) * self.rate / 2 / bands.size) if audible.size else 0


def _resampled(
    role: Role, path: Path | int, task: DecodeTask, spectrum: LongTermSpectrum
) -> Iterator[AudioVector]:
    """Yield a recording in blocks at the rate of the pack, and add what was read to a spectrum.

    Raises:
        AudioError: The recording cannot be used; the message continues the sentence "FILE ...".
    """
    if isinstance(path, int):
        yield synthetic_response(path, task.seed, task.sample_rate)
        return
    frames = resampled = clipped = size = rate = 0
    level = _Level()
    channel = _Level()  # the first one
    try:
        with reader(path) as file:
            rate = file.info.sample_rate
            if rate < MIN_SAMPLE_RATE:
                raise AudioError(f"has a sample rate of {rate} Hz, less than {MIN_SAMPLE_RATE} Hz")
            resample = StreamResampler(rate, task.sample_rate, 1)
            for block in file:
                # The mean of several microphones is the response of no room.
                mono = block[:1] if role == "room" else block.mean(axis=0, keepdims=True)
                frames += block.shape[1]
                size += block.size
                if max(block.max(), -block.min()) >= FULL_SCALE:
                    clipped += int(np.count_nonzero(np.abs(block) >= FULL_SCALE))
                level.add(mono[0])
                if len(block) > 1:
                    channel.add(block[0])
                spectrum.add(mono[0], rate)
                output = resample(mono)[0]
                resampled += output.size
                yield output
            rest = resample.finish()[0]
    except (AudioError, UsageError) as error:  # UsageError: the file is gone, or PyAV is missing
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
    # Resampled, a constant is no longer one at its ends.
    if role != "room" and level.rms() <= SILENCE_RMS:
        if channel.rms() > SILENCE_RMS:
            raise AudioError("has channels that cancel each other out; keep one of them")
        raise AudioError("is silent")
    # The same length as resampling the whole recording at once.
    length = resampled_length(frames, rate, task.sample_rate)
    yield fit_length(rest, max(length - resampled, 0))
