"""Train on recordings with JAX, resume, export, evaluate and clean, where TensorFlow is missing.

It prints the losses of the epochs, which are the same for a run that was interrupted.
"""

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

RATE = 16000
SPEC: dict[str, Any] = {
    "name": "check",
    "audio": {"sample_rate": RATE},
    "stft": {"n_fft": 128, "hop_length": 64},
    "downsampling": [{"filters": 4, "strides": [4, 1]}],
    "valley": [{"block": "recurrent", "axis": "time", "units": 3}],
    "upsampling": [{"filters": 4}],
    "training": {
        "losses": ["waveform_l1"],
        "batch_size": 4,
        "segment_seconds": 0.5,
        "epochs": 2,
        "steps_per_epoch": 4,
        "average_decay": 0.5,
        "augmentation": {"whisper": 0.2, "speed": 0.2, "reverberation": 0.2, "low_pass": 0.2},
    },
}

HEARD = {"losses": ["perceptual", "intelligibility"], "epochs": 1, "steps_per_epoch": 1}
"""Changes of the training that take the losses which are slow to compile."""

sys.modules["tensorflow"] = None  # type: ignore[assignment]  # missing even where it is installed
os.environ["KERAS_BACKEND"] = "jax"


class Observer:
    """Observer of a run that requests it to stop at a step."""

    def __init__(self, stop_at: tuple[int, int] | None = None):
        self.stop_at = stop_at

    def on_message(self, text: str) -> None:
        """Print a message."""
        print(text)

    def on_train_begin(self, epochs: int, steps: int, epoch: int) -> None:
        """Receive the sizes of the run."""

    def on_batch_end(self, epoch: int, step: int, logs: dict[str, float]) -> None:
        """Press Ctrl-C at the step."""
        if (epoch, step) == self.stop_at:
            import signal

            signal.raise_signal(signal.SIGINT)

    def on_epoch_end(self, row: dict[str, float], *, best: bool) -> None:
        """Receive the figures of an epoch."""


def write_recordings(folder: Path) -> None:
    """Write tones and noise."""
    rng = np.random.default_rng(0)
    t = np.arange(RATE) / RATE
    for kind, count in (("clean", 24), ("noise", 12)):
        (folder / kind).mkdir()
        for number in range(count):
            sound = 0.1 * rng.normal(size=t.size)
            if kind == "clean":
                sound = 0.2 * np.sin(2 * np.pi * 60 * (number + 2) * t) * (t % 0.3 > 0.05)
            soundfile.write(folder / kind / f"{number}.wav", sound, RATE)


def main() -> None:
    """Check all of it in a temporary folder."""
    from denoisecli.errors import Interrupted
    from denoisecli.models.folder import ModelFolder
    from denoisecli.spec.document import parse_spec
    from denoisecli.training.history import read_history
    from denoisecli.training.mixed_batches import Mixing
    from denoisecli.training.recordings import Folders
    from denoisecli.training.train import train

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_recordings(folder)
        mixing = Mixing(Folders(folder / "clean", folder / "noise"), cache=folder / "cache")
        spec = parse_spec(SPEC)
        whole = train(spec, mixing, folder / "whole", Observer())
        try:
            train(spec, mixing, folder / "parts", Observer((1, 2)))
        except Interrupted as error:
            print(error)
        parts = train(spec, mixing, folder / "parts", Observer())
        rows = [read_history(model / "history.csv") for model in (whole, parts)]
        for row, same in zip(*rows, strict=True):
            assert {**row, "minutes": 0} == {**same, "minutes": 0}, (row, same)
        assert ModelFolder(whole).read_metrics().onnx_difference < 1e-3
        heard = parse_spec({**SPEC, "training": {**SPEC["training"], **HEARD}})
        train(heard, mixing, folder / "heard", Observer())
        noise = 0.1 * np.random.default_rng(1).normal(size=RATE)
        clean = 0.2 * np.sin(2 * np.pi * 300 / RATE * np.arange(RATE))
        for name, sound in (("clean", clean), ("noisy", clean + noise)):
            (folder / "pairs" / name).mkdir(parents=True)
            soundfile.write(folder / "pairs" / name / "a.wav", sound, RATE)
        noisy = folder / "pairs" / "noisy" / "a.wav"
        for command in (
            ["export", str(whole), "-o", str(folder / "other.onnx")],
            ["clean", str(noisy), "-o", str(folder / "out.wav"), "--model", str(whole)],
            [
                *("evaluate", str(whole), "--clean", str(folder / "pairs" / "clean")),
                *("--noisy", str(folder / "pairs" / "noisy"), "--metrics", "si_sdr,lsd"),
                *("--jobs", "1", "--json"),
            ],
        ):
            from typer.testing import CliRunner

            from denoisecli.cli.app import app

            result = CliRunner().invoke(app, command)
            assert result.exit_code == 0, (command, result.output, result.exception)
        scores = json.loads(result.stdout)["estimators"]
        assert {*scores[whole.parent.name]["mean"]} == {"si_sdr", "lsd"}
        assert sys.modules["tensorflow"] is None
        print(json.dumps([row["loss"] for row in rows[0]]))


if __name__ == "__main__":  # the processes that decode import this file
    main()
