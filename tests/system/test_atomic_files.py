import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from denoisecli.errors import DenoiseError, StorageError, UsageError
from denoisecli.system import atomic_files
from denoisecli.system.atomic_files import replacing


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_a_folder_that_is_not_replaced_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    target = tmp_path / "model"
    target.mkdir()
    (target / "old").touch()
    rename = Path.replace

    def interrupted(self: Path, other: Path) -> Path:
        if self.stem == "part":
            raise error
        return rename(self, other)

    monkeypatch.setattr(Path, "replace", interrupted)
    with pytest.raises((error, DenoiseError)), replacing(target, overwrite=True) as part:
        part.mkdir()
    assert [path.name for path in tmp_path.rglob("*")] == ["model", "old"]


def test_a_folder_is_replaced_by_a_folder(tmp_path: Path) -> None:
    target = tmp_path / "model"
    target.mkdir()
    (target / "old").touch()
    with replacing(target, overwrite=True) as part:
        part.mkdir()
        (part / "new").touch()
    assert [path.name for path in tmp_path.rglob("*")] == ["model", "new"]


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o666])
def test_a_file_keeps_its_permissions(tmp_path: Path, mode: int) -> None:
    target = tmp_path / "x"
    target.touch()
    target.chmod(mode)
    with replacing(target, overwrite=True) as part:
        part.write_text("new")
    assert target.read_text() == "new"
    assert target.stat().st_mode & 0o777 == mode


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has other permissions")
@pytest.mark.parametrize(
    ("mode", "expected"), [(0o600, 0o600), (0o640, 0o640), (0o777, 0o644), (0o444, 0o644)]
)
def test_a_new_file_is_as_private_as_its_source(tmp_path: Path, mode: int, expected: int) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.touch()
    source.chmod(mode)
    before = os.umask(0o022)
    try:
        with replacing(target, source=source) as part:
            part.write_text("new")
    finally:
        os.umask(before)
    assert target.stat().st_mode & 0o777 == expected


def test_a_failure_leaves_no_new_folders(tmp_path: Path) -> None:
    with pytest.raises(ValueError), replacing(tmp_path / "a" / "b" / "c" / "x"):
        raise ValueError
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "a").mkdir()
    with pytest.raises(DenoiseError), replacing(tmp_path / "a" / "b" / ("x" * 300) / "x"):
        pass
    assert [path.name for path in tmp_path.rglob("*")] == ["a"]
    with replacing(tmp_path / "a" / "b" / "c" / "x") as part:
        part.touch()
    assert (tmp_path / "a" / "b" / "c" / "x").is_file()


@pytest.mark.parametrize("kind", [errno.ENOSPC, errno.EACCES])
def test_a_target_that_cannot_be_written_is_named(tmp_path: Path, kind: int) -> None:
    with (
        pytest.raises(StorageError, match=rf"cannot write .*out\.wav: {os.strerror(kind)}"),
        replacing(tmp_path / "out.wav") as part,
    ):
        raise OSError(kind, os.strerror(kind), str(part))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("exists", [True, False])
def test_a_link_stays_and_its_target_is_written(tmp_path: Path, exists: bool) -> None:
    (tmp_path / "elsewhere").mkdir()
    real, link = tmp_path / "elsewhere" / "x", tmp_path / "link"
    if exists:
        real.write_text("old")
        real.chmod(0o600)
    link.symlink_to(real)
    with pytest.raises(UsageError, match="already exists"), replacing(link):
        pass
    with replacing(link, overwrite=True) as part:
        part.write_text("new")
    assert link.is_symlink()
    assert real.read_text() == "new"
    assert not exists or real.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.rglob("*") if path.name not in ("x", "link")] == [
        "elsewhere"
    ]


WRITE = """
import sys
from pathlib import Path
from denoisecli.system.atomic_files import replacing
with replacing(Path(sys.argv[1])) as part:
    part.write_text("half")
    print("begun", flush=True)
    sys.stdin.read()
"""


def test_what_a_killed_process_left_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "talk.wav"
    unrelated = tmp_path / ".other.denoise-part"
    unrelated.mkdir()

    def write_anew() -> set[str]:
        atomic_files._swept.clear()
        with replacing(tmp_path / "other.wav", overwrite=True) as part:
            part.write_text("whole")
        return {path.name for path in tmp_path.iterdir()} - {"other.wav", unrelated.name}

    monkeypatch.setattr(atomic_files, "_NEW_SECONDS", 0.0)
    with subprocess.Popen(
        [sys.executable, "-c", WRITE, target], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"begun\n"
        (folder,) = write_anew()  # it is still being written
        assert folder.startswith(".talk.")
        process.kill()
    assert write_anew() == set()
    assert unrelated.exists()
    assert not target.exists()
