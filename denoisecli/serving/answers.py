"""Answers of the API: errors as sentences, and files that are removed once they are sent."""

import errno
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import quote

from starlette.responses import FileResponse, JSONResponse, Response
from starlette.types import Receive, Scope, Send

from denoisecli.errors import AudioError, DenoiseError, StorageError, UsageError


class Refused(DenoiseError):
    """A request that is answered with an error.

    Args:
        status: HTTP status code.
        message: The error as a sentence.
        headers: Further headers of the answer.
    """

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.headers = dict(headers or {})


def error_answer(error: Refused) -> Response:
    """Return the answer for an error: ``{"error": "the sentence"}``."""
    return JSONResponse({"error": str(error)}, error.status, error.headers)


def as_refused(error: BaseException, message: str) -> Refused:
    """Return an error of the work on a recording as an answer.

    Args:
        error: The error.
        message: Its message, without paths of this machine.
    """
    if isinstance(error, Refused):
        return error
    if isinstance(error, UsageError):
        return Refused(400, message)
    if isinstance(error, AudioError):
        return Refused(422, message)
    if isinstance(error, StorageError) or getattr(error, "errno", 0) in (
        errno.ENOSPC,
        errno.EDQUOT,
    ):
        return Refused(507, message)
    return Refused(500, message)


def attachment(name: str) -> str:
    """Return the header Content-Disposition of a file to be saved under a name."""
    plain = name.encode("ascii", "replace").decode().replace('"', "_").replace("\\", "_")
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"


class SentOnce(FileResponse):
    """A file that is removed when it was sent, or when the client goes away."""

    def __init__(self, path: Path, remove: Callable[[], None], headers: dict[str, str]) -> None:
        super().__init__(path, headers=headers)
        self._remove = remove

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the file."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._remove()
