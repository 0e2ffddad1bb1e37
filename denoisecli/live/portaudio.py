"""PortAudio, whose calls may never return if a sound server goes away."""

import atexit
import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait
from contextlib import contextmanager, suppress
from typing import Any, ClassVar, TypeVar

from denoisecli.errors import DenoiseError, UsageError
from denoisecli.system.extras import require

Result = TypeVar("Result")

_ANSWER_SECONDS = 10.0  # in which a call must return
_CLOSE_SECONDS = 5.0  # in which all streams must be closed
_SLICE_SECONDS = 0.1  # after which Python handles a signal at the latest


class SoundSystemError(DenoiseError):
    """The sound system does not answer, or refuses, which may change."""


class PortAudio:
    """PortAudio, started while the object is used as a context manager.

    On Linux its calls are made in a thread: the main thread would wait forever for a sound
    server that has gone away, and Ctrl-C would not end that. A stream whose start failed or never
    returned is left alone, since closing it would abort the process; ending PortAudio closes all
    streams, so from then on it is neither ended nor started again. Elsewhere a device belongs to
    the thread that opened it, and calls are made directly.

    Attributes:
        sd: The module `sounddevice`.
        exit_code: Exit code of a process in which a call has not returned. It ends at once, as its
            threads can crash it while Python ends.
    """

    exit_code: ClassVar[int] = 1
    _left_alone: ClassVar[list[object]] = []
    """Calls that did not return, and streams that did not start, which must not be freed."""

    def __init__(self) -> None:
        self.sd: Any = None
        self._thread = _CallThread()

    def __enter__(self) -> "PortAudio":
        with _stderr_restored():
            self.sd = self._call(_sounddevice)
            if not self.sd._initialized:  # it has been ended
                self._call(self.sd._initialize)
        return self

    def __exit__(self, *_: object) -> None:
        if not self._left_alone:
            with suppress(self.sd.PortAudioError, SoundSystemError):
                self._call(self.sd._terminate, _CLOSE_SECONDS)
        self._thread.end()

    def find_devices_again(self) -> None:
        """Start PortAudio anew, since only then does it look for devices.

        Nothing is done if that is no longer possible; the known devices can still be opened.

        Raises:
            PortAudioError: It does not start at present.
            DenoiseError: It did not return.
        """
        if self._left_alone:
            return
        try:
            with _stderr_restored():
                if self.sd._initialized:
                    self._call(self.sd._terminate)
                self._call(self.sd._initialize)
        except SoundSystemError as error:
            raise DenoiseError(
                "the sound system no longer answers: start `denoise live` again"
            ) from error

    def open(self, stream: Callable[..., Any], **options: Any) -> Any:
        """Return a new stream of a class of `sounddevice`; raises PortAudioError, ValueError."""
        return self._call(lambda: stream(**options))

    def start(self, stream: Any) -> None:
        """Start a stream; raises PortAudioError."""
        try:
            self._call(stream.start)
        except BaseException:  # Ctrl-C included
            if _is_threaded():
                self._left_alone.append(stream)
            raise

    def close(self, streams: Sequence[Any]) -> None:
        """Close streams, except those that are left alone, in a limited time."""
        deadline = time.monotonic() + _CLOSE_SECONDS
        for stream in streams:
            if any(stream is other for other in self._left_alone):
                continue
            with suppress(self.sd.PortAudioError, SoundSystemError):  # the device has gone away
                self._call(stream.abort, deadline - time.monotonic())
                self._call(stream.close, deadline - time.monotonic())

    def _call(self, function: Callable[[], Result], seconds: float | None = None) -> Result:
        """Call a function of PortAudio and return its result.

        Raises:
            SoundSystemError: It did not return in ``seconds`` (default: _ANSWER_SECONDS).
        """
        if not _is_threaded():
            return function()
        try:
            return self._thread.call(function, _ANSWER_SECONDS if seconds is None else seconds)
        except SoundSystemError:
            self._left_alone.append(function)
            self._thread.end()
            self._thread = _CallThread()
            raise


@atexit.register
def _end_process() -> None:
    if PortAudio._left_alone:
        for stream in (sys.stdout, sys.stderr):
            with suppress(AttributeError, OSError, ValueError):  # it is missing or closed
                stream.flush()
        os._exit(PortAudio.exit_code)


class _CallThread:
    """A thread that makes one call after another, and which nobody has to wait for."""

    def __init__(self) -> None:
        self._calls: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]] | None]
        self._calls = queue.SimpleQueue()
        threading.Thread(target=self._run, name="portaudio", daemon=True).start()

    def call(self, function: Callable[[], Result], seconds: float) -> Result:
        """Return the result of a function; raises SoundSystemError."""
        future: Future[Result] = Future()
        self._calls.put((function, future))
        deadline = time.monotonic() + seconds
        while not future.done() and time.monotonic() < deadline:
            wait([future], _SLICE_SECONDS)
        if not future.done():
            future.cancel()  # if an earlier call has not returned
            raise SoundSystemError("the sound system does not answer")
        return future.result()

    def end(self) -> None:
        """Let the thread end once its call has returned, if ever."""
        self._calls.put(None)

    def _run(self) -> None:
        while (call := self._calls.get()) is not None:
            function, future = call
            if not future.set_running_or_notify_cancel():
                continue
            try:
                result = function()
            except Exception as error:
                future.set_exception(error)
            else:
                future.set_result(result)


def _is_threaded() -> bool:
    return sys.platform == "linux"


@contextmanager
def _stderr_restored() -> Iterator[None]:
    """Restore stderr after the block, since `sounddevice` mutes it until PortAudio has started."""
    try:
        kept = os.dup(2)
    except OSError:  # it is closed
        yield
        return
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _sounddevice() -> Any:
    """Import `sounddevice`, which starts PortAudio."""
    require("live", "sounddevice", purpose="live sound")
    try:
        import sounddevice
    except OSError as error:  # on Linux its wheel comes without the library
        raise UsageError(
            "live sound needs the PortAudio library, such as the package libportaudio2"
        ) from error
    except Exception as error:  # PortAudio cannot start
        raise DenoiseError(f"the sound system cannot be reached: {error}") from error
    atexit.unregister(sounddevice._exit_handler)  # it would wait forever as well
    return sounddevice
