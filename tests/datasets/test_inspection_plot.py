from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest

from denoisecli.datasets.building import build
from denoisecli.datasets.inspection_plot import _spectra, plot_dataset
from denoisecli.datasets.manifest import DatasetFacts, load_manifest, write_manifest
from denoisecli.datasets.recipe import Recipe
from denoisecli.errors import DatasetError, UsageError

RATE = 8000


@pytest.fixture
def data(audio_file: Callable[..., Path], rng: np.random.Generator, tmp_path: Path) -> Path:
    """Clean tones of 1 kHz, noise around 3 kHz."""
    t = np.arange(RATE) / RATE
    for number in range(4):
        audio_file(f"clean/{number}.wav", 0.1 * np.sin(2 * np.pi * 1000 * t + number), RATE)
        noise = 0.1 * np.sin(2 * np.pi * 3000 * t) * rng.standard_normal(RATE).clip(0.5, 1)
        audio_file(f"noise/{number}.wav", noise, RATE)
    recipe = Recipe(snr_db=(0.0, 10.0), sample_rate=RATE)
    build(tmp_path / "clean", tmp_path / "noise", tmp_path / "data", recipe)
    return tmp_path / "data"


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
def test_a_picture(data: Path, tmp_path: Path, suffix: str) -> None:
    plot_dataset(data, tmp_path / f"data.{suffix}")
    assert (tmp_path / f"data.{suffix}").stat().st_size > 5000
    if suffix == "png":
        assert matplotlib.image.imread(tmp_path / "data.png").shape == (408, 1320, 4)
    with pytest.raises(UsageError, match="exists already"):
        plot_dataset(data, tmp_path / f"data.{suffix}")
    plot_dataset(data, tmp_path / f"data.{suffix}", overwrite=True)


def test_spectra(data: Path) -> None:
    clean, noise, levels = _spectra(data, RATE)
    frequencies = np.fft.rfftfreq(512, 1 / RATE)
    assert frequencies[np.argmax(clean)] == pytest.approx(1000, abs=20)
    assert frequencies[np.argmax(noise)] == pytest.approx(3000, abs=20)
    assert len(levels) == 3


def test_levels_of_an_older_version(data: Path, tmp_path: Path) -> None:
    manifest = load_manifest(data)
    rows = [replace(row, level_dbfs=None) for row in manifest.mixtures]
    facts = DatasetFacts(**{name: getattr(manifest, name) for name in DatasetFacts.model_fields})
    write_manifest(data / "dataset.json", facts, rows)
    plot_dataset(data, tmp_path / "data.png")
    assert (tmp_path / "data.png").exists()


def test_refuses(data: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"\.png \.svg \.pdf"):
        plot_dataset(data, tmp_path / "data.txt")
    with pytest.raises(DatasetError, match="is not a dataset"):
        plot_dataset(tmp_path, tmp_path / "data.png")
    assert not (tmp_path / "data.png").exists()
