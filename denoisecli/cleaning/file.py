"""A noisy recording to a clean one: a file or a pipe, block by block."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from denoisecli.audio.formats import FLOATING, nearest_subtype, require_subtype
from denoisecli.audio.level import dbfs
from denoisecli.audio.pipe import STDOUT, ByteSink, ByteSource, PipeWriter, RawFormat, pipe_reader
from denoisecli.audio.reading import AudioInfo, AudioReader, reader
from denoisecli.audio.resampling import resampled_length
from denoisecli.audio.writing import writer
from denoisecli.cleaning.stream import DenoiseStream, Piece
from denoisecli.cleaning.tracks import CLIPS, Output, Sink
from denoisecli.errors import UsageError
from denoisecli.types import AudioBlock

Progress = Callable[[float, float], None]
"""Called with the seconds of audio done and in all; 0 in all is not known."""


@dataclass(frozen=True)
class FileOptions:
    """How files are read and written.

    Attributes:
        sample_rate: Hz of what is written; by default that of the source.
        subtype: libsndfile's name of the sample format, such as "PCM_24"; by default that of the
            source, or the nearest that the target's format has.
        mono: clean and write the mean of the channels.
        clip: what happens beyond full scale. "clamp" sets samples to full scale where the target
            stores integers (or is lossy), and counts them; "rescale" scales the whole recording
            down to fit; "none" changes nothing, which only floating-point targets allow.
        replace_nan: set NaN and infinite samples to zero and count them, instead of failing.
        keep_readable: clean what can be read of a damaged or cut-off file, with a warning, instead
            of failing.
        raw: what a source pipe holds when it has no header; a target pipe then has none either.

    Raises:
        UsageError: an option makes no sense.
    """

    sample_rate: int | None = None
    subtype: str | None = None
    mono: bool = False
    clip: str = "clamp"
    replace_nan: bool = False
    keep_readable: bool = False
    raw: RawFormat | None = None

    def __post_init__(self) -> None:
        if self.clip not in CLIPS:
            raise UsageError(f"clip must be none, clamp or rescale, not {self.clip}")
        if self.sample_rate is not None and self.sample_rate < 1:
            raise UsageError(f"the sample rate must be at least 1 Hz, not {self.sample_rate}")


@dataclass(frozen=True)
class CleanResult:
    """What ``Denoiser.clean_file`` did.

    Attributes:
        source: the noisy file.
        target: the cleaned file.
        noise_target: the file with what was removed, if it was wanted.
        sample_rate: Hz of the cleaned file.
        channels: its number of channels.
        seconds: length of the audio in s.
        wall_seconds: time it took in s.
        rms_in_dbfs: level of the input; -inf for digital silence.
        rms_out_dbfs: level of the output.
        clipped_samples: samples that passed full scale and were clamped to it.
        replaced_samples: samples that were NaN or infinite and were set to zero.
        gain: what the output was scaled with so that it does not pass full scale.
        warnings: why this may not be all that was asked for.
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

    @property
    def real_time_factor(self) -> float:
        """Seconds of work per second of audio."""
        return self.wall_seconds / self.seconds

    def record(self) -> dict[str, Any]:
        """Give all of it as plain JSON data; null is the level of digital silence."""
        record = {field.name: getattr(self, field.name) for field in fields(self)}
        record["real_time_factor"] = self.real_time_factor
        for name, value in record.items():
            if isinstance(value, Path):
                record[name] = str(value)
            elif isinstance(value, float) and not math.isfinite(value):
                record[name] = None
        return record


def clean_recording(
    open_stream: Callable[[int, int, bool], DenoiseStream],
    source: Path | str | ByteSource,
    target: Path | str | ByteSink,
    options: FileOptions,
    *,
    noise_target: Path | str | None,
    overwrite: bool,
    progress: Progress | None,
) -> CleanResult:
    """Do the work of ``Denoiser.clean_file``, which explains the arguments and the errors.

    ``open_stream`` is given the sample rate, the number of channels, and whether the sound is to be
    cleaned as it comes.
    """
    start = time.perf_counter()
    meter_in, meter_out = _Meter(), _Meter()
    with ExitStack() as stack:
        recording = _source(stack, source, options)
        info = recording.info
        channels = 1 if options.mono else info.channels
        targets: list[Path | ByteSink] = [Path(target) if isinstance(target, str) else target]
        if noise_target is not None:
            _require_different(info.path, targets[0], Path(noise_target))
            targets.append(Path(noise_target))
        sinks = [_sink(stack, one, info, options, overwrite) for one in targets]
        output = Output(
            sinks,
            channels,
            info.sample_rate,
            options.sample_rate or info.sample_rate,
            _spool(targets[0]) if options.clip == "rescale" else None,
        )
        live = not isinstance(source, str | Path) and not isinstance(targets[0], Path)
        cleaner = open_stream(info.sample_rate, channels, live)
        for piece in _pieces(cleaner, recording, options.mono):
            meter_in.add(piece.noisy)
            meter_out.add(piece.clean)
            tracks = [piece.clean]
            if noise_target is not None:
                tracks.append(piece.noisy - piece.clean)
            output.write(np.concatenate(tracks))
            if progress is not None and piece.clean.size:
                progress(meter_out.timesteps / info.sample_rate, info.duration)
        output.finish()
    return CleanResult(
        source=info.path,
        target=targets[0] if isinstance(targets[0], Path) else STDOUT,
        noise_target=None if noise_target is None else Path(noise_target),
        sample_rate=options.sample_rate or info.sample_rate,
        channels=channels,
        seconds=meter_out.timesteps / info.sample_rate,
        wall_seconds=time.perf_counter() - start,
        rms_in_dbfs=meter_in.dbfs,
        rms_out_dbfs=meter_out.dbfs + dbfs(output.gain),
        clipped_samples=sinks[0].clipped,
        replaced_samples=recording.replaced,
        gain=output.gain,
        warnings=_warnings(recording, sinks[0].clipped, output.gain),
    )


def _warnings(recording: AudioReader, clipped: int, gain: float) -> tuple[str, ...]:
    found = []
    if recording.problem is not None:
        found.append(recording.problem)
    if recording.replaced:
        found.append(f"{recording.replaced} samples were no numbers and are silence now")
    if clipped:
        found.append(
            f"{clipped} samples passed full scale and were clamped; --clip rescale keeps them"
        )
    if gain < 1:
        found.append(f"{-dbfs(gain):.1f} dB softer, so that nothing passes full scale")
    return tuple(found)


def _pieces(stream: DenoiseStream, recording: AudioReader, mono: bool) -> Iterator[Piece]:
    for block in recording:
        yield from stream.pieces(block.mean(axis=0, keepdims=True) if mono else block)
    yield from stream.last_pieces()


def _source(stack: ExitStack, source: Path | str | ByteSource, options: FileOptions) -> AudioReader:
    faults = {"replace_nan": options.replace_nan, "keep_readable": options.keep_readable}
    if isinstance(source, str | Path):
        return stack.enter_context(reader(source, **faults))
    return pipe_reader(source, options.raw, **faults)


def _sink(
    stack: ExitStack,
    target: Path | ByteSink,
    info: AudioInfo,
    options: FileOptions,
    overwrite: bool,
) -> Sink:
    name = target if isinstance(target, Path) else Path("pipe.wav")
    subtype = nearest_subtype(name, info.subtype)
    if options.subtype is not None:
        subtype = require_subtype(name, options.subtype)
    if options.clip == "none" and subtype not in FLOATING:
        raise UsageError(
            f"{name}: {subtype} holds nothing beyond full scale; choose clip clamp or rescale, or "
            "the subtype FLOAT"
        )
    sample_rate = options.sample_rate or info.sample_rate
    channels = 1 if options.mono else info.channels
    if isinstance(target, Path):
        return stack.enter_context(
            writer(
                target,
                sample_rate,
                channels,
                frames=resampled_length(info.frames, info.sample_rate, sample_rate),
                subtype=subtype,
                tags=info.tags,
                overwrite=overwrite,
            )
        )
    if options.subtype is None and options.raw is None and subtype not in PipeWriter.SUBTYPES:
        subtype = "FLOAT" if subtype in FLOATING else "PCM_16"
    return PipeWriter(target, sample_rate, channels, subtype, bare=options.raw is not None)


def _spool(target: Path | ByteSink) -> Path:
    if not isinstance(target, Path):
        raise UsageError("a pipe cannot be rescaled, since its peak is known only at its end")
    return target.parent


def _require_different(source: Path, target: Path | ByteSink, noise_target: Path) -> None:
    if isinstance(target, Path) and target.resolve() == noise_target.resolve():
        raise UsageError(f"{target} cannot take both the clean sound and the noise")
    if source.resolve() == noise_target.resolve():
        raise UsageError(f"{noise_target} is the recording itself; write the noise somewhere else")


class _Meter:
    """Measures the level of the blocks that pass."""

    def __init__(self) -> None:
        self.timesteps = 0
        self._energy = 0.0
        self._samples = 0

    def add(self, block: AudioBlock) -> None:
        """Count a block in."""
        self.timesteps += block.shape[1]
        self._samples += block.size
        self._energy += sum(float(np.dot(one, one)) for one in block)

    @property
    def dbfs(self) -> float:
        return dbfs(math.sqrt(self._energy / max(self._samples, 1)))
