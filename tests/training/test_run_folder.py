import json
from pathlib import Path
from typing import Any

import pytest

from denoisecli.errors import DenoiseError, UsageError
from denoisecli.models.catalogue import load_spec
from denoisecli.spec.document import Spec, parse_spec
from denoisecli.training import run_folder as runs
from denoisecli.training.run_folder import (
    clear,
    code_hash,
    is_better,
    is_running,
    list_runs,
    locked,
    read_history,
    record_start,
    write_history,
)

ROWS = [
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
    """A run that was stopped."""
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


def test_scraps_of_a_killed_process_go(run: Path) -> None:
    for scrap in (".checkpoint.abc123", ".model.x", ".history.y"):
        (run / scrap).mkdir()
        (run / scrap / "part").write_text("half of it")
    with locked(run):
        names = {path.name for path in run.iterdir()}
    assert names == {".lock", "checkpoint.npz", "history.csv", "run.json", "spec.json"}


def test_facts(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "code_hash", lambda: "other code")
    spec = load_spec(run / "spec.json")
    start(run, spec, "speech")
    facts = json.loads((run / "run.json").read_text())
    assert facts["seed"] == 0
    assert facts["dataset"] == "d1"
    assert facts["init_from"] == "speech"
    first, second = facts["starts"]
    assert first["code"] == code_hash()
    assert second["code"] == "other code"
    assert second["device"] == "a device"
    assert set(second["versions"]) == {"denoisecli", "keras", "numpy", "tensorflow"}


def test_clear(run: Path) -> None:
    (run / "model").mkdir()
    (run / "logs").mkdir()
    (run / "bad_batch.npz").write_bytes(b"")
    clear(run)
    assert {path.name for path in run.iterdir()} == {".lock", "model", "spec.json"}


def test_code_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    before = code_hash()
    assert len(before) == 12
    assert code_hash() == before
    read = Path.read_bytes
    monkeypatch.setattr(
        Path, "read_bytes", lambda self: read(self) + b" " * (self.name == "unet.py")
    )
    assert code_hash() != before


def test_history(tmp_path: Path) -> None:
    path = tmp_path / "history.csv"
    assert read_history(path) == []
    write_history(ROWS, path)
    assert read_history(path) == ROWS
    assert path.read_text().splitlines()[0] == "epoch,minutes,audio_hours,val_loss,val_pesq"
    for text in ("epoch,minutes\n1,half\n", "epoch\n1,2,3\n", "epoch,minutes\n1\n"):
        path.write_text(text)
        with pytest.raises(DenoiseError, match=r"history\.csv is no history of a training run"):
            read_history(path)


def test_is_better() -> None:
    assert is_better("val_loss", 1.0, None)
    assert is_better("val_loss", 1.0, 2.0)
    assert not is_better("val_pesq", 1.0, 2.0)
    assert is_better("val_pesq", 2.0, 1.0)
    assert not is_better("val_loss", 1.0, 1.0)


def test_list(run: Path) -> None:
    (run.parent / "notes.txt").write_text("no run")
    (run.parent / "empty").mkdir()
    (found,) = list_runs(run.parent)
    assert list_runs(run) == [found]
    assert (found.name, found.state, found.epochs, found.planned) == ("first", "stopped", 4, 9)
    assert (found.audio_hours, found.minutes) == (0.4, 2.0)
    assert found.best == ROWS[1]  # by PESQ, which not every epoch has
    assert found.test == {}
    with locked(run):
        assert list_runs(run)[0].state == "running"

    model = run / "model"
    model.mkdir()
    write_history(ROWS[:3], model / "history.csv")
    (model / "metrics.json").write_text(json.dumps({"test": {"loss": 0.5}}))
    assert list_runs(run)[0].state == "stopped"  # started over, the old model is still there
    (run / "checkpoint.npz").unlink()
    (found,) = list_runs(run)
    assert (found.state, found.epochs, found.test) == ("finished", 3, {"loss": 0.5})

    (run.parent / "second").mkdir()
    start(run.parent / "second", spec_of(), "speech")
    second = list_runs(run.parent)[1]
    assert (second.name, second.state, second.epochs, second.best) == ("second", "stopped", 0, {})
    assert second.init_from == "speech"


def test_lists_of_nothing(tmp_path: Path, run: Path) -> None:
    with pytest.raises(UsageError, match=r"there is no folder .*nowhere; train makes it"):
        list_runs(tmp_path / "nowhere")
    (run / "run.json").write_text("{")
    with pytest.raises(DenoiseError, match=r"run\.json cannot be read"):
        list_runs(run)
    (run / "run.json").write_text("[]")
    with pytest.raises(DenoiseError, match=r"run\.json cannot be read: it is no JSON object"):
        list_runs(run)
