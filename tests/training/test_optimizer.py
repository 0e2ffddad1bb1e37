from typing import Any

import keras
import numpy as np
import pytest

from denoisecli.models.registry import build_model
from denoisecli.spec.document import parse_spec
from denoisecli.spec.training import Training
from denoisecli.training.optimizer import (
    StableDecay,
    decay_start,
    fitting_variables,
    make_optimizer,
    make_schedule,
)


def training_of(**keys: Any) -> Training:
    return Training.model_validate(keys)


def make_optimizer_of(training: Training, total: int, *arguments: Any) -> Any:
    return make_optimizer(training, make_schedule(training, total), *arguments)


def rates(total: int, **keys: Any) -> list[float]:
    schedule = make_schedule(training_of(**keys), total)
    return [float(schedule(step)) for step in range(total + 1)]


def test_weights_are_averaged_over_updates_and_not_over_batches() -> None:
    """Batches whose gradients are averaged act as one larger batch."""
    averages = []
    for steps in (1, 10):
        keys = {"gradient_steps": steps, "average_decay": 0.9, "schedule": "constant"}
        made = make_optimizer_of(training_of(**keys, warmup_steps=0, learning_rate=0.01), 20)
        weight = keras.Variable(np.zeros(4, "float32"))
        made.build([weight])
        for _ in range(20 * steps):
            made.apply([keras.ops.ones_like(weight)])
        made.finalize_variable_values([weight])
        averages.append(np.asarray(weight))
    np.testing.assert_allclose(averages[1], averages[0], rtol=0.1)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_optimizers(optimizer: Any) -> None:
    made = make_optimizer_of(
        training_of(optimizer=optimizer, warmup_steps=10, learning_rate=0.01), 30
    )
    kernel = keras.Variable(np.ones((3, 3, 2, 4), "float32"), name="kernel")
    bias = keras.Variable(np.ones(4, "float32"), name="bias")
    made.build([kernel, bias])
    for _ in range(30):
        made.apply([keras.ops.ones_like(kernel), keras.ops.ones_like(bias)])
    assert float(made.learning_rate) == pytest.approx(0.01 * 0.01, rel=1e-3)
    assert np.abs(kernel).max() < 1
    assert np.abs(bias).max() < 1


@pytest.mark.parametrize("shape", [(3, 3, 2, 4), (64, 96), (1, 5, 8, 8)])
def test_muon_takes_kernels_as_matrices(rng: np.random.Generator, shape: tuple[int, ...]) -> None:
    """A step is the orthogonal matrix nearest to the gradient, as large as a step of Adam."""
    keys = {"optimizer": "muon", "schedule": "constant", "warmup_steps": 0, "gradient_clip": 1e6}
    made = make_optimizer_of(training_of(**keys, learning_rate=0.01, weight_decay=0.0), 30)
    layers = "hidden", "output"
    kernels = [keras.Variable(np.zeros(shape, "float32"), name="kernel") for _ in layers]
    for kernel, layer in zip(kernels, layers, strict=True):
        kernel._path = f"{layer}/kernel"
    made.build(kernels)
    gradient = rng.normal(size=shape).astype("float32")
    made.apply([gradient, gradient])
    hidden, output = (np.reshape(kernel, (-1, shape[-1])) for kernel in kernels)
    left, _, right = np.linalg.svd(gradient.reshape(hidden.shape), full_matrices=False)
    step = 0.01 * 0.2 * max(hidden.shape) ** 0.5
    found = np.linalg.svd(hidden, compute_uv=False) / step
    assert 0.6 < found.min() <= found.max() < 1.3  # Newton and Schulz are not exact
    assert np.vdot(hidden, -left @ right) / np.linalg.norm(hidden) > 0.97 * min(hidden.shape) ** 0.5
    np.testing.assert_allclose(output, -0.01 * np.sign(gradient).reshape(output.shape), atol=1e-3)


def test_cosine() -> None:
    found = rates(30, warmup_steps=10, learning_rate=0.01)
    assert found[0] == 0
    assert found[10] == max(found) == pytest.approx(0.01)
    assert found[20] == pytest.approx(0.01 * (0.01 + 0.99 / 2), rel=1e-3)
    assert found[30] == pytest.approx(0.01 * 0.01, rel=1e-3)
    assert rates(1, warmup_steps=500, final_learning_rate=0.0)[0] == pytest.approx(2e-3)
    assert decay_start(training_of(), 30) == 0


def test_constant() -> None:
    found = rates(20, schedule="constant", warmup_steps=4, learning_rate=0.01)
    assert found[:6] == pytest.approx([0, 0.0025, 0.005, 0.0075, 0.01, 0.01])
    assert found[6:] == pytest.approx([0.01] * 15)
    # However long the run is, its beginning is the same.
    longer = rates(40, schedule="constant", warmup_steps=4, learning_rate=0.01)
    assert longer[:21] == found


def test_warmup_stable_decay() -> None:
    keys = {"schedule": "warmup_stable_decay", "warmup_steps": 4, "learning_rate": 0.01}
    found = rates(20, **keys, decay_share=0.25, final_learning_rate=0.2)
    start = decay_start(training_of(**keys, decay_share=0.25), 20)
    assert start == 15
    assert found[: start + 1] == rates(20, **{**keys, "schedule": "constant"})[: start + 1]
    assert found[15:] == pytest.approx(np.linspace(0.01, 0.002, 6))
    # A step behind the end, as the last epoch's report takes it, is no surprise.
    assert float(make_schedule(training_of(**keys), 20)(25)) == pytest.approx(0.01 * 0.01)
    schedule = StableDecay(0.01, 4, 15, 20, 0.2)
    again = StableDecay.from_config(schedule.get_config())
    assert [float(again(step)) for step in range(21)] == found
    assert rates(20, **{**keys, "warmup_steps": 0})[0] == pytest.approx(0.01)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_only_kernels_decay(optimizer: Any) -> None:
    """Biases, also the double one of a GRU, and normalizations do not decay."""
    network = build_model(
        parse_spec(
            {
                "name": "test",
                "stft": {"n_fft": 32, "hop_length": 16},
                "downsampling": [{"filters": 4, "strides": [4, 1]}],
                "valley": [{"block": "recurrent", "axis": "time", "units": 3}],
                "upsampling": [{"filters": 4, "skip": "convolution"}],
            }
        )
    )
    variables = network.trainable_variables
    for variable in variables:
        variable.assign(np.ones(variable.shape))
    training = training_of(
        optimizer=optimizer,
        schedule="constant",
        warmup_steps=0,
        learning_rate=0.1,
        weight_decay=0.5,
    )
    made = make_optimizer_of(training, 10, variables)
    made.build(variables)
    made.apply([keras.ops.zeros_like(variable) for variable in variables])
    kept, decayed = set(), set()
    for variable in variables:
        value = float(np.mean(variable))
        (kept if value == 1 else decayed).add(variable.name)
        assert value == pytest.approx(1 if variable.name in kept else 0.95)
    assert kept == {"bias", "gamma", "beta"}
    assert decayed == {"kernel", "recurrent_kernel"}


def test_float16_scales_the_loss() -> None:
    made = make_optimizer_of(training_of(precision="mixed_float16", warmup_steps=0), 10)
    weight = keras.Variable(np.ones(3, "float32"))
    made.build([weight])
    assert float(made.scale_loss(1.0)) == 2**15
    made.apply([keras.ops.convert_to_tensor(np.array([np.inf, 0, 0], "float32"))])
    np.testing.assert_array_equal(weight, np.ones(3))  # an overflow is a step left out
    assert float(made.scale_loss(1.0)) == 2**14
    assert float(make_optimizer_of(training_of(), 10).scale_loss(1.0)) == 1


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["cosine", "warmup_stable_decay", "constant"])
def test_a_stretched_schedule_ends_where_it_is_told_to(kind: str) -> None:
    training = Training(schedule=kind, learning_rate=0.01, warmup_steps=20, decay_share=0.25)
    schedule = make_schedule(training, 200)
    optimizer = make_optimizer(training, schedule)
    optimizer.build([keras.Variable(np.ones((2, 2)))])
    count = len(optimizer.variables)
    plain = make_schedule(training, 200)

    def rates_at(steps: range) -> list[float]:
        found = []
        for step in steps:
            optimizer.iterations.assign(step)
            found.append(float(np.asarray(optimizer.learning_rate)))
        return found

    planned = [float(np.asarray(plain(step))) for step in range(201)]
    np.testing.assert_allclose(rates_at(range(201)), planned, rtol=1e-5)
    schedule.add_total(optimizer)
    assert len(optimizer.variables) == count + 1
    np.testing.assert_allclose(rates_at(range(201)), planned, rtol=1e-5)
    schedule.stretch(110)
    found = rates_at(range(111))
    np.testing.assert_allclose(found[:21], planned[:21], rtol=1e-5)  # the same warm-up
    np.testing.assert_allclose(found[20::1], planned[20:201:2], rtol=1e-4)
    schedule.stretch(380)
    np.testing.assert_allclose(rates_at(range(20, 381))[::2], planned[20:], rtol=1e-4)
    schedule.stretch(10)
    found = rates_at(range(11))
    assert found[5] == pytest.approx(0.01, rel=0.05)
    assert found[10] == pytest.approx(planned[200], rel=1e-3, abs=1e-6)


def test_checkpoints_with_and_without_a_time_limit() -> None:
    schedule = make_schedule(Training(), 200)
    optimizer = make_optimizer(Training(), schedule)
    optimizer.build([keras.Variable(np.ones((2, 2)))])
    arrays = [np.asarray(variable) for variable in optimizer.variables]
    schedule.add_total(optimizer)
    variables, found = fitting_variables(optimizer, arrays)
    assert len(variables) == len(found) == len(arrays)
    limited = [np.asarray(variable) for variable in optimizer.variables]
    assert len(fitting_variables(optimizer, limited)[1]) == len(limited)
    other = make_optimizer_of(Training(), 200)
    other.build([keras.Variable(np.ones((2, 2)))])
    variables, found = fitting_variables(other, limited)
    assert len(variables) == len(found) == len(arrays)
