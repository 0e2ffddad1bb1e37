"""The recordings of a dataset: found in folders, and read piece by piece once they are decoded."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from denoisecli.audio.files import find_audio
from denoisecli.errors import AudioError, DatasetError, UsageError
from denoisecli.types import AudioVector

Role = Literal["test clean", "test noise", "valid clean", "valid noise", "clean", "noise", "room"]
"""Role of a recording. Of identical recordings, the first role in this order keeps one."""

ROLES: tuple[Role, ...] = get_args(Role)

SIMULATED = "synthetic/"
"""Beginning of the names of simulated rooms."""

PACK = ".f32"
"""Suffix of a pack: the float32 samples of several recordings, one after the other."""


@dataclass(frozen=True)
class FoundFile:
    """An audio file, not read yet.

    Attributes:
        role: Its role.
        name: Path relative to the folder that was searched, with forward slashes.
        size: Size in bytes.
        mtime_ns: Time of the last modification in ns.
    """

    role: Role
    name: str
    size: int
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class Recording:
    """A recording that passed all checks, decoded to one channel at the dataset's sample rate.

    Attributes:
        role: Its role.
        name: Path relative to the folder that was searched, with forward slashes.
        rms: RMS of all its samples without their mean; full scale is 1.
        digest: Hash of its samples: a WAV file and its FLAC copy have the same.
        samples: Number of samples.
        pack: File of the samples of this and other recordings.
        start: Position of its first sample in the pack.
        rate: Sample rate of the file in Hz; 0 if it is not known.
        bandwidth: Highest frequency in Hz that the file has sound at; 0 if it is not known.
    """

    role: Role
    name: str
    rms: float
    digest: str
    samples: int
    pack: Path
    start: int
    rate: int = 0
    bandwidth: int = 0

    @property
    def folder(self) -> str:
        """Folder of the file, relative to the folder that was searched."""
        return self.name.rpartition("/")[0]

    def read(self, offset: int = 0, length: int | None = None) -> AudioVector:
        """Read a piece of the recording, without reading the rest.

        Args:
            offset: First sample.
            length: Number of samples; by default up to the end.

        Raises:
            AudioError: The pack is missing or damaged.
        """
        length = self.samples - offset if length is None else length
        try:
            piece = np.fromfile(self.pack, np.float32, length, offset=4 * (self.start + offset))
        except OSError as error:
            raise AudioError(f"cannot read {self.pack}: {error.strerror}") from error
        if piece.size < length:
            raise AudioError(f"{self.pack} is damaged: it is shorter than expected")
        return piece


@dataclass(frozen=True)
class Skipped:
    """A recording, or a clip of one, that was left out, and the reason."""

    role: Role
    file: str
    reason: str


def find_recordings(roots: Mapping[Role, Path]) -> list[FoundFile]:
    """List the audio files in the folder of each role and in all folders below it.

    Raises:
        UsageError: A folder does not exist, is a file, or has no audio files in it; or the name of
            a file is not UTF-8 text, which the manifest is.
    """
    files = []
    for role in ROLES:
        if role in roots:
            for path in find_audio(roots[role]):
                status = path.stat()
                name = path.relative_to(roots[role]).as_posix()
                if not _is_text(name):
                    raise UsageError(
                        f"{name!a} in {roots[role]} has a name that is not UTF-8 text; rename it"
                    )
                files.append(FoundFile(role, name, status.st_size, status.st_mtime_ns))
    return sorted(files, key=lambda file: (ROLES.index(file.role), file.name))


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def load_recordings(
    indexes: Sequence[Path], *, pairs: bool = False
) -> tuple[dict[Role, list[Recording]], list[Skipped]]:
    """List the decoded recordings.

    Of recordings with identical samples only the first is kept, so that no copy of a training
    recording is in the test set. In pairs, a clean recording may belong to several noisy ones.

    Args:
        indexes: The JSON file of each pack that ``decoding.decode`` wrote.
        pairs: Keep identical recordings of one role.

    Returns:
        The recordings by role, and those that were left out.

    Raises:
        DatasetError: All recordings of a role were left out.
    """
    recordings: dict[Role, list[Recording]] = {}
    skipped: list[Skipped] = []
    seen: dict[str, Recording] = {}
    for index in indexes:
        pack = index.with_suffix(PACK)
        for facts in json.loads(index.read_text()):
            kept = recordings.setdefault(facts["role"], [])
            if "reason" in facts:
                skipped.append(Skipped(**facts))
                continue
            recording = Recording(pack=pack, **facts)
            original = seen.setdefault(recording.digest, recording)
            if original is recording or (pairs and original.role == recording.role):
                kept.append(recording)
            else:
                reason = f"is identical to {original.role} file {original.name}"
                skipped.append(Skipped(recording.role, recording.name, reason))
    check_roles(recordings, skipped)
    return recordings, skipped


def check_roles(recordings: Mapping[Role, Sequence[Recording]], skipped: Sequence[Skipped]) -> None:
    """Raise DatasetError if all recordings of a role were left out."""
    for role, kept in recordings.items():
        if not kept:
            reasons = [f"{skip.file} {skip.reason}" for skip in skipped if skip.role == role]
            raise DatasetError(
                f"none of the {len(reasons)} {role} recordings can be used: "
                + "; ".join(reasons[:3])
                + ("; ..." if len(reasons) > 3 else "")
            )
