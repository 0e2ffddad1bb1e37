"""Whole audio files: probing, reading, writing and finding them."""

import os
from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from denoisecli.audio.formats import FORMATS
from denoisecli.audio.reading import BLOCK_FRAMES, AudioInfo, reader
from denoisecli.audio.resampling import resample
from denoisecli.audio.writing import writer
from denoisecli.errors import UsageError
from denoisecli.types import AudioBlock, AudioChannels, AudioVector


def probe(path: Path | str) -> AudioInfo:
    """Read the header of an audio file.

    Raises:
        UsageError: there is no such file, or it is a folder.
        AudioError: it is no audio file, a damaged one, or one without samples.
    """
    with reader(path) as file:
        info = file.info
        if info.frames:
            return info
        return replace(info, frames=sum(block.shape[1] for block in file))


def read(path: Path | str, *, sample_rate: int | None = None) -> tuple[AudioChannels, int]:
    """Read a whole audio file.

    Args:
        path: the file.
        sample_rate: resample to this rate (Hz); by default the file's own is kept.

    Returns:
        float32 samples (channels, timesteps), full scale -1..1, and their rate in Hz.

    Raises:
        UsageError: there is no such file, or it is a folder.
        AudioError: no audio, damaged, cut off, without samples, or with NaN or infinite samples.
    """
    own_rate = probe(path).sample_rate
    audio = np.concatenate(list(read_blocks(path)), axis=1)
    if sample_rate is None:
        return audio, own_rate
    return resample(audio, own_rate, sample_rate), sample_rate


def read_mono(path: Path | str, sample_rate: int | None = None) -> tuple[AudioVector, int]:
    """Read a whole audio file as the mean of its channels; otherwise like :func:`read`."""
    own_rate = probe(path).sample_rate
    audio = np.concatenate([block.mean(axis=0) for block in read_blocks(path)])
    if sample_rate is None:
        return audio, own_rate
    return resample(audio, own_rate, sample_rate), sample_rate


def read_blocks(path: Path | str, frames: int = BLOCK_FRAMES) -> Iterator[AudioBlock]:
    """Read an audio file in blocks of ``frames`` samples per channel (the last may be shorter).

    Yields:
        float32 samples (channels, up to ``frames``), at the file's own rate.

    Raises:
        UsageError, AudioError: as :func:`read`.
    """
    with reader(path, block_frames=frames) as file:
        yield from file


def write(
    path: Path | str,
    audio: AudioChannels | AudioVector,
    sample_rate: int,
    *,
    subtype: str | None = None,
    overwrite: bool = False,
) -> None:
    """Write a whole audio file; its format follows the suffix.

    Args:
        path: the target; it appears only when it is whole.
        audio: samples (channels, timesteps) or (timesteps,), full scale -1..1. What passes full
            scale is clamped, unless the subtype is floating point.
        sample_rate: Hz.
        subtype: libsndfile's name of the sample format, such as ``"PCM_24"``; by default the
            one usual for the format (16 bits for WAV and FLAC).
        overwrite: replace an existing file.

    Raises:
        UsageError: unknown suffix, existing target, or a rate, number of channels or subtype
            that the format cannot hold.
        DenoiseError: the file cannot be written.
    """
    audio = np.atleast_2d(audio)
    channels, frames = audio.shape
    with writer(
        path, sample_rate, channels, frames=frames, subtype=subtype, overwrite=overwrite
    ) as target:
        target.write(audio)


def find_audio(folder: Path | str, suffixes: Collection[str] = tuple(FORMATS)) -> list[Path]:
    """List the audio files in a folder and the folders below it, sorted; hidden ones excepted.

    Links to folders are followed, but no folder is searched twice.

    Args:
        folder: where to look.
        suffixes: those of audio files, in lower case.

    Raises:
        UsageError: there is no such folder, it is a file, or no audio file is in it.
    """
    folder = Path(folder)
    if not folder.exists():
        raise UsageError(f"{folder} does not exist")
    if not folder.is_dir():
        raise UsageError(f"{folder} is a file; a folder of recordings is needed")
    found = [
        path for path in _entries(folder) if path.suffix.lower() in suffixes and path.is_file()
    ]
    if not found:
        raise UsageError(f"{folder} has no audio files ({' '.join(suffixes)})")
    return sorted(found)


def _entries(folder: Path) -> Iterator[Path]:
    """What is below a folder, by its own path rather than that of a link, where there are both."""
    folders, links = [folder], list[Path]()
    searched = set[Path]()
    while folders or links:
        here = (folders or links).pop()
        if (real := here.resolve()) in searched or not os.access(here, os.R_OK | os.X_OK):
            continue
        searched.add(real)
        for path in here.iterdir():
            if path.name.startswith("."):
                continue
            if path.is_dir():
                (links if path.is_symlink() else folders).append(path)
            else:
                yield path
