import subprocess
import sys
from pathlib import Path

import pytest

from denoisecli.errors import UsageError
from denoisecli.system.locks import exclusive, is_locked

HOLD = """
import sys
from pathlib import Path
from denoisecli.system.locks import exclusive
with exclusive(Path(sys.argv[1]), "in use"):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_one_holder_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    assert not is_locked(path)
    assert not path.exists()
    with exclusive(path, "in use"):
        assert is_locked(path)
        with pytest.raises(UsageError, match="in use"), exclusive(path, "in use"):
            pass
        assert is_locked(path)
    assert not is_locked(path)
    assert not path.exists()


def test_a_killed_process_does_not_keep_its_lock(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        assert is_locked(path)
        process.kill()
    assert path.exists()
    assert not is_locked(path)
    with exclusive(path, "in use"):
        assert is_locked(path)
