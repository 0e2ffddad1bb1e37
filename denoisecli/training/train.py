"""Train the model of a spec on a stored dataset or on recordings."""

import gc
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import keras
import numpy as np

from denoisecli.errors import UsageError
from denoisecli.evaluation.metrics import check_metrics
from denoisecli.models.folder import ModelFolder
from denoisecli.models.registry import CLASSES, find_class
from denoisecli.spec.document import Spec
from denoisecli.system.atomic_files import temporary_folder
from denoisecli.system.extras import require
from denoisecli.system.references import load_reference
from denoisecli.training.batch_source import BatchSource
from denoisecli.training.batches import open_batches
from denoisecli.training.devices import Cluster, Device, Devices, find_devices
from denoisecli.training.losses.own import require_losses
from denoisecli.training.mixed_batches import Mixing, mix_batches
from denoisecli.training.observer import Observer
from denoisecli.training.run_folder import (
    CHECKPOINT,
    LOGS,
    MODEL,
    RECORDINGS,
    clear,
    code_changed,
    locked,
    record_start,
)
from denoisecli.training.scoring import SCORES
from denoisecli.training.trainer import Trainer
from denoisecli.training.waveform_model import build_network

if TYPE_CHECKING:
    from denoisecli.training.tensorboard import TensorBoardLogs


def train(
    spec: Spec,
    data: Path | Mixing,
    run: Path,
    observer: Observer,
    *,
    fresh: bool = False,
    init_from: Path | None = None,
    minutes: float | None = None,
    until_time_is_up: bool = False,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    device: Device = Device.AUTO,
    cluster: Cluster | None = None,
    cpu_parts: int = 1,
) -> Path:
    """Train until the last epoch, early stopping or a time limit; resume an interrupted run.

    Args:
        spec: Spec of the model and its training.
        data: Folder of the stored dataset, or recordings that batches are mixed from.
        run: Folder of the run, which receives the checkpoint, the history, the logs and, at the
            end, the model folder.
        observer: Object that is informed of the progress.
        fresh: Whether to delete what an earlier call left in ``run``.
        init_from: Folder of a model, or of an unfinished run, whose weights a new run starts with
            where layers match.
        minutes: Training time in minutes after which the run ends as if its last epoch was over:
            the epoch in progress is cut short and validated, and the model folder is written. The
            time of earlier calls counts. The schedule of the learning rate is stretched, so that it
            ends with the time, or with the last epoch if that is earlier.
        until_time_is_up: Whether the run has as many epochs as there is time for, whatever the spec
            plans. It needs ``minutes``.
        callbacks: Callbacks of Keras. They see the epochs and steps of the run, with the figures of
            the history; `model.stop_training` ends the run with its best weights so far. When an
            epoch ends, the model has the averaged weights that were validated, and training goes
            on with its own: what a callback changes then has no effect. The state of a callback
            is not part of the checkpoint.
        device: Device to train on.
        cluster: Processes that train together. Each of them makes this call, and they share
            ``data`` and ``run``.
        cpu_parts: Number of devices that the cores of the CPU are divided into, which share every
            batch.

    Returns:
        The model folder: spec.json, model.keras, model.onnx, metrics.json, history.csv and
        curves.png.

    Raises:
        UsageError: ``run`` holds a finished run or one of another spec, another process trains
            there, the device or a package that the spec needs is missing, or the spec names a class
            or loss of the user's own that `allow_class` or `allow_loss` has not loaded.
        DatasetError: The dataset cannot be used.
        ModelError: Training diverged (the last checkpoint is kept, the batch saved), or the
            checkpoint is damaged.
        Interrupted: By Ctrl-C, after saving a checkpoint.
    """
    resumes = not fresh and (run / CHECKPOINT).exists()
    check_spec(spec, has_start=resumes or init_from is not None)
    devices = find_devices(device, cluster, cpu_parts)
    observer.on_message(f"training on {devices.name}")
    if not fresh and (run / MODEL).exists() and not (run / CHECKPOINT).exists():
        raise UsageError(
            f"{run} is finished, its model is {run / MODEL}; --fresh starts over; another --run "
            f"with --init-from {run} starts with its weights"
        )
    is_first = devices.process == 0
    with locked(run, write=is_first):
        batches = _open(data, spec, run, devices, observer)
        spec = batches.spec
        trainer = Trainer(
            spec,
            batches,
            run,
            observer,
            devices,
            minutes,
            callbacks,
            until_time_is_up=until_time_is_up,
        )
        if spec.model not in CLASSES:  # found now and not after hours of training
            network = build_network(spec)
            rng = np.random.default_rng(0)
            for weight in network.trainable_weights:  # with those of the start, little can differ
                weight.assign(weight + 0.1 * rng.standard_normal(weight.shape).astype("float32"))
            with temporary_folder() as temporary:
                ModelFolder(temporary).write_network(network)
        if fresh:
            trainer.how_to_resume = "the same command without --fresh resumes there"
        if trainer.checkpoint.exists() and not fresh:
            trainer.resume()
            if code_changed(run):
                observer.on_message(
                    "the run was started with another version of denoise; the result may differ "
                    "from that of an uninterrupted run"
                )
            if init_from is not None:
                trainer.check_start(init_from)
        elif init_from is not None:
            trainer.start_from(init_from)
        position: list[float] = [trainer.state.epoch, trainer.state.step]
        if devices.broadcast(position) != position:
            raise UsageError(f"{run} is not the same folder for all processes; share it")
        if is_first:
            if fresh:
                _clear(run, trainer)
            trainer.logs = _open_logs(run / LOGS, spec, observer)
            record_start(
                run,
                spec,
                dataset=batches.dataset_id,
                data=batches.folder,
                device=devices.name,
                init_from=trainer.state.init_from,
                training_sources=trainer.training_sources(),
            )
        trainer.fit()
        trainer.finish()
        if trainer.logs is not None:
            trainer.logs.close()
    if is_first:
        del trainer, batches
        gc.collect()  # Windows removes no file that is mapped into memory
        shutil.rmtree(run / RECORDINGS, ignore_errors=True)
    return run / MODEL


def check_spec(spec: Spec, *, has_start: bool) -> None:
    """Check what a training needs beside its data, before it begins.

    Args:
        spec: Spec of the model.
        has_start: Whether the training starts with the weights of a model.

    Raises:
        UsageError: A package that the spec needs is missing, it names a class or loss of the user's
            own that `allow_class` or `allow_loss` has not loaded, or it needs a start.
    """
    if spec.training.perceptual_every is not None:
        check_metrics(SCORES.values())
    find_class(spec.model)
    require_losses(spec)
    for key in ("fixed_normalization", "start_share"):
        if getattr(spec.training, key) and not has_start:
            raise UsageError(f"training.{key} needs a model to start from")


def _open(
    data: Path | Mixing, spec: Spec, run: Path, devices: Devices, observer: Observer
) -> BatchSource:
    """Open a stored dataset, or decode recordings in the first process, for which others wait."""
    is_first = devices.process == 0
    if not is_first:
        devices.broadcast([0])
    batches: BatchSource
    if isinstance(data, Mixing):
        batches = mix_batches(data, spec, run, observer.on_message)
    else:
        batches = open_batches(data, spec)
    if is_first:
        devices.broadcast([0])
    for message in batches.messages:
        observer.on_message(message)
    return batches


def _clear(run: Path, trainer: Trainer) -> None:
    """Delete what an earlier call left, such that a new run that is killed at once is a new run."""
    if (run / MODEL).exists():
        trainer.save()  # or the old model would pass for that of the new spec
    else:
        trainer.checkpoint.unlink(missing_ok=True)
    clear(run)


def load_callback(reference: str) -> keras.callbacks.Callback:
    """Import a user-defined callback, which runs its code, and create it without arguments.

    Args:
        reference: Module and name of a subclass of `keras.callbacks.Callback`, such as
            ``"mine:Report"``.

    Raises:
        UsageError: There is no such class, or it cannot be created without arguments.
    """
    kind = load_reference(reference)
    if not (isinstance(kind, type) and issubclass(kind, keras.callbacks.Callback)):
        raise UsageError(f"{reference} is not a subclass of keras.callbacks.Callback")
    try:
        return kind()
    except TypeError as error:
        raise UsageError(f"{reference} cannot be created without arguments: {error}") from error


def _open_logs(folder: Path, spec: Spec, observer: Observer) -> "TensorBoardLogs | None":
    """Return the writer of the TensorBoard logs, or None if it is not installed.

    TensorFlow writes them. Under another backend it is not loaded, which takes long and may take
    memory of the GPU.
    """
    if keras.backend.backend() != "tensorflow":
        return None
    try:
        require("tensorboard", "tensorboard", purpose="logging for TensorBoard")
    except UsageError as error:
        observer.on_message(f"no TensorBoard logs: {error}")
        return None
    from denoisecli.training.tensorboard import TensorBoardLogs

    return TensorBoardLogs(folder, spec.audio.sample_rate)
