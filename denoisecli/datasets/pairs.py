"""(noisy, clean) pairs as a `tf.data.Dataset`, mixed from recordings while it is read."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import tensorflow as tf

from denoisecli.audio.stft import window_vector
from denoisecli.datasets import decoding
from denoisecli.datasets import recordings as sources
from denoisecli.datasets.mixtures import Mixed, Mixing
from denoisecli.datasets.recipe import Kind, Range, Recipe
from denoisecli.system.pools import processes
from denoisecli.types import AudioVector

__all__ = ["Kind", "Range", "Recipe", "mixed_pairs", "to_spectrograms"]


def mixed_pairs(clean: Path, noise: Path, recipe: Recipe, *, jobs: int = 1) -> tf.data.Dataset:
    """Mix all of a folder of clean recordings with noises of another, without a split.

    The recordings are decoded into a temporary folder, which lasts as long as the dataset.

    Args:
        clean: Folder of clean recordings, searched recursively.
        noise: Folder of noise recordings, searched recursively.
        recipe: How to mix; its ``split``, ``group_by`` and ``kind`` do not matter here.
        jobs: Processes that decode the recordings.

    Returns:
        A dataset of (noisy, clean) float32 AudioVectors of equal length. ``clean`` is the clean
        part as it stands in the mix: ``noisy - clean`` is the noise.

    Raises:
        UsageError: a folder is missing, is a file, or has no audio files below it.
        DatasetError: all recordings of a folder had to be skipped.
    """
    roots: dict[sources.Role, Path] = {"clean": Path(clean), "noise": Path(noise)}
    files = sources.find(roots)
    folder = TemporaryDirectory(prefix="denoise.")
    tasks = decoding.divide(
        files,
        roots,
        Path(folder.name),
        sample_rate=recipe.sample_rate,
        max_clipped=recipe.max_clipped,
        rooms=recipe.rooms,
        seed=recipe.seed,
    )
    with processes(jobs) as workers:
        for _ in workers.map(decoding.decode, tasks):
            pass
    mixing = Mixing(
        sources.load([task.index for task in tasks])[0], replace(recipe, kind="waveform")
    )

    def pairs(folder: TemporaryDirectory = folder) -> Iterator[tuple[AudioVector, AudioVector]]:
        for number in range(len(mixing)):
            mixed = mixing.make(number)
            if isinstance(mixed, Mixed):
                yield mixed.noisy, mixed.clean

    vector = tf.TensorSpec((None,), tf.float32)
    return tf.data.Dataset.from_generator(pairs, output_signature=(vector, vector))


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
