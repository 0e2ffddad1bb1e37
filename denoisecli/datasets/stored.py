"""Datasets on disk: sets of mixes made of folders of recordings, their manifest, and back."""

from collections.abc import Mapping
from concurrent.futures import Executor
from contextlib import ExitStack
from pathlib import Path

import tensorflow as tf

from denoisecli.datasets import building
from denoisecli.datasets import recordings as sources
from denoisecli.datasets.building import Tell
from denoisecli.datasets.manifest import MANIFEST, load_manifest
from denoisecli.datasets.recipe import Kind, Recipe
from denoisecli.datasets.recordings import Role
from denoisecli.datasets.rooms import require_pyroomacoustics
from denoisecli.datasets.storage import check_path, load, save, stored_size
from denoisecli.datasets.workfolder import WORK, Plan, put_in_place, working
from denoisecli.errors import DatasetError, DenoiseError, UsageError
from denoisecli.system.atomic_files import refuse_existing
from denoisecli.system.pools import Workers, processes

__all__ = ["SETS", "build", "load", "load_manifest", "load_pairs", "save"]

SETS = ("train", "test")
"""The sets that every dataset has; there may be "valid" as well."""


def build(
    clean: Path,
    noise: Path,
    output: Path,
    recipe: Recipe,
    *,
    test_clean: Path | None = None,
    test_noise: Path | None = None,
    reverb: Path | None = None,
    train_name: str = "train",
    valid_name: str = "valid",
    test_name: str = "test",
    jobs: int = 1,
    executor: Executor | None = None,
    resume: bool = False,
    overwrite: bool = False,
    progress: Tell | None = None,
) -> tuple[tf.data.Dataset, tf.data.Dataset]:
    """Make sets of mixes of folders of recordings, and store them with their manifest.

    Clean recordings, noises and rooms are all split before anything is mixed: no recording is in
    two sets. Recordings that cannot be used, and copies of others, are left out and listed in the
    manifest. The same recordings and recipe give the same files, bit for bit, whatever does the
    work. Every recording is decoded once and kept, at the dataset's rate, in a folder beside the
    sets until they are done: that takes half of their space again.

    When stopped, what is done so far stays in that folder, hidden, for ``resume``.

    Args:
        clean: Folder of clean recordings, searched recursively.
        noise: Folder of noise recordings, searched recursively.
        output: Folder that ``dataset.json`` and the folders of the sets go into; whatever else is
            in it stays.
        recipe: What to make of the recordings.
        test_clean: Folder of the clean recordings of the test set; none of the others are for it.
        test_noise: Folder of the noises of the test set.
        reverb: Folder of impulse responses of rooms.
        train_name: Name of the train set's folder.
        valid_name: Name of the validation set's folder, if the recipe's split has one.
        test_name: Name of the test set's folder.
        jobs: Processes that work at the same time; 1 works in this one. For more, a script has to
            be importable (``if __name__ == "__main__":``).
        executor: Does the work instead, such as that of a Dask client (see ``system.pools.cluster``);
            recordings and ``output`` must lie at the same place for its machines.
        resume: Go on with a build that was stopped.
        overwrite: Replace a dataset that is there.
        progress: Told how far the build is.

    Returns:
        The train and the test set, as ``load_pairs`` gives them.

    Raises:
        UsageError: a folder is missing, is a file or has no audio files below it; the split does
            not fit the folders; a name cannot be that of a set; there is a dataset already; the
            build to be gone on with is of something else.
        DatasetError: too few recordings can be used.
        DenoiseError: ``output`` cannot be written to, or a process died.
    """
    output = Path(output)
    folder = output.absolute() / WORK
    folders = _folders(clean, noise, test_clean, test_noise, reverb)
    names = _names(recipe, "test clean" in folders, train_name, valid_name, test_name)
    swapping = resume and (folder / MANIFEST).exists()
    _check_targets(output, names, overwrite=overwrite or swapping)
    if recipe.rooms:
        require_pyroomacoustics()
    plan = Plan(folder, folders, sources.find(folders), recipe)
    tell = progress or (lambda progress: None)
    try:
        with working(plan, resume=resume), ExitStack() as stack:
            if not (folder / MANIFEST).exists():
                workers = Workers(executor) if executor else stack.enter_context(processes(jobs))
                building.decode(plan, workers, tell)
                mixings, skipped = building.mixings(folder, plan.token)
                building.store(plan, mixings, workers, tell)
                building.describe(plan, mixings, skipped, names)
            put_in_place(folder, output, names)
    except OSError as error:
        raise DenoiseError(f"cannot write {output}: {error.strerror or error}") from error
    train, test = (load_pairs(output, name, kind=recipe.kind) for name in SETS)
    return train, test


def load_pairs(folder: Path, name: str = "train", *, kind: Kind = "waveform") -> tf.data.Dataset:
    """Load one set of a dataset.

    Args:
        folder: The folder of the manifest.
        name: "train", "test" or "valid", whatever the folders of the sets are called.
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
    if stored_size(set_folder) != entry["bytes"]:
        raise DatasetError(f"{set_folder} is damaged: its size is not the one in {MANIFEST}")
    rank = 1 if kind == "waveform" else 2
    specs = tf.nest.flatten(pairs.element_spec)
    if len(specs) != 2 or any(
        spec.dtype != tf.float32 or spec.shape.rank != rank for spec in specs
    ):
        raise DatasetError(f"{set_folder} holds no {kind} pairs but {pairs.element_spec}")
    return pairs.apply(tf.data.experimental.assert_cardinality(entry["mixes"]))


def _folders(
    clean: Path, noise: Path, test_clean: Path | None, test_noise: Path | None, reverb: Path | None
) -> dict[Role, Path]:
    if (test_clean is None) != (test_noise is None):
        raise UsageError("a test set needs both folders, of clean recordings and of noises")
    given: dict[Role, Path | None] = {
        "clean": clean,
        "noise": noise,
        "test clean": test_clean,
        "test noise": test_noise,
        "room": reverb,
    }
    return {role: Path(path) for role, path in given.items() if path is not None}


def _names(
    recipe: Recipe, test_given: bool, train_name: str, valid_name: str, test_name: str
) -> dict[str, str]:
    """Give the folder of each set, in the order of the shares."""
    if test_given and "test" in recipe.shares:
        raise UsageError(
            "the test set has folders of its own: the split is 1, or the shares of train and valid"
        )
    if not test_given and "test" not in recipe.shares:
        raise UsageError(
            "nothing is left to test with: the split is less than 1, or the shares of train, valid "
            "and test, or the test set has folders of its own"
        )
    names = {"train": train_name, "valid": valid_name, "test": test_name}
    return {name: names[name] for name in (*recipe.shares, *(["test"] if test_given else []))}


def _check_targets(output: Path, names: Mapping[str, str], *, overwrite: bool) -> None:
    """Refuse what build would have to give up on at its end, or must not replace."""
    check_path(output)
    for name in names.values():
        if name in ("", "..", MANIFEST) or name.startswith(".") or Path(name).name != name:
            raise UsageError(f"'{name}' cannot be the name of a set")
        target = output / name
        check_path(target)
        refuse_existing(target, overwrite=overwrite)
        if target.exists() and not (target / "dataset_spec.pb").exists():
            raise UsageError(
                f"{target} holds something else than a dataset and is not replaced; "
                "move it away, or give the set another name"
            )
    refuse_existing(output / MANIFEST, overwrite=overwrite)
    if len(set(names.values())) < len(names):
        raise UsageError("the sets need different names")
