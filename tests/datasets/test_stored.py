import json
import resource
from collections.abc import Callable
from pathlib import Path

import librosa
import numpy as np
import pytest
import tensorflow as tf

from denoisecli.audio.stft import stft
from denoisecli.datasets.building import build
from denoisecli.datasets.choices import Kind
from denoisecli.datasets.manifest import load_manifest
from denoisecli.datasets.recipe import Recipe
from denoisecli.datasets.stored import load, load_pairs, save, to_spectrograms
from denoisecli.errors import DatasetError, DenoiseError, UsageError

RECIPE = Recipe(snr_db=(-5.0, 20.0), seed=7, n_fft=400, hop_length=100)


@pytest.fixture
def folders(
    audio_file: Callable[..., Path], rng: np.random.Generator, tmp_path: Path
) -> tuple[Path, Path]:
    for number in range(5):
        audio_file(f"clean/{number}.flac", 0.1 * rng.standard_normal(3000 + 500 * number))
        audio_file(f"noise/{number}.flac", 0.1 * rng.standard_normal(9000))
    return tmp_path / "clean", tmp_path / "noise"


def test_save_and_load_any_dataset(tmp_path: Path) -> None:
    numbers = tf.data.Dataset.range(1000).map(lambda n: {"n": n, "square": n**2})
    save(numbers, tmp_path / "saved")
    loaded = load(tmp_path / "saved")
    assert loaded.element_spec == numbers.element_spec
    assert [int(element["square"]) for element in loaded] == [n**2 for n in range(1000)]
    with pytest.raises(UsageError, match="already exists"):
        save(numbers, tmp_path / "saved")
    save(numbers.take(3), tmp_path / "saved", overwrite=True)
    assert len(list(load(tmp_path / "saved"))) == 3


def test_save_of_what_fails(tmp_path: Path) -> None:
    numbers = tf.data.Dataset.range(10).map(lambda n: tf.debugging.check_numerics(1 / (n - 5), "x"))
    with pytest.raises(tf.errors.OpError):
        save(numbers, tmp_path / "saved")
    assert not list(tmp_path.iterdir())


def test_full_disk(tmp_path: Path) -> None:
    zeros = tf.data.Dataset.range(100).map(lambda _: tf.zeros(100_000))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, before[1]))
    try:
        with pytest.raises(DenoiseError, match=r"saved: .*too large"):
            save(zeros, tmp_path / "saved")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not (tmp_path / "saved").exists()


@pytest.mark.parametrize("name", ["a*", "[1]", "what?", "back\\slash"])
def test_paths_that_are_patterns(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="pattern"):
        save(tf.data.Dataset.range(3), tmp_path / name)
    with pytest.raises(UsageError, match="pattern"):
        load(tmp_path / name / "train")


def test_load_of_something_else(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("x")
    for name in ("folder", "file", "nothing"):
        with pytest.raises(DatasetError, match=name):
            load(tmp_path / name)
    save(tf.data.Dataset.range(3), tmp_path / "saved")
    (tmp_path / "saved" / "dataset_spec.pb").write_bytes(b"\xffnonsense")
    with pytest.raises(DatasetError, match="damaged"):
        load(tmp_path / "saved")


def test_damaged_dataset(folders: tuple[Path, Path], tmp_path: Path) -> None:
    output = tmp_path / "data"
    build(*folders, output, RECIPE)
    (snapshot,) = (output / "train").rglob("*.snapshot")
    snapshot.write_bytes(snapshot.read_bytes()[:-10])
    with pytest.raises(DatasetError, match="damaged"):
        load_pairs(output)
    assert load_pairs(output, "test").cardinality() == load_manifest(output).sets["test"].mixtures
    with pytest.raises(DatasetError, match="only train, test"):
        load_pairs(output, "valid")
    save(tf.data.Dataset.range(3), output / "test", overwrite=True)
    with pytest.raises(DatasetError):
        load_pairs(output, "test")


def test_manifests_of_the_first_version(folders: tuple[Path, Path], tmp_path: Path) -> None:
    build(*folders, tmp_path / "data", RECIPE)
    path = tmp_path / "data" / "dataset.json"
    new = load_manifest(tmp_path / "data")
    manifest = json.loads(path.read_text())
    known = ("ratio", "snr_db", "split", "group_by", "sample_rate", "segment",
             "match_level", "kind", "n_fft", "hop_length", "window", "seed")  # fmt: skip
    manifest["recipe"] = {key: manifest["recipe"][key] for key in known}
    manifest["recipe"]["mixes_per_clip"] = 1
    manifest["mixes"] = manifest.pop("mixtures")
    for facts in manifest["sets"].values():
        facts["mixes"] = facts.pop("mixtures")
    manifest |= manifest.pop("sources") | {"format_version": 1}
    for row in manifest["mixes"]:
        del row["crc32"], row["level_dbfs"]
    path.write_text(json.dumps(manifest, indent=1))
    assert load_pairs(tmp_path / "data").cardinality() == new.sets["train"].mixtures
    old = load_manifest(tmp_path / "data")
    assert (old.recipe, old.sets, old.sources) == (
        RECIPE.model_copy(update={"valid_share": 0.0}),
        new.sets,
        new.sources,
    )
    assert [row.snr_db for row in old.mixtures] == [row.snr_db for row in new.mixtures]


def test_spectrograms_are_stored_or_computed_while_reading(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    build(*folders, tmp_path / "waves", RECIPE)
    build(*folders, tmp_path / "spectra", RECIPE.model_copy(update={"kind": Kind.SPECTROGRAM}))
    stored, computed = (
        load_pairs(tmp_path / name, kind=Kind.SPECTROGRAM) for name in ("spectra", "waves")
    )
    assert stored.element_spec == computed.element_spec
    assert stored.cardinality() == computed.cardinality() > 1
    rows = load_manifest(tmp_path / "waves").rows("train")
    pairs = zip(stored.as_numpy_iterator(), computed.as_numpy_iterator(), rows, strict=True)
    for expected, found, row in pairs:
        assert expected[0].shape == expected[1].shape == (201, 1 + row.samples // 100)
        np.testing.assert_allclose(found[0], expected[0], atol=1e-4)
        np.testing.assert_allclose(found[1], expected[1], atol=1e-4)
    with pytest.raises(DatasetError, match="pairs of spectrograms, but waveforms are needed"):
        load_pairs(tmp_path / "spectra")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("n_fft", "hop_length", "window"),
    [(512, 256, "sqrt_hann"), (320, 160, "hann"), (400, 100, "hamming")],
)
def test_to_spectrograms(
    rng: np.random.Generator, tmp_path: Path, n_fft: int, hop_length: int, window: str
) -> None:
    lengths = [1, 255, 256, 257, 512, 5000]
    vectors = [np.float32(rng.uniform(-1, 1, length)) for length in lengths]
    spec = tf.TensorSpec((None,), tf.float32)
    pairs = tf.data.Dataset.from_generator(
        lambda: ((vector, vector / 2) for vector in vectors), output_signature=(spec, spec)
    )
    settings = {"n_fft": n_fft, "hop_length": hop_length, "window": window}
    save(to_spectrograms(pairs, **settings), tmp_path / "spectra")
    mapped = load(tmp_path / "spectra")
    assert [s.shape.as_list() for s in mapped.element_spec] == [[n_fft // 2 + 1, None]] * 2
    for vector, (noisy, clean) in zip(vectors, mapped.as_numpy_iterator(), strict=True):
        assert noisy.dtype == clean.dtype == np.float32
        expected = np.abs(stft(vector, **settings))
        np.testing.assert_allclose(noisy, expected, atol=1e-4)
        np.testing.assert_allclose(clean, expected / 2, atol=1e-4)
    if window == "hann":
        peer = np.abs(librosa.stft(vectors[-1], n_fft=n_fft, hop_length=hop_length, window="hann",
                                   pad_mode="constant"))  # fmt: skip
        np.testing.assert_allclose(noisy, peer, atol=1e-4)
