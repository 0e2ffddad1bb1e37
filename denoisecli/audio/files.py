"""Whole audio files: probing, reading, writing and finding them."""

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from denoisecli.audio.downmix import mono_blocks
from denoisecli.audio.formats import SUFFIXES
from denoisecli.audio.reading import AudioInfo, reader
from denoisecli.audio.resampling import resample
from denoisecli.audio.writing import writer
from denoisecli.errors import UsageError
from denoisecli.types import AudioBlock, AudioChannels, AudioVector


def probe(path: Path | str) -> AudioInfo:
    """Read the header of an audio file.

    If the header does not state a length, the file is decoded to count its samples.

    Args:
        path: Audio file.

    Returns:
        The facts from the header.

    Raises:
        UsageError: The file does not exist, or is a folder.
        AudioError: The file is not an audio file, is damaged, or has no samples.
    """
    with reader(path) as file:
        info = file.info
        if info.frames:
            return info
        return replace(info, frames=sum(block.shape[1] for block in file))


def read(path: Path | str) -> tuple[AudioChannels, int]:
    """Read a whole audio file.

    Args:
        path: Audio file.

    Returns:
        float32 samples, shape (channels, timesteps), full scale -1..1, and their sample rate
        in Hz.

    Raises:
        UsageError: The file does not exist, or is a folder.
        AudioError: The file is not an audio file, is damaged or cut off, has no samples, or has
            NaN or infinite samples.
    """
    with reader(path) as file:
        return np.concatenate(list(file), axis=1), file.info.sample_rate


def read_mono(path: Path | str, sample_rate: int | None = None) -> tuple[AudioVector, int]:
    """Read a whole audio file as the mean of its channels; otherwise like :func:`read`.

    If the channels cancel each other out, it is the loudest of them.

    Args:
        path: Audio file.
        sample_rate: Sample rate in Hz to resample to; by default that of the file.
    """
    own_rate = 0

    def blocks() -> Iterator[AudioBlock]:
        nonlocal own_rate
        with reader(path) as file:
            own_rate = file.info.sample_rate
            yield from file

    audio = np.concatenate(mono_blocks(blocks), axis=1)[0]
    if sample_rate is None:
        return audio, own_rate
    return resample(audio, own_rate, sample_rate), sample_rate


def write(
    path: Path | str,
    audio: AudioChannels | AudioVector,
    sample_rate: int,
    *,
    subtype: str | None = None,
    overwrite: bool = False,
) -> None:
    """Write a whole audio file; its suffix chooses the format.

    Args:
        path: Target; it appears only once it is complete.
        audio: Samples, shape (channels, timesteps) or (timesteps,), full scale -1..1. Samples
            beyond full scale are clamped, unless the subtype is floating point.
        sample_rate: Sample rate in Hz.
        subtype: Sample format as libsndfile names it, such as ``"PCM_24"``; by default the usual
            one of the format (16 bits for WAV and FLAC).
        overwrite: Replace an existing file.

    Raises:
        UsageError: The suffix is unknown, the target exists, or the format does not support the
            sample rate, the number of channels or the subtype.
        DenoiseError: The file cannot be written.
    """
    audio = np.atleast_2d(audio)
    channels, frames = audio.shape
    with writer(
        path, sample_rate, channels, frames=frames, subtype=subtype, overwrite=overwrite
    ) as target:
        target.write(audio)


def find_audio(folder: Path | str) -> list[Path]:
    """Find the audio files in a folder and its subfolders, by their suffixes.

    Hidden files and folders are left out. Links to folders are followed, but no folder is
    searched twice.

    Args:
        folder: Folder to search.

    Returns:
        The sorted paths, at least one.

    Raises:
        UsageError: The folder does not exist, is a file, or contains no audio file.
    """
    folder = Path(folder)
    if not folder.exists():
        raise UsageError(f"{folder} does not exist")
    if not folder.is_dir():
        raise UsageError(f"{folder} is a file; a folder of recordings is needed")
    found = [
        path for path in walk_files(folder) if path.suffix.lower() in SUFFIXES and path.is_file()
    ]
    if not found:
        raise UsageError(f"{folder} has no audio files ({' '.join(SUFFIXES)})")
    return sorted(found)


def walk_files(
    folder: Path, on_unreadable: Callable[[Path], None] = lambda folder: None
) -> Iterator[Path]:
    """Yield the files in a folder and its subfolders, except hidden ones.

    Linked folders come last, so that a file is found under its own path. Links that lead nowhere
    are yielded.

    Args:
        folder: Folder to search.
        on_unreadable: Called with each folder that may not be read.
    """
    folders, links = [folder], list[Path]()
    searched = set[Path]()
    while folders or links:
        current = (folders or links).pop()
        real = current.resolve()
        if real in searched:
            continue
        searched.add(real)
        if not os.access(current, os.R_OK | os.X_OK):
            on_unreadable(current)
            continue
        for path in current.iterdir():
            if path.name.startswith("."):
                continue
            if path.is_dir():
                (links if path.is_symlink() else folders).append(path)
            else:
                yield path
