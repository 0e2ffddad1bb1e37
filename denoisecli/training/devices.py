"""The devices that train: a CPU, one or several GPUs, one or several machines."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import numpy as np

from denoisecli.errors import UsageError
from denoisecli.system.pools import cpu_cores
from denoisecli.training.stream import Batch

if TYPE_CHECKING:
    import keras
    import tensorflow as tf


class Device(StrEnum):
    """Device to train on."""

    AUTO = "auto"
    CPU = "cpu"
    GPU = "gpu"


@dataclass(frozen=True)
class Cluster:
    """Processes, on one machine or several, that train one model together (needs JAX).

    Attributes:
        coordinator: HOST:PORT of process 0, which the others connect to.
        processes: Number of processes.
        process: Index of this process, starting at 0.

    Raises:
        UsageError: The number of the process is out of range.
    """

    coordinator: str
    processes: int
    process: int

    def __post_init__(self) -> None:
        if not 0 <= self.process < self.processes:
            raise UsageError(
                f"there is no process {self.process} among {self.processes}; processes are "
                f"numbered from 0 to {self.processes - 1}"
            )


@dataclass(frozen=True)
class Devices:
    """The devices that share the work.

    Attributes:
        name: Description for messages.
        replicas: Number of devices in all processes.
        processes: Number of processes.
        process: Index of this process; process 0 writes the files.
        strategy: Keras or TensorFlow strategy that distributes the work, if there are several.
    """

    name: str
    replicas: int = 1
    processes: int = 1
    process: int = 0
    strategy: "tf.distribute.Strategy | keras.distribution.DataParallel | None" = None

    def scope(self) -> AbstractContextManager[Any]:
        """Return the context in which the model must be built and trained."""
        return nullcontext() if self.strategy is None else self.strategy.scope()

    def shard(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """Yield this process's rows of every batch.

        Rows that cannot be shared evenly are left out: fewer per batch than there are devices.
        """
        for batch in batches:
            if self.replicas == 1:
                yield batch
                continue
            count = len(batch[0]) // self.replicas * (self.replicas // self.processes)
            start = self.process * count
            if count:
                yield tuple(np.asarray(part)[start : start + count] for part in batch)

    def broadcast(self, values: Sequence[int | float]) -> list[float]:
        """Return the values that process 0 passes; all processes wait for each other here."""
        if self.processes == 1:
            return [float(value) for value in values]
        from jax.experimental import multihost_utils

        # As bytes, because JAX would round to float32.
        sent = np.array(values, np.float64).view(np.uint8)
        received = np.asarray(multihost_utils.broadcast_one_to_all(sent))
        return [float(value) for value in received.view(np.float64)]


def find_devices(
    device: Device = Device.AUTO, cluster: Cluster | None = None, cpu_parts: int = 1
) -> Devices:
    """Select the devices to train on. GPU memory is allocated as it is needed.

    Args:
        device: Device to train on; by default all GPUs, or the CPU if there is none.
        cluster: Processes that train together.
        cpu_parts: Number of devices that the cores of the CPU are divided into. Small operations
            gain little from a second core, but two halves of a batch do.

    Raises:
        UsageError: There is no GPU although one is asked for, a cluster is asked for without
            JAX, or the CPU is not used or cannot be divided any more.
    """
    import keras

    backend = keras.backend.backend()
    if cpu_parts > 1:
        _divide_cpu(device, cpu_parts)
    if backend == "jax":
        return _find_jax_devices(device, cluster)
    if cluster is not None:
        raise UsageError("several processes need JAX: set KERAS_BACKEND=jax before starting")
    if backend == "torch":
        return _find_torch_device(device)
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    if device == Device.GPU and not gpus:
        raise UsageError("TensorFlow finds no GPU; leave --device out, or install denoisecli[gpu]")
    if device == Device.CPU and gpus:
        try:
            tf.config.set_visible_devices([], "GPU")
        except RuntimeError as error:
            raise UsageError(f"the GPU {gpus[0].name} is already in use: {error}") from error
        gpus = []
    for gpu in gpus:
        with suppress(RuntimeError):  # it is too late, because the GPU is already in use
            tf.config.experimental.set_memory_growth(gpu, True)
    if gpus:
        details = tf.config.experimental.get_device_details(gpus[0])
        name = f"the GPU ({details.get('device_name', gpus[0].name)})"
    else:
        reason = "" if device == Device.CPU else "; no GPU found"
        name = f"the CPU ({cpu_cores()} cores{reason})"
    logical = tf.config.list_logical_devices("GPU" if gpus else "CPU")
    if len(logical) < 2:
        return Devices(name)
    strategy = tf.distribute.MirroredStrategy([item.name for item in logical])
    multiple = f"{len(logical)} times " if gpus else f"{len(logical)} parts of "
    return Devices(multiple + name, len(logical), strategy=strategy)


def _divide_cpu(device: Device, parts: int) -> None:
    import keras

    if keras.backend.backend() != "tensorflow":
        raise UsageError("only TensorFlow can divide a CPU; unset KERAS_BACKEND")
    import tensorflow as tf

    if device != Device.CPU and tf.config.list_physical_devices("GPU"):
        raise UsageError("a GPU is found, so the CPU is not used; add --device cpu to divide it")
    cores = cpu_cores()
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
        raise UsageError(f"the CPU is already in use: {error}") from error


def _find_jax_devices(device: Device, cluster: Cluster | None) -> Devices:
    import jax
    import keras

    if device != Device.AUTO:
        jax.config.update("jax_platforms", "cpu" if device == Device.CPU else "cuda")
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


def _find_torch_device(device: Device) -> Devices:
    import torch

    found = torch.cuda.is_available()
    if device == Device.GPU and not found:
        raise UsageError("PyTorch finds no GPU; leave --device out")
    if device == Device.CPU and found:
        raise UsageError("PyTorch takes the GPU; set CUDA_VISIBLE_DEVICES= to train on the CPU")
    return Devices(f"the {'GPU' if found else 'CPU'} (PyTorch)")
