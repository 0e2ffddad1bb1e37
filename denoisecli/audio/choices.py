"""Enumerations of this room, apart from the code that uses them: importing them costs nothing."""

from enum import StrEnum


class Scale(StrEnum):
    """Scale of the values of a stored spectrogram; see ``denoisecli.audio.spectrogram``."""

    MAGNITUDE = "magnitude"
    POWER = "power"
    DB = "db"
    MEL = "mel"


class Window(StrEnum):
    """Analysis windows; all but ``sqrt_hann`` are those of ``scipy.signal.get_window``."""

    HANN = "hann"
    SQRT_HANN = "sqrt_hann"
    HAMMING = "hamming"
    BLACKMAN = "blackman"
    BLACKMANHARRIS = "blackmanharris"
    NUTTALL = "nuttall"
    FLATTOP = "flattop"
    BARTLETT = "bartlett"
    COSINE = "cosine"
    BOXCAR = "boxcar"
