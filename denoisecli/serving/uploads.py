"""Multipart uploads, written to disk as they arrive."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from denoisecli.audio.formats import SUFFIXES
from denoisecli.serving.answers import Refused

FILE_FIELD = "file"
"""Name of the field with the recording."""

_INVALID_FORM = "the form is not valid multipart/form-data"
_MAX_FIELDS = 16
_MAX_FIELD_BYTES = 1024
_PART_BYTES = 8192  # largest size of a part of the form other than the recording
_BUFFER = 2**20
_MAX_NAME = 200  # bytes of a part of a name; file systems allow 255
_SUFFIX = 10  # characters at the end that are kept of a longer one
_MAX_PARTS = 8
_RESERVED = re.compile(r"(?:aux|con|nul|prn|(?:com|lpt)[1-9])(?:\.|$)", re.IGNORECASE)  # on Windows
_UNSAFE = re.compile(r'[\x00-\x1f\x7f<>:"|?*\u200e\u200f\u202a-\u202e\u2066-\u2069]')


@dataclass(frozen=True)
class Upload:
    """An upload that has arrived.

    Attributes:
        name: Name of the recording as a safe relative path with slashes; never used on this disk.
        path: The file.
        size: Its size in bytes.
        fields: The other fields of the form.
    """

    name: str
    path: Path
    size: int
    fields: dict[str, str]


_FORM_ESCAPES = {"%22": '"', "%0D": "\r", "%0A": "\n"}
"""How browsers and curl write these characters in the file names of a form (WHATWG)."""


def safe_name(name: str) -> str:
    """Return the name of an upload as a relative path without anything that could lead elsewhere.

    Folders are kept, for the archive of all results; "..", drives, control characters and
    what Windows does not allow are not.
    """
    parts = [_UNSAFE.sub("_", part).strip(" .") for part in re.split(r"[/\\]", name)]
    kept = [part for part in parts if part][-_MAX_PARTS:]
    allowed = [f"_{part}" if _RESERVED.match(part) else part for part in kept]
    return "/".join(map(_shorten, allowed)) or "recording"


def _shorten(part: str) -> str:
    if len(encoded := part.encode()) <= _MAX_NAME:
        return part
    return encoded[:_MAX_NAME].decode(errors="ignore")[:-_SUFFIX] + part[-_SUFFIX:]


async def receive(request: Request, folder: Path, *, max_bytes: int, timeout: float) -> Upload:
    """Write the recording of a multipart form into a folder, as it arrives.

    Args:
        request: The request, whose body was not read yet.
        folder: An existing folder; the file is named "upload" there, with the suffix of its name.
        max_bytes: Largest size of the recording in bytes.
        timeout: Time in s in which the next part of the body must arrive.

    Raises:
        Refused: The form is not what it should be, the recording is too large or no recording, or
            the client is too slow.
        ClientDisconnect: The client has gone away.
    """
    form = _Form(request, folder, max_bytes)
    try:
        async for chunk in chunks_of(request, timeout):
            form.feed(chunk)
            if len(form.buffer) >= _BUFFER:
                await asyncio.to_thread(form.flush)
        return await asyncio.to_thread(form.finish)
    except OSError as error:
        raise Refused(507, f"the upload cannot be stored: {error.strerror}") from error
    finally:
        with suppress(OSError):  # the disk is full, but the upload is not wanted any more
            form.close()


async def chunks_of(request: Request, timeout: float) -> AsyncIterator[bytes]:
    """Yield the body of a request; ``timeout`` is the longest time in s that nothing may arrive.

    Raises:
        Refused: Nothing arrived for that time.
    """
    chunks = request.stream().__aiter__()
    while True:
        try:
            yield await asyncio.wait_for(anext(chunks), timeout)
        except StopAsyncIteration:
            return
        except TimeoutError as error:
            raise Refused(
                408, f"nothing arrived for {timeout:g} s; the request was aborted"
            ) from error


class _Form:
    """A multipart form that is parsed as it arrives."""

    def __init__(self, request: Request, folder: Path, max_bytes: int) -> None:
        kind, options = parse_options_header(request.headers.get("content-type", ""))
        boundary = options.get(b"boundary")
        if kind != b"multipart/form-data" or not boundary:
            raise Refused(
                415, f'send the recording as multipart/form-data, in the field "{FILE_FIELD}"'
            )
        self._max_bytes = max_bytes
        length = request.headers.get("content-length", "")
        if length.isdecimal() and int(length) > max_bytes + _MAX_FIELDS * _PART_BYTES:
            raise self._too_large()
        self._folder = folder
        try:
            self._parser = self._make_parser(boundary)
        except FormParserError as error:  # the boundary is too long
            raise Refused(400, _INVALID_FORM) from error
        self._file: BinaryIO | None = None
        self._path: Path | None = None
        self._name = ""
        self._size = 0
        self._fields: dict[str, str] = {}
        self._headers: dict[bytes, bytes] = {}
        self._header = (bytearray(), bytearray())
        self._field: str | None = None  # None in the file
        self._value = bytearray()
        self._ended = False
        self.buffer = bytearray()

    def _make_parser(self, boundary: bytes) -> MultipartParser:
        def part(handle: Callable[[bytes], None]) -> Callable[[bytes, int, int], None]:
            return lambda data, start, end: handle(data[start:end])

        return MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin_part,
                "on_header_field": part(lambda data: self._add_to_header(0, data)),
                "on_header_value": part(lambda data: self._add_to_header(1, data)),
                "on_header_end": self._end_header,
                "on_headers_finished": self._end_headers,
                "on_part_data": part(self._add),
                "on_part_end": self._end_part,
                "on_end": self._end,
            },
        )

    def feed(self, chunk: bytes) -> None:
        """Parse the next bytes of the body."""
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            raise Refused(400, _INVALID_FORM) from error

    def flush(self) -> None:
        """Write what has arrived of the file."""
        if self._file is not None:
            self._file.write(self.buffer)
        self.buffer.clear()

    def finish(self) -> Upload:
        """Return the upload; raise Refused if it is not complete."""
        if not self._ended:
            raise Refused(400, "the upload is incomplete; its last part is missing")
        if self._path is None:
            raise Refused(400, f'the form has no field "{FILE_FIELD}" with a recording')
        if self._size == 0:
            raise Refused(400, f"{self._name} is empty")
        self.flush()
        self.close()  # which writes the last bytes
        return Upload(self._name, self._path, self._size, self._fields)

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()

    def _too_large(self) -> Refused:
        limit = (
            f"{self._max_bytes / 2**30:.3g} GiB"
            if self._max_bytes >= 2**30
            else f"{self._max_bytes / 2**20:.3g} MiB"
        )
        return Refused(413, f"the recording is larger than {limit}, the limit of this server")

    def _begin_part(self) -> None:
        self._headers.clear()
        self._value.clear()

    def _add_to_header(self, index: int, data: bytes) -> None:
        self._header[index].extend(data)

    def _end_header(self) -> None:
        name, value = self._header
        self._headers[bytes(name).lower()] = bytes(value)
        name.clear()
        value.clear()

    def _end_headers(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        field = options.get(b"name", b"").decode("utf-8", "replace")
        if field != FILE_FIELD:
            if b"filename" in options:
                raise Refused(400, f'a recording belongs in the field "{FILE_FIELD}"')
            if len(self._fields) >= _MAX_FIELDS:
                raise Refused(400, "the form has too many fields")
            self._field = field
            return
        if self._path is not None:
            raise Refused(400, "the form has several recordings; send one at a time")
        self._field = None
        name = options.get(b"filename", b"").decode("utf-8", "replace")
        for code, character in _FORM_ESCAPES.items():
            name = name.replace(code, character)
        self._name = safe_name(name)
        suffix = PurePosixPath(self._name).suffix.lower()
        if suffix not in SUFFIXES:
            raise Refused(
                415,
                f"{self._name} is not a recording that can be read; send a file such as .wav, "
                ".flac, .mp3, .m4a or .mp4",
            )
        self._path = self._folder / f"upload{suffix}"
        self._file = self._path.open("wb")

    def _add(self, data: bytes) -> None:
        if self._field is None:
            self._size += len(data)
            if self._size > self._max_bytes:
                raise self._too_large()
            self.buffer.extend(data)
            return
        self._value.extend(data)
        if len(self._value) > _MAX_FIELD_BYTES:
            raise Refused(400, f"the field {self._field!r} is too long")

    def _end_part(self) -> None:
        if self._field is not None:
            self._fields[self._field] = self._value.decode("utf-8", "replace")

    def _end(self) -> None:
        self._ended = True
