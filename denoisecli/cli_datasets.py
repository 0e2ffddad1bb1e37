"""The commands about datasets: build-dataset."""

from pathlib import Path
from typing import Annotated

import typer

from denoisecli import console
from denoisecli.cli_options import (
    NoMatchLevel,
    Overwrite,
    Ratio,
    Seed,
    Snr,
    load_tensorflow,
    number_or_range,
)


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
    load_tensorflow()
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
