"""Objective quality metrics of an estimate against its reference, which is usually the clean sound.

Every metric is a function of a reference, an estimate of the same length, and their sample rate
in Hz, and returns a float. It returns NaN if the reference is silent, that is constant, or if the
metric is undefined for another reason that its docstring states. It raises AudioError if the
lengths differ, if there are no samples, or if samples are NaN or infinite. ``METRICS`` lists the
metrics that need the clean sound as their reference, ``BLIND_METRICS`` those of real recordings,
whose clean sound is unknown: their reference is the unprocessed recording. :func:`measure` computes
several at once.

Metrics of waveforms and spectra are computed at the sample rate that they are given. Models of
hearing are defined at one rate and resample to it (``Metric.sample_rate``): they ignore what
lies above half of it, and those of wide-band speech are undefined for a lower rate.
"""

import math
import warnings
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from functools import wraps
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from denoisecli.audio import dnsmos
from denoisecli.audio.resampling import resample
from denoisecli.audio.stft import stft
from denoisecli.errors import AudioError, UsageError
from denoisecli.evaluation import pauses, segmental
from denoisecli.system.extras import require
from denoisecli.types import AudioVector

MAX_DB = 100.0
"""Limit of SNR and SI-SDR in dB; a larger ratio is below the rounding error of the samples."""

LSD_RANGE_DB = 80.0
"""Dynamic range of the LSD in dB, below the loudest time-frequency bin of the reference."""

PESQ_SECONDS = 20.0
"""Longest recording in s that PESQ scores in one piece; longer ones are cut into equal pieces.

ITU-T P.862 is specified for 8 to 20 s. Its reference code holds at most 50 utterances and writes
out of bounds if there are more, which takes at least 20 s.
"""

PESQ_FLOOR = 1.0
"""MOS-LQO of a silent estimate: the lowest value, to one decimal.

The mappings of ITU-T P.862.2 and P.862.1 approach 0.999 for low raw scores. That of -0.5, the least
that P.862 states, becomes 1.04 and 1.02, but noisy speech can have a lower one.
"""

STOI_SECONDS = 0.4
"""Shortest recording in s that STOI is defined for: it compares segments of 384 ms."""

EstimateVector = Float[np.ndarray, "estimate_timesteps"]
"""The estimate; its length is checked against the reference at run time."""

HIGH_PASS_HZ = 60.0
"""Cutoff frequency in Hz of the high-pass of ``si_sdr_60hz``."""

WIDE_BAND_RATE = 16000
"""Sample rate in Hz of wide-band PESQ and of the composite ratings; lower ones have none."""

_RATINGS = ("dnsmos_sig", "dnsmos_bak", "dnsmos_ovrl")

MetricFunction = Callable[[AudioVector, EstimateVector, int], float]


def _metric(function: MetricFunction) -> MetricFunction:
    """Validate both signals, convert them to float64, and return NaN for a constant reference."""

    @wraps(function)
    def checked(reference: AudioVector, estimate: EstimateVector, sample_rate: int) -> float:
        _validate(reference, estimate)
        if not np.ptp(reference):
            return math.nan
        return function(reference.astype(np.float64), estimate.astype(np.float64), sample_rate)

    return checked


def _validate(reference: AudioVector, estimate: EstimateVector) -> None:
    if reference.shape != estimate.shape:
        raise AudioError(
            f"the reference has {reference.size} samples and the estimate {estimate.size}; "
            "both must have the same length"
        )
    if reference.size == 0:
        raise AudioError("the reference and the estimate have no samples")
    for sound, name in ((reference, "the reference"), (estimate, "the estimate")):
        if not np.isfinite(sound).all():
            raise AudioError(f"{name} contains NaN or infinite samples")


@_metric
def snr(reference: AudioVector, estimate: AudioVector, sample_rate: int) -> float:
    """Compute the signal-to-noise ratio ``10 log10(|s|² / |s - e|²)`` in dB, -100..100.

    The mean of both signals is removed first. It depends on the level and on the delay of the
    estimate. It is 0 dB for a silent estimate.
    """
    reference, estimate = _without_mean(reference), _without_mean(estimate)
    return _decibels(_energy(reference), _energy(reference - estimate))


@_metric
def si_sdr(reference: AudioVector, estimate: AudioVector, sample_rate: int) -> float:
    """Compute the scale-invariant signal-to-distortion ratio in dB, -100..100.

    ``10 log10(|a s|² / |a s - e|²)`` with ``a = <e, s> / |s|²`` (Le Roux et al., "SDR - half-baked
    or well done?", ICASSP 2019). As there, the mean of both signals is removed first. It depends on
    the delay of the estimate, but not on its level. It is -100 dB if the estimate is constant, in
    which nothing of the reference is left.
    """
    reference, estimate = _without_mean(reference), _without_mean(estimate)
    if not estimate.any():
        return -MAX_DB
    target = np.dot(estimate, reference) / _energy(reference) * reference
    return _decibels(_energy(target), _energy(target - estimate))


@_metric
def si_sdr_60hz(reference: AudioVector, estimate: AudioVector, sample_rate: int) -> float:
    """Compute :func:`si_sdr` of what lies above HIGH_PASS_HZ in both signals.

    The filter is a Butterworth high-pass of fourth order that runs forwards and backwards
    (``scipy.signal.sosfiltfilt``), so that it has no phase and 6 dB of attenuation at the cutoff.
    Clean recordings often hold hum and rumble, which a denoiser is right to remove. It is NaN if
    the sample rate is 120 Hz or less.
    """
    from scipy.signal import butter, sosfiltfilt

    if sample_rate <= 2 * HIGH_PASS_HZ:
        return math.nan
    sections = butter(4, HIGH_PASS_HZ, "highpass", fs=sample_rate, output="sos")
    padding = min(sample_rate // 10, reference.size - 1)
    above, estimate_above = (
        sosfiltfilt(sections, _without_mean(sound), padlen=padding)
        for sound in (reference, estimate)
    )
    return si_sdr(above, estimate_above, sample_rate)


@_metric
def segmental_snr(reference: AudioVector, estimate: AudioVector, sample_rate: int) -> float:
    """Compute the mean SNR of short frames in dB, -10..35; NaN for less than 0.04 s.

    The mean of both signals is removed first.
    See :func:`denoisecli.evaluation.segmental.segmental_snr`.
    """
    reference, estimate = _without_mean(reference), _without_mean(estimate)
    return segmental.segmental_snr(reference, estimate, sample_rate)


@_metric
def lsd(reference: AudioVector, estimate: AudioVector, sample_rate: int) -> float:
    """Compute the log-spectral distance in dB, 0 or more; 0 for equal spectra.

    The mean over frames of the root mean square, over frequency, of the difference of the two
    power spectra in dB (Gray and Markel, "Distance measures for speech processing", IEEE Trans.
    ASSP 24(5), 1976). Frames are Hann windows of 32 ms with a hop of 16 ms. Both spectra are
    floored at LSD_RANGE_DB below the loudest bin of the reference, so that inaudible differences
    do not dominate.
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
    """Compute wide-band PESQ (ITU-T P.862.2) at 16 kHz, MOS-LQO 1.0..4.64.

    The package ``pesq`` computes it. A recording longer than PESQ_SECONDS is scored in equal
    pieces and the mean is returned. It is NaN for less than 0.25 s, if PESQ finds no speech in the
    reference, and below 16 kHz, where :func:`pesq_nb` is meant. It is PESQ_FLOOR if the estimate is
    digital silence, for which the reference code returns NaN.

    Raises:
        UsageError: The package is not installed.
    """
    if sample_rate < WIDE_BAND_RATE:
        return math.nan
    return _pesq(reference, estimate, sample_rate, WIDE_BAND_RATE, "wb")


@_metric
def pesq_nb(reference: AudioVector, estimate: AudioVector, sample_rate: int) -> float:
    """Compute narrow-band PESQ (ITU-T P.862 and P.862.1) at 8 kHz, MOS-LQO 1.0..4.55.

    Otherwise it is like :func:`pesq_wb`, but it is defined for every sample rate.
    """
    return _pesq(reference, estimate, sample_rate, 8000, "nb")


@_metric
def stoi(reference: AudioVector, estimate: AudioVector, sample_rate: int) -> float:
    """Compute the short-time objective intelligibility (Taal et al. 2011), about 0..1.

    The package ``pystoi`` computes it at 10 kHz. It is NaN if the reference has less than 0.4 s of
    speech (frames within 40 dB of the loudest one), and 0 for a silent estimate.

    Raises:
        UsageError: The package is not installed.
    """
    return _stoi(reference, estimate, sample_rate, extended=False)


@_metric
def estoi(reference: AudioVector, estimate: AudioVector, sample_rate: int) -> float:
    """Compute the extended STOI (Jensen and Taal 2016), about 0..1.

    Otherwise it is like :func:`stoi`.
    """
    return _stoi(reference, estimate, sample_rate, extended=True)


class Composite(NamedTuple):
    """The composite ratings and the measures that they are made of; NaN propagates."""

    pesq_wb: float
    segmental_snr: float
    llr: float
    wss: float
    csig: float
    cbak: float
    covl: float


def composite(reference: AudioVector, estimate: EstimateVector, sample_rate: int) -> Composite:
    """Predict the ratings of speech, background and overall quality, each 1..5.

    These are the regressions of Hu and Loizou (2008) on PESQ, LLR, WSS and segmental SNR, computed
    at 16 kHz with wide-band PESQ, as is usual in publications on 16 kHz speech; all are NaN for a
    lower sample rate. For LLR and WSS, both signals are rounded to 16 bits; otherwise these
    measures would depend on inaudible values in the spectral holes of a cleaned recording, and on
    its sample format.

    Raises:
        UsageError: The package ``pesq`` is not installed.
    """
    if sample_rate < WIDE_BAND_RATE:
        return Composite(*(math.nan for _ in Composite._fields))
    rate = WIDE_BAND_RATE
    reference, estimate = (resample(sound, sample_rate, rate) for sound in (reference, estimate))
    pesq = pesq_wb(reference, estimate, rate)
    snr_db = segmental_snr(reference, estimate, rate)
    clean, other = (np.round(sound * 2**15) / 2**15 for sound in (reference, estimate))
    llr = segmental.llr(clean, other, rate)
    wss = segmental.wss(clean, other, rate)

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


def _rating(name: str) -> MetricFunction:
    """Return the function of one rating of :func:`composite`."""

    def function(reference: AudioVector, estimate: EstimateVector, sample_rate: int) -> float:
        return composite(reference, estimate, sample_rate)._asdict()[name]

    return function


def blind_metrics(
    reference: AudioVector, estimate: EstimateVector, sample_rate: int, names: Collection[str]
) -> dict[str, float]:
    """Compute metrics of BLIND_METRICS: DNSMOS once, and the levels of ``pauses`` once.

    Args:
        reference: The unprocessed recording, in which pauses are found.
        estimate: The sound to score, of the same length.
        sample_rate: Sample rate of both in Hz.
        names: Names of the metrics; others are left out.

    Returns:
        At least these metrics by name; all are NaN if the reference is silent. The ratings of a
        silent estimate are 1, the worst.

    Raises:
        UsageError: The package ``speechmos`` is not installed.
        AudioError: As :func:`measure`.
    """
    _validate(reference, estimate)
    values: dict[str, float] = {}
    if not set(_RATINGS).isdisjoint(names):
        ratings = dnsmos.dnsmos(estimate, sample_rate) if np.ptp(reference) else None
        unrated = 1.0 if np.ptp(reference) else math.nan
        values |= zip(_RATINGS, ratings or [unrated] * len(_RATINGS), strict=True)
    if not set(pauses.Levels._fields).isdisjoint(names):
        values |= pauses.levels(reference, estimate.astype(np.float64), sample_rate)._asdict()
    return values


@dataclass(frozen=True)
class Description:
    """Description of a figure of quality, an entry of DESCRIPTIONS.

    Attributes:
        label: The usual abbreviation.
        description: One sentence for readers of the report.
        unit: ``"dB"``, ``"%"``, or ``""`` for a dimensionless figure.
        higher_is_better: False for a distance; None if neither is better.
        decimals: Number of decimals to display.
        sample_rate: Sample rate in Hz that both signals are resampled to, or None if the figure is
            computed at that of the clean recording.
        lowest_rate: Lowest sample rate in Hz of a clean recording that the figure is defined for.
        package: Optional package that computes the figure, or None.
        extra: Extra of this project that installs the package.
    """

    label: str
    description: str
    unit: str = ""
    higher_is_better: bool | None = True
    decimals: int = 2
    sample_rate: int | None = None
    lowest_rate: int = 0
    package: str | None = None
    extra: str = "metrics"

    @property
    def heading(self) -> str:
        """The label with the unit, for table headings."""
        return f"{self.label}, {self.unit}" if self.unit else self.label


@dataclass(frozen=True, kw_only=True)
class Metric(Description):
    """A figure that compares two signals, an entry of METRICS.

    Attributes:
        function: Computes the metric from reference, estimate and sample rate in Hz.
    """

    function: MetricFunction


METRICS: dict[str, Metric] = {
    "pesq_wb": Metric(
        function=pesq_wb,
        label="PESQ-WB",
        description="Predicted quality of wide-band speech, 1 to 4.6 (ITU-T P.862.2).",
        decimals=3,
        package="pesq",
        sample_rate=WIDE_BAND_RATE,
        lowest_rate=WIDE_BAND_RATE,
    ),
    "pesq_nb": Metric(
        function=pesq_nb,
        label="PESQ-NB",
        description="Predicted quality of telephone-band speech, 1 to 4.5 (ITU-T P.862).",
        decimals=3,
        package="pesq",
        sample_rate=8000,
    ),
    "stoi": Metric(
        function=stoi,
        label="STOI",
        description="Predicted intelligibility, 0 to 1 (Taal et al. 2011).",
        decimals=3,
        package="pystoi",
        sample_rate=10000,
    ),
    "estoi": Metric(
        function=estoi,
        label="ESTOI",
        description="Predicted intelligibility, also in fluctuating noise (Jensen and Taal 2016).",
        decimals=3,
        package="pystoi",
        sample_rate=10000,
    ),
    "si_sdr": Metric(
        function=si_sdr,
        label="SI-SDR",
        description="Energy of the clean sound relative to all distortion, at any level, in dB.",
        unit="dB",
    ),
    "si_sdr_60hz": Metric(
        function=si_sdr_60hz,
        label="SI-SDR > 60 Hz",
        description="SI-SDR above 60 Hz, without the hum and rumble of the clean sound.",
        unit="dB",
    ),
    "snr": Metric(
        function=snr,
        label="SNR",
        description="Energy of the clean sound relative to that of the error, in dB.",
        unit="dB",
    ),
    "segmental_snr": Metric(
        function=segmental_snr,
        label="segSNR",
        description="Mean SNR of frames of 30 ms, each limited to -10 to 35 dB.",
        unit="dB",
    ),
    "lsd": Metric(
        function=lsd,
        label="LSD",
        description="Log-spectral distance: mean difference of the two spectra in dB; 0 is best.",
        unit="dB",
        higher_is_better=False,
    ),
    **{
        name: Metric(
            function=_rating(name),
            label=name.upper(),
            description=f"Predicted rating of {subject}, 1 to 5 (Hu and Loizou 2008).",
            package="pesq",
            sample_rate=WIDE_BAND_RATE,
            lowest_rate=WIDE_BAND_RATE,
        )
        for name, subject in (
            ("csig", "the speech signal"),
            ("cbak", "the background"),
            ("covl", "the overall quality"),
        )
    },
}
"""The metrics that need the clean sound, by name."""

BLIND_METRICS: dict[str, Description] = {
    **{
        f"dnsmos_{rating}": Description(
            label=f"DNSMOS {rating.upper()}",
            description=f"Predicted rating of {subject}",
            package="speechmos",
            extra="dnsmos",
            sample_rate=dnsmos.SAMPLE_RATE,
        )
        for rating, subject in (
            ("ovrl", "the overall quality, 1 to 5 (DNSMOS P.835)."),
            ("sig", "the speech signal, 1 to 5 (DNSMOS P.835)."),
            ("bak", "the background, 1 to 5: noise is imperceptible at 5."),
        )
    },
    "noise_floor": Description(
        label="Noise floor",
        description="Level in the pauses of the recording, in dBFS.",
        unit="dBFS",
        higher_is_better=False,
        decimals=1,
    ),
    "speech_level": Description(
        label="Speech",
        description="Level where the recording has speech, without the noise floor, in dBFS.",
        unit="dBFS",
        higher_is_better=None,
        decimals=1,
    ),
    "estimated_snr": Description(
        label="Estimated SNR",
        description="Level of the speech above the noise floor in dB.",
        unit="dB",
        decimals=1,
    ),
}
"""The metrics of recordings whose clean sound is unknown, by name."""

LOUDNESS: dict[str, Description] = {
    "loudness": Description(
        label="Loudness",
        description="Integrated loudness of all channels in LUFS (EBU R 128, ITU-R BS.1770).",
        unit="LUFS",
        higher_is_better=None,
        decimals=1,
    ),
    "true_peak": Description(
        label="True peak",
        description="Largest value of the waveform, between the samples too, in dBFS.",
        unit="dBFS",
        higher_is_better=None,
        decimals=1,
    ),
}
"""Figures on the page about cleaned recordings, computed from all channels, by name."""

WER = "wer"
"""Name of the word error rate, which ``evaluate`` computes from transcripts."""

DESCRIPTIONS: dict[str, Description] = {
    **METRICS,
    **BLIND_METRICS,
    **LOUDNESS,
    WER: Description(
        label="WER",
        description="Word error rate of a speech recognizer: errors per word of the transcript.",
        unit="%",
        higher_is_better=False,
        decimals=1,
        sample_rate=16000,
    ),
}
"""All figures of an evaluation by name: the metrics, and the word error rate."""


def pesq_for(sample_rate: int) -> str:
    """Return the name of the PESQ for a sample rate in Hz: wide band from 16 kHz on."""
    return "pesq_wb" if sample_rate >= WIDE_BAND_RATE else "pesq_nb"


def installed_blind_metrics() -> list[str]:
    """Return the names of the metrics of BLIND_METRICS whose packages are installed."""
    return [name for name in BLIND_METRICS if dnsmos.is_installed() or name not in _RATINGS]


def check_metrics(names: Iterable[str]) -> None:
    """Check that metrics exist and that the packages they need are installed.

    Raises:
        UsageError: A name is unknown, or a package is not installed.
    """
    known: dict[str, Description] = {**METRICS, **BLIND_METRICS}
    for name in names:
        if name not in known:
            raise UsageError(f"there is no metric {name!r}; choose from {', '.join(known)}")
        metric = known[name]
        if metric.package is not None:
            require(metric.extra, metric.package, purpose=f"the metric {name}")


def measure(
    reference: AudioVector,
    estimate: EstimateVector,
    sample_rate: int,
    names: Iterable[str] = tuple(METRICS),
) -> dict[str, float]:
    """Compute several metrics; intermediate results that they share are computed once.

    Args:
        reference: The clean sound, full scale -1..1; for BLIND_METRICS the unprocessed one.
        estimate: The sound to score, of the same length.
        sample_rate: Sample rate of both in Hz.
        names: Keys of METRICS and BLIND_METRICS.

    Returns:
        The values by name, in the order of ``names``; NaN if a metric is undefined.

    Raises:
        UsageError: A metric is unknown, or a package is not installed.
        AudioError: The lengths differ, there are no samples, or samples are NaN or infinite.
    """
    names = list(names)
    check_metrics(names)
    shared: dict[str, float] = {}
    if not {"csig", "cbak", "covl"}.isdisjoint(names):
        shared = composite(reference, estimate, sample_rate)._asdict()
        if sample_rate != WIDE_BAND_RATE:
            del shared["segmental_snr"]  # the metric is computed at the rate of the recording
    shared |= blind_metrics(reference, estimate, sample_rate, names)
    return {
        name: shared[name]
        if name in shared
        else METRICS[name].function(reference, estimate, sample_rate)
        for name in names
    }


def _without_mean(sound: AudioVector) -> AudioVector:
    """Return a signal without its mean; a constant becomes exactly 0."""
    return sound - sound.mean() if np.ptp(sound) else np.zeros_like(sound)


def _energy(sound: AudioVector) -> float:
    return float(np.dot(sound, sound))


def _decibels(signal: float, error: float) -> float:
    """Compute the ratio of two energies in dB, within ±MAX_DB; NaN if both are 0."""
    if signal == 0 or error == 0:
        return math.nan if signal == error else math.copysign(MAX_DB, signal - error)
    return min(max(10 * math.log10(signal / error), -MAX_DB), MAX_DB)


def _pesq(
    reference: AudioVector, estimate: AudioVector, sample_rate: int, target_rate: int, mode: str
) -> float:
    require("metrics", "pesq", purpose="PESQ")
    from pesq import BufferTooShortError, NoUtterancesError, pesq

    reference, estimate = (resample(s, sample_rate, target_rate) for s in (reference, estimate))
    pieces = math.ceil(reference.size / (PESQ_SECONDS * target_rate))
    scores = []
    for clean, other in zip(
        np.array_split(reference, pieces), np.array_split(estimate, pieces), strict=True
    ):
        try:
            if clean.any():
                scores.append(pesq(target_rate, clean, other, mode))
        except (NoUtterancesError, BufferTooShortError):
            continue  # this piece has no speech
        except ValueError:  # PESQ computes NaN if the estimate is silent where there is speech
            scores.append(PESQ_FLOOR)
    return float(np.mean(scores)) if scores else math.nan


def _stoi(
    reference: AudioVector, estimate: AudioVector, sample_rate: int, *, extended: bool
) -> float:
    require("metrics", "pystoi", purpose="STOI")
    import pystoi

    if reference.size < STOI_SECONDS * sample_rate:
        return math.nan
    if not estimate.any():
        return 0.0
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        try:
            return float(pystoi.stoi(reference, estimate, sample_rate, extended))
        except RuntimeWarning:  # with too little speech pystoi warns and returns 0.00001
            return math.nan
