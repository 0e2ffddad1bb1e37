"""Share a search between machines: a chief serves its scheduler, workers call its methods.

The calls are JSON over gRPC, which KerasTuner depends on.
"""

import time
from typing import Any

import grpc
from pydantic import TypeAdapter

from denoisecli.errors import DenoiseError, UsageError
from denoisecli.tuning.scheduler import Scheduler
from denoisecli.tuning.trials import NoTrial, Proposal, SearchObserver, Status, TrialResult

SERVICE = "denoise.Search"

METHODS: dict[str, tuple[TypeAdapter[Any], TypeAdapter[Any]]] = {
    "next_trial": (TypeAdapter(tuple[str]), TypeAdapter(tuple[Proposal | NoTrial])),
    "heartbeat": (TypeAdapter(tuple[str]), TypeAdapter(tuple[bool])),
    "report": (TypeAdapter(tuple[str, TrialResult]), TypeAdapter(tuple[None])),
    "release": (TypeAdapter(tuple[str]), TypeAdapter(tuple[None])),
}
"""Methods of `Scheduler` that workers call: the types of their arguments and of their results.

The results are tuples of one, because gRPC takes None for a failure.
"""

CHIEF_SECONDS = 300.0
"""Time that a worker waits for a chief that does not answer: it may still be starting."""

CHECK_SECONDS = 0.5
"""Time between two checks of a chief for workers that are lost and for the end of the search."""

GRACE_SECONDS = 2.0
"""Time for the last answers of a chief to arrive."""


def serve(scheduler: Scheduler, address: str) -> None:
    """Hand out trials over the network until the search is over and all workers have left.

    Args:
        scheduler: Scheduler that hands out trials.
        address: HOST:PORT to listen on. Whoever can reach it can take part in the search.

    Raises:
        UsageError: The address cannot be listened on.
    """
    from concurrent.futures import ThreadPoolExecutor

    handlers = {
        name: grpc.unary_unary_rpc_method_handler(
            lambda arguments, context, name=name: (getattr(scheduler, name)(*arguments),),
            request_deserializer=arguments.validate_json,
            response_serializer=result.dump_json,
        )
        for name, (arguments, result) in METHODS.items()
    }
    # Without the option, several processes could listen on the same port.
    server = grpc.server(ThreadPoolExecutor(4), options=[("grpc.so_reuseport", 0)])
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(SERVICE, handlers)])
    try:
        server.add_insecure_port(address)
    except RuntimeError as error:
        raise UsageError(f"cannot listen on {address}: is the port in use?") from error
    server.start()
    try:
        while not scheduler.is_over:
            time.sleep(CHECK_SECONDS)
            scheduler.drop_lost_workers()
    finally:
        server.stop(GRACE_SECONDS).wait()


class RemoteScheduler:
    """Call the scheduler of a chief; the table holds the trials of this worker alone.

    Args:
        address: HOST:PORT of the chief.
        observer: Receives the table whenever a trial starts or ends.
    """

    def __init__(self, address: str, observer: SearchObserver):
        self.address, self.observer = address, observer
        self.table: dict[str, TrialResult] = {}
        self._channel = grpc.insecure_channel(address)

    def next_trial(self, worker: str) -> Proposal | NoTrial:
        """Return a trial to train."""
        trial: Proposal | NoTrial = self._call("next_trial", worker)
        if isinstance(trial, Proposal):
            self._record(TrialResult(trial.name, Status.RUNNING, trial.values))
        return trial

    def heartbeat(self, worker: str) -> bool:
        """Record that a worker is alive; return whether it may continue its trial."""
        return bool(self._call("heartbeat", worker))

    def report(self, worker: str, result: TrialResult) -> None:
        """Record a finished trial."""
        self._call("report", worker, result)
        self._record(result)

    def release(self, worker: str) -> None:
        """Take back the trial of a worker that leaves."""
        self._call("release", worker)

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()

    def _record(self, result: TrialResult) -> None:
        self.table[result.name] = result
        self.observer.on_results(list(self.table.values()))

    def _call(self, method: str, *arguments: Any) -> Any:
        """Call a method of the scheduler.

        Raises:
            DenoiseError: The chief does not answer, or failed.
        """
        request, result = METHODS[method]
        call = self._channel.unary_unary(
            f"/{SERVICE}/{method}",
            request_serializer=request.dump_json,
            response_deserializer=result.validate_json,
        )
        try:
            return call(arguments, timeout=CHIEF_SECONDS, wait_for_ready=True)[0]
        except grpc.RpcError as error:
            if error.code() == grpc.StatusCode.UNKNOWN:
                raise DenoiseError(
                    f"the chief at {self.address} failed: {error.details()}"
                ) from error
            raise DenoiseError(f"no chief answers at {self.address}") from error
