"""Arguments that several commands share, and how their texts are read."""

import os
from pathlib import Path
from typing import Annotated

import typer

from denoisecli.cli import console
from denoisecli.errors import UsageError

AudioFile = Annotated[Path, typer.Argument(help="An audio file.", show_default=False)]


Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an existing output.")]


Output = Annotated[Path, typer.Option("--output", "-o", help="Where to write.", show_default=False)]


Ratio = Annotated[
    str | None,
    typer.Option(help="Share of the noise, 0..1, or a range as 0.05:0.5.", show_default=False),
]


Snr = Annotated[
    str | None,
    typer.Option(help="The same as an SNR in dB, or a range as -5:20.", show_default=False),
]


Seed = Annotated[int, typer.Option(help="Chooses all that is left to chance.")]


NoMatchLevel = Annotated[
    bool, typer.Option("--no-match-level", help="Do not scale the noise to the clean's level.")
]


def number_or_range(text: str | None, option: str) -> float | tuple[float, float] | None:
    """Read a number, or LOW:HIGH; the option is named in the error."""
    if text is None:
        return None
    low, colon, high = text.partition(":")
    try:
        return (float(low), float(high)) if colon else float(low)
    except ValueError as error:
        raise UsageError(f"{option} wants a number or LOW:HIGH, found {text!r}") from error


def load_tensorflow() -> None:
    """Import TensorFlow and find the devices, which it does talkatively."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    with console.native_chatter_muted():
        import tensorflow

        tensorflow.config.list_physical_devices()
