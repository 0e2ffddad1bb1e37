"""Enumerations of this room, apart from the code that uses them: importing them costs nothing."""

from enum import StrEnum


class Kind(StrEnum):
    """What the stored pairs are."""

    WAVEFORM = "waveform"
    SPECTROGRAM = "spectrogram"


class NoiseDraw(StrEnum):
    """What noise recordings are drawn evenly over; see ``denoisecli.datasets.recipe``."""

    FOLDER = "folder"
    FILE = "file"
    LENGTH = "length"


class ReverbTarget(StrEnum):
    """What the clean part of a reverberant mixture is."""

    DRY = "dry"
    EARLY = "early"
