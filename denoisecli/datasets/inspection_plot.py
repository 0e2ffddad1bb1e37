"""A picture of a dataset: its SNRs, its levels, the mean spectra of what is clean and of noise."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float
from scipy.signal import welch

from denoisecli.audio.level import dbfs, rms
from denoisecli.audio.plot import check_target
from denoisecli.audio.resampling import fit_length
from denoisecli.datasets.inspection import column, rows_of
from denoisecli.datasets.manifest import load_manifest
from denoisecli.datasets.stored import load_pairs
from denoisecli.errors import DatasetError
from denoisecli.system.atomic_files import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PAIRS = 200
"""Pairs whose spectra are averaged, or all if there are less: the first, a random choice."""

_FRAME = 512
_COLOURS = {"train": "#3b528b", "valid": "#5ec962", "test": "#e07b39"}

Powers = Float[np.ndarray, "frequency"]


def plot_dataset(folder: Path, output: Path, *, overwrite: bool = False) -> None:
    """Draw histograms of SNR and level, and mean spectra.

    Args:
        folder: The folder of the manifest.
        output: A .png, .svg or .pdf file.
        overwrite: Replace an existing ``output``.

    Raises:
        UsageError: the suffix of ``output`` is another one, or it exists already.
        DatasetError: there is no dataset, or it holds spectrograms.
    """
    from matplotlib.figure import Figure

    output = Path(output)
    check_target(output, overwrite=overwrite)
    manifest = load_manifest(folder)
    sample_rate = manifest["recipe"]["sample_rate"]
    clean, noise, levels = _spectra(folder, sample_rate)

    figure = Figure(figsize=(11, 3.4), dpi=120, layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    _draw_histogram(left, manifest, "snr_db", "SNR (dB)")
    if column(manifest["mixes"], "level_dbfs").size:
        _draw_histogram(middle, manifest, "level_dbfs", "Level of the noisy sound (dBFS)")
    else:  # an older version did not note them
        middle.hist(levels, 20, color=_COLOURS["train"])
        middle.set(xlabel=f"Level of {len(levels)} noisy sounds (dBFS)", ylabel="Mixes")
    frequencies = np.fft.rfftfreq(_FRAME, 1 / sample_rate) / 1000
    for name, powers, colour in (("clean", clean, "#3b528b"), ("noise", noise, "#e07b39")):
        right.plot(frequencies, 10 * np.log10(powers + 1e-20), color=colour, label=name)
    right.set(xlabel="Frequency (kHz)", ylabel="Mean power density (dB)", xlim=(0, frequencies[-1]))
    for axes in (left, middle, right):
        axes.spines[["top", "right"]].set_visible(False)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(frameon=False, ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    hours = sum(facts["hours"] for facts in manifest["sets"].values())
    figure.suptitle(f"{folder}: {len(manifest['mixes'])} mixes, {hours:.2f} h", parse_math=False)
    with replacing(output, overwrite=overwrite) as part:
        figure.savefig(part)


def _spectra(folder: Path, sample_rate: int) -> tuple[Powers, Powers, list[float]]:
    """Give the mean power density of the clean parts and of the noises, and the levels."""
    total = np.zeros((2, _FRAME // 2 + 1))
    levels = []
    for noisy, clean in load_pairs(folder, "train").take(PAIRS).as_numpy_iterator():
        levels.append(dbfs(rms(noisy)))
        for index, sound in enumerate((clean, noisy - clean)):
            padded = fit_length(sound, max(sound.size, _FRAME))
            total[index] += welch(padded, sample_rate, nperseg=_FRAME)[1]
    if not levels:
        raise DatasetError(f"{folder} has no pairs to train with")
    return total[0] / len(levels), total[1] / len(levels), [lv for lv in levels if np.isfinite(lv)]


def _draw_histogram(axes: "Axes", manifest: dict[str, Any], key: str, label: str) -> None:
    values = {name: column(rows_of(manifest, name), key) for name in manifest["sets"]}
    axes.hist(
        list(values.values()),
        25,
        stacked=True,
        label=list(values),
        color=[_COLOURS.get(name, "0.5") for name in values],
    )
    axes.set(xlabel=label, ylabel="Mixes")
