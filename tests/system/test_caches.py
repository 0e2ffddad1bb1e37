import os
from pathlib import Path

import pytest

from denoisecli.system.caches import prepare_caches


@pytest.fixture(autouse=True)
def no_folders(monkeypatch: pytest.MonkeyPatch) -> None:
    """Restore the environment after each test, and begin without the variables."""
    for name in ("NUMBA_CACHE_DIR", "MPLCONFIGDIR", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


def test_the_cache_is_in_the_folder_of_the_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    prepare_caches()
    assert os.environ["NUMBA_CACHE_DIR"] == str(tmp_path / ".cache" / "denoise" / "numba")
    assert "MPLCONFIGDIR" not in os.environ  # matplotlib has a folder there itself


def test_without_a_home_the_caches_are_temporary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a container: nothing that is installed or at home can be written to."""
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HOME", str(tmp_path / "file"))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    prepare_caches()
    numba, matplotlib = os.environ["NUMBA_CACHE_DIR"], os.environ["MPLCONFIGDIR"]
    assert Path(numba).parent == Path(matplotlib)
    assert Path(matplotlib).parent == tmp_path
    monkeypatch.setenv("NUMBA_CACHE_DIR", "chosen")
    prepare_caches()
    assert os.environ["NUMBA_CACHE_DIR"] == "chosen"
