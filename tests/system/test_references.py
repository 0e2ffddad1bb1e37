from pathlib import Path

import pytest

from denoisecli.errors import UsageError
from denoisecli.system.references import load_reference


def test_objects_in_the_current_folder_and_in_packages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "inner_folder").mkdir()
    (tmp_path / "inner_folder" / "of_mine.py").write_text("class Small:\n    size = 3\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [])
    assert load_reference("inner_folder.of_mine:Small").size == 3
    assert load_reference("pathlib:Path") is Path


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("Small", "'Small' is not a reference to an object; expected module:name"),
        ("../mine:Small", "is not a reference to an object"),
        ("nowhere:Small", "there is no module nowhere in the current folder"),
        ("pathlib:Small", "has no Small"),
        ("broken_of_mine:Small", "broken_of_mine cannot be imported: NameError: name 'x' is not"),
        ("needy_of_mine:Small", "needy_of_mine cannot be imported: No module named 'missing_of"),
    ],
)
def test_what_cannot_be_loaded(
    reference: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_of_mine.py").write_text("x\n")
    (tmp_path / "needy_of_mine.py").write_text("import missing_of_mine\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*__import__("sys").path])
    with pytest.raises(UsageError, match=message):
        load_reference(reference)
