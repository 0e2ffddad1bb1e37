"""Datasets on disk: a train and a test set made of two folders, their manifest, and back."""

import hashlib
import json
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from denoisecli.errors import DatasetError, DenoiseError, UsageError
from denoisecli.files import refuse_existing, replacing
from denoisecli.pairs import Kind, Mixing, Recipe, Row, to_spectrograms
from denoisecli.sources import Progress, Source, scan, split

MANIFEST = "dataset.json"
FORMAT = "denoise dataset"
FORMAT_VERSION = 1
SETS = ("train", "test")


def save(dataset: tf.data.Dataset, folder: Path, *, overwrite: bool = False) -> None:
    """Save a dataset to a folder, which appears when it is whole.

    Args:
        dataset: Any finite dataset.
        folder: Where it goes.
        overwrite: Replace the folder.

    Raises:
        UsageError: the folder exists already, or TensorFlow cannot read from such a path.
        DenoiseError: it cannot be written to, or the disk is full.
        Exception: what the dataset raises instead of an element.
    """
    _check_path(folder)
    failed: list[Exception] = []
    stopped = threading.Event()

    def elements() -> Iterator[Any]:
        try:
            for element in dataset.as_numpy_iterator():
                if stopped.is_set():
                    return
                yield element
        except Exception as error:  # after an error, Dataset.save would wait for ever
            failed.append(error)

    source = tf.data.Dataset.from_generator(elements, output_signature=dataset.element_spec)
    # TensorFlow holds its thread until all is saved: from the main one, Ctrl-C could not stop it.
    with replacing(folder, overwrite=overwrite) as part, ThreadPoolExecutor(1) as thread:
        saving = thread.submit(
            source.save,
            part.as_posix(),
            shard_func=lambda *_: tf.constant(0, tf.int64),  # a single shard keeps the order
        )
        try:
            saving.result()
        except tf.errors.OpError as error:
            raise DenoiseError(f"cannot write {folder}: {error.message}") from error
        finally:
            stopped.set()
        if failed:
            raise failed[0]


def load(folder: Path) -> tf.data.Dataset:
    """Load a dataset from the folder it was saved to, in the same order.

    Raises:
        UsageError: TensorFlow cannot read from such a path.
        DatasetError: the folder holds no saved dataset.
    """
    _check_path(folder)
    try:
        return tf.data.Dataset.load(Path(folder).as_posix())
    except (tf.errors.OpError, OSError, DecodeError) as error:
        raise DatasetError(f"{folder} holds no saved dataset, or a damaged one") from error


def build(
    clean: Path,
    noise: Path,
    output: Path,
    recipe: Recipe,
    *,
    train_name: str = "train",
    test_name: str = "test",
    jobs: int | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> tuple[tf.data.Dataset, tf.data.Dataset]:
    """Make a train and a test set of two folders, and store them with their manifest.

    Clean recordings and noises are both split before anything is mixed: no recording is in both
    sets. Recordings that cannot be used, and copies of others, are left out and listed in the
    manifest. The same recordings and recipe give the same dataset, bit for bit.

    Args:
        clean: Folder of clean recordings, searched recursively.
        noise: Folder of noise recordings, searched recursively; ``pairs.mixed_pairs`` says how
            noises are drawn from it.
        output: Folder that ``dataset.json`` and the folders of the two sets go into; whatever
            else is in it stays.
        recipe: What to make of the recordings.
        train_name: Name of the train set's folder.
        test_name: Name of the test set's folder.
        jobs: Files worked on at the same time; the result does not depend on it.
        overwrite: Replace a dataset that is there.
        progress: Told the number of steps done and of all (files to check and mixes to make, the
            latter estimated at first); may be called from another thread.

    Returns:
        The train and the test set, as ``load_pairs`` gives them.

    Raises:
        UsageError: a folder is missing, is a file or has no audio files below it; a name cannot
            be that of a set; there is a dataset already.
        DatasetError: too few recordings can be used.
        AudioError: a recording changed while it was in use.
        DenoiseError: ``output`` cannot be written to.
    """
    output = Path(output)
    folders = dict(zip(SETS, (train_name, test_name), strict=True))
    _check_targets(output, folders, overwrite=overwrite)
    tell = progress or (lambda done, total: None)

    with replacing(output / MANIFEST, overwrite=overwrite) as manifest_part:
        beside = manifest_part.parent
        steps_a_file = 1 + recipe.mixes_per_clip
        clean_sources, noise_sources, skipped = scan(
            clean, noise, jobs=jobs, progress=lambda done, total: tell(done, total * steps_a_file)
        )
        mixings = _split_sources(clean_sources, noise_sources, recipe, jobs)

        done = len(clean_sources) + len(noise_sources) + len(skipped)
        total = done + sum(len(mixing.clips) for mixing in mixings.values())
        sets: dict[str, Any] = {}
        rows: list[Row] = []
        for name, mixing in mixings.items():
            mixing.on_clip = lambda clips, before=done: tell(before + clips, total)
            _save_mixes(mixing, recipe, beside / name)
            done += len(mixing.clips)
            rows += [{"set": name, **row} for row in mixing.rows]
            skipped += mixing.skipped
            sets[name] = {
                "folder": folders[name],
                "clean_files": len(mixing.clean),
                "noise_files": len(mixing.noise),
                "mixes": len(mixing.rows),
                "hours": sum(row["samples"] for row in mixing.rows) / recipe.sample_rate / 3600,
                "bytes": _size(beside / name),
            }
        digests = [source.digest for source in (*clean_sources, *noise_sources)]
        content = json.dumps([FORMAT_VERSION, asdict(recipe), digests, rows], sort_keys=True)
        manifest = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "denoise_version": version("denoisecli"),
            "id": hashlib.sha256(content.encode()).hexdigest()[:16],
            "clean": str(clean),
            "noise": str(noise),
            "recipe": asdict(recipe),
            "sets": sets,
            "skipped": [asdict(skip) for skip in skipped],
            "mixes": rows,
        }
        manifest_part.write_text(json.dumps(manifest, indent=1, allow_nan=False) + "\n")
        _swap(beside, output, folders)
    train, test = (load_pairs(output, name, kind=recipe.kind) for name in SETS)
    return train, test


def load_manifest(folder: Path) -> dict[str, Any]:
    """Read the manifest of a dataset.

    Raises:
        DatasetError: the folder holds no dataset, or one of a newer version.
    """
    path = Path(folder) / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise DatasetError(
            f"{folder} is no dataset: there is no {MANIFEST} in it; build-dataset makes one"
        ) from None
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path} cannot be read: {error}") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise DatasetError(f"{path} is not the manifest of a dataset")
    if manifest.get("format_version", 0) > FORMAT_VERSION:
        raise DatasetError(
            f"{folder} was built by denoise {manifest.get('denoise_version')} in a newer format "
            "than this version can read; update denoise, or build the dataset again"
        )
    if missing := {"id", "recipe", "sets", "mixes"} - manifest.keys():
        raise DatasetError(f"{path} is damaged: it has no {', '.join(sorted(missing))}")
    return manifest


def load_pairs(folder: Path, name: str = "train", *, kind: Kind = "waveform") -> tf.data.Dataset:
    """Load one set of a dataset.

    Args:
        folder: The folder of the manifest.
        name: "train" or "test", whatever the folders of the sets are called.
        kind: The kind of pairs that is needed.

    Returns:
        The (noisy, clean) pairs, float32, in the order of the manifest's rows; its
        ``cardinality()`` is their number.

    Raises:
        DatasetError: the folder holds no dataset, one of a newer version or of another kind, or
            a damaged one.
    """
    manifest = load_manifest(folder)
    if name not in manifest["sets"]:
        raise DatasetError(f"{folder} has no set '{name}', only {', '.join(manifest['sets'])}")
    stored = manifest["recipe"]["kind"]
    if stored != kind:
        raise DatasetError(
            f"{folder} holds {stored} pairs, not {kind} pairs; build a dataset of that kind"
        )
    entry = manifest["sets"][name]
    set_folder = Path(folder) / entry["folder"]
    pairs = load(set_folder)
    if _size(set_folder) != entry["bytes"]:
        raise DatasetError(f"{set_folder} is damaged: its size is not the one in {MANIFEST}")
    rank = 1 if kind == "waveform" else 2
    specs = tf.nest.flatten(pairs.element_spec)
    if len(specs) != 2 or any(
        spec.dtype != tf.float32 or spec.shape.rank != rank for spec in specs
    ):
        raise DatasetError(f"{set_folder} holds no {kind} pairs but {pairs.element_spec}")
    return pairs.apply(tf.data.experimental.assert_cardinality(entry["mixes"]))


def _check_path(folder: Path) -> None:
    if set(Path(folder).as_posix()) & set("*?[\\"):
        raise UsageError(
            f"{folder}: TensorFlow takes a path with * ? [ or \\ in it for a pattern; "
            "choose another place for the dataset"
        )


def _check_targets(output: Path, folders: dict[str, str], *, overwrite: bool) -> None:
    """Refuse what build would have to give up on at its end, or must not replace."""
    _check_path(output)
    for name in folders.values():
        if name in ("", "..", MANIFEST) or name.startswith(".") or Path(name).name != name:
            raise UsageError(f"'{name}' cannot be the name of a set")
        target = output / name
        refuse_existing(target, overwrite=overwrite)
        if target.exists() and not (target / "dataset_spec.pb").exists():
            raise UsageError(
                f"{target} holds something else than a dataset and is not replaced; "
                "move it away, or give the set another name"
            )
    if len(set(folders.values())) < len(folders):
        raise UsageError("the train and the test set need different names")


def _split_sources(
    clean: Sequence[Source], noise: Sequence[Source], recipe: Recipe, jobs: int | None
) -> dict[str, Mixing]:
    """Give the mixes of each set, no recording being in both."""
    one_folder = len({source.folder for source in noise}) == 1
    halves = split(clean, recipe.split, np.random.default_rng([recipe.seed, 0, 0]), recipe.group_by)
    noise_halves = split(
        noise,
        recipe.split,
        np.random.default_rng([recipe.seed, 0, 1]),
        "file" if one_folder else recipe.group_by,
    )
    return {
        name: Mixing(halves[i], noise_halves[i], recipe, stream=i + 1, jobs=jobs)
        for i, name in enumerate(SETS)
    }


def _save_mixes(mixing: Mixing, recipe: Recipe, folder: Path) -> None:
    pairs = mixing.pairs()
    if recipe.kind == "spectrogram":
        pairs = to_spectrograms(
            pairs, n_fft=recipe.n_fft, hop_length=recipe.hop_length, window=recipe.window
        )
    try:
        save(pairs, folder)
    except tf.errors.OpError:
        if mixing.error is None:
            raise
        raise mixing.error from None
    if not mixing.rows:
        skip = mixing.skipped[0]
        raise DatasetError(
            f"no clean clip can be used at this sample rate: {skip.file} {skip.reason}"
        )


def _swap(beside: Path, output: Path, folders: dict[str, str]) -> None:
    """Put the finished sets in place of those in ``output``.

    The old manifest goes first, and the new one comes last, when ``replacing`` ends: in between
    there is no manifest, hence no dataset, but never one that does not fit its manifest.
    """
    old = beside / "old"
    old.mkdir()
    existing = [name for name in (MANIFEST, *folders.values()) if (output / name).exists()]
    moves = [(output / name, old / name) for name in existing]
    moves += [(beside / name, output / folder) for name, folder in folders.items()]
    done = []
    try:
        for source, target in moves:
            source.replace(target)
            done.append((source, target))
    except BaseException:
        for source, target in reversed(done):
            target.replace(source)
        raise


def _size(folder: Path) -> int:
    """Give the number of bytes that the elements of a saved dataset take."""
    return sum(path.stat().st_size for path in folder.rglob("*.snapshot"))
