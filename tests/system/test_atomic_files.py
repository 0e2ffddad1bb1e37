from pathlib import Path

import pytest

from denoisecli.errors import DenoiseError
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
