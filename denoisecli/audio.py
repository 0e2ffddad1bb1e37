"""Audio files in and out, whole or block by block, and resampling."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr
from jaxtyping import Float

from denoisecli import files
from denoisecli.errors import AudioError, DenoiseError, UsageError
from denoisecli.types import AudioChannels, AudioVector

FORMATS = {
    ".wav": "WAV",
    ".flac": "FLAC",
    ".ogg": "OGG",
    ".oga": "OGG",
    ".opus": "OGG",
    ".mp3": "MP3",
    ".aiff": "AIFF",
    ".aif": "AIFF",
    ".w64": "W64",
    ".rf64": "RF64",
    ".caf": "CAF",
    ".au": "AU",
}
"""File suffixes that are read and written, and the libsndfile format of each."""

# Bits per sample of the subtypes that hold samples as they are; lossy ones are not here.
_BITS = {
    "PCM_S8": 8,
    "PCM_U8": 8,
    "PCM_16": 16,
    "PCM_24": 24,
    "PCM_32": 32,
    "FLOAT": 32,
    "DOUBLE": 64,
    "ALAC_16": 16,
    "ALAC_20": 20,
    "ALAC_24": 24,
    "ALAC_32": 32,
}
_FLOATING = ("FLOAT", "DOUBLE")
# Lossy subtypes kept when source and target share them; ADPCM and its like pad the length.
_KEPT = ("ULAW", "ALAW", "VORBIS", "OPUS", "MPEG_LAYER_III")

BLOCK_FRAMES = 2**18
"""Samples per channel that :func:`read_blocks` gives at a time: about 5 s at 48 kHz."""

_WRITE_FRAMES = 2**16  # libsndfile's Vorbis encoder overflows its stack on large writes
_MAX_BYTES = {"WAV": 2**32 - 2**16, "AIFF": 2**32 - 2**16}  # 32-bit sizes in the header

AudioBlock = Float[np.ndarray, "channels _"]
"""A piece of a stream: any number of timesteps, even none, at full scale -1..1."""

# One or several channels, before and after the number of timesteps has changed.
_Audio = Float[np.ndarray, "*channels timesteps"]
_NewLength = Float[np.ndarray, "*channels new_timesteps"]


@dataclass(frozen=True)
class AudioInfo:
    """What the header of an audio file says."""

    path: Path
    sample_rate: int
    channels: int
    frames: int
    format: str
    subtype: str

    @property
    def duration(self) -> float:
        """Length in seconds."""
        return self.frames / self.sample_rate


def probe(path: Path | str) -> AudioInfo:
    """Read the header of an audio file.

    Raises:
        UsageError: there is no such file, or it is a folder.
        AudioError: it is no audio file, a damaged one, or one without samples.
    """
    with _opened(Path(path)) as file:
        return _info(Path(path), file)


def read(path: Path | str, *, sample_rate: int | None = None) -> tuple[AudioChannels, int]:
    """Read a whole audio file.

    Args:
        path: the file.
        sample_rate: resample to this rate (Hz); by default the file's own is kept.

    Returns:
        float32 samples (channels, timesteps), full scale -1..1, and their rate in Hz.

    Raises:
        UsageError: there is no such file, or it is a folder.
        AudioError: no audio, damaged, without samples, or with NaN or infinite samples.
    """
    own_rate = probe(path).sample_rate
    audio = np.concatenate(list(read_blocks(path)), axis=1)
    if sample_rate is None:
        return audio, own_rate
    return resample(audio, own_rate, sample_rate), sample_rate


def read_mono(path: Path | str, sample_rate: int | None = None) -> tuple[AudioVector, int]:
    """Read a whole audio file as the mean of its channels; otherwise like :func:`read`."""
    own_rate = probe(path).sample_rate
    audio = np.concatenate([block.mean(axis=0) for block in read_blocks(path)])
    if sample_rate is None:
        return audio, own_rate
    return resample(audio, own_rate, sample_rate), sample_rate


def read_blocks(path: Path | str, frames: int = BLOCK_FRAMES) -> Iterator[AudioBlock]:
    """Read an audio file in blocks of ``frames`` samples per channel (the last may be shorter).

    Yields:
        float32 samples (channels, up to ``frames``), at the file's own rate.

    Raises:
        UsageError, AudioError: as :func:`read`.
    """
    path = Path(path)
    with _opened(path) as file:
        position = 0
        while True:
            try:
                block = file.read(frames, dtype="float32", always_2d=True).T
            except soundfile.LibsndfileError as error:
                seconds = position / file.samplerate
                raise AudioError(
                    f"{path} is damaged at {seconds:.0f} s or later: {_reason(error)}"
                ) from error
            if block.shape[1] == 0:
                break
            require_finite(block, file.samplerate, where=str(path), start=position)
            position += block.shape[1]
            yield np.ascontiguousarray(block)
        if position == 0:  # the header promised samples that cannot be decoded
            raise AudioError(f"{path} is damaged: no samples can be read")


def write(
    path: Path | str,
    audio: AudioChannels | AudioVector,
    sample_rate: int,
    *,
    subtype: str | None = None,
    overwrite: bool = False,
) -> None:
    """Write a whole audio file; its format follows the suffix.

    Args:
        path: the target; it appears only when it is whole.
        audio: samples (channels, timesteps) or (timesteps,), full scale -1..1. What passes full
            scale is clamped, unless the subtype is floating point.
        sample_rate: Hz.
        subtype: libsndfile's name of the sample format, such as ``"PCM_24"``; by default the
            one usual for the format (16 bits for WAV and FLAC).
        overwrite: replace an existing file.

    Raises:
        UsageError: unknown suffix, existing target, or a rate, number of channels or subtype
            that the format cannot hold.
        DenoiseError: the file cannot be written.
    """
    audio = np.atleast_2d(audio)
    channels, frames = audio.shape
    with writer(
        path, sample_rate, channels, frames=frames, subtype=subtype, overwrite=overwrite
    ) as target:
        target.write(audio)


class AudioWriter:
    """An open audio file that takes one block after another; made by :func:`writer`.

    Attributes:
        clipped: how many samples so far passed full scale and were clamped to it.
    """

    def __init__(self, file: soundfile.SoundFile) -> None:
        self.clipped = 0
        self._file = file
        self._clamps = file.subtype not in _FLOATING

    def write(self, block: AudioBlock) -> None:
        """Append samples (channels, timesteps)."""
        if self._clamps:
            # Positive full scale itself is one step too high for PCM, but no audible clipping.
            self.clipped += int(np.count_nonzero(np.abs(block) > 1))
            block = np.clip(block, -1, 1)
        for start in range(0, block.shape[1], _WRITE_FRAMES):
            self._file.write(block[:, start : start + _WRITE_FRAMES].T)


@contextmanager
def writer(
    path: Path | str,
    sample_rate: int,
    channels: int,
    *,
    frames: int,
    subtype: str | None = None,
    overwrite: bool = False,
) -> Iterator[AudioWriter]:
    """Open an audio file to be written block by block; it appears when the block succeeds.

    ``frames`` is the expected length (samples per channel): a WAV of 4 GB and more is written
    as RF64. The other arguments and the errors are those of :func:`write`.
    """
    path = Path(path)
    container = format_of(path)
    subtype = subtype or default_subtype(path)
    size = frames * channels * _BITS.get(subtype, 16) // 8
    if size > _MAX_BYTES.get(container, size):
        if container != "WAV":
            raise UsageError(f"{path}: {container} holds no more than 4 GB; write .wav or .w64")
        container = "RF64"
    with files.replacing(path, overwrite=overwrite) as part:
        try:
            file = soundfile.SoundFile(part, "w", sample_rate, channels, subtype, format=container)
        except (soundfile.LibsndfileError, ValueError) as error:
            what = f"{channels} channels at {sample_rate} Hz as {container}/{subtype}"
            raise UsageError(f"{path}: cannot write {what}: {_reason(error)}") from error
        try:
            with file:
                yield AudioWriter(file)
        except soundfile.LibsndfileError as error:
            raise DenoiseError(f"cannot write {path}: {_reason(error)}") from error


def format_of(path: Path | str) -> str:
    """Give the libsndfile format for a file name.

    Raises:
        UsageError: the suffix is not one of FORMATS.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in FORMATS:
        raise UsageError(f"{path}: unknown audio format '{suffix}'; known are {' '.join(FORMATS)}")
    return FORMATS[suffix]


def default_subtype(path: Path | str) -> str:
    """Give the sample format usual for a file name: 16 bits, or the codec of a lossy format."""
    if Path(path).suffix.lower() == ".opus":
        return "OPUS"
    return soundfile.default_subtype(format_of(path))


def nearest_subtype(path: Path | str, like: str) -> str:
    """Give the sample format for ``path`` nearest to the subtype ``like``.

    That is the same one where the format of ``path`` has it; else the smallest that loses no
    bits; else the best there is. A lossy source or target takes the target's default.
    """
    container = format_of(path)
    available = soundfile.available_subtypes(container)
    keeps = like in _BITS or like in _KEPT
    if keeps and like in available and Path(path).suffix.lower() != ".opus":
        return like
    choices = [name for name in _BITS if name in available and not name.startswith("ALAC")]
    if like not in _BITS or not choices:
        return default_subtype(path)
    return next((name for name in choices if _BITS[name] >= _BITS[like]), choices[-1])


def find_audio(folder: Path | str) -> list[Path]:
    """List the audio files in a folder and the folders below it, sorted; hidden ones excepted.

    Raises:
        UsageError: there is no such folder, it is a file, or no audio file is in it.
    """
    folder = Path(folder)
    if not folder.exists():
        raise UsageError(f"{folder} does not exist")
    if not folder.is_dir():
        raise UsageError(f"{folder} is a file; a folder of recordings is needed")
    found = [
        path
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in FORMATS
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and path.is_file()
    ]
    if not found:
        raise UsageError(f"{folder} has no audio files ({' '.join(FORMATS)})")
    return found


def resample(audio: _Audio, orig_sr: int, target_sr: int) -> _NewLength:
    """Resample (soxr, high quality, linear phase: time-aligned) along the last axis.

    Args:
        audio: samples (timesteps,) or (channels, timesteps).
        orig_sr: their rate in Hz.
        target_sr: the rate wanted in Hz.

    Returns:
        Samples of the same kind; ``n`` timesteps become round(n * target_sr / orig_sr), but at
        least one.
    """
    if orig_sr == target_sr:
        return audio
    length = resampled_length(audio.shape[-1], orig_sr, target_sr)
    return fit_length(soxr.resample(audio.T, orig_sr, target_sr).T, length)


def resampled_length(timesteps: int, orig_sr: int, target_sr: int) -> int:
    """Give the number of samples after resampling: rounded to the nearest, but not to none."""
    exact = (2 * timesteps * target_sr + orig_sr) // (2 * orig_sr)
    return max(exact, min(timesteps, 1))


def fit_length(audio: _Audio, length: int) -> _NewLength:
    """Cut audio, or pad it with zeros, to ``length`` timesteps."""
    missing = max(length - audio.shape[-1], 0)
    padding = [(0, 0)] * (audio.ndim - 1) + [(0, missing)]
    return np.ascontiguousarray(np.pad(audio[..., :length], padding))


class StreamResampler:
    """Resample a stream block by block: the same samples as :func:`resample` of the whole.

    Args:
        orig_sr: rate of what comes in, Hz.
        target_sr: rate of what goes out, Hz.
        channels: number of channels.
    """

    def __init__(self, orig_sr: int, target_sr: int, channels: int) -> None:
        self._channels = channels
        self._stream = (
            None
            if orig_sr == target_sr
            else soxr.ResampleStream(orig_sr, target_sr, channels, dtype="float32")
        )

    def __call__(self, block: AudioBlock) -> AudioBlock:
        """Take float32 samples (channels, timesteps); give those that are ready, maybe none."""
        return self._resample(block)

    def finish(self) -> AudioBlock:
        """End the stream: give the samples still held back."""
        return self._resample(np.zeros((self._channels, 0), np.float32), last=True)

    def _resample(self, block: AudioBlock, last: bool = False) -> AudioBlock:
        if self._stream is None:
            return block
        return self._stream.resample_chunk(np.ascontiguousarray(block.T), last=last).T


def rms(audio: AudioVector | AudioChannels) -> float:
    """Give the root mean square over all samples and channels (0 when there are none)."""
    return float(np.sqrt(np.mean(np.square(audio, dtype=np.float64)))) if audio.size else 0.0


def dbfs(amplitude: float) -> float:
    """Give an amplitude (or RMS) in dB relative to full scale 1.0; -inf for 0."""
    return float(20 * np.log10(amplitude)) if amplitude > 0 else float("-inf")


def require_finite(
    audio: AudioChannels, sample_rate: int, *, where: str = "the audio", start: int = 0
) -> None:
    """Refuse NaN and infinite samples.

    Args:
        audio: samples (channels, timesteps).
        sample_rate: Hz.
        where: name of the signal for the message.
        start: position of the first sample in it.

    Raises:
        AudioError: says at which second, in which channel.
    """
    finite = np.isfinite(audio)
    if not finite.all():
        channel, timestep = np.argwhere(~finite)[np.argmin(np.nonzero(~finite)[1])]
        seconds = (start + timestep) / sample_rate
        raise AudioError(
            f"{where} has a sample that is no number (NaN or infinite) at {seconds:.3f} s, "
            f"channel {channel + 1}"
        )


@contextmanager
def _opened(path: Path) -> Iterator[soundfile.SoundFile]:
    if not path.exists():
        raise UsageError(f"{path} does not exist")
    if path.is_dir():
        raise UsageError(f"{path} is a folder; an audio file is needed")
    try:
        path.open("rb").close()
        file = soundfile.SoundFile(path)
    except OSError as error:
        raise AudioError(f"cannot read {path}: {error.strerror}") from error
    except (soundfile.LibsndfileError, TypeError) as error:  # TypeError: headerless raw audio
        known = " ".join(FORMATS)
        raise AudioError(f"{path} is damaged or no audio file of a known kind ({known})") from error
    with file:
        if file.frames == 0:
            raise AudioError(f"{path} has no samples")
        yield file


def _info(path: Path, file: soundfile.SoundFile) -> AudioInfo:
    return AudioInfo(path, file.samplerate, file.channels, file.frames, file.format, file.subtype)


def _reason(error: Exception) -> str:
    return getattr(error, "error_string", str(error)).removeprefix("Error : ").strip(" .")
