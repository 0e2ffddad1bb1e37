from dataclasses import replace
from pathlib import Path

import pytest

from denoisecli.datasets.building import build
from denoisecli.datasets.manifest import Manifest, load_manifest
from denoisecli.datasets.recipe import Recipe
from denoisecli.evaluation.leaks import Leak, find_leak
from denoisecli.models.folder import Metrics


@pytest.fixture
def manifest(audio_file, noise, tmp_path) -> Manifest:
    for number in range(6):
        audio_file(f"speech/s{number}.wav", noise(0.4, 8000), 8000)
        audio_file(f"noise/n{number}.wav", noise(0.6, 8000), 8000)
    data = Path(tmp_path, "data")
    build(
        tmp_path / "speech",
        tmp_path / "noise",
        data,
        Recipe(snr_db=5.0, split=0.5, sample_rate=8000),
    )
    return load_manifest(data)


def rebuilt(manifest: Manifest) -> Manifest:
    """Return the manifest of a dataset whose test set was the training set of another."""
    rows = [replace(row, set="train" if row.set == "test" else "test") for row in manifest.mixtures]
    return manifest.model_copy(update={"id": "other", "mixtures": rows})


def test_the_own_test_set_has_no_leak(manifest):
    assert find_leak(Metrics(dataset=manifest.id), manifest) == Leak(known=True)
    sources = " ".join(manifest.source_hashes("train", "valid"))
    leak = find_leak(Metrics(dataset="other", training_sources=sources), manifest)
    assert (leak.known, leak.clean, leak.noise) == (True, 0, 0)
    assert leak.clean_total > 0


def test_recordings_trained_on_are_counted(manifest):
    tested = rebuilt(manifest)
    sources = " ".join(manifest.source_hashes("train", "valid"))
    leak = find_leak(Metrics(dataset=manifest.id, training_sources=sources), tested)
    assert (
        leak.clean
        == leak.clean_total
        == len(manifest.source_hashes("train", "valid", role="clean"))
    )
    assert leak.noise == leak.noise_total > 0


def test_the_dataset_of_the_run_stands_in_for_an_old_model(manifest):
    tested = rebuilt(manifest)
    assert find_leak(Metrics(dataset=manifest.id), tested) == Leak(known=False)
    assert find_leak(Metrics(dataset=manifest.id), tested, trained=manifest).clean > 0
    assert not find_leak(Metrics(dataset="third"), tested, trained=manifest).known


def test_a_start_model_may_know_the_test_set(manifest):
    """The dataset is that of the last run, but its weights come from another one."""
    sources = " ".join(manifest.source_hashes("train", "valid", "test"))
    metrics = Metrics(dataset=manifest.id, init_from="before", training_sources=sources)
    assert find_leak(metrics, manifest).clean > 0


def test_a_start_model_that_records_nothing_leaves_doubt(manifest):
    metrics = Metrics(dataset="other", training_sources=" ".join(["?", "0" * 8]))
    assert not find_leak(metrics, manifest).known


def test_hashes_depend_on_role_and_name(manifest):
    clean, noise = (manifest.source_hashes("test", role=role) for role in ("clean", "noise"))
    assert not clean & noise
    assert manifest.source_hashes("test") == clean | noise
    assert {len(digits) for digits in clean} == {8}
    assert manifest.source_hashes("none") == set()
