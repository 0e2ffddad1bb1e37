"""Text of figures and choice of groups, for the terminal and for the report alike."""

import math

from denoisecli.evaluation.metrics import DESCRIPTIONS
from denoisecli.evaluation.scores import INPUT, Cost, Evaluation, Interval

MISSING = "-"
"""Stands for a value that is unknown or undefined."""

COST_LABELS = ("speed", "load, s", "memory, MiB", "delay, ms")
"""Headings of :func:`cost_cells`."""


def number(value: float, decimals: int, *, signed: bool = False) -> str:
    """Format a number, or return MISSING if it is not finite.

    Args:
        value: The number.
        decimals: Number of decimals.
        signed: Write the plus sign of a positive number, as for a difference.
    """
    sign = "+" if signed else ""
    return f"{value:{sign}z.{decimals}f}" if math.isfinite(value) else MISSING  # z: no "-0.00"


def half_width(interval: Interval, decimals: int) -> str:
    """Format half of the width of an interval, such as "±0.05"; empty if there is no interval."""
    half = (interval.high - interval.low) / 2
    return f"±{half:.{decimals}f}" if math.isfinite(half) else ""


def failures(interval: Interval) -> str:
    """Format the number of files without a value, such as "2 failed"; empty if there are none."""
    return f"{interval.failed} failed" if interval.failed else ""


def cost_cells(cost: Cost) -> tuple[str, ...]:
    """Format a cost; the speed is in seconds of audio per second of processing."""
    factor = cost.real_time_factor
    speed = 1 / factor if math.isfinite(factor) and factor > 0 else math.nan
    return (
        MISSING if math.isnan(speed) else f"{speed:.0f}x" if speed >= 10 else f"{speed:.2g}x",
        number(cost.load_seconds, 1),
        number(cost.peak_memory_mb, 0),
        number(1000 * cost.delay_seconds, 0),
    )


def count(quantity: int, noun: str) -> str:
    """Format a count, such as "1 file" or "2 files"."""
    return f"{quantity} {noun}" if quantity == 1 else f"{quantity} {noun}s"


def groupings(result: Evaluation) -> dict[str, dict[str, list[str]]]:
    """Return the groups of files that are worth a table: those by a property that varies.

    Returns:
        Name of the property ("input SNR", "kind of noise"), label of the group, names of the files.
    """
    snr = "estimated SNR" if result.blind else "input SNR"
    properties = {snr: result.groups("snr"), "kind of noise": result.groups("noise")}
    return {name: groups for name, groups in properties.items() if len(groups) > 1}


def sample_rates(result: Evaluation) -> str:
    """Return the sample rates that the metrics were computed at.

    An example is "sample rates: SI-SDR, LSD: 48 kHz (the clean recordings); PESQ-WB: 16 kHz".
    """
    by_rates: dict[tuple[bool, tuple[int, ...]], list[str]] = {}
    for name in result.metrics:
        key = (DESCRIPTIONS[name].sample_rate is not None, tuple(result.sample_rates(name)))
        by_rates.setdefault(key, []).append(DESCRIPTIONS[name].label)
    parts = []
    for (fixed, rates), labels in sorted(by_rates.items()):
        if rates:
            kilohertz = " and ".join(f"{rate / 1000:g}" for rate in rates)
            own = "the recordings" if result.blind else "the clean recordings"
            whose = "" if fixed else f" ({own})"
            parts.append(f"{', '.join(labels)}: {kilohertz} kHz{whose}")
    return f"sample rates: {'; '.join(parts)}"


def files_in_means(result: Evaluation) -> str:
    """Return how many files the means leave out; empty if none.

    An example is "PESQ-WB: means over the 2 of 3 files that every estimator has a value of".
    """
    total = len(result.values(INPUT, result.metrics[0])) if result.metrics else 0
    by_count: dict[int, list[str]] = {}
    for name in result.metrics:
        by_count.setdefault(len(result.common(name)), []).append(DESCRIPTIONS[name].label)
    return "; ".join(
        f"{', '.join(labels)}: means over the {number} of {count(total, 'file')} that every "
        "estimator has a value of"
        for number, labels in by_count.items()
        if number < total
    )


def delays(result: Evaluation) -> list[str]:
    """Return a sentence about each estimator whose output has a delay that was not removed."""
    sentences = []
    for name in result.costs:
        delayed = result.delayed(name)
        if delayed:
            total = len(result.values(name, result.metrics[0]))
            longest = max((score.delay_seconds for score in delayed), key=abs)
            sentences.append(
                f"{name}: the output of {len(delayed)} of {count(total, 'file')} is delayed, by "
                f"{1000 * longest:.1f} ms at most, and was scored with the delay; --align removes "
                "it"
            )
    return sentences
