"""The commands that train: train, runs."""

import os
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from denoisecli.cli import console, displays
from denoisecli.cli.options import load_tensorflow
from denoisecli.errors import UsageError
from denoisecli.training.devices import Device


def train(
    spec: Annotated[
        str, typer.Argument(help="A spec file or the name of a bundled one.", show_default=False)
    ],
    data: Annotated[Path, typer.Option(help="Folder made by build-dataset.")] = Path("data"),
    run: Annotated[
        Path | None, typer.Option(help="Folder of the run; runs/NAME.", show_default=False)
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start over.")] = False,
    init_from: Annotated[
        str | None,
        typer.Option(
            help="A model, or an unfinished run, whose weights to start with.", show_default=False
        ),
    ] = None,
    device: Annotated[
        Device, typer.Option(help="Where to train; auto: on all GPUs, if there are any.")
    ] = Device.AUTO,
    cpu_parts: Annotated[
        int,
        typer.Option(min=1, help="Parts of the CPU that share a batch: 2 on 2 cores is faster."),
    ] = 1,
    coordinator: Annotated[
        str | None,
        typer.Option(
            help="HOST:PORT of process 0, if several train together (docs/scale-out.md).",
            show_default=False,
        ),
    ] = None,
    processes: Annotated[int, typer.Option(min=1, help="How many train together.")] = 1,
    process: Annotated[int, typer.Option(min=0, help="Which of them this one is.")] = 0,
) -> None:
    """Train a model by its spec; the same command goes on after a stop.

    Example: `denoise train tiny`, then `denoise clean noisy.wav -o out.wav --model runs/tiny`
    """
    from denoisecli.models.catalogue import find_model, load_spec
    from denoisecli.models.folder import ModelFolder
    from denoisecli.training.run_folder import CHECKPOINT

    start = None
    if init_from is not None:
        unfinished = (Path(init_from) / CHECKPOINT).exists()
        start = Path(init_from) if unfinished else find_model(init_from).path
    loaded = load_spec(spec)  # before TensorFlow: a misspelt key is reported at once
    if coordinator is not None:
        if find_spec("jax") is None:
            raise UsageError("several processes need JAX: pip install 'denoisecli[jax]'")
        os.environ["KERAS_BACKEND"] = "jax"
    elif processes > 1 or process > 0:
        raise UsageError("several processes need --coordinator HOST:PORT, of process 0")
    load_tensorflow("training")
    from denoisecli.training.devices import Cluster
    from denoisecli.training.train import train as train_model

    with displays.TrainingDisplay() as display:
        folder = train_model(
            loaded,
            data,
            run or Path("runs") / loaded.name,
            display,
            fresh=fresh,
            init_from=start,
            device=device,
            cpu_parts=cpu_parts,
            cluster=None if coordinator is None else Cluster(coordinator, processes, process),
        )
    if process > 0:
        return
    metrics = ModelFolder(folder).read_metrics()
    console.info(
        f"wrote {folder}: {metrics.epochs} epochs, {metrics.audio_hours:.1f} hours of audio "
        f"in {metrics.minutes:.1f} min; on the test set SI-SDR improves by "
        f"{metrics.test['si_sdr_improvement']:.2f} dB"
    )


def runs(
    folder: Annotated[Path, typer.Argument(help="Folder of runs, or of one.")] = Path("runs"),
    as_json: Annotated[bool, typer.Option("--json", help="Print all figures as JSON.")] = False,
) -> None:
    """List training runs: how far they are, their best validation, their test.

    Example: `denoise runs`
    """
    from denoisecli.training.run_folder import list_runs

    found, errors = list_runs(folder)
    for error in errors:
        console.warn(f"run left out: {error}")
    if as_json:
        console.print_json([asdict(run) for run in found])
        return
    figures = {  # of the best epoch, or of the test
        "val loss": ("best", "val_loss", ".4f"),
        "SI-SDR gain": ("best", "val_si_sdr_improvement", ".2f"),
        "PESQ": ("best", "val_pesq", ".3f"),
        "ESTOI": ("best", "val_estoi", ".3f"),
        "test loss": ("test", "loss", ".4f"),
        "test gain": ("test", "si_sdr_improvement", ".2f"),
    }
    columns = {
        title: [
            f"{getattr(run, part)[name]:{digits}}" if name in getattr(run, part) else "-"
            for run in found
        ]
        for title, (part, name, digits) in figures.items()
    }
    measured = {title: texts for title, texts in columns.items() if set(texts) != {"-"}}
    rows = [
        [
            *(run.name, run.state, f"{run.epochs}/{run.planned_epochs}"),
            *(f"{run.audio_hours:.1f}", f"{run.minutes:.1f}"),
            *texts,
        ]
        for run, *texts in zip(found, *measured.values(), strict=True)
    ]
    console.print_table(["run", "state", "epochs", "hours", "min", *measured], rows, texts=2)
