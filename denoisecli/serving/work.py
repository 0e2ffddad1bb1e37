"""The jobs of a worker process: clean a recording, with or without a preview for the page."""

from collections.abc import Callable, MutableSequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from denoisecli.audio.reading import reader
from denoisecli.cleaning.denoiser import DenoiserOptions
from denoisecli.cleaning.file import CleanResult, FileOptions
from denoisecli.cleaning.strength import choose_strength, count_frames
from denoisecli.errors import DenoiseError
from denoisecli.serving.preview import write_preview
from denoisecli.types import AudioChannels

_CLEANING_SHARE = 0.9  # of the time; the rest is the preview

State = MutableSequence[float]
"""Shared with the server; its elements are PROGRESS and CANCELLED."""

PROGRESS = 0
"""Index of the share of the job that is done, 0..1."""

CANCELLED = 1
"""Index of the request to cancel the job: 1, otherwise 0."""


class Cancelled(DenoiseError):
    """The job was cancelled while it was worked on."""


@dataclass(frozen=True)
class Task:
    """A recording to be cleaned.

    Attributes:
        source: The upload.
        denoiser: Model, and strength for :func:`clean`.
        files: Options for reading and writing it.
        target: Cleaned file; its suffix chooses the format.
    """

    source: Path
    denoiser: DenoiserOptions
    files: FileOptions
    target: Path

    @property
    def preview(self) -> Path:
        """File that the page plays, with the noisy and the clean sound as its channels."""
        return self.source.with_name("preview.flac")

    @property
    def pictures(self) -> Path:
        """The spectrograms."""
        return self.source.with_name("spectrogram.bin")


class _Worker:
    """State of this process."""

    state: State


def start(state: State) -> None:
    """Initialize a worker."""
    _Worker.state = state


def clean(task: Task) -> dict[str, Any]:
    """Clean a recording; return the facts about the result as JSON data."""
    return _record(_clean(task, 1.0))


def prepare(task: Task) -> dict[str, Any]:
    """Clean a recording at full strength in floating point, and write its preview for the page.

    Returns:
        The facts about the result as JSON data, and those of `write_preview`.
    """
    result = _clean(task, _CLEANING_SHARE)

    def on_progress(share: float) -> None:
        _advance(_CLEANING_SHARE + (1 - _CLEANING_SHARE) * share)

    files = task.files
    with reader(
        task.source, replace_nan=files.replace_nan, keep_readable=files.keep_readable
    ) as noisy:
        preview = write_preview(noisy, task.target, task.preview, task.pictures, on_progress)
    return {**_record(result), **preview}


def suggest_strength(task: Task, check_present: Callable[[], None]) -> dict[str, Any]:
    """Choose the strength that suits a recording best, as ``denoise clean --strength auto``.

    Args:
        task: The task that cleaned the recording.
        check_present: Called from time to time; raises an exception if the work is to end.

    Returns:
        ``strength``, ``ovrl``, the DNSMOS OVRL of the strengths that were compared, and ``note``,
        why a recording should stay as it is, or None.
    """
    denoiser = task.denoiser.load_once()

    def clean(sound: AudioChannels) -> AudioChannels:
        check_present()
        return denoiser.clean(sound, rate)

    with reader(task.source, keep_readable=task.files.keep_readable) as recording:
        rate, frames = recording.info.sample_rate, count_frames(recording)
    with reader(task.source, keep_readable=task.files.keep_readable) as recording:
        choice = choose_strength(recording, clean, frames=frames)
    return {"strength": choice.strength, "ovrl": choice.ovrl, "note": choice.note}


def _clean(task: Task, share: float) -> CleanResult:
    def on_progress(seconds: float, total: float) -> None:
        _advance(share * min(seconds / total, 1.0) if total else 0.0)

    return task.denoiser.load_once().clean_file(
        task.source, task.target, task.files, overwrite=True, on_progress=on_progress
    )


def _advance(share: float) -> None:
    if _Worker.state[CANCELLED]:
        raise Cancelled("the job was cancelled")
    _Worker.state[PROGRESS] = share


def _record(result: CleanResult) -> dict[str, Any]:
    left_out = ("source", "target", "noise_target", "real_time_factor")
    return {name: value for name, value in result.record().items() if name not in left_out}
