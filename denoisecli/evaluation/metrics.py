"""How good a sound is, given the clean one.

Every metric takes a reference, an estimate as long as it, and their sample rate, and gives a
float. Where the reference is digital silence, or a metric is not defined for other reasons (said
with each one), it is NaN. An AudioError is raised for unequal lengths, no samples, or samples that
are NaN or infinite. METRICS lists them all; :func:`measure` computes several at once.
"""

import math
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import wraps
from importlib import import_module
from types import ModuleType
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from denoisecli.audio.resampling import resample
from denoisecli.audio.stft import stft
from denoisecli.errors import AudioError, UsageError
from denoisecli.evaluation import segmental
from denoisecli.types import AudioVector

MAX_DB = 100.0
"""SNR and SI-SDR end here: a better one is below the rounding of the samples."""

LSD_RANGE_DB = 80.0
"""The LSD sees nothing that is further than this below the loudest point of the reference."""

PESQ_SECONDS = 20.0
"""Longer sounds are scored in equal pieces of at most this, and the mean taken.

ITU-T P.862 is meant for 8 to 20 s, and its code has room for 50 utterances: more of them, which
takes 20 s at least, and it writes outside its memory.
"""

STOI_SECONDS = 0.4
"""STOI compares pieces of 384 ms: what is shorter has none."""

EstimateVector = Float[np.ndarray, "estimate_timesteps"]
"""The sound to judge, which ought to be as long as the reference."""

MetricFunction = Callable[[AudioVector, EstimateVector, int], float]


def _metric(function: MetricFunction) -> MetricFunction:
    """Check the two sounds, make them float64, and give NaN where the reference is silent."""

    @wraps(function)
    def checked(reference: AudioVector, estimate: EstimateVector, sample_rate: int) -> float:
        if reference.shape != estimate.shape:
            raise AudioError(
                f"the reference has {reference.size} samples and the estimate {estimate.size}; "
                "they must be equally long"
            )
        if reference.size == 0:
            raise AudioError("there are no samples to compare")
        for sound, name in ((reference, "the reference"), (estimate, "the estimate")):
            if not np.isfinite(sound).all():
                raise AudioError(f"{name} has samples that are no numbers (NaN or infinite)")
        if not reference.any():
            return math.nan
        return function(reference.astype(np.float64), estimate.astype(np.float64), sample_rate)

    return checked


@_metric
def snr(reference: AudioVector, estimate: AudioVector, sample_rate: int) -> float:
    """Give the signal-to-noise ratio ``10 log10(|s|² / |s - e|²)`` in dB, -100..100.

    It is sensitive to level and delay. A silent estimate has 0 dB.
    """
    return _decibels(_energy(reference), _energy(reference - estimate))


@_metric
def si_sdr(reference: AudioVector, estimate: AudioVector, sample_rate: int) -> float:
    """Give the scale-invariant signal-to-distortion ratio in dB, -100..100.

    ``10 log10(|a s|² / |a s - e|²)`` with ``a = <e, s> / |s|²``: Le Roux et al., "SDR - half-baked
    or well done?", ICASSP 2019. It is blind to level, not to delay. A silent estimate has none:
    NaN.
    """
    target = np.dot(estimate, reference) / _energy(reference) * reference
    return _decibels(_energy(target), _energy(target - estimate))


@_metric
def segmental_snr(reference: AudioVector, estimate: AudioVector, sample_rate: int) -> float:
    """Give the mean SNR of short frames in dB, each within -10..35; NaN below 0.04 s.

    See :func:`denoisecli.evaluation.segmental.segmental_snr`.
    """
    return segmental.segmental_snr(reference, estimate, sample_rate)


@_metric
def lsd(reference: AudioVector, estimate: AudioVector, sample_rate: int) -> float:
    """Give the log-spectral distance in dB: 0 for equal spectra.

    The mean over frames (Hann, 32 ms, half of it apart) of the root mean square over frequency of
    the difference of the two power spectra in dB (Gray and Markel, "Distance measures for speech
    processing", IEEE Trans. ASSP 24(5), 1976), after lifting whatever lies LSD_RANGE_DB below the
    loudest point of the reference up to there, so that inaudible floors do not decide it.
    """
    n_fft = 2 * round(0.016 * sample_rate)
    powers = [
        np.square(np.abs(stft(sound, n_fft=n_fft, hop_length=n_fft // 2, window="hann")))
        for sound in (reference, estimate)
    ]
    top = powers[0].max()
    floor = 10 ** (-LSD_RANGE_DB / 10)
    levels = [10 * np.log10(np.maximum(power / top, floor)) for power in powers]
    return float(np.sqrt(np.square(levels[0] - levels[1]).mean(axis=0)).mean())


@_metric
def pesq_wb(reference: AudioVector, estimate: AudioVector, sample_rate: int) -> float:
    """Give the wide-band PESQ (ITU-T P.862.2) at 16 kHz, MOS-LQO 1.04..4.64.

    By the package ``pesq``; in pieces where the sound is longer than PESQ_SECONDS. NaN for less
    than 0.25 s, where PESQ finds no speech in the reference, and for an estimate that is digital
    silence.

    Raises:
        UsageError: the package is not installed.
    """
    return _pesq(reference, estimate, sample_rate, 16000, "wb")


@_metric
def pesq_nb(reference: AudioVector, estimate: AudioVector, sample_rate: int) -> float:
    """Give the narrow-band PESQ (ITU-T P.862 and P.862.1) at 8 kHz, MOS-LQO 1.02..4.55.

    Otherwise like :func:`pesq_wb`.
    """
    return _pesq(reference, estimate, sample_rate, 8000, "nb")


@_metric
def stoi(reference: AudioVector, estimate: AudioVector, sample_rate: int) -> float:
    """Give the short-time objective intelligibility (Taal et al. 2011), about 0..1.

    By the package ``pystoi``. NaN where the reference has less than 0.4 s of speech (frames within
    40 dB of the loudest one); 0 for a silent estimate.

    Raises:
        UsageError: the package is not installed.
    """
    return _stoi(reference, estimate, sample_rate, extended=False)


@_metric
def estoi(reference: AudioVector, estimate: AudioVector, sample_rate: int) -> float:
    """Give the extended STOI (Jensen and Taal 2016), about 0..1; otherwise like :func:`stoi`."""
    return _stoi(reference, estimate, sample_rate, extended=True)


class Composite(NamedTuple):
    """The composite measure and its parts; a rating is NaN where one of its parts is."""

    pesq_wb: float
    segmental_snr: float
    llr: float
    wss: float
    csig: float
    cbak: float
    covl: float


def composite(reference: AudioVector, estimate: EstimateVector, sample_rate: int) -> Composite:
    """Predict how listeners rate speech, background and the whole, each 1..5.

    The regressions of Hu and Loizou (2008) on PESQ, LLR, WSS and segmental SNR, computed at
    16 kHz and with the wide-band PESQ, as is usual in publications on 16 kHz speech. LLR and WSS
    get both sounds rounded to 16 bits: in the spectral holes that denoisers leave they would
    otherwise measure what is far below hearing, and in which format a file was written.

    Raises:
        UsageError: the package ``pesq`` is not installed.
    """
    if sample_rate != 16000:
        reference, estimate = (resample(s, sample_rate, 16000) for s in (reference, estimate))
    pesq = pesq_wb(reference, estimate, 16000)
    snr_db = segmental_snr(reference, estimate, 16000)
    clean, other = (np.round(sound * 2**15) / 2**15 for sound in (reference, estimate))
    llr = segmental.llr(clean, other, 16000)
    wss = segmental.wss(clean, other, 16000)

    def rating(value: float) -> float:
        return value if math.isnan(value) else min(max(value, 1.0), 5.0)

    return Composite(
        pesq_wb=pesq,
        segmental_snr=snr_db,
        llr=llr,
        wss=wss,
        csig=rating(3.093 - 1.029 * llr + 0.603 * pesq - 0.009 * wss),
        cbak=rating(1.634 + 0.478 * pesq - 0.007 * wss + 0.063 * snr_db),
        covl=rating(1.594 + 0.805 * pesq - 0.512 * llr - 0.007 * wss),
    )


def csig(reference: AudioVector, estimate: EstimateVector, sample_rate: int) -> float:
    """Give the predicted rating of speech distortion, 1..5; see :func:`composite`."""
    return composite(reference, estimate, sample_rate).csig


def cbak(reference: AudioVector, estimate: EstimateVector, sample_rate: int) -> float:
    """Give the predicted rating of background intrusiveness, 1..5; see :func:`composite`."""
    return composite(reference, estimate, sample_rate).cbak


def covl(reference: AudioVector, estimate: EstimateVector, sample_rate: int) -> float:
    """Give the predicted rating of the overall quality, 1..5; see :func:`composite`."""
    return composite(reference, estimate, sample_rate).covl


@dataclass(frozen=True)
class Metric:
    """An entry of METRICS.

    Attributes:
        function: takes reference, estimate and sample rate.
        label: the usual name.
        unit: "dB", or "" for a bare number.
        higher_is_better: false for a distance.
        decimals: digits worth showing after the point.
        package: what has to be installed for it, beyond the toolkit itself.
    """

    function: MetricFunction
    label: str
    unit: str = ""
    higher_is_better: bool = True
    decimals: int = 2
    package: str | None = None


METRICS: dict[str, Metric] = {
    "pesq_wb": Metric(pesq_wb, "PESQ-WB", decimals=3, package="pesq"),
    "pesq_nb": Metric(pesq_nb, "PESQ-NB", decimals=3, package="pesq"),
    "stoi": Metric(stoi, "STOI", decimals=3, package="pystoi"),
    "estoi": Metric(estoi, "ESTOI", decimals=3, package="pystoi"),
    "si_sdr": Metric(si_sdr, "SI-SDR", "dB"),
    "snr": Metric(snr, "SNR", "dB"),
    "segmental_snr": Metric(segmental_snr, "segSNR", "dB"),
    "lsd": Metric(lsd, "LSD", "dB", higher_is_better=False),
    "csig": Metric(csig, "CSIG", package="pesq"),
    "cbak": Metric(cbak, "CBAK", package="pesq"),
    "covl": Metric(covl, "COVL", package="pesq"),
}
"""All metrics by name."""


def require(names: Iterable[str]) -> None:
    """Make sure that metrics exist and can be computed here.

    Raises:
        UsageError: an unknown name, or a package that is not installed.
    """
    for name in names:
        if name not in METRICS:
            raise UsageError(f"there is no metric {name!r}; known are {', '.join(METRICS)}")
        package = METRICS[name].package
        if package is not None:
            _package(package)


def measure(
    reference: AudioVector,
    estimate: EstimateVector,
    sample_rate: int,
    names: Iterable[str] = tuple(METRICS),
) -> dict[str, float]:
    """Compute several metrics; what they share is computed once.

    Args:
        reference: the clean sound, full scale -1..1.
        estimate: the sound to judge, as long as the reference.
        sample_rate: Hz.
        names: keys of METRICS.

    Returns:
        The scores by name, in the order of the names; NaN where a metric is not defined.

    Raises:
        UsageError: unknown metric, or a package is not installed.
        AudioError: unequal lengths, no samples, samples that are NaN or infinite.
    """
    names = list(names)
    require(names)
    shared: dict[str, float] = {}
    if sample_rate == 16000 and not {"csig", "cbak", "covl"}.isdisjoint(names):
        shared = composite(reference, estimate, sample_rate)._asdict()
    return {
        name: shared[name]
        if name in shared
        else METRICS[name].function(reference, estimate, sample_rate)
        for name in names
    }


def _energy(sound: AudioVector) -> float:
    return float(np.dot(sound, sound))


def _decibels(signal: float, error: float) -> float:
    """Ratio of two energies in dB, limited to MAX_DB; NaN when both are 0."""
    if signal == 0 or error == 0:
        return math.nan if signal == error else math.copysign(MAX_DB, signal - error)
    return min(max(10 * math.log10(signal / error), -MAX_DB), MAX_DB)


def _pesq(
    reference: AudioVector, estimate: AudioVector, sample_rate: int, target_rate: int, mode: str
) -> float:
    package = _package("pesq")
    reference, estimate = (resample(s, sample_rate, target_rate) for s in (reference, estimate))
    pieces = math.ceil(reference.size / (PESQ_SECONDS * target_rate))
    scores = []
    for clean, other in zip(
        np.array_split(reference, pieces), np.array_split(estimate, pieces), strict=True
    ):
        try:
            if clean.any():
                scores.append(package.pesq(target_rate, clean, other, mode))
        except (package.NoUtterancesError, package.BufferTooShortError):
            continue  # no speech in this piece
        except ValueError:  # the estimate is silent where there is speech: PESQ computes a NaN
            return math.nan
    return float(np.mean(scores)) if scores else math.nan


def _stoi(
    reference: AudioVector, estimate: AudioVector, sample_rate: int, *, extended: bool
) -> float:
    package = _package("pystoi")
    if reference.size < STOI_SECONDS * sample_rate:
        return math.nan
    if not estimate.any():
        return 0.0
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        try:
            return float(package.stoi(reference, estimate, sample_rate, extended))
        except RuntimeWarning:  # too little speech: it would give 0.00001
            return math.nan


def _package(name: str) -> ModuleType:
    try:
        return import_module(name)
    except ImportError as error:
        raise UsageError(
            f"this needs the package {name}: pip install 'denoisecli[metrics]'"
        ) from error
