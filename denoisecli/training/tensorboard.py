"""What TensorBoard shows of a run: figures, and a few clips to look at and to hear."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import tensorflow as tf
from jaxtyping import Float

from denoisecli.audio.stft import stft
from denoisecli.training.excerpts import Clips, Excerpts
from denoisecli.training.run_folder import Row

CLIPS = 3
"""How many clips are shown."""

RANGE_DB = 80.0
"""Pictures show this much below the loudest point of the noisy clip."""

GAP = 6
"""Height in pixels of the white line between two spectrograms."""

COLUMNS = {"epoch", "minutes"}
"""What is no figure of an epoch."""


def can_log() -> bool:
    """Whether TensorBoard is installed, without which its logs cannot be written."""
    return find_spec("tensorboard") is not None


class Logs:
    """Writes event files into a folder; steps are epochs, from 1.

    Args:
        folder: may hold the logs of earlier starts of the run, which go on.
        sample_rate: of the clips, in Hz.
    """

    def __init__(self, folder: Path, sample_rate: int):
        self.writer = tf.summary.create_file_writer(str(folder))
        self.sample_rate = sample_rate

    def figures(self, row: Row) -> None:
        """Every figure of an epoch as a scalar; what is validated has a group of its own."""
        with self.writer.as_default(step=int(row["epoch"])):
            for name, value in row.items():
                if name in COLUMNS:
                    continue
                group, title = "training", name
                if name.startswith("val_"):
                    group, title = "validation", name.removeprefix("val_")
                tf.summary.scalar(f"{group}/{title}", value)
        self.writer.flush()

    def clips(self, epoch: int, excerpts: Excerpts, estimates: Clips) -> None:
        """Of a few clips the spectrograms, and the sounds: noisy, estimate, clean."""
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
                    picture(*sounds.values())[None],
                    description="noisy, estimate, clean, from top to bottom",
                )
                for name, sound in sounds.items():
                    if name == "estimate" or epoch == 1:
                        audio = np.clip(sound, -1, 1)[None, :, None]
                        tf.summary.audio(f"clip {number}/{name}", audio, self.sample_rate)
        self.writer.flush()

    def close(self) -> None:
        """Finish the file."""
        self.writer.close()


def picture(*sounds: Float[np.ndarray, "timesteps"]) -> Float[np.ndarray, "height width 3"]:
    """Spectrograms in one range of levels, that of the first sound, one above the other; 0..1."""
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
