import json
from dataclasses import replace
from pathlib import Path

import pytest

from denoisecli.datasets.recipe import Recipe
from denoisecli.datasets.recordings import File
from denoisecli.datasets.workfolder import Plan, Rows, put_in_place, working
from denoisecli.errors import DatasetError, DenoiseError, UsageError


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    files = [File("clean", f"{number}.wav", 100, 5) for number in range(3)]
    recipe = Recipe(ratio=0.2, split=(0.8, 0.1, 0.1))
    return Plan(tmp_path / "data" / ".build", {"clean": tmp_path}, files, recipe)


def test_what_is_done_stays_unless_it_cannot_be_finished(plan: Plan) -> None:
    for error in (KeyboardInterrupt, DenoiseError):
        with pytest.raises(error), working(plan, resume=False):
            (plan.folder / "done").touch()
            raise error
        with pytest.raises(error), working(plan, resume=True):
            assert (plan.folder / "done").exists()
            raise error
    with pytest.raises(KeyboardInterrupt), working(plan, resume=False):
        assert not (plan.folder / "done").exists()
        raise KeyboardInterrupt
    with pytest.raises(DatasetError), working(plan, resume=True):
        raise DatasetError
    assert list(plan.folder.parent.iterdir()) == []
    plan.folder.parent.rmdir()
    with working(plan, resume=True):
        assert Plan.recipe_in(plan.folder) == plan.recipe
    assert not plan.folder.parent.exists()


def test_one_at_a_time(plan: Plan) -> None:
    with working(plan, resume=False):
        (plan.folder / "done").touch()
        for resume in (True, False):
            with pytest.raises(UsageError, match="another program"), working(plan, resume=resume):
                pass
        assert (plan.folder / "done").exists()


def test_goes_on_with_the_same_only(plan: Plan) -> None:
    plan.folder.mkdir(parents=True)
    plan.begin()
    plan.check_same()
    changed = replace(plan.files[0], mtime_ns=6)
    for other, message in (
        (
            replace(plan, recipe=Recipe(ratio=0.3, split=(0.8, 0.1, 0.1))),
            "ratio was 0.2 and is 0.3",
        ),
        (replace(plan, recipe=Recipe(ratio=0.2, segment=4.0)), "segment was None and is 4.0"),
        (replace(plan, roots={"noise": Path("/x")}), "noise was None and is /x"),
        (replace(plan, files=[changed, *plan.files[1:]]), r"0\.wav was added, removed or changed"),
        (replace(plan, files=plan.files[:2]), r"2\.wav was added, removed or changed"),
    ):
        assert other.token != plan.token
        with pytest.raises(UsageError, match=message):
            other.check_same()
        with pytest.raises(UsageError), working(other, resume=True):
            pass
    plan.check_same()  # what was refused has changed nothing
    facts = json.loads((plan.folder / "plan.json").read_text())
    (plan.folder / "plan.json").write_text(json.dumps({**facts, "denoise_version": "0.0"}))
    with pytest.raises(UsageError, match=r"begun by denoise 0\.0"):
        plan.check_same()


def test_rows(plan: Plan) -> None:
    plan.folder.mkdir(parents=True)
    plan.begin()
    rows = Rows(plan.folder, "train")
    assert list(rows) == []
    for number in range(12):
        rows.add(number, {"next": number})
    assert [part["next"] for part in rows] == list(range(12))
    assert list(Rows(plan.folder, "test")) == []


def test_put_in_place_goes_on_where_it_was_killed(plan: Plan) -> None:
    folder, output = plan.folder, plan.folder.parent
    for name in ("train", "test"):
        (folder / "sets" / name).mkdir(parents=True)
        (folder / "sets" / name / "new").touch()
        (output / f"my {name}").mkdir(parents=True)
        (output / f"my {name}" / "old").touch()
    (output / "dataset.json").write_text("old")
    (folder / "dataset.json").write_text("new")
    # As after the first two of its moves.
    (folder / "old").mkdir()
    (output / "dataset.json").replace(folder / "old" / "dataset.json")
    (output / "my train").replace(folder / "old" / "my train")
    put_in_place(folder, output, {"train": "my train", "test": "my test"})
    assert (output / "dataset.json").read_text() == "new"
    for name in ("train", "test"):
        assert [path.name for path in (output / f"my {name}").iterdir()] == ["new"]
    put_in_place(folder, output, {"train": "my train", "test": "my test"})
