import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from denoisecli.spec.document import Spec, parse_spec
from denoisecli.training.losses.tensor_stft import as_map, stft
from denoisecli.training.optimizer import make_optimizer, make_schedule
from denoisecli.training.statistics import BatchStatistics, batch_normalizations
from denoisecli.training.stream import Batch, for_keras
from denoisecli.training.waveform_model import WaveformModel, build_network
from denoisecli.training.weights import assign, get_arrays


def spec_of(**level: Any) -> Spec:
    return parse_spec(
        {
            "name": "test",
            "audio": {"sample_rate": 4000},
            "stft": {"n_fft": 32, "hop_length": 16},
            "downsampling": [{"filters": 8, "strides": [4, 1], **level}],
            "upsampling": [{"filters": 8, **level}],
            "training": {
                "losses": [{"kind": "waveform_l1", "weight": 1.0}],
                "learning_rate": 0.02,
                "schedule": "constant",
                "warmup_steps": 0,
                "average_decay": 0.9,
            },
        }
    )


def model_of(spec: Spec) -> WaveformModel:
    keras.utils.set_random_seed(0)
    model = WaveformModel(spec, build_network(spec))
    model.compile(
        optimizer=make_optimizer(
            spec.training, make_schedule(spec.training, 100), model.network.trainable_variables
        )
    )
    model.build((None, 800))
    model.optimizer.build(model.trainable_variables)
    return model


def statistics_of(model: WaveformModel) -> BatchStatistics:
    statistics = BatchStatistics(model)
    statistics.compile()
    return statistics


@pytest.fixture(scope="module")
def pairs() -> list[Batch]:
    """Return tones in noise, in batches of 4."""
    rng = np.random.default_rng(0)
    t = np.arange(800) / 4000
    tones = rng.uniform(150, 1500, size=(64, 1))
    clean = (0.2 * np.sin(2 * np.pi * tones * t)).astype(np.float32)
    noisy = clean + 0.1 * rng.standard_normal(clean.shape).astype(np.float32)
    return [(noisy[at : at + 4], clean[at : at + 4]) for at in range(0, 64, 4)]


def test_plain_mean_over_batches(pairs: list[Batch]) -> None:
    """The first normalization sees the output of a convolution, whose moments are known."""
    model = model_of(spec_of())
    names = ["down0_0_convolution", "down0_0_norm"]
    convolution, normalization = (model.network.get_layer(name) for name in names)
    normalization.moving_mean.assign(np.full(8, 7.0))  # of other weights: forgotten
    before = normalization.momentum
    statistics_of(model).estimate(pairs[:3], 3)
    assert normalization.momentum == before

    until = keras.Model(model.network.inputs, convolution.output)
    maps = [np.asarray(until(as_map(stft(noisy, model.spec.stft)))) for noisy, _ in pairs[:3]]
    means = np.mean([x.mean(axis=(0, 1, 2)) for x in maps], axis=0)
    variances = np.mean([x.var(axis=(0, 1, 2)) for x in maps], axis=0)
    np.testing.assert_allclose(normalization.moving_mean, means, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(normalization.moving_variance, variances, rtol=1e-4)


ON_TWO_DEVICES = """
import json
import numpy as np
from denoisecli.training.devices import find_devices
devices = find_devices(cpu_parts=2)
from tests_of_statistics import model_of, spec_of, statistics_of
rng = np.random.default_rng(0)
batches = [(0.1 * rng.standard_normal((4, 800)).astype("float32"),) * 2 for _ in range(16)]
with devices.scope():
    model = model_of(spec_of())
    statistics = statistics_of(model)
    found = []
    for _ in range(3):
        statistics.estimate(devices.shard(batches), len(batches))
        variance = model.network.get_layer("down0_0_norm").moving_variance
        found.append([float(np.asarray(statistics.seen)), *np.asarray(variance).tolist()])
print(json.dumps(found))
"""


@pytest.mark.slow
def test_several_devices_lose_no_batch() -> None:
    code = ON_TWO_DEVICES.replace("tests_of_statistics", Path(__file__).stem)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, check=True
    )
    first, *others = json.loads(done.stdout.splitlines()[-1])
    assert first[0] == 16
    for other in others:
        assert other == pytest.approx(first, rel=1e-5)


@pytest.mark.parametrize("normalization", ["layer", "batch"])
def test_nothing_is_read_without_normalizations_to_estimate(normalization: str) -> None:
    model = model_of(spec_of(normalization=normalization, dropout=0.1))
    for layer in batch_normalizations(model.network):
        layer.trainable = False
    before = get_arrays(model.variables)

    def unwanted() -> Iterator[Batch]:
        pytest.fail("read a batch")
        yield

    statistics_of(model).estimate(unwanted(), 16)
    for found, expected in zip(get_arrays(model.variables), before, strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.slow
def test_averaged_weights_are_sane(pairs: list[Batch]) -> None:
    """They are worse than the trained weights with the statistics of those, better with their own.

    As found after 16 steps: 0.6 dB, 1.4 dB and 1.9 dB.
    """
    model = model_of(spec_of())

    def improvement() -> float:
        return model.evaluate(for_keras(iter(pairs)), verbose=0, return_dict=True)[
            "si_sdr_improvement"
        ]

    raw: list[np.ndarray] = []
    keep = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: raw.extend(get_arrays(model.variables))
    )
    model.fit(for_keras(iter(pairs)), shuffle=False, verbose=0, callbacks=[keep])
    averaged = improvement()  # fit() has put the averaged weights in place
    statistics_of(model).estimate(pairs, len(pairs))
    with_own_statistics = improvement()
    assign(model.variables, raw)
    trained = improvement()
    assert averaged < trained < with_own_statistics
