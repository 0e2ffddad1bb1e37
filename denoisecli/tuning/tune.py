"""Search the fields of a spec for the values that train best, in a folder that can be resumed."""

import shutil
import uuid
from contextlib import closing
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from denoisecli.errors import UsageError
from denoisecli.spec.document import Spec
from denoisecli.training.batches import open_batches
from denoisecli.training.devices import Device, find_devices
from denoisecli.training.run_folder import locked
from denoisecli.training.train import check_spec
from denoisecli.tuning.cluster import RemoteScheduler, serve
from denoisecli.tuning.method import Method
from denoisecli.tuning.oracle import Oracle
from denoisecli.tuning.scheduler import STATE, Scheduler, check_same_search, comparable_spec
from denoisecli.tuning.trial_plot import plot_trials
from denoisecli.tuning.trials import (
    SearchObserver,
    TrialResult,
    write_best,
    write_csv,
)
from denoisecli.tuning.worker import TrialTrainer, run_trials

BEST, TABLE, PICTURE = "best.json", "trials.csv", "trials.png"
TRIALS = "trials"


def tune(
    spec: Spec,
    data: Path,
    folder: Path,
    observer: SearchObserver,
    *,
    method: Method = Method.BAYESIAN,
    trials: int = 20,
    epochs: int | None = None,
    minutes: float | None = None,
    fresh: bool = False,
    device: Device = Device.AUTO,
    chief: str | None = None,
    worker: str | None = None,
) -> list[TrialResult]:
    """Train a spec with other values of its searched fields and record which are best.

    The same call resumes a search that was interrupted in whatever way; more trials or minutes
    extend it. Several processes share a search if one is the chief, which hands out trials, and
    the others are its workers, which train them; they make the same call and share ``data`` and
    ``folder``.

    Args:
        spec: Spec with a `search` section.
        data: Folder of the dataset; its test set is not used.
        folder: Folder of the search; best.json, trials.csv and trials.png are written there.
        observer: Receives the progress.
        method: Method of choosing values.
        trials: Number of trials to train; infeasible ones do not count.
        epochs: Number of epochs of a trial, of the longest one with Hyperband (default: that of
            the spec).
        minutes: Time limit of the search; trials that run then are resumed by another call.
        fresh: Delete what an earlier call left in ``folder``.
        device: Device to train on.
        chief: HOST:PORT to listen on as the chief.
        worker: HOST:PORT of the chief to work for.

    Returns:
        All trials, in the order in which they started; none for a worker.

    Raises:
        UsageError: The spec has no `search` section, needs a model to start from or a package that
            is missing, or searches the number of epochs although ``epochs`` or Hyperband sets it;
            the folder holds another search, or ``chief`` cannot be
            listened on.
        DatasetError: The dataset cannot be used.
        DenoiseError: No trial completed, or the chief does not answer.
        Interrupted: By Ctrl-C; the same call resumes the search.
    """
    if spec.search is None:
        raise UsageError(
            f"the spec {spec.name!r} has no `search` section, which says what to search"
        )
    if any(fnmatchcase("training.epochs", path) for path in spec.search.space):
        _check_that_epochs_can_be_searched(method, epochs)
    check_spec(spec, has_start=False)
    if chief is not None and worker is not None:
        raise UsageError("a process is either the chief or a worker; give one address")
    about = {
        "spec": comparable_spec(spec),
        "dataset": open_batches(data, spec).dataset_id,
        "method": str(method),
        "epochs": epochs,
    }
    trainer = TrialTrainer(spec, data, folder / TRIALS, find_devices(device), observer, epochs)
    name = f"worker-{uuid.uuid4().hex[:8]}"
    if worker is not None:
        _work_for(worker, name, trainer, about)
        return []
    with locked(folder):
        if fresh:
            (folder / STATE).unlink(missing_ok=True)
            shutil.rmtree(folder / TRIALS, ignore_errors=True)
        check_same_search(folder, about)
        oracle = Oracle(spec, method, trials=trials, epochs=epochs or spec.training.epochs)
        scheduler = Scheduler(folder, oracle, observer, about=about, trials=trials, minutes=minutes)
        scheduler.save()
        if scheduler.results:
            observer.on_message(f"resuming after {len(scheduler.results)} trials")
        try:
            if chief is None:
                run_trials(scheduler, name, trainer.train)
            else:
                observer.on_message(f"waiting for workers on {chief}")
                serve(scheduler, chief)
        finally:
            write_csv(scheduler.results, spec.search, folder / TABLE)
        write_best(spec, scheduler.results, folder / BEST)
        plot_trials(scheduler.results, spec.search, folder / PICTURE)
    return scheduler.results


def _check_that_epochs_can_be_searched(method: Method, epochs: int | None) -> None:
    """Raise UsageError if something else sets `training.epochs`, which the spec searches."""
    if method == Method.HYPERBAND:
        raise UsageError(
            "hyperband itself decides how long a trial is trained; remove training.epochs from "
            "search.space, or use another method"
        )
    if epochs is not None:
        raise UsageError(
            "the spec searches training.epochs, so --epochs cannot set it; leave out one of the two"
        )


def _work_for(chief: str, name: str, trainer: TrialTrainer, about: dict[str, Any]) -> None:
    """Train trials of a chief that has made the folder of the search.

    Raises:
        UsageError: The folder is not that of the chief's search.
        DenoiseError: The chief does not answer.
    """
    folder = trainer.folder.parent
    with closing(RemoteScheduler(chief, trainer.observer)) as remote:
        remote.heartbeat(name)  # waits until the chief is there
        if not (folder / STATE).exists():
            raise UsageError(
                f"a worker needs the folder of its chief; there is no search in {folder}"
            )
        check_same_search(folder, about)
        run_trials(remote, name, trainer.train)
