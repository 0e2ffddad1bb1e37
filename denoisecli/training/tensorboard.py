"""Logs for TensorBoard: figures, and a few clips to look at and to listen to."""

from pathlib import Path

import numpy as np
import tensorflow as tf
from jaxtyping import Float

from denoisecli.audio.stft import stft
from denoisecli.training.excerpts import Clips, Excerpts
from denoisecli.training.history import Row

CLIPS = 3
"""Number of clips that are logged."""

RANGE_DB = 80.0
"""Dynamic range of the spectrograms, below the loudest point of the noisy clip."""

GAP = 6
"""Height of the white line between two spectrograms, in pixels."""

NOT_LOGGED = {"epoch", "minutes"}
"""Columns of the history that are no figures of an epoch."""


class TensorBoardLogs:
    """Writer of TensorBoard event files, in which a step is an epoch, counted from 1.

    Args:
        folder: Folder of the event files; those of earlier starts of the run are continued.
        sample_rate: Sample rate of the clips in Hz.
    """

    def __init__(self, folder: Path, sample_rate: int):
        self.writer = tf.summary.create_file_writer(str(folder))
        self.sample_rate = sample_rate

    def write_figures(self, row: Row) -> None:
        """Write the figures of an epoch as scalars, grouped into training and validation."""
        with self.writer.as_default(step=int(row["epoch"])):
            for name, value in row.items():
                if name in NOT_LOGGED:
                    continue
                group, title = "training", name
                if name.startswith("val_"):
                    group, title = "validation", name.removeprefix("val_")
                tf.summary.scalar(f"{group}/{title}", value)
        self.writer.flush()

    def write_clips(self, epoch: int, excerpts: Excerpts, estimates: Clips) -> None:
        """Write the spectrograms and the sound of a few clips: noisy, estimate and clean.

        The noisy and the clean sound, which never change, are written in epoch 1 only.
        """
        chosen = np.linspace(0, len(estimates) - 1, min(CLIPS, len(estimates))).astype(int)
        with self.writer.as_default(step=epoch):
            for number, index in enumerate(chosen, start=1):
                sounds = {
                    "noisy": excerpts.noisy[index],
                    "estimate": estimates[index],
                    "clean": excerpts.clean[index],
                }
                tf.summary.image(
                    f"clip {number}",
                    draw_spectrograms(*sounds.values())[None],
                    description="noisy, estimate and clean, from top to bottom",
                )
                for name, sound in sounds.items():
                    if name == "estimate" or epoch == 1:
                        audio = np.clip(sound, -1, 1)[None, :, None]
                        tf.summary.audio(f"clip {number}/{name}", audio, self.sample_rate)
        self.writer.flush()

    def close(self) -> None:
        """Close the event file."""
        self.writer.close()


def draw_spectrograms(
    *sounds: Float[np.ndarray, "timesteps"],
) -> Float[np.ndarray, "height width 3"]:
    """Draw spectrograms one above the other, on the level scale of the first sound.

    Returns:
        An RGB image, 0..1.
    """
    from matplotlib import colormaps

    powers = [np.abs(stft(sound, n_fft=512, hop_length=128, window="hann")) for sound in sounds]
    levels = [20 * np.log10(power + 1e-9) for power in powers]
    top = levels[0].max()
    panels = []
    for level in levels:
        shade = np.clip((level - top + RANGE_DB) / RANGE_DB, 0, 1)
        panels.append(colormaps["magma"](shade[::-1])[..., :3])
        panels.append(np.ones((GAP, level.shape[1], 3)))
    return np.concatenate(panels[:-1]).astype(np.float32)
