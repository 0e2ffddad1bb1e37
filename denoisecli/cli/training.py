"""The commands that train and that list training runs: train, runs."""

import os
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from denoisecli.cli import console, displays
from denoisecli.cli.options import (
    Json,
    Losses,
    ModelClass,
    allow_code,
    host_and_port,
    load_keras,
    parse_weights,
)
from denoisecli.errors import UsageError
from denoisecli.system.extras import require
from denoisecli.training.devices import Cluster, Device

_recordings = partial(typer.Option, rich_help_panel="Recordings instead of a dataset")
_overrides = partial(typer.Option, rich_help_panel="Overrides of the spec")
_start = partial(typer.Option, rich_help_panel="Start")
_machines = partial(typer.Option, rich_help_panel="Devices and machines")


SpecName = Annotated[str, typer.Argument(help="Spec file or name of a bundled spec.")]
DataFolder = Annotated[
    Path | None, typer.Option(help="Dataset made by build-dataset (default: data).")
]
CleanFolder = Annotated[
    Path | None,
    _recordings(help="Folder of clean recordings to mix during training, instead of --data."),
]
NoiseFolder = Annotated[
    Path | None, _recordings(help="Folder of noise recordings, required with --clean.")
]
MusicFolder = Annotated[
    Path | None,
    _recordings(
        help="Folder of additional clean recordings to preserve, such as music; groups and "
        "weights treat it as a folder of --clean."
    ),
]
Rooms = Annotated[
    int,
    _recordings(
        min=0, help="Number of simulated rooms for the speech, such as 200 (extra [rooms])."
    ),
]
CacheFolder = Annotated[
    Path | None,
    _recordings(
        help="Folder to keep the decoded recordings in, to share them between runs (default: "
        "in the folder of the run, until it is finished)."
    ),
]
GroupBy = Annotated[
    str | None,
    _recordings(
        help="Grouping of recordings, to keep each group in one set: file, folder, or a "
        "regular expression with a group, as in build-dataset (default: file)."
    ),
]
GroupNoiseBy = Annotated[
    str | None, _recordings(help="Grouping of noise recordings (default: that of --group-by).")
]
CleanWeights = Annotated[
    list[str] | None,
    _recordings(
        metavar="FOLDER=NUMBER",
        help="Weight of the clean recordings in a folder, a whole number: FOLDER=3 uses them three "
        "times as often, and FOLDER=0 never.",
    ),
]
NoiseWeights = Annotated[
    list[str] | None,
    _recordings(
        metavar="FOLDER=NUMBER",
        help="Weight of the noises in a folder: FOLDER=0.5 draws them half as often, and FOLDER=0 "
        "never.",
    ),
]
RunFolder = Annotated[Path | None, typer.Option(help="Folder of the run (default: runs/NAME).")]
Minutes = Annotated[
    float | None,
    typer.Option(
        min=0,
        help="Training time in minutes, such as 90, after which the run ends with its best "
        "weights; without --epochs, it trains for that long, regardless of the number of epochs in "
        "the spec. The learning-rate schedule ends with the run (default: no limit).",
    ),
]
Epochs = Annotated[int | None, _overrides(min=1, help="Number of epochs, such as 5.")]
LearningRate = Annotated[float | None, _overrides(help="Peak learning rate, such as 0.001.")]
BatchSize = Annotated[
    int | None, _overrides(min=1, help="Number of segments in a batch, such as 8.")
]
InitFrom = Annotated[
    str | None,
    _start(help="Model folder, unfinished run or bundled model whose weights to start with."),
]
Fresh = Annotated[bool, _start("--fresh", help="Delete the run in the folder and start over.")]
Callbacks = Annotated[
    list[str] | None,
    typer.Option(
        metavar="MODULE:CLASS",
        help="User-defined Keras callback, such as mine:Report; its code is run.",
        rich_help_panel="User-defined code",
    ),
]
DeviceKind = Annotated[
    Device, _machines(help="Device to train on; auto takes all GPUs if there are any.")
]
CpuParts = Annotated[
    int,
    _machines(min=1, help="Number of parts of the CPU that share a batch; 2 is faster on 2 cores."),
]
Coordinator = Annotated[
    str | None,
    _machines(
        parser=host_and_port,
        metavar="HOST:PORT",
        help="Address of process 0 if several processes train together (docs/scale-out.md).",
    ),
]
Processes = Annotated[int, _machines(min=1, help="Number of processes that train together.")]
ProcessIndex = Annotated[int, _machines(min=0, help="Index of this process, starting at 0.")]


def train(
    spec: SpecName,
    data: DataFolder = None,
    clean: CleanFolder = None,
    noise: NoiseFolder = None,
    music: MusicFolder = None,
    rooms: Rooms = 0,
    cache: CacheFolder = None,
    group_by: GroupBy = None,
    group_noise_by: GroupNoiseBy = None,
    clean_weight: CleanWeights = None,
    noise_weight: NoiseWeights = None,
    run: RunFolder = None,
    minutes: Minutes = None,
    epochs: Epochs = None,
    learning_rate: LearningRate = None,
    batch_size: BatchSize = None,
    init_from: InitFrom = None,
    fresh: Fresh = False,
    model_class: ModelClass = None,
    loss: Losses = None,
    callback: Callbacks = None,
    device: DeviceKind = Device.AUTO,
    cpu_parts: CpuParts = 1,
    coordinator: Coordinator = None,
    processes: Processes = 1,
    process: ProcessIndex = 0,
) -> None:
    """Train the model of a spec; the same command resumes an interrupted run.

    Writes the model, its metrics and its training curves to the folder `model` of the run.

    Example: `denoise train tiny`, then `denoise clean noisy.wav -o out.wav --model runs/tiny`
    """
    from denoisecli.models.catalogue import find_model, load_spec
    from denoisecli.models.folder import ModelFolder
    from denoisecli.spec.search_space import with_values
    from denoisecli.training.run_folder import CHECKPOINT

    if (clean is None) != (noise is None):
        raise UsageError("--clean and --noise belong together")
    of_recordings = {
        "--music": music,
        "--rooms": rooms,
        "--cache": cache,
        "--group-by": group_by,
        "--group-noise-by": group_noise_by,
        "--clean-weight": clean_weight,
        "--noise-weight": noise_weight,
    }
    given = [name for name, value in of_recordings.items() if value]
    if clean is None and given:
        verb = "needs" if len(given) == 1 else "need"
        raise UsageError(f"{', '.join(given)} {verb} --clean and --noise; --data is used as stored")
    if clean is not None and data is not None:
        raise UsageError("give either --data, a stored dataset, or --clean and --noise")
    start = None
    if init_from is not None:
        is_unfinished = (Path(init_from) / CHECKPOINT).exists()
        start = Path(init_from) if is_unfinished else find_model(init_from).path
    overrides = {
        "model": model_class,
        "training.epochs": epochs,
        "training.learning_rate": learning_rate,
        "training.batch_size": batch_size,
    }
    loaded = with_values(  # before TensorFlow, so that errors in the spec show at once
        load_spec(spec), {key: value for key, value in overrides.items() if value is not None}
    )
    cluster = None
    if coordinator is not None:
        require("jax", "jax", purpose="training in several processes")
        cluster = Cluster(coordinator, processes, process)
        os.environ["KERAS_BACKEND"] = "jax"
    elif processes > 1 or process > 0:
        raise UsageError("several processes need --coordinator HOST:PORT, the address of process 0")
    load_keras("training")
    allow_code(model_class, loss)
    from denoisecli.training.mixed_batches import Folders, Mixing
    from denoisecli.training.train import load_callback
    from denoisecli.training.train import train as run_training

    source: Path | Mixing = data or Path("data")
    if clean is not None and noise is not None:
        source = Mixing(
            Folders(clean, noise, music),
            rooms,
            cache,
            group_by or "file",
            group_noise_by,
            parse_weights(clean_weight, "--clean-weight", int),
            parse_weights(noise_weight, "--noise-weight", float),
        )
    with displays.TrainingDisplay() as display:
        folder = run_training(
            loaded,
            source,
            run or Path("runs") / loaded.name,
            display,
            fresh=fresh,
            init_from=start,
            minutes=minutes,
            until_time_is_up=minutes is not None and epochs is None,
            callbacks=[load_callback(reference) for reference in callback or ()],
            device=device,
            cluster=cluster,
            cpu_parts=cpu_parts,
        )
    if process > 0:
        return
    model = ModelFolder(folder)
    metrics = model.read_metrics()
    console.info(
        f"wrote {folder}: {metrics.epochs} epoch{'s' if metrics.epochs != 1 else ''}, "
        f"{metrics.audio_hours:.1f} hours of audio, {metrics.minutes:.1f} minutes"
    )
    console.info(
        f"test set: the SI-SDR is {_gain(metrics.test['si_sdr_improvement'])} the noisy input "
        f"(mean over segments of {loaded.training.segment_seconds:g} s; denoise evaluate takes the "
        "mean over whole files)"
    )
    console.info(f"curves: {model.curves_path}")


def _gain(decibels: float | None) -> str:
    """Return an improvement in dB in words."""
    if decibels is None:
        return "not comparable with that of"
    return f"{abs(decibels):.2f} dB {'better' if decibels >= 0 else 'worse'} than that of"


def runs(
    folder: Annotated[Path, typer.Argument(help="Folder of runs, or of a single run.")] = Path(
        "runs"
    ),
    as_json: Json = False,
) -> None:
    """List training runs with their progress and their validation and test results.

    Gains are improvements of the SI-SDR over the noisy input in dB.

    Example: `denoise runs`
    """
    from denoisecli.training.run_folder import list_runs

    found, errors = list_runs(folder)
    for error in errors:
        console.warn(f"a run was left out: {error}")
    if as_json:
        console.print_json(found)
        return
    figures = {
        "val loss": ([run.best.get("val_loss") for run in found], ".4f"),
        "val gain": ([run.best.get("val_si_sdr_improvement") for run in found], ".2f"),
        "PESQ": ([run.best.get("val_pesq") for run in found], ".3f"),
        "ESTOI": ([run.best.get("val_estoi") for run in found], ".3f"),
        "test loss": ([run.test.get("loss") for run in found], ".4f"),
        "test gain": ([run.test.get("si_sdr_improvement") for run in found], ".2f"),
    }
    measured = {
        heading: ["-" if value is None else f"{value:{form}}" for value in values]
        for heading, (values, form) in figures.items()
        if any(value is not None for value in values)
    }
    rows = [
        [
            *(run.name, run.state, f"{run.epochs}/{run.planned_epochs}"),
            *(f"{run.audio_hours:.1f}", f"{run.minutes:.1f}"),
            *texts,
        ]
        for run, *texts in zip(found, *measured.values(), strict=True)
    ]
    columns = ["run", "state", "epochs", "audio hours", "minutes", *measured]
    console.print_table(columns, rows, texts=2)
