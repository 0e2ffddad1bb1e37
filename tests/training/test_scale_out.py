"""Several devices and several processes train as one does."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from denoisecli.datasets.building import build
from denoisecli.datasets.recipe import Recipe
from denoisecli.training.history import read_history

pytestmark = pytest.mark.slow

COMMAND = [sys.executable, "-c", "from denoisecli.cli.app import main; main()"]

TWO_DEVICES = """
import os
import signal
import sys
from pathlib import Path

from denoisecli.errors import Interrupted
from denoisecli.spec.document import read_spec
from denoisecli.training.train import train


class Observer:
    def __init__(self, moment=None):
        self.moment = moment

    def on_message(self, text):
        print(text)

    def on_train_begin(self, epochs, steps, epoch):
        pass

    def on_batch_end(self, epoch, step, logs):
        if (epoch, step) == self.moment:
            os.kill(os.getpid(), signal.SIGINT)

    def on_epoch_end(self, row, *, best):
        pass


spec, data, run = read_spec(Path(sys.argv[1])), Path(sys.argv[2]), Path(sys.argv[3])
try:
    train(spec, data, run, Observer((1, 2)), cpu_parts=2)
except Interrupted:
    train(spec, data, run, Observer())
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scale_out")
    rng = np.random.default_rng(0)
    t = np.arange(6400) / 4000  # 8 segments: batches are even, validation and test too
    for kind, count in (("clean", 10), ("noise", 4)):
        (folder / kind).mkdir()
        for number in range(count):
            sound = 0.1 * rng.normal(size=t.size)
            if kind == "clean":
                sound = 0.2 * np.sin(2 * np.pi * 150 * (number + 1) * t)
            soundfile.write(folder / kind / f"{number}.wav", sound, 4000)
    recipe = Recipe(snr_db=(0.0, 5.0), sample_rate=4000, split=0.7)
    build(folder / "clean", folder / "noise", folder / "data", recipe)
    return folder / "data"


def spec_file(folder: Path, normalization: str, dropout: float) -> Path:
    level = {"filters": 4, "normalization": normalization, "dropout": dropout}
    document = {
        "name": "test",
        "audio": {"sample_rate": 4000},
        "stft": {"n_fft": 32, "hop_length": 16},
        "downsampling": [{**level, "strides": [4, 1]}],
        "upsampling": [level],
        "training": {
            "losses": [{"kind": "waveform_l1", "weight": 1.0}],
            "batch_size": 4,
            "segment_seconds": 0.2,
            "epochs": 2,
            "steps_per_epoch": 5,
            "warmup_steps": 2,
            "learning_rate": 0.02,
            "average_decay": 0.8,
            "gradient_clip": 0.1,
        },
    }
    path = folder / "spec.json"
    path.write_text(json.dumps(document))
    return path


def start(*arguments: object, **environment: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [*map(str, arguments)],
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process: "subprocess.Popen[str]") -> str:
    """Wait for a process and return what it printed."""
    text, _ = process.communicate(timeout=600)
    assert process.returncode == 0, text
    return text


def assert_same_curves(found: Path, expected: Path) -> None:
    rows = [read_history(run / "history.csv") for run in (found, expected)]
    assert len(rows[0]) == len(rows[1]) == 2
    for row, other in zip(*rows, strict=True):
        del row["minutes"], other["minutes"]
        assert row == pytest.approx(other, rel=1e-4)
    tests = [
        json.loads((run / "model" / "metrics.json").read_text())["test"]
        for run in (found, expected)
    ]
    assert tests[0] == pytest.approx(tests[1], rel=1e-4)


def test_two_devices_are_as_one(data: Path, tmp_path: Path) -> None:
    """They share batches by TensorFlow's strategy; the run with two is interrupted, too."""
    # With batch normalization or dropout, each device would have its own moments or random numbers.
    spec = spec_file(tmp_path, "layer", 0.0)
    # Not in this process, where beartype draws from the random numbers of the initial weights.
    one = start(*COMMAND, "train", spec, "--data", data, "--run", tmp_path / "one")
    two = start(sys.executable, "-c", TWO_DEVICES, spec, data, tmp_path / "two")
    assert "training on the CPU" in finish(one)
    assert "training on 2 parts of the CPU" in finish(two)
    facts = json.loads((tmp_path / "two" / "run.json").read_text())
    assert len(facts["starts"]) == 2
    assert_same_curves(tmp_path / "two", tmp_path / "one")


def test_two_processes_are_as_one(data: Path, tmp_path: Path) -> None:
    """They use JAX over loopback, with all that has a state or is random."""
    spec = spec_file(tmp_path, "batch", 0.2)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [*COMMAND, "train", spec, "--data", data, "--device", "cpu"]
    cluster = ["--coordinator", f"127.0.0.1:{port}", "--processes", 2]
    processes = [
        start(*command, "--run", tmp_path / "one", KERAS_BACKEND="jax"),
        *(
            start(*command, "--run", tmp_path / "two", *cluster, "--process", number)
            for number in range(2)
        ),
    ]
    one, first, second = map(finish, processes)
    assert "training on 1 x cpu (JAX)" in one
    assert "training on 2 x cpu (JAX)" in first
    assert "wrote" in first
    assert "wrote" not in second
    assert_same_curves(tmp_path / "two", tmp_path / "one")
