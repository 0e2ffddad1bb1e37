"""Where training runs: a CPU, a GPU, several GPUs, several machines."""

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf

from denoisecli.errors import UsageError

Device = Literal["auto", "cpu", "gpu"]


@dataclass(frozen=True)
class Cluster:
    """Processes, on one machine or several, that train one model together (needs JAX).

    Attributes:
        coordinator: HOST:PORT of the first process, where the others find it.
        processes: how many there are.
        process: which one this is, from 0.
    """

    coordinator: str
    processes: int
    process: int

    def __post_init__(self) -> None:
        if not 0 <= self.process < self.processes:
            raise UsageError(
                f"process {self.process} of {self.processes}: processes count from 0 to "
                f"{self.processes - 1}"
            )
        host, _, port = self.coordinator.rpartition(":")
        if not host or not port.isdigit():
            raise UsageError(f"the coordinator wants HOST:PORT, found {self.coordinator!r}")


@dataclass(frozen=True)
class Devices:
    """The devices that share the work.

    Attributes:
        name: in words.
        replicas: how many work side by side, in all processes.
        processes: number of processes.
        process: which one this is; the first one, 0, writes files.
        strategy: what divides the work, if there are several devices.
    """

    name: str
    replicas: int = 1
    processes: int = 1
    process: int = 0
    strategy: Any = None

    def scope(self) -> AbstractContextManager[Any]:
        """What is trained must be built, and trained, in here."""
        return nullcontext() if self.strategy is None else self.strategy.scope()

    def part(self, batches: tf.data.Dataset) -> tf.data.Dataset:
        """This process's rows of every batch of (noisy, clean).

        Rows that cannot be dealt out evenly are left out: at most one less than there are devices.
        """
        if self.replicas == 1:
            return batches

        def rows(noisy: Any, clean: Any) -> Any:
            count = tf.shape(noisy)[0] // self.replicas * (self.replicas // self.processes)
            start = self.process * count
            return noisy[start : start + count], clean[start : start + count]

        return batches.map(rows).filter(lambda noisy, clean: tf.shape(noisy)[0] > 0)

    def agree(self, values: Sequence[int | float]) -> list[float]:
        """The first process's values, everywhere; all processes wait for each other here."""
        if self.processes == 1:
            return [float(value) for value in values]
        from jax.experimental import multihost_utils

        # As bytes: JAX would round to float32.
        sent = np.array(values, np.float64).view(np.uint8)
        received = np.asarray(multihost_utils.broadcast_one_to_all(sent))
        return [float(value) for value in received.view(np.float64)]


def find_devices(
    device: Device = "auto", cluster: Cluster | None = None, cpu_parts: int = 1
) -> Devices:
    """Choose the devices to train on; GPU memory is taken as it is needed.

    Args:
        device: what to look for.
        cluster: the processes that train together.
        cpu_parts: devices to divide the cores of the CPU into. Small operations gain little from a
            second core, but two halves of a batch do.

    Raises:
        UsageError: no GPU is found though one was asked for, a cluster without JAX, or a CPU that
            is not used or cannot be divided any more.
    """
    if cpu_parts > 1:
        _divide_cpu(device, cpu_parts)
    if keras.backend.backend() == "jax":
        return _jax_devices(device, cluster)
    if cluster is not None:
        raise UsageError("several processes need JAX: set KERAS_BACKEND=jax before starting")
    gpus = tf.config.list_physical_devices("GPU")
    if device == "gpu" and not gpus:
        raise UsageError("TensorFlow finds no GPU; leave --device out, or install denoisecli[gpu]")
    if device == "cpu" and gpus:
        _hide(gpus)
        gpus = []
    for gpu in gpus:
        with suppress(RuntimeError):  # it is too late for that: the GPU is in use already
            tf.config.experimental.set_memory_growth(gpu, True)
    if gpus:
        details = tf.config.experimental.get_device_details(gpus[0])
        name = f"the GPU ({details.get('device_name', gpus[0].name)})"
    else:
        reason = "" if device == "cpu" else "; no GPU found"
        name = f"the CPU ({os.cpu_count()} cores{reason})"
    logical = tf.config.list_logical_devices("GPU" if gpus else "CPU")
    if len(logical) < 2:
        return Devices(name)
    strategy = tf.distribute.MirroredStrategy([item.name for item in logical])
    times = f"{len(logical)} times " if gpus else f"{len(logical)} parts of "
    return Devices(times + name, len(logical), strategy=strategy)


def _divide_cpu(device: Device, parts: int) -> None:
    if keras.backend.backend() != "tensorflow":
        raise UsageError("only TensorFlow can divide a CPU; leave KERAS_BACKEND alone")
    if device != "cpu" and tf.config.list_physical_devices("GPU"):
        raise UsageError("a GPU is there, and the CPU not used; add --device cpu to divide that")
    cores = os.cpu_count() or 1
    if parts > cores:
        raise UsageError(f"{cores} cores cannot be divided into {parts} parts")
    (cpu,) = tf.config.list_physical_devices("CPU")
    try:
        tf.config.set_logical_device_configuration(
            cpu, [tf.config.LogicalDeviceConfiguration()] * parts
        )
        tf.config.threading.set_intra_op_parallelism_threads(cores // parts)
        tf.config.threading.set_inter_op_parallelism_threads(parts)
    except RuntimeError as error:
        raise UsageError(f"the CPU is in use already: {error}") from error


def _jax_devices(device: Device, cluster: Cluster | None) -> Devices:
    import jax

    with suppress(RuntimeError):  # TensorFlow reads the data, and must leave the GPUs alone
        tf.config.set_visible_devices([], "GPU")
    if device != "auto":
        jax.config.update("jax_platforms", {"cpu": "cpu", "gpu": "cuda"}[device])
    if cluster is not None:
        keras.distribution.initialize(cluster.coordinator, cluster.processes, cluster.process)
    try:
        devices = jax.devices()
    except RuntimeError as error:
        raise UsageError(f"JAX cannot use the device: {error}") from error
    name = f"{len(devices)} x {devices[0].device_kind} (JAX)"
    if len(devices) == 1:
        return Devices(name)
    strategy = keras.distribution.DataParallel(auto_shard_dataset=False)
    return Devices(name, len(devices), jax.process_count(), jax.process_index(), strategy)


def _hide(gpus: Sequence[Any]) -> None:
    try:
        tf.config.set_visible_devices([], "GPU")
    except RuntimeError as error:
        raise UsageError(f"the GPU {gpus[0].name} is in use already: {error}") from error
