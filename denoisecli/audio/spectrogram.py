"""Spectrograms: scales of the short-time Fourier transform, their inversion, and files."""

import warnings
import zipfile
from dataclasses import dataclass
from functools import lru_cache
from inspect import signature
from pathlib import Path

import numpy as np
from jaxtyping import Float
from numpy.lib.format import MAGIC_PREFIX

from denoisecli.audio.choices import Scale
from denoisecli.audio.files import write
from denoisecli.audio.stft import check_hop_length, check_invertible, istft, stft, window_vector
from denoisecli.errors import AudioError, DenoiseError, UsageError
from denoisecli.system.atomic_files import refuse_existing, replacing
from denoisecli.types import AudioVector, SpectrogramMatrix

FLOOR_DB = -200.0
"""Floor of the dB scale in dBFS: digital silence, which is inverted to zeros."""

_FILE_FORMAT = "denoise spectrogram 1"
_GRIFFIN_LIM_ITERATIONS = 64


@dataclass(frozen=True, eq=False)
class Spectrogram:
    """A spectrogram with the parameters that are needed to draw and invert it.

    The sound is padded with zeros at its end to a multiple of ``hop_length``, so that its last
    samples can be recovered as well as the others.

    Attributes:
        matrix: float32, shape (frequency, timesteps), where timesteps are frames. By ``scale``:
            "magnitude" is |STFT|; "power" is its square; "db" is the level in dBFS, at which a
            full-scale sine reaches 0 and the floor is ``FLOOR_DB``; "mel" is the power in
            ``n_mels`` bands from 0 Hz to half the sample rate (``librosa.filters.mel``).
        phase: Phase of the STFT in radians, shape (n_fft // 2 + 1, timesteps); None if it was not
            kept.
        sample_rate: Sample rate in Hz.
        n_fft: Length of the window and the transform in samples.
        hop_length: Samples from one frame to the next.
        window: Name of the window, see :func:`denoisecli.audio.stft.window_vector`.
        length: Length of the sound in samples.
        scale: Scale of the values of ``matrix``.
        n_mels: Number of bands of the "mel" scale; None for the other scales.

    Raises:
        UsageError: A parameter is invalid.
        AudioError: The matrices do not have the shape that follows from the parameters, or have
            values that are not finite.
    """

    matrix: SpectrogramMatrix
    phase: Float[np.ndarray, "bins timesteps"] | None
    sample_rate: int
    n_fft: int
    hop_length: int
    window: str
    length: int
    scale: Scale
    n_mels: int | None = None

    def __post_init__(self) -> None:
        window_vector(self.window, self.n_fft)
        check_hop_length(self.hop_length)
        _check_mels(self.scale, self.n_mels)
        if self.sample_rate < 1 or self.length < 1:
            raise UsageError("the sample rate and the length must be at least 1")
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
                    f"the {name} of the spectrogram has the shape {values.shape}; "
                    f"its parameters require {(rows, columns)}"
                )
            if values.dtype.kind != "f" or not np.isfinite(values).all():
                raise AudioError(
                    f"the {name} of the spectrogram has values that are not finite numbers"
                )

    @property
    def times(self) -> Float[np.ndarray, "timesteps"]:
        """Time of the centre of each frame in seconds."""
        return np.arange(self.matrix.shape[1]) * (self.hop_length / self.sample_rate)

    @property
    def frequencies(self) -> Float[np.ndarray, "frequency"]:
        """Centre frequency of each row in Hz."""
        if self.n_mels is None:
            return np.fft.rfftfreq(self.n_fft, 1 / self.sample_rate)
        import librosa

        return librosa.mel_frequencies(self.n_mels + 2, fmin=0, fmax=self.sample_rate / 2)[1:-1]

    def save(self, target: Path, *, overwrite: bool = False) -> None:
        """Write the spectrogram to a file.

        Args:
            target: ``.npz`` for the matrix, the phase and the parameters, which ``load`` reads,
                or ``.npy`` for the bare matrix.
            overwrite: Replace an existing file.

        Raises:
            UsageError: ``target`` exists or has another suffix.
            DenoiseError: ``target`` cannot be written.
        """
        check_target(target, overwrite=overwrite)
        # An open file, because NumPy may add a suffix to a name.
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
            UsageError: The file does not exist.
            AudioError: The file is corrupt, is a bare matrix, or was not written by ``save``.
        """
        if not source.is_file():
            raise UsageError(f"{source} does not exist or is not a file")
        with source.open("rb") as file:
            if file.read(len(MAGIC_PREFIX)) == MAGIC_PREFIX:
                raise AudioError(
                    f"{source} is a bare matrix: without its parameters and phase it can be "
                    "neither inverted nor drawn; store the spectrogram as .npz instead"
                )
            if not zipfile.is_zipfile(file):
                raise AudioError(f"{source} is not a spectrogram file (.npz), or it is cut off")
            file.seek(0)
            try:
                with np.load(file, allow_pickle=False) as archive:
                    values = dict(archive)
            except Exception as error:  # a damaged archive fails in too many ways to list
                raise AudioError(f"{source} is corrupt: {error}") from error
        if str(values.pop("format", None)) != _FILE_FORMAT:
            raise AudioError(f"{source} was not written by `denoise spectrogram`")
        try:
            matrix, phase = values.pop("matrix"), values.pop("phase", None)
            if any(value.dtype.kind not in "iU" for value in values.values()):
                raise ValueError("a parameter is neither a whole number nor a text")
            parameters = {key: value.item() for key, value in values.items()}
            return cls(matrix, phase, **{**parameters, "scale": Scale(parameters["scale"])})
        except (DenoiseError, KeyError, TypeError, ValueError) as error:
            raise AudioError(f"{source} is corrupt: {error}") from error


def spectrogram(
    audio: AudioVector,
    sample_rate: int,
    *,
    n_fft: int = 1024,
    hop_length: int = 256,
    window: str = "hann",
    scale: Scale = Scale.MAGNITUDE,
    n_mels: int = 80,
    phase: bool = True,
) -> Spectrogram:
    """Compute the spectrogram of a sound.

    Args:
        audio: Sound, shape (timesteps,), at least one sample.
        sample_rate: Sample rate in Hz.
        n_fft: Length of the window and the transform in samples; even.
        hop_length: Samples from one frame to the next.
        window: Name of the window, see :func:`denoisecli.audio.stft.window_vector`.
        scale: Scale of the values, see :class:`Spectrogram`.
        n_mels: Number of bands of the "mel" scale; the other scales ignore it.
        phase: Keep the phase, so that ``invert`` is exact.

    Returns:
        The spectrogram.

    Raises:
        UsageError: A parameter is invalid.
        AudioError: There are no samples, or some are not finite.
    """
    bands = n_mels if scale == Scale.MEL else None
    _check_mels(scale, bands)
    check_hop_length(hop_length)
    padded = np.pad(audio, (0, -audio.size % hop_length))
    spectrum = stft(padded, n_fft=n_fft, hop_length=hop_length, window=window)
    matrix = np.abs(spectrum)
    if scale in (Scale.POWER, Scale.MEL):
        matrix **= 2
    if scale == Scale.MEL:
        matrix = mel_filters(sample_rate, n_fft, n_mels) @ matrix
    if scale == Scale.DB:
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


def invert(spectrogram: Spectrogram) -> AudioVector:
    """Compute the sound of a spectrogram.

    With its phase, a "magnitude", "power" or "db" spectrogram is inverted exactly (to rounding).
    Without, the phase is estimated by the fast Griffin-Lim algorithm (Perraudin, Balazs and
    Sondergaard, WASPAA 2013; ``librosa.griffinlim``), which needs a ``hop_length`` of at most a
    quarter of ``n_fft``. For "mel", the magnitudes are estimated too (non-negative least squares,
    ``librosa.feature.inverse.mel_to_stft``), so that the result is never exact.

    Args:
        spectrogram: Spectrogram.

    Returns:
        The sound, shape (spectrogram.length,). An estimated one may exceed full scale.

    Raises:
        UsageError: The windows leave gaps (``hop_length`` is too large for the window).
    """
    check_invertible(spectrogram.n_fft, spectrogram.hop_length, spectrogram.window)
    levels = magnitude(spectrogram)
    padded_length = (levels.shape[1] - 1) * spectrogram.hop_length
    if spectrogram.phase is not None:
        sound = istft(
            levels * np.exp(1j * spectrogram.phase),
            n_fft=spectrogram.n_fft,
            hop_length=spectrogram.hop_length,
            window=spectrogram.window,
            length=padded_length,
        )
    else:
        import librosa

        # The same spectrogram gives the same sound. librosa 1.0 has renamed the seed.
        parameters = signature(librosa.griffinlim).parameters
        seed = {"rng" if "rng" in parameters else "random_state": 0}
        with warnings.catch_warnings(action="ignore"):  # of a sound that is shorter than a window
            sound = librosa.griffinlim(
                levels,
                n_iter=_GRIFFIN_LIM_ITERATIONS,
                hop_length=spectrogram.hop_length,
                n_fft=spectrogram.n_fft,
                window=window_vector(spectrogram.window, spectrogram.n_fft),
                length=padded_length,
                **seed,
            )
    return sound[: spectrogram.length]


def magnitude(spectrogram: Spectrogram) -> SpectrogramMatrix:
    """Return the STFT magnitudes of a spectrogram of any scale (an estimate for "mel")."""
    if spectrogram.scale == Scale.POWER:
        return np.sqrt(spectrogram.matrix)
    if spectrogram.scale == Scale.DB:
        level = 10 ** (spectrogram.matrix / 20) * _full_scale(spectrogram.window, spectrogram.n_fft)
        return np.where(spectrogram.matrix > FLOOR_DB, level, 0)
    if spectrogram.scale == Scale.MEL:
        from librosa.feature.inverse import mel_to_stft

        return mel_to_stft(
            spectrogram.matrix, sr=spectrogram.sample_rate, n_fft=spectrogram.n_fft, power=2.0
        )
    return spectrogram.matrix


def decibels(magnitudes: SpectrogramMatrix, *, n_fft: int, window: str) -> SpectrogramMatrix:
    """Convert STFT magnitudes to dBFS: a full-scale sine at the centre of a bin reaches 0 dBFS.

    Args:
        magnitudes: |STFT|, shape (frequency, timesteps).
        n_fft: The value used for ``stft``.
        window: The value used for ``stft``.

    Returns:
        Levels in dBFS, at least ``FLOOR_DB``.
    """
    relative = magnitudes / _full_scale(window, n_fft)
    np.maximum(relative, np.finfo(np.float32).tiny, out=relative)
    np.log10(relative, out=relative)
    return np.maximum(20 * relative, FLOOR_DB, out=relative)


@lru_cache(maxsize=8)
def mel_filters(sample_rate: int, n_fft: int, n_mels: int) -> Float[np.ndarray, "mels bins"]:
    """Return the weights of ``librosa.filters.mel`` (Slaney's scale and norm), from 0 Hz up.

    Raises:
        UsageError: There are so many bands that some would contain no bin of the STFT.
    """
    from librosa.filters import mel

    with warnings.catch_warnings(action="ignore"):  # the error below replaces it
        filters = mel(sr=sample_rate, n_fft=n_fft, n_mels=n_mels)
    if not filters.any(axis=1).all():
        raise UsageError(
            f"{n_mels} mel bands are too many for n_fft {n_fft} at {sample_rate} Hz: "
            "some would be empty; use fewer bands or a larger n_fft"
        )
    return filters


def check_target(target: Path, *, overwrite: bool = False) -> None:
    """Raise UsageError if a spectrogram cannot be written to ``target``."""
    if target.suffix.lower() not in (".npz", ".npy"):
        raise UsageError(
            f"{target}: a spectrogram is written to a .npz file, or a bare matrix to a .npy file"
        )
    refuse_existing(target, overwrite=overwrite)


def invert_file(source: Path, target: Path, *, overwrite: bool = False) -> float:
    """Invert a spectrogram file and write the sound.

    Args:
        source: File that :meth:`Spectrogram.save` wrote as ``.npz``.
        target: Audio file; its suffix chooses the format.
        overwrite: Replace an existing ``target``.

    Returns:
        Gain that keeps the sound within full scale; 1 if none was needed.

    Raises:
        UsageError: ``source`` does not exist or cannot be inverted, or ``target`` exists or has
            an unknown suffix.
        AudioError: ``source`` is corrupt or a bare matrix.
    """
    refuse_existing(target, overwrite=overwrite)
    spec = Spectrogram.load(source)
    sound = invert(spec)
    peak = float(np.abs(sound).max())
    gain = 1 / peak if peak > 1.0001 else 1.0  # a smaller excess is rounding
    write(target, gain * sound, spec.sample_rate, overwrite=overwrite)
    return gain


def _full_scale(window: str, n_fft: int) -> float:
    """Return the STFT magnitude of a full-scale sine at the centre of a bin."""
    return float(window_vector(window, n_fft).sum() / 2)


def _check_mels(scale: Scale, n_mels: int | None) -> None:
    if (Scale(scale) == Scale.MEL) != (n_mels is not None):
        raise UsageError("n_mels is required for the mel scale, and for that scale only")
    if n_mels is not None and n_mels < 1:
        raise UsageError(f"n_mels must be at least 1, not {n_mels}")
