import copy
import pickle
import pkgutil
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

import denoisecli
import denoisecli.models
from denoisecli.errors import DenoiseError, Interrupted, join_names
from denoisecli.serving.answers import Refused


def test_long_lists_of_names_are_shortened():
    assert join_names(["b", "a"]) == "b, a"
    assert join_names([str(i) for i in range(12)]) == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2 more"


def _subclasses(base: type[DenoiseError]) -> Iterator[type[DenoiseError]]:
    for kind in base.__subclasses__():
        yield kind
        yield from _subclasses(kind)


def _all_errors() -> list[type[DenoiseError]]:
    """Return the classes of all modules that define one; the others need not be imported."""
    defines = re.compile(r"^class \w+\(\w*(Error|Interrupted|Refused|Cancelled|Died)\):", re.M)
    for package in (denoisecli, denoisecli.models):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            spec = module.module_finder.find_spec(module.name, None)
            if (
                spec
                and spec.origin
                and defines.search(Path(spec.origin).read_text(encoding="utf-8"))
            ):
                import_module(module.name)
    return [DenoiseError, *_subclasses(DenoiseError)]


def test_all_errors_can_be_sent_by_a_worker_process():
    """One that cannot be unpickled breaks the pool of the process."""
    kinds = _all_errors()
    assert {"Cancelled", "Refused", "SpecError", "WorkerDied"} < {kind.__name__ for kind in kinds}
    for kind in kinds:
        error = kind.__new__(kind, "a sentence")  # as it is after any __init__
        received = pickle.loads(pickle.dumps(error))
        assert (type(received), str(received)) == (kind, "a sentence")


@pytest.mark.parametrize("send", [copy.copy, lambda error: pickle.loads(pickle.dumps(error))])
def test_errors_keep_their_attributes_on_their_way(send):
    refused = send(Refused(503, "too many", {"Retry-After": "5"}))
    assert (str(refused), refused.status) == ("too many", 503)
    assert refused.headers == {"Retry-After": "5"}
    assert send(Interrupted("stopped", 143)).exit_code == 143
