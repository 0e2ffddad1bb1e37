import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from matplotlib.axes import Axes

from denoisecli.datasets.building import build
from denoisecli.datasets.inspection_plot import _spectra, dataset_figure, plot_dataset
from denoisecli.datasets.manifest import DatasetFacts, load_manifest, write_manifest
from denoisecli.datasets.recipe import Recipe
from denoisecli.errors import DatasetError, UsageError

RATE = 8000


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clean tones of 1 kHz, noise around 3 kHz."""
    folder, rng = tmp_path_factory.mktemp("plot"), np.random.default_rng(20240229)
    t = np.arange(RATE) / RATE
    for kind in ("clean", "noise"):
        (folder / kind).mkdir()
    for number in range(4):
        clean = 0.1 * np.sin(2 * np.pi * 1000 * t + number)
        noise = 0.1 * np.sin(2 * np.pi * 3000 * t) * rng.standard_normal(RATE).clip(0.5, 1)
        soundfile.write(folder / "clean" / f"{number}.wav", clean, RATE)
        soundfile.write(folder / "noise" / f"{number}.wav", noise, RATE)
    recipe = Recipe(snr_db=(0.0, 10.0), sample_rate=RATE)
    build(folder / "clean", folder / "noise", folder / "data", recipe)
    return folder / "data"


def heights(axes: Axes) -> dict[str, int]:
    """Return how many values a histogram shows of each entry of the legend."""
    _, labels = axes.get_legend_handles_labels()
    counts = [round(sum(bar.get_height() for bar in bars)) for bars in axes.containers]
    return dict(zip(labels, counts, strict=True))


def test_figure(data: Path) -> None:
    figure = dataset_figure(data)
    assert figure.get_suptitle() == f"{data}: 4 mixtures, 0.00 h"
    left, middle, right = figure.axes
    assert [axes.get_xlabel() for axes in figure.axes] == [
        "SNR (dB)",
        "Level of the noisy sound (dBFS)",
        "Frequency (kHz)",
    ]
    assert [axes.get_ylabel() for axes in figure.axes] == [
        "Mixtures",
        "Mixtures",
        "Mean power density (dB)",
    ]
    assert heights(left) == heights(middle) == {"train": 3, "test": 1}
    peaks = {}
    for line in right.get_lines():
        frequencies, powers = line.get_data()
        peaks[line.get_label()] = frequencies[np.argmax(powers)]
    assert peaks == pytest.approx({"clean": 1.0, "noise": 3.0}, abs=0.02)
    assert right.get_xlim() == (0, 4)


def test_file(data: Path, tmp_path: Path) -> None:
    plot_dataset(data, tmp_path / "data.png")
    assert (tmp_path / "data.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(UsageError, match="already exists"):
        plot_dataset(data, tmp_path / "data.png")


def test_spectra(data: Path) -> None:
    clean, noise, levels = _spectra(data, RATE)
    frequencies = np.fft.rfftfreq(512, 1 / RATE)
    assert frequencies[np.argmax(clean)] == pytest.approx(1000, abs=20)
    assert frequencies[np.argmax(noise)] == pytest.approx(3000, abs=20)
    assert len(levels) == 3


def test_levels_of_an_older_version(data: Path, tmp_path: Path) -> None:
    manifest = load_manifest(data)
    shutil.copytree(data, tmp_path / "older")
    data = tmp_path / "older"
    rows = [replace(row, level_dbfs=None) for row in manifest.mixtures]
    facts = DatasetFacts(**{name: getattr(manifest, name) for name in DatasetFacts.model_fields})
    write_manifest(data / "dataset.json", facts, rows)
    middle = dataset_figure(data).axes[1]
    assert middle.get_xlabel() == "Level of the noisy sound (dBFS)"
    assert heights(middle) == {"train": 3}


def test_refuses(data: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"\.png, \.svg or \.pdf"):
        plot_dataset(data, tmp_path / "data.txt")
    with pytest.raises(DatasetError, match="is not a dataset"):
        plot_dataset(tmp_path, tmp_path / "data.png")
    assert not (tmp_path / "data.png").exists()
