"""The folder of a training run: what is in it, who is at work in it, and a list of them."""

import csv
import hashlib
import json
import math
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from denoisecli.errors import DenoiseError, UsageError
from denoisecli.models.catalogue import load_spec
from denoisecli.spec.document import Spec, save_spec
from denoisecli.system.atomic_files import replacing

try:
    import fcntl
except ImportError:  # Windows: a run is not locked there, and never said to be running
    fcntl = None  # type: ignore[assignment]

CHECKPOINT = "checkpoint.npz"
MODEL = "model"
HISTORY = "history.csv"
FACTS = "run.json"
LOGS = "logs"
BAD_BATCH = "bad_batch.npz"
LOCK = ".lock"

Row = dict[str, Any]
"""A line of history.csv: figures of an epoch by name; those that were not measured are absent."""

PACKAGES = ("denoisecli", "keras", "numpy", "tensorflow")


@contextmanager
def locked(run: Path, *, write: bool = True) -> Iterator[None]:
    """Be the only process that writes into a run's folder, which is made if need be.

    The lock goes with the process, however that ends. Scraps of a killed one are cleared away.

    Args:
        run: the folder.
        write: false for a process that only reads there, and needs no lock.

    Raises:
        UsageError: another process trains there, or the folder is a file.
    """
    if run.is_file():
        raise UsageError(f"{run} is a file; a run needs a folder")
    if not write:
        yield
        return
    run.mkdir(parents=True, exist_ok=True)
    with (run / LOCK).open("w") as file:
        if not _lock(file, attempts=5):
            raise UsageError(f"{run} is in use: another process trains there; --run gives another")
        for name in (CHECKPOINT, HISTORY, FACTS, BAD_BATCH, MODEL):
            for scrap in run.glob(f".{Path(name).stem}.*"):
                shutil.rmtree(scrap, ignore_errors=True)
        yield


def _lock(file: Any, attempts: int = 1) -> bool:
    """Try to lock an open file; several times, since who lists runs tries it for a moment too."""
    if fcntl is None:
        return True
    for attempt in range(attempts):
        if attempt:
            time.sleep(0.1)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            continue
    return False


def is_running(run: Path) -> bool:
    """Whether a process trains in this folder, on this machine."""
    path = run / LOCK
    if not path.is_file():
        return False
    with path.open() as file:
        return not _lock(file)


def clear(run: Path) -> None:
    """Throw away what an earlier run left, its finished model excepted."""
    for name in (CHECKPOINT, HISTORY, FACTS, BAD_BATCH):
        (run / name).unlink(missing_ok=True)
    shutil.rmtree(run / LOGS, ignore_errors=True)


def record_start(
    run: Path, spec: Spec, *, dataset: str, data: Path, device: str, init_from: str | None
) -> None:
    """Write spec.json, and run.json with one entry for every start of the run."""
    save_spec(spec, run / "spec.json")
    facts = _read_json(run / FACTS)
    start = {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "device": device,
        "code": code_hash(),
        "versions": {name: version(name) for name in PACKAGES},
    }
    facts = {
        "name": spec.name,
        "seed": spec.training.seed,
        "dataset": dataset,
        "data": str(data),
        "init_from": init_from,
        "starts": [*facts.get("starts", []), start],
    }
    with replacing(run / FACTS, overwrite=True) as part:
        part.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


def code_hash() -> str:
    """Twelve digits that change with any source file of the toolkit."""
    import denoisecli.models

    digest = hashlib.sha256()
    for package in (denoisecli, denoisecli.models):
        folder = Path(package.__path__[0])
        for path in sorted(folder.rglob("*.py")):
            content = hashlib.sha256(path.read_bytes()).hexdigest()
            digest.update(
                f"{folder.name}/{path.relative_to(folder).as_posix()} {content}\n".encode()
            )
    return digest.hexdigest()[:12]


def write_history(rows: Sequence[Row], path: Path) -> None:
    """Write the epochs as CSV; what an epoch did not measure is left empty."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    with replacing(path, overwrite=True) as part, part.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=names)
        writer.writeheader()
        writer.writerows(rows)


def read_history(path: Path) -> list[Row]:
    """Read what `write_history` wrote; no rows if there is no such file.

    Raises:
        DenoiseError: it is not such a file.
    """
    if not path.is_file():
        return []
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return [
                {name: float(value) for name, value in row.items() if value != ""}
                for row in csv.DictReader(file)
            ]
    except (TypeError, ValueError) as error:
        raise DenoiseError(f"{path} is no history of a training run: {error}") from error


def is_better(monitor: str, value: float, best: float | None) -> bool:
    """Whether a figure beats the best one so far; losses are better when they are lower."""
    if best is None:
        return True
    return value < best if monitor.endswith("loss") else value > best


@dataclass(frozen=True)
class Run:
    """A training run as it lies on disk.

    Attributes:
        name: of its folder.
        state: running on this machine, stopped before its end, finished.
        epochs: done so far.
        planned: epochs in the spec.
        audio_hours: hours of sound seen.
        minutes: spent on training.
        best: the epoch that the spec's `monitor` chose, as in the history.
        test: figures on the test set, once finished.
        init_from: the model that its weights started from.
    """

    name: str
    state: Literal["running", "stopped", "finished"]
    epochs: int
    planned: int
    audio_hours: float
    minutes: float
    best: Row
    test: dict[str, float]
    init_from: str | None


def list_runs(folder: Path) -> list[Run]:
    """The runs in a folder, or the one that the folder itself is, by name.

    Raises:
        UsageError: there is no such folder.
        DenoiseError: a file of a run is damaged.
    """
    if not folder.is_dir():
        raise UsageError(f"there is no folder {folder}; train makes it")
    places = [folder] if (folder / "spec.json").is_file() else sorted(folder.iterdir())
    return [_read_run(place) for place in places if (place / "spec.json").is_file()]


def _read_run(run: Path) -> Run:
    spec = load_spec(run / "spec.json")
    metrics = _read_json(run / MODEL / "metrics.json")
    finished = bool(metrics) and not (run / CHECKPOINT).exists()
    rows = read_history(run / MODEL / HISTORY if finished else run / HISTORY)
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
        planned=spec.training.epochs,
        audio_hours=last.get("audio_hours", 0.0),
        minutes=last.get("minutes", 0.0),
        best=best,
        test=metrics.get("test", {}) if finished else {},
        init_from=_read_json(run / FACTS).get("init_from"),
    )


def _read_json(path: Path) -> dict[str, Any]:
    """A JSON object; an empty one if there is no such file."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise DenoiseError(f"{path} cannot be read: {error}") from error
    if not isinstance(document, dict):
        raise DenoiseError(f"{path} cannot be read: it is no JSON object")
    return document
