"""Enumerations and limits of this room, apart from the code that uses them: they import nothing."""

from enum import StrEnum

HIGHEST_SAMPLE_RATE = 768_000
"""Highest sample rate of an output in Hz, the highest of audio hardware."""


class Clip(StrEnum):
    """Treatment of samples beyond full scale, -1..1."""

    CLAMP = "clamp"
    """They are set to full scale if the target stores integers or is lossy."""
    RESCALE = "rescale"
    """The whole recording is scaled down to fit."""
    NONE = "none"
    """They are kept, which only floating-point targets allow."""


class Engine(StrEnum):
    """Library that runs the network."""

    AUTO = "auto"
    ONNX = "onnx"
    KERAS = "keras"


class Device(StrEnum):
    """Device that the network runs on."""

    AUTO = "auto"
    CPU = "cpu"
    GPU = "gpu"
