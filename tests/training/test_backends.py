"""Augmentation, network, losses and training step compute the same on another backend of Keras."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from typing import Any, get_args

import keras
import numpy as np
import pytest

from denoisecli.spec.document import parse_spec
from denoisecli.spec.training import Augmentation, LossName
from denoisecli.training.augmentation.chain import Chain
from denoisecli.training.stream import compiled
from denoisecli.training.waveform_model import WaveformModel, build_network

SPEC = {
    "name": "test",
    "downsampling": [{"filters": 4, "kernel_size": [8, 3], "strides": [4, 1]}],
    "valley": [
        {"block": "recurrent", "axis": "frequency", "units": 3},
        {"block": "recurrent", "axis": "time", "units": 3, "bidirectional": False},
        {"block": "attention", "axis": "frequency", "heads": 1, "key_dim": 2},
    ],
    "upsampling": [{"filters": 4}],
    "training": {"losses": [{"kind": kind, "weight": 1.0} for kind in get_args(LossName)]},
}


STEPS = 20
ALL: dict[str, Any] = {
    **{"snr_db": (-5.0, 20.0), "level_dbfs": (-40.0, -15.0), "equalization_db": 6.0},
    **{"second_noise": 0.5, "third_noise": 0.5, "clean_only": 0.1, "noise_only": 0.1},
    **{"whisper": 0.3, "speed": 0.5, "time_shift": True, "reverberation": 0.5, "hum": 0.5},
    **{"coloured_noise": 0.5, "clicks": 0.5, "target_highpass_hz": 60.0, "band_limit": 0.3},
    **{"low_pass": 0.3, "low_pass_hz": (2000.0, 4000.0), "clipping": 0.3, "masking": 0.3},
}


def train() -> list[float]:
    """Return the losses of augmented batches and the mean square of the output after them."""
    spec = parse_spec(SPEC)
    model = WaveformModel(spec, build_network(spec))
    rng = np.random.default_rng(0)
    for weight in model.network.trainable_weights:
        mean = 1.0 if weight.name == "gamma" else 0.0
        weight.assign(rng.normal(mean, 0.2, weight.shape).astype("float32"))
    clean = 0.1 * rng.standard_normal((3, 8000)).astype("float32")
    clean[:, ::3] *= 0.2
    noise = 0.05 * rng.standard_normal(clean.shape).astype("float32")
    # At this rate and with these draws the losses fall by half, and rounding errors do not grow: a
    # change of all weights by 1e-6 changes the losses by 7e-6. With other draws, it is up to 1e-2.
    model.compile(optimizer=keras.optimizers.SGD(1e-4))
    chain = Chain(Augmentation(**ALL), 16000)
    augment = compiled(chain.apply)
    losses = []
    for step in range(STEPS):
        draws = chain.draw(len(clean), clean.shape[1], np.random.default_rng([3, step]))
        noisy, target = augment(clean, noise, draws)
        losses.append(model.train_on_batch(noisy, target, return_dict=True)["loss"])
    return [*map(float, losses), float(np.mean(np.square(model.predict(noisy, verbose=0))))]


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_other_backends_learn_as_tensorflow_does(backend: str) -> None:
    if find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    done = subprocess.run(
        [sys.executable, __file__],
        env={**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "2"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    used, found = json.loads(done.stdout.splitlines()[-1])
    assert used == backend
    assert keras.backend.backend() == "tensorflow"
    assert found == pytest.approx(train(), rel=5e-3)


if __name__ == "__main__":
    print(json.dumps([keras.backend.backend(), train()]))
