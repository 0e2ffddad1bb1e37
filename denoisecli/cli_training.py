"""The commands that teach: build-dataset, train, spec."""

import os
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from denoisecli import console
from denoisecli.cli_options import NoMatchLevel, Overwrite, Ratio, Seed, Snr, number_or_range
from denoisecli.errors import UsageError


def build_dataset(
    clean: Annotated[Path, typer.Argument(help="Folder of clean recordings.", show_default=False)],
    noise: Annotated[Path, typer.Argument(help="Folder of noises.", show_default=False)],
    ratio: Ratio = None,
    snr: Snr = None,
    split: Annotated[float, typer.Option(help="Share of the files that train.")] = 0.8,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder that the sets are put into.")
    ] = Path("data"),
    train_name: Annotated[str, typer.Option(help="Folder of the training set.")] = "train",
    test_name: Annotated[str, typer.Option(help="Folder of the test set.")] = "test",
    group_by: Annotated[
        str, typer.Option(help="Split by file, or by folder to keep speakers on one side.")
    ] = "file",
    sample_rate: Annotated[int, typer.Option(help="Hz.")] = 16000,
    segment: Annotated[
        float | None, typer.Option(help="Cut recordings to this many s.", show_default=False)
    ] = None,
    mixes_per_clip: Annotated[int, typer.Option(help="Each with another noise.")] = 1,
    kind: Annotated[str, typer.Option(help="Store waveform or spectrogram pairs.")] = "waveform",
    seed: Seed = 0,
    no_match_level: NoMatchLevel = False,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Files at a time.", show_default=False)
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Mix two folders of recordings into a training and a test set.

    Example: `denoise build-dataset clean/ noise/ --snr=-5:20 --split 0.9`
    """
    _load_tensorflow()
    from denoisecli.dataset import Recipe, build, load_manifest

    recipe = Recipe(
        ratio=number_or_range(ratio, "--ratio"),
        snr_db=number_or_range(snr, "--snr"),
        split=split,
        group_by=group_by,  # type: ignore[arg-type]  # Recipe checks it
        sample_rate=sample_rate,
        segment=segment,
        mixes_per_clip=mixes_per_clip,
        match_level=not no_match_level,
        kind=kind,  # type: ignore[arg-type]
        seed=seed,
    )
    with console.progress("building", unit="steps") as tell:
        build(
            clean,
            noise,
            output,
            recipe,
            train_name=train_name,
            test_name=test_name,
            jobs=jobs,
            overwrite=overwrite,
            progress=tell,
        )
    manifest = load_manifest(output)
    for name, facts in manifest["sets"].items():
        console.say(
            f"{name}: {facts['mixes']} mixes, {facts['hours']:.2f} h, from "
            f"{facts['clean_files']} clean and {facts['noise_files']} noise files "
            f"-> {output / facts['folder']}"
        )
    if manifest["skipped"]:
        first = manifest["skipped"][0]
        console.warn(
            f"{len(manifest['skipped'])} files were left out, e.g. {first['file']}: "
            f"{first['reason']}; {output / 'dataset.json'} lists them all"
        )


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
        typer.Option(help="A model whose weights to start with.", show_default=False),
    ] = None,
) -> None:
    """Train a model by its spec; the same command goes on after a stop.

    Example: `denoise train tiny`, then `denoise clean noisy.wav -o out.wav --model runs/tiny`
    """
    from denoisecli.models import find_model, read_metrics
    from denoisecli.spec import load_spec

    start = None if init_from is None else find_model(init_from)
    loaded = load_spec(spec)  # before TensorFlow: a misspelt key is reported at once
    _load_tensorflow()
    from denoisecli.train import train as train_model

    with console.TrainingDisplay() as display:
        folder = train_model(
            loaded,
            data,
            run or Path("runs") / loaded.name,
            display,
            fresh=fresh,
            init_from=start,
        )
    metrics = read_metrics(folder)
    console.say(
        f"wrote {folder}: {metrics['epochs']} epochs, {metrics['audio_hours']:.1f} hours of audio "
        f"in {metrics['minutes']:.1f} min; on the test set SI-SDR improves by "
        f"{metrics['test']['si_sdr_improvement']:.2f} dB"
    )


def spec(
    name: Annotated[
        str | None,
        typer.Argument(help="A spec file or the name of a bundled one.", show_default=False),
    ] = None,
    schema: Annotated[
        bool, typer.Option("--schema", help="Print the JSON Schema of specs, for editors.")
    ] = False,
    resolved: Annotated[
        bool, typer.Option("--resolved", help="Print the spec with all its defaults.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Check a spec and show what it builds: layers, parameters, arithmetic, look-ahead.

    Example: `denoise spec speech`
    """
    from denoisecli.spec import json_schema, load_spec

    if schema:
        console.print_json(json_schema(), indent=2)
        return
    if name is None:
        raise UsageError("name a spec, or give --schema")
    loaded = load_spec(name)
    if resolved:
        console.print_json(loaded.model_dump(mode="json"), indent=2)
        return
    _load_tensorflow()
    from denoisecli.describe import describe

    facts = describe(loaded)
    if as_json:
        console.print_json(asdict(facts))
        return
    rows = [
        [
            row.name,
            row.kind,
            *map(str, (row.shape[0], f"{row.shape[1]:g}", row.shape[2])),
            f"{row.parameters:,}",
            f"{row.macs / 1e6:.1f}",
        ]
        for row in facts.layers
    ]
    columns = ["layer", "kind", "bands", "frames/s", "channels", "parameters", "MMAC/s"]
    console.print_table(columns, rows, texts=2)
    console.say(
        f"{loaded.name}: {facts.parameters:,} parameters, {facts.macs / 1e6:.0f} million "
        f"multiply-accumulates per second of audio, sees {_seconds(facts.past)} back and "
        f"{_seconds(facts.future)} ahead"
    )


def _seconds(value: float) -> str:
    return "all" if value == float("inf") else f"{value * 1000:.0f} ms"


def _load_tensorflow() -> None:
    """Import TensorFlow and find the devices, which it does talkatively."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    with console.native_chatter_muted():
        import tensorflow

        tensorflow.config.list_physical_devices()
