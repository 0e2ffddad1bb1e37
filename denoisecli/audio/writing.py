"""Audio files written block by block."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import soundfile
from jaxtyping import Shaped

from denoisecli.audio.channels import default_mask, fits_ogg, to_ogg_order
from denoisecli.audio.formats import (
    BITS,
    COMPRESSION,
    FLOATING,
    default_subtype,
    format_of,
    require_channels,
    require_sample_rate,
)
from denoisecli.audio.metadata import (
    Metadata,
    not_kept,
    write_channel_mask_comment,
    write_metadata,
)
from denoisecli.audio.reading import SequentialFile, reason_of
from denoisecli.audio.riff import make_plain, write_aiff_length, write_mask
from denoisecli.errors import DenoiseError, StorageError, UsageError
from denoisecli.system.atomic_files import replacing
from denoisecli.types import AudioBlock

_WRITE_FRAMES = 2**16  # libsndfile's Vorbis encoder overflows its stack on large writes
_SYSTEM_ERROR = 2  # libsndfile's SF_ERR_SYSTEM
_ONE_BYTE = ("PCM_S8", "PCM_U8", "ALAW", "ULAW")
_AUTO_DOWNGRADE = 0x1210  # libsndfile's SFC_RF64_AUTO_DOWNGRADE
_MAX_BYTES = dict.fromkeys(("WAV", "WAVEX", "AIFF"), 2**32 - 2**16)  # 32-bit sizes in the header


class AudioWriter:
    """An open audio file to write block by block; see :func:`writer`.

    Args:
        file: Open file.
        on_error: Function that returns the error to raise for one of libsndfile.
        in_ogg_order: The channels have to be brought into the order of Ogg files.

    Attributes:
        sample_rate: Sample rate in Hz.
        clipped: Number of samples beyond full scale that were clamped so far.
        frames: Number of samples per channel written so far.
        failed: A block could not be written, or only in part.
        warnings: Warnings about metadata that the file cannot hold, complete when it is closed.
    """

    def __init__(
        self,
        file: soundfile.SoundFile,
        on_error: Callable[[soundfile.LibsndfileError], DenoiseError],
        *,
        in_ogg_order: bool = False,
    ) -> None:
        self.sample_rate: int = file.samplerate
        self.clipped = 0
        self.frames = 0
        self.failed = False
        self.warnings: list[str] = []
        self._file = file
        self._on_error = on_error
        self._in_ogg_order = in_ogg_order
        self._clamps = file.subtype not in FLOATING
        frame_bytes = file.channels * BITS.get(file.subtype, 0) // 8
        limit = _MAX_BYTES.get(file.format)
        self._max_frames = limit // frame_bytes if limit and frame_bytes else None

    def write(self, block: AudioBlock) -> None:
        """Append samples, shape (channels, timesteps).

        Raises:
            DenoiseError: They cannot be written. The file keeps what was written before, if the
                ``with`` block of :func:`writer` ends without the exception.
        """
        if self._clamps:
            block, clipped = clamp(block)
            self.clipped += clipped
        if self._in_ogg_order:
            block = to_ogg_order(block)
        frames = self.frames + block.shape[1]
        if self._max_frames is not None and frames > self._max_frames:
            raise DenoiseError(
                f"{self._file.format} files hold at most 4 GB; write .w64 or .rf64 instead"
            )
        try:
            for start in range(0, block.shape[1], _WRITE_FRAMES):
                part = block[:, start : start + _WRITE_FRAMES]
                self._file.write(quantize(part, self._file.subtype).T)
        except soundfile.LibsndfileError as error:
            self.failed = True
            raise self._on_error(error) from error
        self.frames = frames


def clamp(block: AudioBlock) -> tuple[AudioBlock, int]:
    """Limit samples to full scale; return them and the number of those beyond it."""
    # Positive full scale itself is one step too high for PCM, but no audible clipping.
    if not block.size or (block.max() <= 1 and block.min() >= -1):
        return block, 0
    return np.clip(block, -1, 1), int(np.count_nonzero(np.abs(block) > 1))


def quantize(block: AudioBlock, subtype: str) -> Shaped[np.ndarray, "channels _"]:
    """Round samples to the steps of an integer subtype, half to even, without dither.

    libsndfile itself truncates them in most formats, which adds an offset of half a step and four
    times the error. It takes the upper bits of what is returned here.

    Args:
        block: Samples, shape (channels, timesteps); those beyond full scale are clamped.
        subtype: Sample format as libsndfile names it.

    Returns:
        int32 samples whose full scale is 2**31; the samples as they are for any subtype that does
        not store integers.
    """
    if subtype in FLOATING or subtype not in BITS:
        return block
    bits = BITS[subtype]
    full_scale = 2 ** (bits - 1)
    # All steps of up to 24 bits are float32 numbers, and the product with a power of two is exact.
    steps = block * (np.float32 if bits <= 24 else np.float64)(full_scale)
    np.rint(steps, out=steps)
    np.clip(steps, -full_scale, full_scale - 1, out=steps)
    return steps.astype(np.int32) << (32 - bits)


@contextmanager
def writer(
    path: Path | str,
    sample_rate: int,
    channels: int,
    *,
    frames: int,
    subtype: str | None = None,
    tags: Mapping[str, str] | None = None,
    mask: int = 0,
    metadata: Metadata | None = None,
    source: Path | None = None,
    overwrite: bool = False,
) -> Iterator[AudioWriter]:
    """Open an audio file to write it block by block; it appears when the ``with`` block succeeds.

    Args:
        path: Target; its suffix chooses the format.
        sample_rate: Sample rate in Hz.
        channels: Number of channels.
        frames: Expected samples per channel, 0 if unknown. A WAV of 4 GB or more is written as
            RF64.
        subtype: Sample format as libsndfile names it; by default the usual one of the format.
        tags: Tags by soundfile's names; those that the format does not support are left out.
        mask: Channel mask; 0 if it is unknown.
        metadata: Further metadata (``denoisecli.audio.metadata.read_metadata``).
        source: Recording that the file is made from, whose permissions limit those of a new file.
        overwrite: Replace an existing file.

    Raises:
        UsageError, DenoiseError: As :func:`denoisecli.audio.files.write`.
    """
    path = Path(path)
    container = format_of(path)
    require_channels(path, channels)
    subtype = subtype or default_subtype(path)
    require_sample_rate(path, sample_rate, subtype)
    size = frames * channels * BITS.get(subtype, 16) // 8
    if size > _MAX_BYTES.get(container, size):
        if container != "WAV":
            raise UsageError(f"{path}: {container} files hold at most 4 GB; write .wav or .w64")
        container = "RF64"
    grows = frames == 0 and container == "WAV" and subtype in soundfile.available_subtypes("RF64")
    is_extensible = mask and container == "WAV"
    metadata = metadata or Metadata()
    tags = metadata.soundfile_tags(container, dict(tags or {}))
    count = "1 channel" if channels == 1 else f"{channels} channels"
    content = f"{count} at {sample_rate} Hz as {container}/{subtype}"

    def explain(error: soundfile.LibsndfileError) -> DenoiseError:
        if error.code == _SYSTEM_ERROR:
            return StorageError(f"cannot write {path}; is the disk full?")
        return DenoiseError(f"{path}: cannot write {content}{reason_of(error)}")

    with replacing(path, overwrite=overwrite, source=source) as part:
        try:
            file = soundfile.SoundFile(
                part,
                "w",
                sample_rate,
                channels,
                subtype,
                format="RF64" if grows else "WAVEX" if is_extensible else container,
                compression_level=COMPRESSION.get(subtype),
            )
        except (soundfile.LibsndfileError, ValueError) as error:
            hint = "; use --sample-rate 48000" if subtype == "OPUS" and sample_rate != 48000 else ""
            raise UsageError(f"{path}: cannot write {content}{reason_of(error)}{hint}") from error
        try:
            with file:
                if grows:
                    _allow_riff(file)
                for tag, text in tags.items():
                    with suppress(soundfile.LibsndfileError):  # the format has no such tag
                        setattr(file, tag, text)
                fits = container != "OGG" or fits_ogg(mask, channels)
                output = AudioWriter(file, explain, in_ogg_order=container == "OGG" and fits)
                yield output
            if grows and not mask:
                make_plain(part)
            if container == "AIFF" and subtype in _ONE_BYTE and output.frames * channels % 2:
                write_aiff_length(part, output.frames, channels)
            if not output.failed:
                _require_complete(part, output.frames)
            lost = write_metadata(metadata, part, container, sample_rate, channels, tags)
            if mask and not (fits and _write_mask(part, container, mask, channels)):
                lost.append("channel mask")
            if lost:
                output.warnings.append(not_kept(container, lost))
        except soundfile.LibsndfileError as error:
            raise explain(error) from error


def _allow_riff(file: soundfile.SoundFile) -> None:
    """Let an RF64 become a WAV when it is closed, if it is short enough; soundfile cannot."""
    soundfile._snd.sf_command(file._file, _AUTO_DOWNGRADE, soundfile._ffi.NULL, 1)


def _write_mask(part: Path, container: str, mask: int, channels: int) -> bool:
    """Write the channel mask to a file, and return whether the file can hold it."""
    if container in ("WAV", "RF64"):
        write_mask(part, mask)
    elif container == "FLAC":
        if mask != default_mask(channels):
            write_channel_mask_comment(part, mask)
    else:
        return container == "OGG" or channels <= 2
    return True


def _require_complete(part: Path, frames: int) -> None:
    """Raise OSError if the last sample is missing: closing a file does not report a full disk."""
    if frames == 0:
        return
    with SequentialFile(part) as file:
        # The MP3 decoder prints complaints when it starts in the middle.
        position = 0 if file.format == "MP3" else file.seek(frames - 1)
        while read := len(file.read(_WRITE_FRAMES)):
            position += read
        if position != frames or file.frames != frames:
            raise OSError("the file is incomplete; is the disk full?")
