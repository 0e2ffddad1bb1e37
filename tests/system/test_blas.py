import os
import subprocess
import sys

import pytest

from denoisecli.system.blas import one_thread_in_children, use_one_thread
from denoisecli.system.pools import processes

VARIABLE = "OPENBLAS_NUM_THREADS"


def setting(_: object) -> str | None:
    return os.environ.get(VARIABLE)


def test_the_number_of_the_user_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "3")
    use_one_thread()
    with one_thread_in_children():
        assert setting(None) == "3"
    assert setting(None) == "3"


def test_workers_use_one_thread_and_their_parent_as_many_as_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    with processes(2) as workers:
        assert list(workers.map(setting, range(3))) == ["1"] * 3
    assert setting(None) is None


def test_the_program_decides_before_numpy_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    script = """
import os, sys
from denoisecli import cli
assert "numpy" not in sys.modules
sys.argv = ["denoise", "--version"]
try:
    cli.main()
finally:
    print(os.environ["OPENBLAS_NUM_THREADS"])
"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert result.stdout.splitlines()[-1] == "1", result.stderr
