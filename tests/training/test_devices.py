from collections.abc import Iterable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from denoisecli.errors import UsageError
from denoisecli.system.pools import cpu_cores
from denoisecli.training import devices
from denoisecli.training.devices import Cluster, Device, Devices, find_devices
from denoisecli.training.stream import Batch

GPU = tf.config.PhysicalDevice("/physical_device:GPU:0", "GPU")


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulate a machine with a GPU that is already in use."""

    def too_late(*args: Any) -> None:
        raise RuntimeError("Physical devices cannot be modified after being initialized")

    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [GPU])
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind: [kind])
    monkeypatch.setattr(tf.config.experimental, "set_memory_growth", too_late)
    details = {"device_name": "Some Card"}
    monkeypatch.setattr(tf.config.experimental, "get_device_details", lambda gpu: details)


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [])


def test_gpu(gpu: None, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_devices() == find_devices(Device.GPU) == Devices("the GPU (Some Card)")
    hidden: list[Any] = []
    monkeypatch.setattr(tf.config, "set_visible_devices", lambda *args: hidden.append(args))
    assert find_devices(Device.CPU) == Devices(f"the CPU ({cpu_cores()} cores)")
    assert hidden == [([], "GPU")]

    def too_late(*args: Any) -> None:
        raise RuntimeError("Visible devices cannot be modified after being initialized")

    monkeypatch.setattr(tf.config, "set_visible_devices", too_late)
    with pytest.raises(UsageError, match="GPU:0 is already in use: Visible devices cannot"):
        find_devices(Device.CPU)


def test_no_gpu(no_gpu: None) -> None:
    assert find_devices() == Devices(f"the CPU ({cpu_cores()} cores; no GPU found)")
    assert find_devices(Device.CPU) == Devices(f"the CPU ({cpu_cores()} cores)")
    with pytest.raises(UsageError, match="TensorFlow finds no GPU; leave --device out"):
        find_devices(Device.GPU)


def test_parts_of_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """test_scale_out.py shows that two of them train as one does."""
    monkeypatch.setattr(devices, "cpu_cores", lambda: 2)
    with pytest.raises(UsageError, match="2 cores cannot be divided into 3 parts"):
        find_devices(cpu_parts=3)
    tf.config.list_logical_devices()
    with pytest.raises(UsageError, match="the CPU is already in use: "):
        find_devices(cpu_parts=2)
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(UsageError, match="only TensorFlow can divide a CPU"):
        find_devices(cpu_parts=2)


def test_the_cpu_beside_a_gpu(gpu: None) -> None:
    with pytest.raises(UsageError, match="a GPU is found, so the CPU is not used"):
        find_devices(cpu_parts=2)


def test_clusters() -> None:
    for numbers in ((2, 2), (2, -1), (0, 0)):
        with pytest.raises(
            UsageError, match=r"there is no process .*; processes are numbered from 0 to"
        ):
            Cluster("host:1", *numbers)
    assert keras.backend.backend() == "tensorflow"
    with pytest.raises(UsageError, match="several processes need JAX: set KERAS_BACKEND=jax"):
        find_devices(cluster=Cluster("host:1", 2, 0))


def rows(found: Iterable[Batch]) -> list[list[int]]:
    pairs = [(noisy.tolist(), clean.tolist()) for noisy, clean in found]
    assert all(noisy == clean for noisy, clean in pairs)
    return [noisy for noisy, _ in pairs]


def test_rows_are_shared_evenly() -> None:
    numbers = [(part, part) for part in (np.arange(8), np.arange(8, 11))]
    assert list(Devices("one").shard(numbers)) == numbers
    # Four devices in two processes: the last batch has three rows, one too few.
    first, second = (Devices("four", 4, 2, process).shard(numbers) for process in (0, 1))
    assert rows(first) == [[0, 1, 2, 3]]
    assert rows(second) == [[4, 5, 6, 7]]
    assert rows(Devices("two", 2, 2, 1).shard(numbers)) == [[4, 5, 6, 7], [9]]
    assert rows(Devices("two here", 2).shard(numbers)) == [[0, 1, 2, 3, 4, 5, 6, 7], [8, 9]]


def test_one_process_broadcasts_to_itself() -> None:
    assert Devices("one").broadcast([1, 0.1]) == [1.0, 0.1]


def test_scope() -> None:
    with Devices("one").scope():
        assert not tf.distribute.has_strategy()
    with Devices("one", strategy=tf.distribute.OneDeviceStrategy("/CPU:0")).scope():
        assert tf.distribute.has_strategy()
