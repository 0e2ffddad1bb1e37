import json
from pathlib import Path
from typing import Any

import pytest

import denoisecli.models
from denoisecli.errors import DenoiseError, SpecError, UsageError
from denoisecli.spec.document import Spec, parse_spec, read_spec
from denoisecli.training import run_folder
from denoisecli.training.history import Row, write_history
from denoisecli.training.run_folder import (
    clear,
    code_changed,
    code_hash,
    is_running,
    list_runs,
    locked,
    record_start,
)

ROWS: list[Row] = [
    {"epoch": 1, "minutes": 0.5, "audio_hours": 0.1, "val_loss": 0.4},
    {"epoch": 2, "minutes": 1.0, "audio_hours": 0.2, "val_loss": 0.3, "val_pesq": 1.5},
    {"epoch": 3, "minutes": 1.5, "audio_hours": 0.3, "val_loss": 0.35},
    {"epoch": 4, "minutes": 2.0, "audio_hours": 0.4, "val_loss": 0.2, "val_pesq": 1.25},
]


def spec_of(**training: Any) -> Spec:
    level = [{"filters": 4}]
    return parse_spec(
        {"name": "test", "downsampling": level, "upsampling": level, "training": training}
    )


def start(run: Path, spec: Spec, init_from: str | None = None) -> None:
    record_start(run, spec, dataset="d1", data=Path("data"), device="a device", init_from=init_from)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Make the folder of a run that was interrupted."""
    folder = tmp_path / "runs" / "first"
    with locked(folder):
        start(folder, spec_of(epochs=9, monitor="val_pesq", perceptual_every=2))
        write_history(ROWS, folder / "history.csv")
        (folder / "checkpoint.npz").write_bytes(b"")
    return folder


def test_one_process_at_a_time(run: Path) -> None:
    assert not is_running(run)
    with locked(run):
        assert is_running(run)
        busy = r"first is in use: another process trains there"
        with pytest.raises(UsageError, match=busy), locked(run):
            pass
        with locked(run, write=False):
            assert is_running(run)
    assert not is_running(run)
    (run.parent / "file").write_text("")
    message = "file is a file; a run needs a folder"
    with pytest.raises(UsageError, match=message), locked(run.parent / "file"):
        pass


def test_every_start_is_recorded(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_folder, "code_hash", lambda: "other code")
    start(run, read_spec(run / "spec.json"), "speech")
    facts = json.loads((run / "run.json").read_text())
    assert facts["name"] == "test"
    assert facts["seed"] == 0
    assert facts["dataset"] == "d1"
    assert facts["data"] == "data"
    assert facts["init_from"] == "speech"
    first, second = facts["starts"]
    assert first["code"] == code_hash()
    assert second["code"] == "other code"
    assert second["device"] == "a device"
    assert set(second["versions"]) == {"denoisecli", "keras", "numpy", "tensorflow"}


def test_code_changed(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not code_changed(run)
    monkeypatch.setattr(run_folder, "code_hash", lambda: "other code")
    assert code_changed(run)
    start(run, read_spec(run / "spec.json"))
    assert not code_changed(run)
    assert not code_changed(run.parent / "new")


def test_clear_keeps_the_checkpoint_and_the_model(run: Path) -> None:
    (run / "model").mkdir()
    (run / "logs").mkdir()
    (run / "bad_batch.npz").write_bytes(b"")
    clear(run)
    assert {path.name for path in run.iterdir()} == {"checkpoint.npz", "model", "spec.json"}


@pytest.mark.parametrize(
    "name",
    ["spec/errors.py", "training/losses/waveform.py", "models/unet.py", "models/export/convert.py"],
)
def test_code_hash_depends_on_the_files_of_all_folders(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = code_hash.__wrapped__()
    assert len(before) == 12
    assert code_hash.__wrapped__() == before
    read = Path.read_bytes
    changed = []

    def read_changed(path: Path) -> bytes:
        if path.as_posix().endswith(f"/{name}"):
            changed.append(path)
            return read(path) + b" "
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", read_changed)
    assert code_hash.__wrapped__() != before
    assert len(changed) == 1


def test_code_hash_depends_on_the_names_of_files_in_sub_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(denoisecli, "__path__", [str(tmp_path)])
    monkeypatch.setattr(denoisecli.models, "__path__", [str(tmp_path / "models")])
    (tmp_path / "training" / "losses").mkdir(parents=True)
    hashes = {code_hash.__wrapped__()}
    path = tmp_path / "training" / "losses" / "new.py"
    path.write_text("")
    hashes.add(code_hash.__wrapped__())
    path.rename(path.with_name("renamed.py"))
    hashes.add(code_hash.__wrapped__())
    path.with_name("notes.txt").write_text("not code")
    hashes.add(code_hash.__wrapped__())
    assert len(hashes) == 3


def test_list(run: Path) -> None:
    (run.parent / "notes.txt").write_text("not a run")
    (run.parent / "empty").mkdir()
    (found,), errors = list_runs(run.parent)
    assert errors == []
    assert list_runs(run) == ([found], [])
    assert (found.name, found.state) == ("first", "stopped")
    assert (found.epochs, found.planned_epochs) == (4, 9)
    assert (found.audio_hours, found.minutes) == (0.4, 2.0)
    assert found.best == ROWS[1]  # by PESQ, which not every epoch has
    assert found.test == {}
    with locked(run):
        assert list_runs(run)[0][0].state == "running"

    model = run / "model"
    model.mkdir()
    write_history(ROWS[:3], model / "history.csv")
    (model / "metrics.json").write_text(json.dumps({"test": {"loss": 0.5}}))
    (found,), _ = list_runs(run)
    assert found.state == "stopped"  # it was started over, and the old model is still there
    (run / "checkpoint.npz").unlink()
    (found,), _ = list_runs(run)
    assert (found.state, found.epochs, found.test) == ("finished", 3, {"loss": 0.5})

    (run.parent / "second").mkdir()
    start(run.parent / "second", spec_of(), "speech")
    second = list_runs(run.parent)[0][1]
    assert (second.name, second.state, second.epochs, second.best) == ("second", "stopped", 0, {})
    assert second.init_from == "speech"


def test_unreadable_runs_are_reported_beside_the_others(run: Path) -> None:
    for name, text in (("broken", "{"), ("foreign", '{"name": "theirs", "layers": 3}')):
        (run.parent / name).mkdir()
        (run.parent / name / "spec.json").write_text(text)
    (found,), errors = list_runs(run.parent)
    assert found.name == "first"
    broken, foreign = map(str, errors)
    assert broken.startswith(f"{run.parent / 'broken' / 'spec.json'}: not JSON")
    assert foreign.startswith(f"{run.parent / 'foreign' / 'spec.json'}: ")
    assert "layers" in foreign
    with pytest.raises(SpecError, match="not JSON"):
        list_runs(run.parent / "broken")


def test_nothing_to_list(tmp_path: Path, run: Path) -> None:
    message = r"the folder .*nowhere does not exist; denoise train creates it"
    with pytest.raises(UsageError, match=message):
        list_runs(tmp_path / "nowhere")
    for text in ("{", "[]"):
        (run / "run.json").write_text(text)
        with pytest.raises(DenoiseError, match=r"run\.json is damaged: "):
            list_runs(run)
