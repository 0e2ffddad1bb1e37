"""Enumerations of this room, apart from the code that uses them: importing them costs nothing."""

from enum import StrEnum


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
