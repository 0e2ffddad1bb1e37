"""The folder of a training run: its files, its lock, and a list of the runs in a folder."""

import hashlib
import math
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ValidationError

from denoisecli.errors import DenoiseError, UsageError
from denoisecli.models.catalogue import find_model
from denoisecli.models.folder import Metrics, ModelFolder
from denoisecli.spec.document import Spec, read_spec, save_spec
from denoisecli.system.atomic_files import write_text
from denoisecli.system.locks import exclusive, is_locked
from denoisecli.training.history import Row, is_better, read_history

SPEC = "spec.json"
"""The resolved spec."""

CHECKPOINT = "checkpoint.npz"
"""All that an unfinished run needs to resume; deleted when the run is finished."""

MODEL = "model"
"""The folder of the finished model."""

HISTORY = "history.csv"
"""The figures of each epoch."""

FACTS = "run.json"
"""The dataset, the seed, and an entry for every start of the run."""

LOGS = "logs"
"""The folder of the TensorBoard logs."""

BAD_BATCH = "bad_batch.npz"
"""The batch at which training diverged."""

NOT_RECORDED = "?"
"""Stands among the hashes of training recordings for those that a start model did not record."""

RECORDINGS = "recordings"
"""The folder of decoded recordings that batches are mixed from, until the run is finished."""

LOCK = ".lock"
"""The lock file of the process that trains."""

PACKAGES = ("denoisecli", "keras", "numpy")
"""Packages whose versions are recorded, beside that of the backend of Keras."""


@contextmanager
def locked(run: Path, *, write: bool = True) -> Iterator[None]:
    """Create a run's folder if necessary, and lock it against other processes that write there.

    A folder that stays empty is deleted. The operating system releases the lock however the process
    ends.

    Args:
        run: The folder.
        write: False for a process that only reads there and needs no lock.

    Raises:
        UsageError: Another process trains there, or the path is a file.
    """
    if run.is_file():
        raise UsageError(f"{run} is a file; a run needs a folder")
    if not write:
        yield
        return
    run.mkdir(parents=True, exist_ok=True)
    in_use = f"{run} is in use: another process trains there; --run selects another folder"
    try:
        with exclusive(run / LOCK, in_use):
            yield
    finally:
        with suppress(OSError):
            run.rmdir()


def is_running(run: Path) -> bool:
    """Return whether a process on this machine trains in this folder."""
    return is_locked(run / LOCK)


class _Start(BaseModel):
    """A call of `train` that began or resumed the run."""

    time: str
    device: str
    code: str
    versions: dict[str, str]


class _Facts(BaseModel):
    """Content of run.json."""

    name: str = ""
    seed: int = 0
    dataset: str = ""
    data: str = ""
    init_from: str | None = None
    training_sources: str = ""
    starts: list[_Start] = []


def clear(run: Path) -> None:
    """Delete what an earlier run left in the folder, except for its checkpoint and its model."""
    for name in (HISTORY, FACTS, BAD_BATCH):
        (run / name).unlink(missing_ok=True)
    shutil.rmtree(run / LOGS, ignore_errors=True)


def record_start(
    run: Path,
    spec: Spec,
    *,
    dataset: str,
    data: Path,
    device: str,
    init_from: str | None,
    training_sources: str = "",
) -> None:
    """Write spec.json, and add an entry for this start to run.json.

    Args:
        run: Folder of the run.
        spec: Spec of the run.
        dataset: Identifier of the dataset.
        data: Folder of the dataset.
        device: Name of the device.
        init_from: Model that the weights started from.
        training_sources: Hashes of the recordings trained on; see `trained_on`.
    """
    save_spec(spec, run / SPEC)
    start = _Start(
        time=datetime.now(UTC).isoformat(timespec="seconds"),
        device=device,
        code=code_hash(),
        versions=package_versions(),
    )
    facts = _Facts(
        name=spec.name,
        seed=spec.training.seed,
        dataset=dataset,
        data=str(data),
        init_from=init_from,
        training_sources=training_sources,
        starts=[*_read_facts(run / FACTS).starts, start],
    )
    write_text(run / FACTS, facts.model_dump_json(indent=2) + "\n")


def dataset_folder(run: Path) -> Path | None:
    """Return the folder of the dataset that a run was trained on; None if that is not recorded.

    Raises:
        DenoiseError: run.json cannot be read.
    """
    data = _read_facts(run / FACTS).data
    return Path(data) if data else None


def trained_on(model: str) -> tuple[str | None, set[str]]:
    """Return the dataset that a model or an unfinished run was trained on, and its recordings.

    Args:
        model: Folder of a model or of an unfinished run, or name of a bundled model.

    Returns:
        The identifier of the dataset, None if it is not recorded; and the hashes of the recordings
        that the model and those it started from were trained on, with NOT_RECORDED if some of them
        are not recorded.
    """
    recorded: _Facts | Metrics
    try:
        if (Path(model) / CHECKPOINT).exists():
            recorded = _read_facts(Path(model) / FACTS)
        else:
            recorded = find_model(model).read_metrics()
    except DenoiseError:  # it was deleted since, or has no metrics
        return None, {NOT_RECORDED}
    return recorded.dataset or None, set(recorded.training_sources.split()) or {NOT_RECORDED}


def package_versions() -> dict[str, str]:
    """Return the versions of the packages that the result of training depends on."""
    import keras

    return {name: version(name) for name in (*PACKAGES, keras.backend.backend())}


def code_changed(run: Path) -> bool:
    """Return whether the last start of the run was by other code than that of this process."""
    starts = _read_facts(run / FACTS).starts
    return bool(starts) and starts[-1].code != code_hash()


@cache
def code_hash() -> str:
    """Return twelve hexadecimal digits that change with any source file of the package.

    Later changes of the files do not count, because the process runs the code that it loaded.
    """
    digest = hashlib.sha256()
    for package in map(import_module, ("denoisecli", "denoisecli.models")):
        folder = Path(package.__path__[0])
        for path in sorted(folder.rglob("*.py")):
            content = hashlib.sha256(path.read_bytes()).hexdigest()
            digest.update(
                f"{folder.name}/{path.relative_to(folder).as_posix()} {content}\n".encode()
            )
    return digest.hexdigest()[:12]


@dataclass(frozen=True)
class Run:
    """A training run as it lies on disk.

    Attributes:
        name: Name of the folder.
        state: "running" on this machine, "stopped" before its end, or "finished".
        epochs: Number of finished epochs.
        planned_epochs: Number of epochs in the spec.
        audio_hours: Hours of audio trained on.
        minutes: Training time in minutes.
        best: Row of the history that the spec's `monitor` selected.
        test: Figures on the test set, if the run is finished.
        init_from: Model that the weights started from.
    """

    name: str
    state: Literal["running", "stopped", "finished"]
    epochs: int
    planned_epochs: int
    audio_hours: float
    minutes: float
    best: Row
    test: dict[str, float | None]
    init_from: str | None


def list_runs(folder: Path) -> tuple[list[Run], list[DenoiseError]]:
    """Read the runs in a folder, or the one run that the folder itself is.

    Returns:
        The runs, sorted by name, and one error for each run that cannot be read.

    Raises:
        UsageError: The folder does not exist.
        DenoiseError: There are runs, but none of them can be read.
    """
    if not folder.is_dir():
        raise UsageError(f"the folder {folder} does not exist; denoise train creates it")
    places = [folder] if (folder / SPEC).is_file() else sorted(folder.iterdir())
    runs, errors = [], []
    for place in places:
        if not (place / SPEC).is_file():
            continue
        try:
            runs.append(_read_run(place))
        except DenoiseError as error:
            errors.append(error)
    if errors and not runs:
        raise errors[0]
    return runs, errors


def _read_run(run: Path) -> Run:
    spec = read_spec(run / SPEC)
    model = ModelFolder(run / MODEL)
    finished = model.metrics_path.exists() and not (run / CHECKPOINT).exists()
    rows = read_history(model.history_path if finished else run / HISTORY)
    monitor = spec.training.monitor
    best: Row = {}
    for row in rows:
        value = row.get(monitor, math.nan)
        if math.isfinite(value) and is_better(monitor, value, best.get(monitor)):
            best = row
    last = rows[-1] if rows else {}
    return Run(
        name=run.resolve().name,
        state="running" if is_running(run) else "finished" if finished else "stopped",
        epochs=int(last.get("epoch", 0)),
        planned_epochs=spec.training.epochs,
        audio_hours=last.get("audio_hours", 0.0),
        minutes=last.get("minutes", 0.0),
        best=best,
        test=model.read_metrics().test if finished else {},
        init_from=_read_facts(run / FACTS).init_from,
    )


def _read_facts(path: Path) -> _Facts:
    """Read run.json; return empty facts if the file does not exist."""
    try:
        return _Facts.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return _Facts()
    except OSError as error:
        raise DenoiseError(f"{path} cannot be read: {error.strerror}") from error
    except ValidationError as error:
        raise DenoiseError(f"{path} is damaged: {error.errors()[0]['msg']}") from error
