"""Search the fields of a spec for what trains best: a folder that can be gone on from."""

import json
import os
import shutil
import socket
import threading
import time
import uuid
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from denoisecli.errors import DenoiseError, SpecError, UsageError
from denoisecli.spec.document import Spec, parse_spec
from denoisecli.training.batches import open_batches
from denoisecli.training.devices import Device, find_devices
from denoisecli.training.observer import Interrupted
from denoisecli.training.progress import differences
from denoisecli.training.run_folder import CHECKPOINT, locked
from denoisecli.tuning.trial_plot import plot_trials
from denoisecli.tuning.trials import SearchObserver, TrialResult, write_best, write_csv

Method = Literal["bayesian", "hyperband", "random"]

BEST, TABLE, PICTURE = "best.json", "trials.csv", "trials.png"

CHIEF_SECONDS = 300.0
"""How long a worker waits for a chief to be there: both may be started at the same time."""

FAREWELL_SECONDS = 2.0
"""How long a chief stays when all is done: its last answers are on their way."""


def tune(
    spec: Spec,
    data: Path,
    folder: Path,
    observer: SearchObserver,
    *,
    method: Method = "bayesian",
    trials: int = 20,
    epochs: int | None = None,
    minutes: float | None = None,
    fresh: bool = False,
    device: Device = "auto",
    chief: str | None = None,
    worker: str | None = None,
) -> list[TrialResult]:
    """Train a spec with other values in it, again and again, and keep account.

    The same call goes on after a stop, however that came; with other budgets it adds to what is
    there. Several processes search together when one is the chief, who chooses, and the others
    are its workers, who train; they make the same call and share ``data`` and ``folder``. Without
    ``chief`` and ``worker``, KerasTuner's environment variables say who is what.

    Args:
        spec: with a `search` section.
        data: folder with the stored dataset; its test set is not looked at.
        folder: of the search; gets best.json, trials.csv and trials.png.
        observer: is told how it goes.
        method: a Gaussian process (Bayesian optimization), successive halving (Hyperband; Li et
            al. 2018) or chance.
        trials: how many to train; infeasible ones do not count.
        epochs: of a trial, or of the longest with Hyperband; None: those of the spec.
        minutes: for all of the search; what runs then is left for another call.
        fresh: throw away what an earlier call left in ``folder``.
        device: where to train.
        chief: HOST:PORT to listen at.
        worker: HOST:PORT of the chief.

    Returns:
        All trials, in the order of their beginnings; of a worker, none.

    Raises:
        UsageError: the spec has no `search` section, KerasTuner is not installed, the folder is of
            another search, or an address is wrong.
        DatasetError: the data cannot be used.
        DenoiseError: no trial has come to a figure, or the chief is gone.
        Interrupted: by Ctrl-C; all is kept.
    """
    if spec.search is None:
        raise UsageError(f"the spec {spec.name!r} has no search section: nothing is to be tried")
    if find_spec("keras_tuner") is None:
        raise UsageError("a search needs KerasTuner: pip install 'denoisecli[tune]'")
    import keras_tuner

    from denoisecli.tuning.hypermodel import SpecHyperModel
    from denoisecli.tuning.oracles import STATE, TRIALS, make_oracle
    from denoisecli.tuning.tuner import SearchTuner, results_of

    about = {
        "spec": _comparable(spec),
        "dataset": open_batches(data, spec).dataset_id,
        "method": method,
        "epochs": epochs,
    }
    hypermodel = SpecHyperModel(spec, data, find_devices(device), epochs)
    space = keras_tuner.HyperParameters()
    hypermodel.declare_hyperparameters(space)
    oracle = make_oracle(
        method,
        keras_tuner.Objective(spec.search.objective, spec.search.direction),
        space,
        folder=folder,
        trials=trials,
        minutes=minutes,
        epochs=epochs or spec.training.epochs,
        seed=spec.training.seed,
        first=hypermodel.own_values(),
        about=about,
        changed=lambda: observer.trials(results_of(oracle, hypermodel)),
    )
    with _cluster(chief, worker) as (role, address), warnings.catch_warnings():
        # Keras does not know how long the datasets are, and takes their ends for a mistake.
        warnings.filterwarnings("ignore", "Your input ran out of data")
        warnings.filterwarnings("ignore", module="sklearn")  # how its Gaussian process converges
        if role == "worker":
            _wait_for(address)
            _check_same(folder / STATE, about, needed=True)
            _search(SearchTuner(oracle, hypermodel, observer), address)
            return []
        with locked(folder):
            if fresh:
                (folder / STATE).unlink(missing_ok=True)
                shutil.rmtree(folder / TRIALS, ignore_errors=True)
            _check_same(folder / STATE, about)
            oracle.begin()
            oracle.save()
            if oracle.trials:
                observer.on_message(f"going on after {len(oracle.trials)} trials")
            tuner = SearchTuner(oracle, hypermodel, observer)
            try:
                if role == "chief":
                    observer.on_message(f"waiting for workers at {address}")
                    _serve(tuner, address)
                else:
                    _search(tuner)
            finally:
                results = results_of(oracle, hypermodel)
                write_csv(results, spec.search, folder / TABLE)
            write_best(spec, results, folder / BEST)
            plot_trials(results, spec.search, folder / PICTURE)
            for checkpoint in (folder / TRIALS).glob(f"*/{CHECKPOINT}"):
                if checkpoint.parent.name.removeprefix("trial_") not in oracle.abandoned:
                    checkpoint.unlink()  # which Hyperband might have needed
    return results


def _search(tuner: Any, chief: str | None = None) -> None:
    """Run trials until there are no more."""
    import grpc

    from denoisecli.tuning.hypermodel import Stopped

    try:
        tuner.search()
    except Stopped as error:
        if not isinstance(error.__cause__, Interrupted):  # time is up
            tuner.oracle.create_trial(tuner.tuner_id)  # which takes the trial back
            return
        if chief is None:
            tuner.oracle.give_back(tuner.tuner_id)
        raise error.__cause__ from None
    except grpc.RpcError as error:
        raise DenoiseError(f"the chief at {chief} is gone") from error


def _serve(tuner: Any, address: str) -> None:
    """Be the chief: give out trials until all are done and all workers have left."""
    host, _, port = address.rpartition(":")
    try:  # KerasTuner's server would share the port with another one
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, int(port)))
    except (OSError, OverflowError) as error:
        raise UsageError(f"cannot listen at {address}: {error}") from error
    failures: list[BaseException] = []

    def serve() -> None:
        try:
            tuner.search()
        except BaseException as error:
            failures.append(error)

    # KerasTuner's loop would wait for ever for a worker that has died.
    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    while thread.is_alive() and not tuner.oracle.is_over:
        thread.join(1.0)
        tuner.oracle.drop_lost_workers()
    if failures:
        raise failures[0]
    time.sleep(FAREWELL_SECONDS)


def _wait_for(address: str) -> None:
    import grpc

    with grpc.insecure_channel(address) as channel:
        try:
            grpc.channel_ready_future(channel).result(timeout=CHIEF_SECONDS)
        except grpc.FutureTimeoutError as error:
            raise DenoiseError(f"no chief answers at {address}") from error


def _check_same(state: Path, about: dict[str, Any], *, needed: bool = False) -> None:
    """Refuse to go on with another search than the one in this folder."""
    if not state.exists():
        if needed:
            raise UsageError(f"there is no {state}: a worker needs the folder of its chief")
        return
    try:
        before = json.loads(state.read_text(encoding="utf-8"))["about"]
        spec = parse_spec(before["spec"])  # an earlier version knew fewer keys
    except (OSError, ValueError, KeyError, TypeError, SpecError) as error:
        raise DenoiseError(
            f"{state} is damaged, or of another version; --fresh starts over"
        ) from error
    changed = differences(before | {"spec": _comparable(spec)}, about)
    if changed:
        raise UsageError(
            f"{state} is of another search; these differ: {', '.join(changed)}; "
            "--fresh starts over, --run gives another folder"
        )


def _comparable(spec: Spec) -> dict[str, Any]:
    return spec.model_dump(mode="json", exclude={"description"})


@contextmanager
def _cluster(
    chief: str | None, worker: str | None
) -> Iterator[tuple[Literal["chief", "worker", "alone"], str]]:
    """Tell KerasTuner by its environment variables who is what; without options they stand.

    Raises:
        UsageError: an address is not HOST:PORT, or both are given.
    """
    if chief and worker:
        raise UsageError("a process is the chief or a worker, not both")
    before = dict(os.environ)
    address = chief or worker
    if address:
        host, _, port = address.rpartition(":")
        if not host or not port.isdigit():
            raise UsageError(f"the chief's address is HOST:PORT, found {address!r}")
        os.environ |= {"KERASTUNER_ORACLE_IP": host, "KERASTUNER_ORACLE_PORT": port}
        name = before.get("KERASTUNER_TUNER_ID", "chief")
        if chief:
            os.environ["KERASTUNER_TUNER_ID"] = "chief"
        elif "chief" in name:
            os.environ["KERASTUNER_TUNER_ID"] = f"worker-{uuid.uuid4().hex[:8]}"
    try:
        if "KERASTUNER_ORACLE_IP" not in os.environ:
            yield "alone", ""
            return
        names = ("KERASTUNER_ORACLE_IP", "KERASTUNER_ORACLE_PORT", "KERASTUNER_TUNER_ID")
        for name in names:
            if name not in os.environ:
                raise UsageError(f"KERASTUNER_ORACLE_IP is set, but {name} is not")
        host, port, name = (os.environ[name] for name in names)
        yield ("chief" if "chief" in name else "worker"), f"{host}:{port}"
    finally:
        for name in set(os.environ) - set(before):
            del os.environ[name]
        os.environ.update(before)
