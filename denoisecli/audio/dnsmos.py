"""Quality of speech as listeners would rate it, predicted without a reference (DNSMOS P.835).

Reddy, Gopal and Cutler, "DNSMOS P.835: A non-intrusive perceptual objective speech quality metric
to evaluate noise suppressors", ICASSP 2022. The network is a file of the package speechmos, which
is optional; ONNX Runtime runs it here, so that the modules of the package are not imported.
"""

from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from denoisecli.audio.resampling import resample
from denoisecli.system.extras import require
from denoisecli.types import AudioVector

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

SAMPLE_RATE = 16000
"""Sample rate of the network in Hz."""

WINDOW_SECONDS = 9.01
"""Length of a window in s; a shorter sound is repeated."""

HOP_SECONDS = 1
"""Distance of the windows in s."""

MAX_WINDOWS = 60
"""Largest number of windows, which are spread evenly over a longer sound."""

_WINDOW = int(WINDOW_SECONDS * SAMPLE_RATE)
_HOP = HOP_SECONDS * SAMPLE_RATE
_MODEL = "dnsmos_models/sig_bak_ovr.onnx"

RATING_CURVES = (
    (-0.08397278, 1.22083953, 0.0052439),
    (-0.13166888, 1.60915514, -0.39604546),
    (-0.06766283, 1.11546468, 0.04602535),
)
"""Polynomials from the outputs of the network to the scale of the listeners, for the speech, the
background and overall; the highest power comes first."""


class Dnsmos(NamedTuple):
    """Predicted ratings, 1 (bad) to 5 (excellent).

    Attributes:
        sig: Rating of the speech.
        bak: Rating of the background: 5 means that noise is imperceptible.
        ovrl: Rating of the overall quality.
    """

    sig: float
    bak: float
    ovrl: float


def is_installed() -> bool:
    """Return whether the optional package is installed."""
    return find_spec("speechmos") is not None


def dnsmos(sound: AudioVector, sample_rate: int) -> Dnsmos | None:
    """Predict how listeners would rate a sound, on one CPU thread.

    The ratings of MAX_WINDOWS windows are averaged, which cover a sound of up to 69 s completely.

    Args:
        sound: The sound, full scale -1..1; samples beyond it are clamped.
        sample_rate: Its sample rate in Hz. The network covers up to 8 kHz.

    Returns:
        The mean ratings; None for digital silence, which has no quality.

    Raises:
        UsageError: The package is not installed.
    """
    sound = resample(sound, sample_rate, SAMPLE_RATE).clip(-1, 1).astype(np.float32)
    if not sound.any():
        return None
    while sound.size < _WINDOW:  # as the module of the package repeats it
        sound = np.concatenate([sound, sound])
    session = _session()
    raw = [
        session.run(None, {"input_1": sound[np.newaxis, start : start + _WINDOW]})[0][0]
        for start in window_starts(sound.size)
    ]
    outputs = np.array(raw, np.float64).T
    sig, bak, ovrl = (
        float(np.polyval(np.array(curve), output).mean())
        for curve, output in zip(RATING_CURVES, outputs, strict=True)
    )
    return Dnsmos(sig, bak, ovrl)


def window_starts(timesteps: int) -> list[int]:
    """Return the first samples of the windows of a sound that has at least one window's samples."""
    count = max(int(timesteps // SAMPLE_RATE - WINDOW_SECONDS) // HOP_SECONDS + 1, 1)
    chosen = np.unique(np.linspace(0, count - 1, min(count, MAX_WINDOWS)).round().astype(int))
    return [int(index) * _HOP for index in chosen]


def network_path() -> Path:
    """Return the ONNX file of the network.

    Raises:
        UsageError: The package that brings it is not installed.
    """
    require("dnsmos", "speechmos", purpose="DNSMOS")
    spec = find_spec("speechmos")  # found, but not imported: it needs packages that it lacks
    folders = [] if spec is None else list(spec.submodule_search_locations or [])
    return Path(folders[0], _MODEL)


@cache
def _session() -> "InferenceSession":
    path = network_path()
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3  # the graph has unused initializers
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
