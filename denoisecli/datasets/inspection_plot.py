"""A figure of a dataset: its SNRs, its levels, and the mean spectra of clean sound and noise."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float
from scipy.signal import welch

from denoisecli.audio.level import dbfs, rms
from denoisecli.audio.plot import check_target
from denoisecli.audio.resampling import fit_length
from denoisecli.datasets.inspection import level_values, snr_values
from denoisecli.datasets.manifest import load_manifest
from denoisecli.datasets.stored import load_pairs
from denoisecli.errors import DatasetError
from denoisecli.system.atomic_files import replacing
from denoisecli.types import AudioVector

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PAIRS = 200
"""Number of pairs whose spectra are averaged: the first ones, whose order is random."""

_FRAME = 512
_COLOURS = {"train": "#3b528b", "valid": "#5ec962", "test": "#e07b39"}

Powers = Float[np.ndarray, "frequency"]


def plot_dataset(folder: Path, output: Path, *, overwrite: bool = False) -> None:
    """Draw histograms of SNRs and levels, and the mean spectra of clean sound and noise.

    Args:
        folder: The folder of the manifest.
        output: The file to write; its suffix is .png, .svg or .pdf.
        overwrite: Replace an existing ``output``.

    Raises:
        UsageError: ``output`` has another suffix, or exists.
        DatasetError: There is no dataset, or it holds spectrograms.
    """
    output = Path(output)
    check_target(output, overwrite=overwrite)
    figure = dataset_figure(folder)
    with replacing(output, overwrite=overwrite) as part:
        figure.savefig(part)


def dataset_figure(folder: Path) -> "Figure":
    """Return the figure that `plot_dataset` writes: three panels side by side.

    Raises:
        DatasetError: There is no dataset, or it holds spectrograms.
    """
    from matplotlib.figure import Figure

    manifest = load_manifest(folder)
    sample_rate = manifest.recipe.sample_rate
    clean, noise, measured = _spectra(folder, sample_rate)

    figure = Figure(figsize=(11, 3.4), dpi=120, layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    rows = {name: manifest.rows(name) for name in manifest.sets}
    _draw_histogram(left, {name: snr_values(part) for name, part in rows.items()}, "SNR (dB)")
    levels = {name: level_values(part) for name, part in rows.items()}
    if not any(values.size for values in levels.values()):  # an older version did not store them
        levels = {"train": np.array(measured)}
    _draw_histogram(middle, levels, "Level of the noisy sound (dBFS)")
    frequencies = np.fft.rfftfreq(_FRAME, 1 / sample_rate) / 1000
    for name, powers, colour in (("clean", clean, "#3b528b"), ("noise", noise, "#e07b39")):
        right.plot(frequencies, 10 * np.log10(powers + 1e-20), color=colour, label=name)
    right.set(xlabel="Frequency (kHz)", ylabel="Mean power density (dB)", xlim=(0, frequencies[-1]))
    for axes in (left, middle, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    hours = sum(facts.hours for facts in manifest.sets.values())
    title = f"{folder}: {len(manifest.mixtures)} mixtures, {hours:.2f} h"
    figure.suptitle(title, parse_math=False)
    return figure


def _spectra(folder: Path, sample_rate: int) -> tuple[Powers, Powers, list[float]]:
    """Return the mean power densities of clean parts and of noises, and the levels in dBFS."""
    total = np.zeros((2, _FRAME // 2 + 1))
    levels = []
    for noisy, clean in load_pairs(folder, "train").take(PAIRS).as_numpy_iterator():
        levels.append(dbfs(rms(noisy)))
        for index, sound in enumerate((clean, noisy - clean)):
            padded = fit_length(sound, max(sound.size, _FRAME))
            total[index] += welch(padded, sample_rate, nperseg=_FRAME)[1]
    if not levels:
        raise DatasetError(f"the training set of {folder} is empty")
    return total[0] / len(levels), total[1] / len(levels), [lv for lv in levels if np.isfinite(lv)]


def _draw_histogram(axes: "Axes", values: dict[str, AudioVector], label: str) -> None:
    axes.hist(
        list(values.values()),
        25,
        stacked=True,
        label=list(values),
        color=[_COLOURS.get(name, "0.5") for name in values],
    )
    axes.set(xlabel=label, ylabel="Mixtures")
