import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import grpc
import pytest
from helpers import TINY_SPEC

from denoisecli.errors import DenoiseError, UsageError
from denoisecli.spec.document import parse_spec
from denoisecli.tuning import cluster, scheduler, worker
from denoisecli.tuning.cluster import RemoteScheduler, serve
from denoisecli.tuning.method import Method
from denoisecli.tuning.oracle import Oracle
from denoisecli.tuning.scheduler import Scheduler
from denoisecli.tuning.trials import NoTrial, Proposal, Status, TrialResult
from denoisecli.tuning.worker import run_trials

SPACE = {
    "training.learning_rate": {"kind": "float", "min": 0.001, "max": 0.01, "log": True},
    "features.channels": {"kind": "choice", "values": [["real", "imaginary"], ["magnitude"]]},
}
SPEC = parse_spec(TINY_SPEC | {"search": {"space": SPACE}})


class Recorder:
    results: Sequence[TrialResult] = ()

    def on_message(self, text: str) -> None: ...

    def on_progress(self, trial: str, text: str) -> None: ...

    def on_results(self, results: Sequence[TrialResult]) -> None:
        self.results = results


def free_address() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "CHECK_SECONDS", 0.02)
    monkeypatch.setattr(cluster, "CHIEF_SECONDS", 30.0)
    monkeypatch.setattr(worker, "WAIT_SECONDS", 0.02)
    monkeypatch.setattr(worker, "HEARTBEAT_SECONDS", 0.05)
    monkeypatch.setattr(scheduler, "LOST_SECONDS", 0.5)


@pytest.fixture
def chief(quick: None, tmp_path: Path) -> Iterator[tuple[Scheduler, str]]:
    """A scheduler that is served in a thread, and its address."""
    oracle = Oracle(SPEC, Method.RANDOM, trials=5, epochs=1)
    served = Scheduler(tmp_path, oracle, Recorder(), about={}, trials=5)
    address = free_address()
    thread = threading.Thread(target=serve, args=(served, address))
    thread.start()
    yield served, address
    served.limit = 0.0  # if the test failed in between
    served.release("lost")
    thread.join(30)
    assert not thread.is_alive()


Remote = Callable[[], RemoteScheduler]


@pytest.fixture
def remote(chief: tuple[Scheduler, str]) -> Iterator[Remote]:
    opened: list[RemoteScheduler] = []

    def open_one() -> RemoteScheduler:
        opened.append(RemoteScheduler(chief[1], Recorder()))
        return opened[-1]

    yield open_one
    for one in opened:
        one.close()


def completed(proposal: Proposal, stop: threading.Event) -> TrialResult:
    return TrialResult(
        proposal.name,
        Status.COMPLETED,
        proposal.values,
        objective=float(proposal.name),
        metrics={"val_loss": 0.1},
        epochs=1,
        macs=1e20,
        parameters=2**40,
        seconds=0.1,
        message="ä",
    )


def test_workers_one_of_whom_is_lost(chief: tuple[Scheduler, str], remote: Remote) -> None:
    served, _ = chief
    lost = remote().next_trial("lost")
    assert isinstance(lost, Proposal)
    assert lost.values == served.results[0].values
    first, second = remote(), remote()
    threads = [
        threading.Thread(target=run_trials, args=(source, name, completed))
        for source, name in ((first, "first"), (second, "second"))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert served.is_over
    assert [result.status for result in served.results] == ["completed"] * 5
    assert sorted(served._attempts.values()) == [1, 1, 1, 1, 2]
    assert served._attempts[lost.name] == 2
    assert served.results[0] == completed(lost, threading.Event())
    # Each worker shows its own trials.
    shown = [*first.table, *second.table]
    assert sorted(shown) == [f"{number:04}" for number in range(5)]
    for source in (first, second):
        assert isinstance(source.observer, Recorder)
        assert list(source.observer.results) == list(source.table.values())


def test_what_a_worker_is_told(chief: tuple[Scheduler, str], remote: Remote) -> None:
    served, _ = chief
    mine = remote()
    assert mine.heartbeat("me")
    proposal = mine.next_trial("me")
    mine.release("me")
    assert served.results[0].status == Status.WAITING
    assert mine.next_trial("me") == proposal
    with pytest.raises(DenoiseError, match=r"the chief at 127.0.0.1:\d+ failed: .*9999"):
        mine.report("me", TrialResult("9999", Status.COMPLETED, {}))
    served.limit = 0.0
    assert not mine.heartbeat("me")
    assert mine.next_trial("me") == NoTrial.DONE


def test_garbage_is_refused(chief: tuple[Scheduler, str]) -> None:
    with grpc.insecure_channel(chief[1]) as channel:
        call: Any = channel.unary_unary(f"/{cluster.SERVICE}/report")
        for message in (b"", b"[]", b'["me", {}]', b"\x80\x04K\x01."):
            with pytest.raises(grpc.RpcError):
                call(message, timeout=30, wait_for_ready=True)
    assert chief[0].results == []
    chief[0]._closing = True


def test_an_address_that_is_taken(tmp_path: Path) -> None:
    oracle = Oracle(SPEC, Method.RANDOM, trials=1, epochs=1)
    served = Scheduler(tmp_path, oracle, Recorder(), about={}, trials=1)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(UsageError, match=f"cannot listen on {address}"):
            serve(served, address)


def test_no_chief(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "CHIEF_SECONDS", 0.1)
    remote = RemoteScheduler("127.0.0.1:1", Recorder())
    with pytest.raises(DenoiseError, match=r"no chief answers at 127\.0\.0\.1:1$"):
        remote.heartbeat("me")
    remote.close()
