"""Spectrograms: scales of the short-time Fourier transform, the way back, and files."""

import warnings
import zipfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from jaxtyping import Float

from denoisecli.audio.files import read_mono, write
from denoisecli.audio.stft import check_hop_length, check_invertible, istft, stft, window_vector
from denoisecli.errors import AudioError, DenoiseError, UsageError
from denoisecli.system.atomic_files import refuse_existing, replacing
from denoisecli.types import AudioVector, SpectrogramMatrix

SCALES = ("magnitude", "power", "db", "mel")
"""What the numbers of a spectrogram can mean; see ``Spectrogram``."""

FLOOR_DB = -200.0
"""What is quieter (dBFS) is digital silence: the floor of the dB scale, inverted to zero."""

_FILE_FORMAT = "denoise spectrogram 1"


@dataclass(frozen=True, eq=False)
class Spectrogram:
    """A spectrogram with all that is needed to read, draw and invert it.

    The sound is padded with zeros at its end to a multiple of ``hop_length`` before ``stft``, so
    that its last samples can be recovered as well as the others.

    Attributes:
        matrix: ``rows`` frequencies by ``columns`` frames, float32. By ``scale``: "magnitude" and
            "power" are |STFT| and its square; "db" is the level in dBFS, where a sine of full
            scale reaches 0 and ``FLOOR_DB`` stands for everything below; "mel" is the power in
            ``n_mels`` bands (``librosa.filters.mel``, from 0 Hz to half the sample rate).
        phase: Phase of the STFT in radians, same columns; None where it was not kept.
        sample_rate: In Hz.
        n_fft: Window and transform length in samples.
        hop_length: Samples from one column to the next.
        window: A name that ``window_vector`` knows.
        length: Samples of the sound.
        scale: One of ``SCALES``.
        n_mels: Bands of the "mel" scale; None for the other scales.

    Raises:
        UsageError: the parameters make no sense.
        AudioError: the matrices do not have the size that follows from the parameters, or hold
            values that are not finite.
    """

    matrix: SpectrogramMatrix
    phase: Float[np.ndarray, "bins timesteps"] | None
    sample_rate: int
    n_fft: int
    hop_length: int
    window: str
    length: int
    scale: str
    n_mels: int | None = None

    def __post_init__(self) -> None:
        window_vector(self.window, self.n_fft)
        check_hop_length(self.hop_length)
        _check_scale(self.scale, self.n_mels)
        if self.sample_rate < 1 or self.length < 1:
            raise UsageError("the sample rate and the length of a sound are at least 1")
        bins = self.n_fft // 2 + 1
        columns = 1 + -(-self.length // self.hop_length)
        for name, values, rows in (
            ("matrix", self.matrix, self.n_mels or bins),
            ("phase", self.phase, bins),
        ):
            if values is None:
                continue
            if values.shape != (rows, columns):
                raise AudioError(
                    f"the {name} of the spectrogram has the shape {values.shape}, "
                    f"its parameters ask for {(rows, columns)}"
                )
            if values.dtype.kind != "f" or not np.isfinite(values).all():
                raise AudioError(
                    f"the {name} of the spectrogram has values that are not finite numbers"
                )

    @property
    def times(self) -> Float[np.ndarray, "timesteps"]:
        """Middle of every column in seconds."""
        return np.arange(self.matrix.shape[1]) * (self.hop_length / self.sample_rate)

    @property
    def frequencies(self) -> Float[np.ndarray, "frequency"]:
        """Middle of every row in Hz."""
        if self.n_mels is None:
            return np.fft.rfftfreq(self.n_fft, 1 / self.sample_rate)
        import librosa

        return librosa.mel_frequencies(self.n_mels + 2, fmin=0, fmax=self.sample_rate / 2)[1:-1]

    def save(self, target: Path, *, overwrite: bool = False) -> None:
        """Write the spectrogram to a file.

        Args:
            target: ``.npz`` for everything (``load`` and ``invert`` read it), ``.npy`` for the
                bare matrix.
            overwrite: Replace an existing file.

        Raises:
            UsageError: ``target`` exists already or has another suffix.
            DenoiseError: ``target`` cannot be written.
        """
        _check_suffix(target)
        # NumPy gets an open file, since it may add a suffix to a name.
        with replacing(target, overwrite=overwrite) as part, part.open("wb") as file:
            if target.suffix.lower() == ".npy":
                np.save(file, self.matrix, allow_pickle=False)
            else:
                fields = {key: value for key, value in vars(self).items() if value is not None}
                np.savez(file, format=_FILE_FORMAT, **fields)

    @classmethod
    def load(cls, source: Path) -> "Spectrogram":
        """Read a spectrogram that ``save`` wrote as ``.npz``.

        Raises:
            UsageError: there is no such file.
            AudioError: the file is corrupt, or is not a spectrogram of this kind.
        """
        if not source.is_file():
            raise UsageError(f"there is no file {source}")
        if not zipfile.is_zipfile(source):
            raise AudioError(f"{source} is not a spectrogram file (.npz), or it is cut off")
        try:
            with np.load(source, allow_pickle=False) as archive:
                values = dict(archive)
        except Exception as error:  # a damaged archive fails in more ways than can be listed
            raise AudioError(f"{source} is corrupt: {error}") from error
        if str(values.pop("format", None)) != _FILE_FORMAT:
            raise AudioError(f"{source} was not written by `denoise spectrogram`")
        try:
            matrix, phase = values.pop("matrix"), values.pop("phase", None)
            if any(value.dtype.kind not in "iU" for value in values.values()):
                raise ValueError("a parameter is neither a whole number nor a text")
            return cls(matrix, phase, **{key: value.item() for key, value in values.items()})
        except (DenoiseError, KeyError, TypeError, ValueError) as error:
            raise AudioError(f"{source} is corrupt: {error}") from error


def spectrogram(
    audio: AudioVector,
    sample_rate: int,
    *,
    n_fft: int = 1024,
    hop_length: int = 256,
    window: str = "hann",
    scale: str = "magnitude",
    n_mels: int = 80,
    phase: bool = True,
) -> Spectrogram:
    """Make the spectrogram of a sound.

    Args:
        audio: Sound, at least one sample.
        sample_rate: In Hz.
        n_fft: Window and transform length in samples, even.
        hop_length: Samples from one column to the next.
        window: A name that ``window_vector`` knows.
        scale: One of ``SCALES``, which ``Spectrogram`` explains.
        n_mels: Bands of the "mel" scale; the other scales do not use it.
        phase: Keep the phase, so that ``invert`` is exact.

    Returns:
        The spectrogram.

    Raises:
        UsageError: a parameter makes no sense.
        AudioError: there are no samples, or some are not finite.
    """
    bands = n_mels if scale == "mel" else None
    _check_scale(scale, bands)
    check_hop_length(hop_length)
    padded = np.pad(audio, (0, -audio.size % hop_length))
    spectrum = stft(padded, n_fft=n_fft, hop_length=hop_length, window=window)
    matrix = np.abs(spectrum)
    if scale in ("power", "mel"):
        matrix **= 2
    if scale == "mel":
        matrix = mel_filters(sample_rate, n_fft, n_mels) @ matrix
    if scale == "db":
        matrix = decibels(matrix, n_fft=n_fft, window=window)
    return Spectrogram(
        matrix=matrix,
        phase=np.angle(spectrum) if phase else None,
        sample_rate=sample_rate,
        n_fft=n_fft,
        hop_length=hop_length,
        window=window,
        length=audio.size,
        scale=scale,
        n_mels=bands,
    )


def invert(spec: Spectrogram, *, iterations: int = 64) -> AudioVector:
    """Give back the sound of a spectrogram.

    With its phase, a "magnitude", "power" or "db" spectrogram is inverted exactly (to rounding).
    Without, the phase is estimated with the fast Griffin-Lim algorithm (Perraudin, Balazs and
    Sondergaard, WASPAA 2013; ``librosa.griffinlim``), which wants a ``hop_length`` of at most a
    quarter of ``n_fft``. From "mel", the magnitudes are estimated too (non-negative least
    squares; ``librosa.feature.inverse.mel_to_stft``), so even with its phase it is not exact.

    Args:
        spec: The spectrogram.
        iterations: Steps of Griffin-Lim.

    Returns:
        The sound, ``spec.length`` samples. An estimated one may pass full scale.

    Raises:
        UsageError: the windows leave gaps (``hop_length`` is too large for the window).
    """
    check_invertible(spec.n_fft, spec.hop_length, spec.window)
    levels = magnitude(spec)
    padded_length = (levels.shape[1] - 1) * spec.hop_length
    if spec.phase is not None:
        sound = istft(
            levels * np.exp(1j * spec.phase),
            n_fft=spec.n_fft,
            hop_length=spec.hop_length,
            window=spec.window,
            length=padded_length,
        )
    else:
        import librosa

        sound = librosa.griffinlim(
            levels,
            n_iter=iterations,
            hop_length=spec.hop_length,
            n_fft=spec.n_fft,
            window=window_vector(spec.window, spec.n_fft),
            length=padded_length,
            random_state=0,  # the same spectrogram gives the same sound
        )
    return sound[: spec.length]


def magnitude(spec: Spectrogram) -> SpectrogramMatrix:
    """Give the STFT magnitudes of a spectrogram of any scale (an estimate if it is "mel")."""
    if spec.scale == "power":
        return np.sqrt(spec.matrix)
    if spec.scale == "db":
        level = 10 ** (spec.matrix / 20) * _full_scale(spec.window, spec.n_fft)
        return np.where(spec.matrix > FLOOR_DB, level, 0)
    if spec.scale == "mel":
        from librosa.feature.inverse import mel_to_stft

        return mel_to_stft(spec.matrix, sr=spec.sample_rate, n_fft=spec.n_fft, power=2.0)
    return spec.matrix


def decibels(magnitude: SpectrogramMatrix, *, n_fft: int, window: str) -> SpectrogramMatrix:
    """Express STFT magnitudes in dBFS: a sine of full scale on a bin reaches 0 dB.

    Args:
        magnitude: |STFT|.
        n_fft: As it was for ``stft``.
        window: As it was for ``stft``.

    Returns:
        Levels in dB, ``FLOOR_DB`` at least.
    """
    relative = magnitude / _full_scale(window, n_fft)
    np.maximum(relative, np.finfo(np.float32).tiny, out=relative)
    np.log10(relative, out=relative)
    return np.maximum(20 * relative, FLOOR_DB, out=relative)


@lru_cache(maxsize=8)
def mel_filters(sample_rate: int, n_fft: int, n_mels: int) -> Float[np.ndarray, "mels bins"]:
    """Give the weights of ``librosa.filters.mel`` (Slaney's scale and norm), from 0 Hz up.

    Raises:
        UsageError: there are so many bands that some would hold no bin of the STFT.
    """
    from librosa.filters import mel

    with warnings.catch_warnings(action="ignore"):  # the error below says it better
        filters = mel(sr=sample_rate, n_fft=n_fft, n_mels=n_mels)
    if not filters.any(axis=1).all():
        raise UsageError(
            f"{n_mels} mel bands are too many for n_fft {n_fft} at {sample_rate} Hz: "
            "some would be empty; take fewer bands or a larger n_fft"
        )
    return filters


def spectrogram_file(
    source: Path,
    target: Path,
    *,
    sample_rate: int | None = None,
    n_fft: int = 1024,
    hop_length: int = 256,
    window: str = "hann",
    scale: str = "magnitude",
    n_mels: int = 80,
    phase: bool = True,
    overwrite: bool = False,
) -> Spectrogram:
    """Make the spectrogram of a recording (of the mean of its channels) and write it.

    Args:
        source: The recording.
        target: ``.npz`` (can be inverted) or ``.npy`` (the bare matrix).
        sample_rate: Resample to this rate in Hz first; None keeps the file's own.
        n_fft: See ``spectrogram``.
        hop_length: See ``spectrogram``.
        window: See ``spectrogram``.
        scale: See ``spectrogram``.
        n_mels: See ``spectrogram``.
        phase: See ``spectrogram``.
        overwrite: Replace an existing ``target``.

    Returns:
        The spectrogram that was written.

    Raises:
        UsageError: a parameter makes no sense, ``source`` is missing, or ``target`` exists already
            or has another suffix.
        AudioError: ``source`` cannot be read.
    """
    _check_suffix(target)
    refuse_existing(target, overwrite=overwrite)
    audio, rate = read_mono(source, sample_rate)
    result = spectrogram(
        audio,
        rate,
        n_fft=n_fft,
        hop_length=hop_length,
        window=window,
        scale=scale,
        n_mels=n_mels,
        phase=phase,
    )
    result.save(target, overwrite=overwrite)
    return result


def invert_file(source: Path, target: Path, *, overwrite: bool = False) -> float:
    """Turn a spectrogram file (``.npz``) back into a recording.

    Args:
        source: What ``spectrogram_file`` wrote.
        target: The recording; the suffix chooses the format.
        overwrite: Replace an existing ``target``.

    Returns:
        What the sound was multiplied by so that it stays within full scale: 1 if it did anyway.

    Raises:
        UsageError: ``source`` is missing or cannot be inverted, or ``target`` exists already or
            has an unknown suffix.
        AudioError: ``source`` is corrupt.
    """
    refuse_existing(target, overwrite=overwrite)
    spec = Spectrogram.load(source)
    sound = invert(spec)
    peak = float(np.abs(sound).max())
    gain = 1 / peak if peak > 1.0001 else 1.0  # less is rounding
    write(target, gain * sound, spec.sample_rate, overwrite=overwrite)
    return gain


def _full_scale(window: str, n_fft: int) -> float:
    """Give the STFT magnitude of a full-scale sine on a bin."""
    return float(window_vector(window, n_fft).sum() / 2)


def _check_scale(scale: str, n_mels: int | None) -> None:
    if scale not in SCALES:
        raise UsageError(f"there is no scale '{scale}'; it is one of {', '.join(SCALES)}")
    if (scale == "mel") != (n_mels is not None):
        raise UsageError("n_mels belongs to the mel scale, and only to that")
    if n_mels is not None and n_mels < 1:
        raise UsageError(f"n_mels must be at least 1, not {n_mels}")


def _check_suffix(target: Path) -> None:
    if target.suffix.lower() not in (".npz", ".npy"):
        raise UsageError(f"{target}: a spectrogram goes to a .npz file (or .npy: bare matrix)")
