"""Train a model by its spec on a stored dataset: resumable, the best weights kept."""

import json
import warnings
from importlib.metadata import version
from pathlib import Path

import keras

from denoisecli.errors import UsageError
from denoisecli.models.describe import describe
from denoisecli.models.export.onnx_network import export_onnx
from denoisecli.spec.document import Spec, save_spec
from denoisecli.system.atomic_files import replacing
from denoisecli.training.batches import open_batches
from denoisecli.training.devices import Cluster, Device, find_devices
from denoisecli.training.excerpts import sample
from denoisecli.training.history import plot_history
from denoisecli.training.observer import Observer
from denoisecli.training.run_folder import (
    CHECKPOINT,
    HISTORY,
    LOGS,
    MODEL,
    PACKAGES,
    clear,
    code_hash,
    locked,
    record_start,
    write_history,
)
from denoisecli.training.scoring import CLIPS, require_scores
from denoisecli.training.tensorboard import Logs, can_log
from denoisecli.training.trainer import Trainer
from denoisecli.training.weights import assign


def train(
    spec: Spec,
    data: Path,
    run: Path,
    observer: Observer,
    *,
    fresh: bool = False,
    init_from: Path | None = None,
    device: Device = "auto",
    cluster: Cluster | None = None,
    cpu_parts: int = 1,
) -> Path:
    """Train until the last epoch or early stopping, going on where an earlier call stopped.

    Args:
        spec: the model and how to train it.
        data: folder with the stored training and test set.
        run: folder of this run; checkpoints, history, logs and at the end the model folder go
            there.
        observer: is told how it goes.
        fresh: throw away what an earlier call left in ``run``.
        init_from: a model folder, or an unfinished run's, whose weights a new run starts with,
            where layers match.
        device: where to train; by default on all GPUs, if there are any.
        cluster: the processes that train together, each of which makes this call; they share
            ``data`` and ``run``.
        cpu_parts: devices to divide the cores of the CPU into, which share every batch.

    Returns:
        The model folder: spec.json, model.keras, model.onnx, metrics.json, history.csv and
        curves.png.

    Raises:
        UsageError: ``run`` holds a finished run or one of another spec, or another process trains
            there; or the device, or a package that the spec needs, is not there.
        DatasetError: the data cannot be used.
        ModelError: the loss exploded or is no longer a number: the last checkpoint is kept, the
            batch saved; or the checkpoint is damaged.
        Interrupted: by Ctrl-C, after saving a checkpoint.
    """
    if spec.training.perceptual_every is not None:
        require_scores()
    devices = find_devices(device, cluster, cpu_parts)
    keras.utils.set_random_seed(spec.training.seed)
    observer.on_message(f"training on {devices.name}")
    batches = open_batches(data, spec)
    if not fresh and (run / MODEL).exists() and not (run / CHECKPOINT).exists():
        raise UsageError(f"{run} is finished: {run / MODEL} is there; --fresh starts over")
    first = devices.process == 0
    with locked(run, write=first), warnings.catch_warnings():
        # Keras does not know how long the datasets are, and takes their ends for a mistake.
        warnings.filterwarnings("ignore", "Your input ran out of data")
        if fresh and first:
            clear(run)
        devices.agree([0])  # wait for that
        logs = None
        if first and can_log():
            logs = Logs(run / LOGS, spec.audio.sample_rate)
        elif first:
            observer.on_message("no logs for TensorBoard: pip install 'denoisecli[tensorboard]'")
        trainer = Trainer(spec, batches, run, observer, devices, logs)
        if trainer.checkpoint.exists():
            trainer.resume()
        elif init_from is not None:
            trainer.start_from(init_from)
        here = [trainer.state.epoch, trainer.state.step]
        if devices.agree(here) != here:
            raise UsageError(f"{run} is not the same folder for all processes; share it")
        if first:
            record_start(
                run,
                spec,
                dataset=batches.dataset_id,
                data=data,
                device=devices.name,
                init_from=trainer.state.init_from,
            )
        trainer.fit()
        finish(trainer)
        if logs is not None:
            logs.close()
    return run / MODEL


def finish(trainer: Trainer) -> None:
    """Test the final weights and write the model folder."""
    spec, state, batches = trainer.spec, trainer.state, trainer.batches
    weights = trainer.final_weights()
    assign(trainer.network.weights, weights)
    assign(trainer.plain.network.weights, weights)
    if spec.training.perceptual_every is None:
        tested = trainer.evaluate(batches.test())
    else:
        tested = trainer.measure(batches.test(), sample(batches.test(), CLIPS))
    best = state.history[state.best_epoch] if state.history else {}
    metrics = {
        "epochs": state.epoch,
        "best_epoch": state.best_epoch + 1,
        "minutes": round(state.seconds / 60, 2),
        "audio_hours": state.history[-1]["audio_hours"] if state.history else 0.0,
        "dataset": batches.dataset_id,
        "init_from": state.init_from,
        "seed": spec.training.seed,
        "parameters": trainer.network.count_params(),
        "macs_per_second": describe(spec).macs,
        "validation": {name: value for name, value in best.items() if name.startswith("val_")},
        "test": tested,
        "code": code_hash(),
        "versions": {name: version(name) for name in PACKAGES},
    }
    if trainer.devices.process == 0:
        with replacing(trainer.run / MODEL, overwrite=True) as part:
            part.mkdir()
            metrics["onnx_difference"] = write_model(trainer.plain.network, part)
            (part / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
            write_history(state.history, part / HISTORY)
            plot_history(state.history, part / "curves.png")
        trainer.checkpoint.unlink(missing_ok=True)
    trainer.devices.agree([0])  # the others wait until it is written


def write_model(network: keras.Model, folder: Path) -> float:
    """Write spec.json, model.keras and model.onnx of a network into an existing folder.

    Returns:
        The largest difference between the masks of ONNX Runtime and Keras.
    """
    save_spec(network.spec, folder / "spec.json")
    network.save(folder / "model.keras")
    return export_onnx(network, folder / "model.onnx")
