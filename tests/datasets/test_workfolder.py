import json
from pathlib import Path
from typing import Any

import pytest

from denoisecli.datasets.recipe import Recipe
from denoisecli.datasets.recordings import FoundFile
from denoisecli.datasets.workfolder import BuildRequest, move_into_place, work_folder
from denoisecli.errors import DatasetError, DenoiseError, UsageError

RECIPE = Recipe(ratio=0.2, split=(0.8, 0.1, 0.1))
FILES = tuple(FoundFile("clean", f"{number}.wav", 100, 5) for number in range(3))


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "data"


def request(**changes: Any) -> BuildRequest:
    return BuildRequest(**{"folders": {"clean": "/a"}, "recipe": RECIPE, "files": FILES, **changes})


def test_what_is_done_stays_unless_it_cannot_be_finished(output: Path) -> None:
    for error in (KeyboardInterrupt, DenoiseError):
        with pytest.raises(error), work_folder(request(), output, resume=False) as work:
            (work / "done").touch()
            raise error
        with pytest.raises(error), work_folder(request(), output, resume=True) as work:
            assert (work / "done").exists()
            raise error
    with pytest.raises(KeyboardInterrupt), work_folder(request(), output, resume=False) as work:
        assert not (work / "done").exists()
        raise KeyboardInterrupt
    with pytest.raises(DatasetError), work_folder(request(), output, resume=True):
        raise DatasetError
    assert list(output.iterdir()) == []
    output.rmdir()
    with work_folder(request(), output, resume=True) as work:
        assert BuildRequest.model_validate_json((work / "request.json").read_text()) == request()
    assert not output.exists()


def test_a_build_that_ended_before_its_request_was_written_begins_anew(
    output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write_half(path: Path, text: str, **_: str) -> None:
        path.write_bytes(text[: len(text) // 2].encode())
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Path, "write_text", write_half)
        with work_folder(request(), output, resume=False):
            pass
    with work_folder(request(), output, resume=True) as work:
        assert (work / "request.json").exists()


def test_one_at_a_time(output: Path) -> None:
    with work_folder(request(), output, resume=False) as work:
        (work / "done").touch()
        for resume in (True, False):
            with (
                pytest.raises(UsageError, match="another process is building"),
                work_folder(request(), output, resume=resume),
            ):
                pass
        assert (work / "done").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"recipe": Recipe(ratio=0.3, split=(0.8, 0.1, 0.1))},
            r"another recipe: ratio was 0\.2 and is 0\.3\. Repeat",
        ),
        ({"recipe": Recipe(ratio=0.2, segment=4.0)}, r"segment was None and is 4\.0"),
        ({"folders": {"noise": "/x"}}, "other folders of recordings: .*noise was None and is /x"),
        (
            {"files": (FoundFile("clean", "0.wav", 100, 6), *FILES[1:])},
            r"clean file 0\.wav was added, removed or modified",
        ),
        ({"files": FILES[:2]}, r"2\.wav was added, removed or modified"),
        ({"denoise_version": "0.0"}, "was started by denoise"),
    ],
    ids=["ratio", "segment", "folder", "modified file", "missing file", "version"],
)
def test_only_the_same_request_is_resumed(
    output: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(KeyboardInterrupt), work_folder(request(), output, resume=False):
        raise KeyboardInterrupt
    with (
        pytest.raises(UsageError, match=message),
        work_folder(request(**changes), output, resume=True),
    ):
        pass
    with work_folder(request(), output, resume=True):  # what was refused has changed nothing
        pass


def test_a_build_of_an_earlier_version_is_refused(output: Path) -> None:
    (output / ".build").mkdir(parents=True)
    (output / ".build" / "plan.json").write_text(json.dumps({"recipe": {}}))
    with (
        pytest.raises(UsageError, match="earlier version of denoise; to start over"),
        work_folder(request(), output, resume=True),
    ):
        pass
    assert (output / ".build" / "plan.json").exists()
    with work_folder(request(), output, resume=False) as work:
        assert not (work / "plan.json").exists()


def test_moving_continues_where_it_was_killed(output: Path) -> None:
    work = output / ".build"
    for name in ("train", "test"):
        (work / "sets" / name).mkdir(parents=True)
        (work / "sets" / name / "new").touch()
        (output / f"my {name}").mkdir(parents=True)
        (output / f"my {name}" / "old").touch()
    (output / "dataset.json").write_text("old")
    (work / "dataset.json").write_text("new")
    # As after the first two of its moves.
    (work / "old").mkdir()
    (output / "dataset.json").replace(work / "old" / "dataset.json")
    (output / "my train").replace(work / "old" / "my train")
    move_into_place(work, output, {"train": "my train", "test": "my test"})
    assert (output / "dataset.json").read_text() == "new"
    for name in ("train", "test"):
        assert [path.name for path in (output / f"my {name}").iterdir()] == ["new"]
    move_into_place(work, output, {"train": "my train", "test": "my test"})
