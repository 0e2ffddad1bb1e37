"""(noisy, clean) pairs as a `tf.data.Dataset`, mixed from recordings while it is read."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import tensorflow as tf

from denoisecli import audio
from denoisecli.errors import DatasetError, UsageError
from denoisecli.mix import SILENCE_RMS, Mix, mix_pair, ratio_from_snr
from denoisecli.sources import MIN_DURATION, GroupBy, Skipped, Source, in_order, scan
from denoisecli.stft import window_vector
from denoisecli.types import AudioVector

QUIET_DB = -30.0
"""A piece of noise quieter than this, relative to its whole recording, is drawn anew: the pause
between two keystrokes, raised to the level of speech, would teach nothing but hiss."""

_DRAWS = 100  # of a piece of noise, before giving up

Kind = Literal["waveform", "spectrogram"]
Range = float | tuple[float, float]
Row = dict[str, Any]
"""How one mix was made, as the manifest of a dataset has it."""


@dataclass(frozen=True)
class Recipe:
    """All that decides, besides the recordings, what is in a dataset.

    Attributes:
        ratio: Share of the noise, 0..1, or a range (low, high) it is drawn from for each mix.
        snr_db: The same as an SNR in dB; exactly one of the two is given.
        split: Share of the files that goes to the train set, between 0 and 1.
        group_by: Split by "file", or by "folder": all files of a folder (a speaker) stay together.
            Noises that all lie in one folder are split by file.
        sample_rate: Rate of the dataset in Hz.
        segment: Cut clean recordings into clips of this many seconds; the last one is shorter,
            and left out below 0.1 s. By default a clip is a whole recording.
        mixes_per_clip: Mixes made of each clean clip, each with a noise of its own.
        match_level: Scale the noise to the level of the clean sound before mixing.
        kind: What is stored: pairs of "waveform" or of "spectrogram" (magnitudes).
        n_fft: Frame length of spectrograms in samples; see ``to_spectrograms``.
        hop_length: Samples from one frame of a spectrogram to the next.
        window: Name of the window of spectrograms.
        seed: Chooses everything that is left to chance.

    Raises:
        UsageError: a value is not allowed.
    """

    ratio: Range | None = None
    snr_db: Range | None = None
    split: float = 0.8
    group_by: GroupBy = "file"
    sample_rate: int = 16000
    segment: float | None = None
    mixes_per_clip: int = 1
    match_level: bool = True
    kind: Kind = "waveform"
    n_fft: int = 512
    hop_length: int = 256
    window: str = "sqrt_hann"
    seed: int = 0

    def __post_init__(self) -> None:
        if (self.ratio is None) == (self.snr_db is None):
            raise UsageError("give a mixing ratio, for example 0.2, or an SNR in dB, and not both")
        low, high = self._range()
        if self.ratio is not None and not 0 <= low <= high <= 1:
            raise UsageError(f"the ratio must be within 0..1, low before high, not {self.ratio}")
        if not (math.isfinite(low) and math.isfinite(high) and low <= high):
            raise UsageError(f"the SNR must be finite, low before high, not {self.snr_db}")
        if self.snr_db is not None and not self.match_level:
            raise UsageError("an SNR needs matched levels; give a ratio, or match the levels")
        if not 0 < self.split < 1:
            raise UsageError(f"the split must be between 0 and 1, not {self.split}")
        if self.group_by not in get_args(GroupBy):
            raise UsageError(f"group_by is {' or '.join(get_args(GroupBy))}, not {self.group_by}")
        if self.sample_rate < 1000:
            raise UsageError(f"the sample rate must be 1000 Hz or more, not {self.sample_rate}")
        if self.segment is not None and not MIN_DURATION <= self.segment < math.inf:
            raise UsageError(f"segments must last {MIN_DURATION} s or more, not {self.segment}")
        if self.mixes_per_clip < 1:
            raise UsageError(f"there must be 1 or more mixes per clip, not {self.mixes_per_clip}")
        if self.kind not in get_args(Kind):
            raise UsageError(f"the kind is {' or '.join(get_args(Kind))}, not {self.kind}")
        window_vector(self.window, self.n_fft)  # raises as well
        if self.hop_length < 1:
            raise UsageError(f"the hop length must be 1 or more, not {self.hop_length}")
        if self.seed < 0:
            raise UsageError(f"the seed must be 0 or more, not {self.seed}")

    def draw_ratio(self, rng: np.random.Generator) -> float:
        """Draw the mixing ratio of one mix; from a range of SNRs it is drawn evenly in dB."""
        value = float(rng.uniform(*self._range()))
        return value if self.ratio is not None else ratio_from_snr(value)

    def _range(self) -> tuple[float, float]:
        value = self.ratio if self.ratio is not None else self.snr_db
        assert value is not None
        return (value, value) if isinstance(value, int | float) else value


def mixed_pairs(
    clean: Path, noise: Path, recipe: Recipe, *, jobs: int | None = None
) -> tf.data.Dataset:
    """Mix all of a folder of clean recordings with noises of another, without a split.

    The noise of each mix is drawn evenly over the folders below ``noise`` first and then over the
    files of the folder, so that many files of one kind do not drown few of another.

    Args:
        clean: Folder of clean recordings, searched recursively.
        noise: Folder of noise recordings, searched recursively.
        recipe: How to mix; its ``split``, ``group_by`` and ``kind`` do not matter here.
        jobs: Mixes made at the same time; the result does not depend on it.

    Returns:
        A dataset of (noisy, clean) float32 AudioVectors of equal length. ``clean`` is the clean
        part as it stands in the mix: ``noisy - clean`` is the noise.

    Raises:
        UsageError: a folder is missing, is a file, or has no audio files below it.
        DatasetError: all recordings of a folder had to be skipped.
    """
    clean_sources, noise_sources, _ = scan(clean, noise, jobs=jobs)
    return Mixing(clean_sources, noise_sources, recipe, jobs=jobs).pairs()


class Mixing:
    """The mixes of one set, made as TensorFlow asks for them, and the record of how.

    Args:
        clean: The clean recordings.
        noise: The noise recordings.
        recipe: How to mix.
        stream: Number of the set, 1 or more; sets of one seed are mixed differently.
        jobs: Mixes made at the same time; the result does not depend on it.

    Attributes:
        clean: The clean recordings.
        noise: The noise recordings.
        clips: Source, first sample and length of the clean part of each mix, in order.
        rows: How each of the mixes so far was made.
        skipped: The clips so far that could not be used.
        error: What went wrong: TensorFlow would hand on nothing but its text.
        on_clip: Called with the number of clips done, from a thread of TensorFlow's.
    """

    def __init__(
        self,
        clean: Sequence[Source],
        noise: Sequence[Source],
        recipe: Recipe,
        *,
        stream: int = 1,
        jobs: int | None = None,
    ) -> None:
        self.clean, self.noise = clean, noise
        self._recipe, self._stream, self._jobs = recipe, stream, jobs
        folders: dict[str, list[Source]] = {}
        for source in noise:
            folders.setdefault(source.folder, []).append(source)
        self._noise_folders = list(folders.values())
        clips = [clip for source in clean for clip in _clips(source, recipe)]
        clips *= recipe.mixes_per_clip
        # Shuffled, so that a small shuffle buffer will do for training.
        order = np.random.default_rng([recipe.seed, stream, 0, 1]).permutation(len(clips))
        self.clips = [clips[i] for i in order]
        self.rows: list[Row] = []
        self.skipped: list[Skipped] = []
        self.error: Exception | None = None
        self.on_clip: Callable[[int], None] | None = None

    def pairs(self) -> tf.data.Dataset:
        """Give the mixes as a dataset of (noisy, clean) float32 AudioVectors."""
        vector = tf.TensorSpec((None,), tf.float32)
        return tf.data.Dataset.from_generator(self._pairs, output_signature=(vector, vector))

    def _pairs(self) -> Iterator[tuple[AudioVector, AudioVector]]:
        self.rows, self.skipped, self.error = [], [], None
        try:
            mixes = in_order(self._mix, range(len(self.clips)), jobs=self._jobs)
            for done, result in enumerate(mixes, start=1):
                if isinstance(result, Skipped):
                    self.skipped.append(result)
                else:
                    mixed, row = result
                    self.rows.append(row)
                    yield mixed.noisy, mixed.clean
                if self.on_clip is not None:
                    self.on_clip(done)
        except Exception as error:
            self.error = error
            raise

    def _mix(self, index: int) -> tuple[Mix, Row] | Skipped:
        """Make one mix; what is random about it depends on seed, stream and index alone."""
        rng = np.random.default_rng([self._recipe.seed, self._stream, index])
        rate = self._recipe.sample_rate
        source, offset, length = self.clips[index]
        clean = source.read(rate, offset, length)
        if not audio.rms(clean) > SILENCE_RMS:
            span = f"{offset / rate:.2f} s to {(offset + length) / rate:.2f} s"
            return Skipped("clean", source.name, f"is silent from {span}")
        noise_source, noise_offset, noise = self._draw_noise(length, rng)
        ratio = self._recipe.draw_ratio(rng)
        mixed = mix_pair(clean, noise, ratio, rng, match_level=self._recipe.match_level)
        return mixed, {
            "clean": source.name,
            "clean_offset": offset,
            "samples": length,
            "noise": noise_source.name,
            "noise_offset": noise_offset + mixed.noise_offset,
            "ratio": mixed.ratio,
            "snr_db": mixed.snr_db if math.isfinite(mixed.snr_db) else None,
            "noise_gain": mixed.noise_gain,
            "gain": mixed.gain,
        }

    def _draw_noise(self, length: int, rng: np.random.Generator) -> tuple[Source, int, AudioVector]:
        """Draw a folder, a file in it, a piece of it: as long as the clip, or the whole file."""
        rate = self._recipe.sample_rate
        for _ in range(_DRAWS):
            folder = self._noise_folders[rng.integers(len(self._noise_folders))]
            source = folder[rng.integers(len(folder))]
            spare = max(source.length(rate) - length, 0)
            offset = int(rng.integers(spare + 1))
            piece = source.read(rate, offset, length if spare else None)
            if audio.rms(piece) > max(SILENCE_RMS, 10 ** (QUIET_DB / 20) * source.rms):
                return source, offset, piece
        raise DatasetError(
            f"{_DRAWS} random pieces of noise of {length / rate:.1f} s at {rate} Hz were all near "
            f"silence, the last one of {source.path}; remove the noises that are mostly silent"
        )


def _clips(source: Source, recipe: Recipe) -> list[tuple[Source, int, int]]:
    """Cut a recording into clips: (source, first sample, number of samples) of each."""
    total = source.length(recipe.sample_rate)
    step = total if recipe.segment is None else round(recipe.segment * recipe.sample_rate)
    clips = [(source, start, min(step, total - start)) for start in range(0, total, step)]
    return [clip for clip in clips if clip[2] >= int(MIN_DURATION * recipe.sample_rate)]


def to_spectrograms(
    pairs: tf.data.Dataset,
    *,
    n_fft: int = 512,
    hop_length: int = 256,
    window: str = "sqrt_hann",
) -> tf.data.Dataset:
    """Map a dataset of (noisy, clean) AudioVectors to the magnitudes of their STFTs.

    Args:
        pairs: The dataset of AudioVectors.
        n_fft: Length of a frame and of its transform in samples.
        hop_length: Samples from one frame to the next.
        window: Name of the window, as ``stft.window_vector`` takes it.

    Returns:
        A dataset of (noisy, clean) float32 SpectrogramMatrices with n_fft // 2 + 1 frequencies:
        the magnitudes that ``stft.stft`` gives.
    """
    weights = window_vector(window, n_fft)

    def magnitude(vector: tf.Tensor) -> tf.Tensor:
        centred = tf.pad(vector, [[n_fft // 2, n_fft // 2]])
        frames = tf.signal.frame(centred, n_fft, hop_length)
        return tf.transpose(tf.abs(tf.signal.rfft(frames * weights)))

    return pairs.map(
        lambda noisy, clean: (magnitude(noisy), magnitude(clean)),
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=True,
    )
