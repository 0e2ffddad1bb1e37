"""Results as files: at a strength and in a format, one by one or as an archive."""

import asyncio
import io
import secrets
import shutil
import time
from collections.abc import AsyncIterator
from pathlib import Path, PurePosixPath
from typing import Any
from zipfile import ZIP_STORED, ZipFile, ZipInfo

from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool

from denoisecli.audio.formats import CONTAINERS, FORMATS
from denoisecli.cleaning.file import FileOptions
from denoisecli.cleaning.remix import remix_file
from denoisecli.errors import DenoiseError, UsageError
from denoisecli.serving.answers import Refused, as_refused
from denoisecli.serving.jobs import Job

_PIECE = 2**18


class Body(BaseModel):
    """Fields of a request."""

    model_config = ConfigDict(extra="forbid")


class Rendering(Body):
    """Settings for writing a cleaned recording."""

    strength: float = Field(1.0, ge=0, le=1, description="Share of the noise that is removed.")
    format: str = Field(
        "",
        description='Suffix of the format, such as ".flac"; "" is that of the recording. Videos '
        "keep their picture.",
    )
    loudness: float | None = Field(
        None, ge=-50, le=-5, description="Integrated loudness in LUFS; null leaves it."
    )
    keep_loudness: bool = Field(
        False, description="Make the speech as loud as it is in the recording."
    )

    def suffix(self, name: str) -> str:
        """Return the suffix of the file; raise Refused if it cannot be written."""
        own = PurePosixPath(name).suffix.lower()
        if not self.format:
            return own if own in (*FORMATS, *CONTAINERS) else ".wav"
        suffix = self.format.lower()
        if suffix not in FORMATS and (suffix != own or suffix not in CONTAINERS):
            raise Refused(400, f"format: {self.format!r} is not one of {', '.join(FORMATS)}")
        return suffix

    def options(self, **others: Any) -> FileOptions:
        """Return the options for writing the file; ``others`` are arguments of `FileOptions`."""
        try:
            return FileOptions(loudness=self.loudness, keep_loudness=self.keep_loudness, **others)
        except UsageError as error:
            raise Refused(400, str(error)) from error


def clean_name(name: str, suffix: str) -> PurePosixPath:
    """Return the name of the result for that of a recording: ``talk.clean.wav``."""
    path = PurePosixPath(name)
    return path.with_name(f"{path.stem}.clean{suffix}")


def render(job: Job, rendering: Rendering) -> tuple[Path, list[str]]:
    """Write a recording in a folder of its own; return the file and warnings."""
    suffix = rendering.suffix(job.upload.name)
    folder = job.folder / secrets.token_urlsafe(8)
    target = folder / f"result{suffix}"  # file systems have shorter names than clients

    try:
        folder.mkdir()
        result = remix_file(
            job.upload.path,
            job.task.target,
            target,
            rendering.options(keep_readable=True),
            strength=rendering.strength,
            on_progress=lambda seconds, total: job.check_present(),
        )
    except (DenoiseError, OSError) as error:
        shutil.rmtree(folder, ignore_errors=True)
        name = clean_name(job.upload.name, suffix).name
        message = job.plain(str(error).replace(str(target), name))
        raise as_refused(error, message) from error
    return target, [job.plain(warning) for warning in result.warnings]


class _Pipe(io.RawIOBase):
    """Collects what an archive writes, until it is sent."""

    def __init__(self) -> None:
        self._waiting = bytearray()

    def writable(self) -> bool:
        """Return True."""
        return True

    def write(self, data: Any) -> int:
        """Append bytes."""
        self._waiting.extend(data)
        return len(data)

    def take(self) -> bytes:
        """Remove and return what was written."""
        taken = bytes(self._waiting)
        self._waiting.clear()
        return taken


async def zip_pieces(
    entries: list[tuple[Job, Rendering]], slots: asyncio.Semaphore
) -> AsyncIterator[bytes]:
    """Yield an archive, whose files are written one after the other while it is sent.

    What cannot be written is listed in the file ``errors.txt`` of the archive.

    Args:
        entries: The recordings, and how they are written.
        slots: Limits how many recordings are written at the same time.
    """
    pipe = _Pipe()
    names: set[str] = set()
    errors: list[str] = []
    with ZipFile(pipe, "w", ZIP_STORED) as archive:
        for job, rendering in entries:
            name = clean_name(job.upload.name, rendering.suffix(job.upload.name))
            try:
                with job.in_use():
                    async with slots:
                        path, _ = await run_in_threadpool(render, job, rendering)
            except Refused as error:
                errors.append(f"{name}: {error}")
                continue
            try:
                info = ZipInfo(_unused(name, names), time.localtime()[:6])
                info.external_attr = 0o644 << 16
                with path.open("rb") as file, archive.open(info, "w", force_zip64=True) as part:
                    while data := await run_in_threadpool(file.read, _PIECE):
                        part.write(data)
                        yield pipe.take()
            finally:
                shutil.rmtree(path.parent, ignore_errors=True)
        if errors:
            archive.writestr("errors.txt", "\n".join(errors) + "\n")
    yield pipe.take()


def _unused(name: PurePosixPath, used: set[str]) -> str:
    """Return a name that is not used yet, ignoring case, and note that it is used."""
    candidate, number = name, 2
    while str(candidate).lower() in used:
        candidate = name.with_name(f"{name.stem} ({number}){name.suffix}")
        number += 1
    used.add(str(candidate).lower())
    return str(candidate)
