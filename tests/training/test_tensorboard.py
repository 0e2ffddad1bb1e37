from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

from denoisecli.training.excerpts import Excerpts
from denoisecli.training.tensorboard import CLIPS, GAP, TensorBoardLogs, draw_spectrograms

ROW = {"epoch": 1, "minutes": 0.5, "audio_hours": 0.1, "loss": 0.5, "val_loss": 0.25}


def events(folder: Path) -> dict[tuple[str, int], tf.Tensor]:
    found = {}
    for path in sorted(folder.iterdir()):
        for event in EventFileLoader(str(path)).Load():
            for value in event.summary.value:
                found[value.tag, event.step] = tf.make_ndarray(value.tensor)
    return found


def test_what_is_written(tmp_path: Path) -> None:
    """Scalars, and three clips as pictures and sounds; a second start adds to the first."""
    rng = np.random.default_rng(0)
    noisy, clean = 0.1 * rng.standard_normal((2, 7, 4000)).astype(np.float32)
    for epoch in (1, 2):
        logs = TensorBoardLogs(tmp_path, 4000)
        logs.write_figures({**ROW, "epoch": epoch})
        logs.write_clips(epoch, Excerpts(noisy, clean), noisy / 2)
        logs.close()
    found = events(tmp_path)
    assert found["training/loss", 1] == 0.5
    assert found["validation/loss", 2] == 0.25
    assert found["training/audio_hours", 2] == pytest.approx(0.1)
    kinds = {"", "/noisy", "/estimate", "/clean"}
    first = {f"clip {number}{kind}" for number in (1, 2, 3) for kind in kinds}
    assert {tag for tag, step in found if step == 1 and "clip" in tag} == first
    assert {tag for tag, step in found if step == 2 and "clip" in tag} == {
        tag
        for tag in first
        if not tag.endswith(("/noisy", "/clean"))  # they do not change
    }
    assert CLIPS == 3
    width, height, png = found["clip 2", 1]
    pixels = tf.io.decode_png(png).numpy()
    assert pixels.shape == (int(height), int(width), 3)
    np.testing.assert_allclose(
        pixels / 255, draw_spectrograms(noisy[3], noisy[3] / 2, clean[3]), atol=1 / 255
    )
    wav = found["clip 3/estimate", 2].flat[0]
    sound, rate = tf.audio.decode_wav(wav)
    assert rate == 4000
    np.testing.assert_allclose(sound[:, 0], noisy[6] / 2, atol=1e-4)


def test_spectrograms() -> None:
    """A tone is a bright line at its frequency, low ones at the bottom; silence is dark."""
    tone = np.sin(2 * np.pi * 1000 * np.arange(8000) / 8000).astype(np.float32)
    image = draw_spectrograms(tone, np.zeros_like(tone))
    rows = 257
    assert image.shape == (2 * rows + GAP, 63, 3)
    assert image.min() >= 0
    assert image.max() <= 1
    brightness = image.mean(axis=(1, 2))
    assert brightness[:rows].argmax() == rows - 1 - 64
    np.testing.assert_array_equal(image[rows : rows + GAP], 1)
    assert brightness[rows + GAP :].max() < 0.01
    assert np.isfinite(draw_spectrograms(np.zeros(4000, np.float32))).all()
