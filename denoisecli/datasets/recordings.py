"""The recordings a dataset is made of: found, and read piece by piece once they are decoded."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from denoisecli.audio import files as audio
from denoisecli.audio.formats import FORMATS, MEDIA
from denoisecli.errors import AudioError, DatasetError
from denoisecli.types import AudioVector

Role = Literal["test clean", "test noise", "clean", "noise", "room"]
"""What a recording is for. Of copies the first role in this order keeps the recording."""

PACK = ".f32"
"""Suffix of a pack: float32 samples of one recording after the other."""

ROLES: tuple[Role, ...] = ("test clean", "test noise", "clean", "noise", "room")


@dataclass(frozen=True)
class File:
    """A file that may be used: its name below the folder that was searched, size and time."""

    role: Role
    name: str
    size: int
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class Source:
    """A recording that passed the checks, one channel, decoded and resampled.

    Attributes:
        role: What it is for.
        name: The path below the folder that was searched, with forward slashes.
        rms: Level of the whole of it; full scale is 1.
        digest: Hash of the samples: the same for a WAV file and its FLAC copy.
        samples: Its length.
        pack: The file that holds the samples, among those of other recordings.
        start: Which sample there is the first.
    """

    role: Role
    name: str
    rms: float
    digest: str
    samples: int
    pack: Path
    start: int

    @property
    def folder(self) -> str:
        """The folder the file is in, below the folder that was searched."""
        return self.name.rpartition("/")[0]

    def read(self, offset: int = 0, length: int | None = None) -> AudioVector:
        """Read a piece, and nothing more of it into memory.

        Args:
            offset: First sample.
            length: Number of samples; all up to the end if not given.

        Raises:
            AudioError: the samples are not there any more.
        """
        length = self.samples - offset if length is None else length
        try:
            piece = np.fromfile(self.pack, np.float32, length, offset=4 * (self.start + offset))
        except OSError as error:
            raise AudioError(f"cannot read {self.pack} any more: {error.strerror}") from error
        if piece.size < length:
            raise AudioError(f"{self.pack} is damaged: it ends too early")
        return piece


@dataclass(frozen=True)
class Skipped:
    """A recording, or a part of one, that cannot be used, and why."""

    role: Role
    file: str
    reason: str


def find(roots: Mapping[Role, Path]) -> list[File]:
    """List the recordings in the folders of each role.

    Raises:
        UsageError: a folder is missing, is a file, or has no audio files below it.
    """
    files = []
    for role in ROLES:
        if role in roots:
            for path in audio.find_audio(roots[role], (*FORMATS, *MEDIA)):
                status = path.stat()
                name = path.relative_to(roots[role]).as_posix()
                files.append(File(role, name, status.st_size, status.st_mtime_ns))
    return sorted(files, key=lambda file: (ROLES.index(file.role), file.name))


def load(indexes: Sequence[Path]) -> tuple[dict[Role, list[Source]], list[Skipped]]:
    """List what became of the recordings, copies left out.

    Of recordings with identical samples only the first is kept, so that a copy cannot come to lie
    on the other side of a split.

    Args:
        indexes: What ``decoding.decode`` says is in each pack; of all there are.

    Returns:
        The recordings that can be used by role, and what was skipped.

    Raises:
        DatasetError: all recordings of a role had to be skipped.
    """
    sources: dict[Role, list[Source]] = {}
    skipped: list[Skipped] = []
    seen: dict[str, str] = {}
    for index in indexes:
        pack = index.with_suffix(PACK)
        for facts in json.loads(index.read_text()):
            role, name = facts["role"], facts.get("name") or facts["file"]
            kept = sources.setdefault(role, [])
            if "reason" in facts:
                skipped.append(Skipped(**facts))
            elif facts["digest"] in seen:
                skipped.append(Skipped(role, name, f"is identical to {seen[facts['digest']]}"))
            else:
                seen[facts["digest"]] = f"{role} file {name}"
                kept.append(Source(pack=pack, **facts))
    for role, kept in sources.items():
        if not kept:
            reasons = [f"{skip.file} {skip.reason}" for skip in skipped if skip.role == role]
            raise DatasetError(
                f"none of the {len(reasons)} {role} recordings can be used: "
                + "; ".join(reasons[:3])
                + ("; ..." if len(reasons) > 3 else "")
            )
    return sources, skipped
