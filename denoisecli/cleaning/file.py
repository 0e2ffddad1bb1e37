"""One recording, from a file or a pipe to a file or a pipe, block by block."""

import io
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic_core import to_jsonable_python

from denoisecli.audio.downmix import Downmix
from denoisecli.audio.formats import (
    BITS,
    CONTAINERS,
    FLOATING,
    FORMATS,
    nearest_subtype,
    require_subtype,
)
from denoisecli.audio.level import LevelMeter, dbfs
from denoisecli.audio.metadata import Metadata, read_metadata
from denoisecli.audio.pipe import STDOUT, ByteSink, ByteSource, PipeWriter, RawFormat, pipe_reader
from denoisecli.audio.reading import AudioInfo, AudioReader, reader
from denoisecli.audio.remuxing import remuxed
from denoisecli.audio.resampling import resampled_length
from denoisecli.audio.writing import writer
from denoisecli.cleaning.checks import (
    require_flag,
    require_number,
    require_sample_rate,
    require_text,
    require_whole,
)
from denoisecli.cleaning.choices import HIGHEST_SAMPLE_RATE, Clip
from denoisecli.cleaning.normalization import Normalization, finish_normalized
from denoisecli.cleaning.stream import Piece, PieceStream
from denoisecli.cleaning.tracks import Sink, Track, finish_tracks
from denoisecli.errors import AudioError, UsageError
from denoisecli.types import AudioBlock

_SILENT_DB = 60.0
"""A downmix that is this many dB below its channels is called silent: only rounding errors are left
of channels that cancel each other out."""

OnProgress = Callable[[float, float], None]
"""Called with the seconds of audio cleaned so far, and their total (0 if it is unknown)."""


@dataclass(frozen=True)
class FileOptions:
    """Options for reading and writing recordings.

    Attributes:
        sample_rate: Sample rate of the target in Hz (default: that of the source).
        subtype: Sample format of the target as libsndfile names it, such as "PCM_24" (default: that
            of the source, or the nearest one that the target's format supports).
        mono: Clean and write the mean of the channels.
        clip: Treatment of samples beyond full scale: "clamp" sets them to full scale and counts
            them, if the target stores integers or is lossy; "rescale" scales the whole recording
            down to fit; "none" keeps them, which only floating-point targets allow.
        replace_nan: Set samples that are NaN, infinite or above 1e10 to zero and count them,
            instead of failing.
        keep_readable: Clean what can be read of a damaged or cut-off file, with a warning, instead
            of failing.
        raw: Format of a source pipe without a header; a target pipe has no header either then.
        track: Number of the audio track of a media file, from 1 on (default: the one that is
            marked as the default, or the first).
        loudness: Integrated loudness of the target in LUFS, -50..-5 (default: as it comes out).
        keep_loudness: Make the speech as loud as it is in the source.
        true_peak: Largest true peak in dBTP, -20..0, of a target whose loudness is changed.
        auto_strength: Choose the strength that suits the source best by DNSMOS, see ``strength``;
            the strength of the denoiser is its upper end.

    Raises:
        UsageError: A number is out of range, ``clip`` has another value, or two options exclude
            each other.
    """

    sample_rate: int | None = None
    subtype: str | None = None
    mono: bool = False
    clip: str = Clip.CLAMP
    replace_nan: bool = False
    keep_readable: bool = False
    raw: RawFormat | None = None
    track: int | None = None
    loudness: float | None = None
    keep_loudness: bool = False
    true_peak: float = -1.0
    auto_strength: bool = False

    def __post_init__(self) -> None:
        for name in ("mono", "replace_nan", "keep_readable", "keep_loudness", "auto_strength"):
            require_flag(getattr(self, name), name)
        if self.subtype is not None:
            require_text(self.subtype, "the subtype")
        if not isinstance(self.raw, RawFormat | None):
            raise UsageError(f"raw must be a RawFormat, not {self.raw!r}")
        if self.sample_rate is not None:
            require_sample_rate(self.sample_rate, HIGHEST_SAMPLE_RATE)
        if self.track is not None:
            require_whole(self.track, "the track")
        if self.loudness is not None:
            require_number(self.loudness, "the loudness")
        require_number(self.true_peak, "the true peak")
        if self.loudness is not None and not -50 <= self.loudness <= -5:
            raise UsageError(f"the loudness must be -50 to -5 LUFS, not {self.loudness:g}")
        if not -20 <= self.true_peak <= 0:
            raise UsageError(f"the true peak must be -20 to 0 dBTP, not {self.true_peak:g}")
        if self.loudness is not None and self.keep_loudness:
            raise UsageError("loudness and keep_loudness cannot be combined")
        if self.normalizes and self.clip == Clip.RESCALE:
            raise UsageError(
                "rescaling and a change of loudness cannot be combined; the latter never exceeds "
                "full scale"
            )
        if self.clip not in list(Clip):
            raise UsageError(f"clip must be one of {', '.join(Clip)}, not {self.clip}")

    @property
    def normalizes(self) -> bool:
        """Whether the loudness of the target is changed when all of it is known."""
        return self.loudness is not None or self.keep_loudness


@dataclass(frozen=True)
class CleanResult:
    """Result of ``Denoiser.clean_file``.

    Attributes:
        source: The noisy file.
        target: The cleaned file.
        noise_target: The file with what was removed, if there is one.
        sample_rate: Sample rate of the cleaned file in Hz.
        channels: Number of channels of the cleaned file.
        seconds: Length of the audio in s.
        wall_seconds: Wall-clock time of the work in s.
        rms_in_dbfs: Level of the input in dBFS; -inf for digital silence.
        rms_out_dbfs: Level of the output in dBFS.
        clipped_samples: Number of samples beyond full scale that were clamped.
        replaced_samples: Number of samples that `FileOptions.replace_nan` set to zero.
        gain: Factor that the output was scaled with, to stay within full scale or for its loudness.
        warnings: Warnings about the result.
        loudness_lufs: Integrated loudness of the output in LUFS, if it was changed.
        true_peak_dbfs: True peak of the output in dBFS, if its loudness was changed.
        strength: The strength that was chosen for the recording, if it was.
        strength_ovrl: DNSMOS OVRL by strength, if one was chosen.
    """

    source: Path
    target: Path
    noise_target: Path | None
    sample_rate: int
    channels: int
    seconds: float
    wall_seconds: float
    rms_in_dbfs: float
    rms_out_dbfs: float
    clipped_samples: int
    replaced_samples: int
    gain: float
    warnings: tuple[str, ...]
    loudness_lufs: float | None = None
    true_peak_dbfs: float | None = None
    strength: float | None = None
    strength_ovrl: dict[float, float] | None = None

    @property
    def real_time_factor(self) -> float:
        """Seconds of work per second of audio."""
        return self.wall_seconds / self.seconds

    def record(self) -> dict[str, Any]:
        """Return all of it as JSON data; the level of digital silence is null."""
        values = {**asdict(self), "real_time_factor": self.real_time_factor}
        # Options may be numbers of NumPy, and so are results that follow from them.
        record: dict[str, Any] = to_jsonable_python(values, inf_nan_mode="null", fallback=float)
        return record


@dataclass(frozen=True)
class FileSource:
    """A recording in a file."""

    path: Path
    is_pipe = False

    def open(self, options: FileOptions) -> AbstractContextManager[AudioReader]:
        """Open the file."""
        return reader(
            self.path,
            replace_nan=options.replace_nan,
            keep_readable=options.keep_readable,
            track=options.track,
        )


@dataclass(frozen=True)
class PipeSource:
    """A recording that comes through a pipe."""

    stream: ByteSource
    is_pipe = True

    def open(self, options: FileOptions) -> AbstractContextManager[AudioReader]:
        """Read the header of the pipe."""
        if options.track not in (None, 1):
            raise UsageError(f"a pipe has no audio track {options.track}; give the file")
        return nullcontext(
            pipe_reader(
                self.stream,
                options.raw,
                replace_nan=options.replace_nan,
                keep_readable=options.keep_readable,
            )
        )


@dataclass(frozen=True)
class FileTarget:
    """A file to be written."""

    path: Path
    is_pipe = False

    @property
    def spool_folder(self) -> Path:
        """Folder for a temporary file."""
        return self.path.parent

    def open(
        self, info: AudioInfo, options: FileOptions, *, overwrite: bool
    ) -> AbstractContextManager[Sink]:
        """Open the file, which appears when the context is left without an exception."""
        sample_rate = options.sample_rate or info.sample_rate
        channels = 1 if options.mono else info.channels
        if self.path.suffix.lower() in CONTAINERS:
            if options.subtype is not None or options.clip == Clip.NONE:
                raise UsageError(f"{self.path} takes neither --subtype nor --clip none")
            return remuxed(
                self.path,
                info.path,
                sample_rate,
                channels,
                track=options.track,
                metadata=_metadata(info),
                overwrite=overwrite,
            )
        return writer(
            self.path,
            sample_rate,
            channels,
            frames=resampled_length(info.frames, info.sample_rate, sample_rate),
            subtype=_subtype(self.path, info, options),
            tags=info.tags,
            mask=0 if options.mono else info.mask,
            metadata=_metadata(info),
            source=info.path,
            overwrite=overwrite,
        )


@dataclass(frozen=True)
class PipeTarget:
    """A pipe to be written to."""

    stream: ByteSink
    path = STDOUT
    is_pipe = True

    @property
    def spool_folder(self) -> Path:
        """Raise UsageError, since what waits for its end does not belong in a pipe."""
        raise UsageError(
            "a pipe cannot be rescaled or brought to a loudness, since its peak and its loudness "
            "are known only at its end; write a file"
        )

    def open(
        self, info: AudioInfo, options: FileOptions, *, overwrite: bool
    ) -> AbstractContextManager[Sink]:
        """Write the header."""
        bare = options.raw is not None
        subtype = (options.subtype or info.subtype).upper()
        if options.subtype is None and not bare:  # WAV has fewer sample formats
            subtype = nearest_subtype("x.wav", subtype)
            if subtype not in PipeWriter.SUBTYPES:
                subtype = "FLOAT" if subtype in FLOATING else "PCM_16"
        _require_clip(STDOUT, subtype, options)
        return nullcontext(
            PipeWriter(
                self.stream,
                options.sample_rate or info.sample_rate,
                1 if options.mono else info.channels,
                subtype,
                bare=bare,
                mask=0 if options.mono else info.mask,
            )
        )


Source = FileSource | PipeSource
Target = FileTarget | PipeTarget


def source_of(source: Path | str | ByteSource) -> Source:
    """Return the source that an argument of ``Denoiser.clean_file`` stands for.

    Raises:
        UsageError: It has another type.
    """
    if isinstance(source, Path | str):
        return FileSource(Path(source))
    if not isinstance(source, ByteSource) or isinstance(source, io.TextIOBase):
        raise UsageError(f"a source must be a path or a binary file to read, not {source!r}")
    return PipeSource(source)


def target_of(target: Path | str | ByteSink) -> Target:
    """Return the target that an argument of ``Denoiser.clean_file`` stands for.

    Raises:
        UsageError: It has another type.
    """
    if isinstance(target, Path | str):
        return FileTarget(Path(target))
    if not isinstance(target, ByteSink) or isinstance(target, io.TextIOBase):
        raise UsageError(f"a target must be a path or a binary file to write, not {target!r}")
    return PipeTarget(target)


def clean_recording(
    open_stream: Callable[[int, int, bool], PieceStream],
    source: Source,
    target: Target,
    noise_target: FileTarget | None,
    options: FileOptions,
    *,
    overwrite: bool,
    on_progress: OnProgress | None,
) -> CleanResult:
    """Do the work of ``Denoiser.clean_file``, which documents the arguments and the errors.

    Args:
        open_stream: Function that is called with the sample rate in Hz, the number of channels, and
            whether the sound is to be cleaned as it arrives.
        source: Noisy recording.
        target: Target of the clean sound.
        noise_target: Target of the difference between source and clean sound.
        options: Options for reading and writing.
        overwrite: Replace existing targets.
        on_progress: Called after each block.
    """
    start = time.perf_counter()
    meter_in, meter_out = LevelMeter(), LevelMeter()
    with ExitStack() as stack:
        reading = stack.enter_context(ExitStack())
        recording = reading.enter_context(source.open(options))
        info = recording.info
        try:
            require_sample_rate(info.sample_rate)
        except UsageError as error:
            raise AudioError(f"{info.path} cannot be cleaned: {error}") from error
        channels = 1 if options.mono else info.channels
        sample_rate = options.sample_rate or info.sample_rate
        targets: list[Target] = [target]
        if noise_target is not None:
            targets.append(noise_target)
            _require_different(info.path, target, noise_target)
        target_warnings = _target_warnings(info, targets, options)
        waits = options.clip == Clip.RESCALE or options.normalizes
        spool_folder = target.spool_folder if waits else None
        normalization = None
        if options.normalizes:
            normalization = Normalization(
                options.loudness, options.true_peak, info.sample_rate, channels
            )
        tracks = []
        if noise_target is not None:  # its file is complete before that of the clean sound
            stack.enter_context(_removed_after_failure(noise_target.path))
        for place in targets:
            sink = stack.enter_context(place.open(info, options, overwrite=overwrite))
            track = Track(sink, channels, info.sample_rate, sample_rate, spool_folder)
            tracks.append(stack.enter_context(closing(track)))
        stream = open_stream(info.sample_rate, channels, source.is_pipe and target.is_pipe)
        downmix = Downmix(recording) if options.mono else recording
        for piece in _pieces(stream, downmix):
            meter_in.add(piece.noisy)
            if normalization is not None:
                normalization.add(piece.noisy)
            meter_out.add(piece.clean)
            tracks[0].write(piece.clean)
            if noise_target is not None:
                tracks[1].write(piece.noisy - piece.clean)
            if on_progress is not None and piece.clean.size:
                on_progress(meter_out.timesteps / info.sample_rate, info.duration)
        reading.close()  # Windows replaces no file that is open
        leveling = None
        if normalization is None:
            gain = finish_tracks(tracks)
        else:
            leveling = finish_normalized(tracks, normalization)
            gain = leveling.gain
    clipped = tracks[0].sink.clipped
    return CleanResult(
        source=info.path,
        target=target.path,
        noise_target=None if noise_target is None else noise_target.path,
        sample_rate=tracks[0].sink.sample_rate,
        channels=channels,
        seconds=meter_out.timesteps / info.sample_rate,
        wall_seconds=time.perf_counter() - start,
        rms_in_dbfs=meter_in.dbfs,
        rms_out_dbfs=meter_out.dbfs + dbfs(gain) if leveling is None else leveling.rms_dbfs,
        clipped_samples=clipped,
        replaced_samples=recording.replaced,
        gain=gain,
        warnings=(
            *dict.fromkeys(
                warning for track in tracks for warning in getattr(track.sink, "warnings", ())
            ),
            *target_warnings,
            *_warnings(recording, clipped, gain if leveling is None else 1.0, options),
            *_noise_warnings(tracks[1:]),
            *(() if leveling is None else leveling.warnings),
            *(_downmix_warnings(downmix) if isinstance(downmix, Downmix) else ()),
        ),
        loudness_lufs=None if leveling is None else leveling.loudness,
        true_peak_dbfs=None if leveling is None else leveling.true_peak,
    )


def _target_warnings(
    info: AudioInfo, targets: Iterable[Target], options: FileOptions
) -> tuple[str, ...]:
    """Return warnings about hard links that will be broken, and a lossy codec for lossless sound.

    The latter only if the suffix is that of the source, as for FLAC in an Ogg file.
    """
    warnings = []
    for target in targets:
        if target.is_pipe:
            continue
        path = target.path
        if path.is_file() and path.stat().st_nlink > 1:
            warnings.append(f"{path} had other hard links, which keep the old sound")
        is_same = path.suffix.lower() in FORMATS and path.suffix.lower() == info.path.suffix.lower()
        if is_same and options.subtype is None and info.subtype in BITS:
            subtype = _subtype(path, info, options)
            if subtype not in BITS:
                warnings.append(
                    f"the sound of {info.path} is lossless and was stored with the lossy codec "
                    f"{subtype}; write a .flac file to avoid that"
                )
    return tuple(warnings)


def _warnings(
    recording: AudioReader, clipped: int, gain: float, options: FileOptions
) -> tuple[str, ...]:
    warnings = list(recording.warnings)
    if recording.problem is not None:
        warnings.append(recording.problem)
    if recording.replaced:
        warnings.append(
            f"{_samples(recording.replaced)} NaN, infinite or above 1e10, and set to zero"
        )
    if clipped:
        advice = "" if options.normalizes else "; --clip rescale scales the recording down instead"
        warnings.append(f"{_samples(clipped)} beyond full scale and clamped{advice}")
    if gain < 1:
        warnings.append(f"scaled down by {-dbfs(gain):.1f} dB to stay within full scale")
    return tuple(warnings)


def _noise_warnings(tracks: Iterable[Track]) -> tuple[str, ...]:
    return tuple(
        f"{_samples(track.sink.clipped, of=' of the noise')} beyond full scale and clamped"
        for track in tracks
        if track.sink.clipped
    )


def _samples(count: int, of: str = "") -> str:
    return f"1 sample{of} was" if count == 1 else f"{count} samples{of} were"


def _pieces(stream: PieceStream, blocks: Iterable[AudioBlock]) -> Iterator[Piece]:
    for block in blocks:
        yield from stream.pieces(block)
    yield from stream.last_pieces()


def _downmix_warnings(downmix: Downmix) -> tuple[str, ...]:
    """Return a warning if the channels cancel each other out."""
    if not downmix.cancels:
        return ()
    lost = downmix.lost_db
    level = "silent" if lost > _SILENT_DB else f"{lost:.0f} dB below them"
    return (
        f"the mean of the channels is {level}, since they cancel each other out; one channel may "
        "have inverted polarity, so clean without --mono and keep one channel",
    )


def _metadata(info: AudioInfo) -> Metadata | None:
    """Return what a recording carries beside its sound, in a pipe before it; None if nothing."""
    if not info.head and not info.path.is_file():
        return None
    return read_metadata(info.head or info.path, info.format, info.sample_rate, info.channels)


def _subtype(name: Path, info: AudioInfo, options: FileOptions) -> str:
    """Return the subtype to write; raise UsageError if it does not fit the format or `clip`."""
    if options.subtype is None:
        subtype = nearest_subtype(name, info.subtype)
    else:
        subtype = require_subtype(name, options.subtype)
    _require_clip(name, subtype, options)
    return subtype


def _require_clip(name: Path, subtype: str, options: FileOptions) -> None:
    if options.clip == Clip.NONE and subtype not in FLOATING:
        raise UsageError(
            f"{name}: {subtype} has no values beyond full scale; use --clip clamp or rescale, or "
            "--subtype FLOAT"
        )


@contextmanager
def _removed_after_failure(path: Path) -> Iterator[None]:
    """Remove a file that did not exist before, if the block fails."""
    existed = os.path.lexists(path)
    try:
        yield
    except BaseException:
        if not existed:
            path.unlink(missing_ok=True)
        raise


def _require_different(source: Path, target: Target, noise_target: FileTarget) -> None:
    noise_path = noise_target.path.resolve()
    if not target.is_pipe and target.path.resolve() == noise_path:
        raise UsageError(f"{target.path} cannot hold both the clean sound and the noise")
    if source.resolve() == noise_path:
        raise UsageError(
            f"{noise_target.path} is the recording itself; choose another file for the noise"
        )
