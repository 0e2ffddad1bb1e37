"""Enumerations of this room, apart from the code that uses them: importing them costs nothing."""

from enum import StrEnum


class Kind(StrEnum):
    """Kind of the stored pairs."""

    WAVEFORM = "waveform"
    SPECTROGRAM = "spectrogram"


class NoiseDraw(StrEnum):
    """Units that noises are drawn from evenly; see ``denoisecli.datasets.recipe``."""

    FOLDER = "folder"
    FILE = "file"
    LENGTH = "length"


class ReverbTarget(StrEnum):
    """Clean part of a reverberant mixture."""

    DRY = "dry"
    EARLY = "early"
