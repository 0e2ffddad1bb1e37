"""A recording mixed with its clean version: another strength without another run of the network."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile

from denoisecli.cleaning.file import (
    CleanResult,
    FileOptions,
    FileSource,
    FileTarget,
    OnProgress,
    clean_recording,
)
from denoisecli.cleaning.stream import Piece
from denoisecli.errors import AudioError, UsageError
from denoisecli.types import AudioBlock


class Remix:
    """A stream that mixes a recording with its clean version, which is read from a file.

    Args:
        cleaned: The recording cleaned at strength 1, open at its beginning.
        strength: Share of the noise that is removed, 0..1.
    """

    def __init__(self, cleaned: soundfile.SoundFile, strength: float) -> None:
        self._cleaned = cleaned
        self._strength = np.float32(strength)

    def pieces(self, block: AudioBlock) -> Iterator[Piece]:
        """Take the next samples of the recording, and yield them mixed with the clean ones.

        Raises:
            AudioError: The clean version has another number of channels or is shorter.
        """
        clean = self._cleaned.read(block.shape[1], dtype="float32", always_2d=True).T
        if clean.shape != block.shape:
            raise AudioError(f"{self._cleaned.name} is not a clean version of the recording")
        yield Piece(block, block + self._strength * (clean - block))

    def last_pieces(self) -> Iterator[Piece]:
        """Yield nothing, since nothing is delayed."""
        yield from ()


def remix_file(
    source: Path,
    cleaned: Path,
    target: Path,
    options: FileOptions | None = None,
    *,
    strength: float = 1.0,
    on_progress: OnProgress | None = None,
) -> CleanResult:
    """Write what ``Denoiser.clean_file`` writes at another strength, without the network.

    Args:
        source: Noisy file.
        cleaned: The same recording, cleaned at strength 1 and written in floating point with the
            same sample rate and channels.
        target: File to write; its suffix chooses the format.
        options: Options for reading and writing.
        strength: Share of the noise that is removed, 0..1.
        on_progress: As in ``Denoiser.clean_file``.

    Raises:
        UsageError, AudioError, DenoiseError: As ``Denoiser.clean_file``, or ``cleaned`` is not a
            clean version of the source.
    """
    if not 0 <= strength <= 1:
        raise UsageError(f"the strength must be between 0 and 1, not {strength:g}")
    with soundfile.SoundFile(cleaned) as clean:
        return clean_recording(
            lambda sample_rate, channels, live: Remix(clean, strength),
            FileSource(source),
            FileTarget(target),
            None,
            options or FileOptions(),
            overwrite=False,
            on_progress=on_progress,
        )
