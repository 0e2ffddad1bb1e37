import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from distributed import LocalCluster
from helpers import constant_mask, mostly_slow

from denoisecli.cleaning import batch
from denoisecli.cleaning.batch import Advanced, Outcome, Started
from denoisecli.cleaning.denoiser import DenoiserOptions
from denoisecli.cleaning.file import FileOptions
from denoisecli.cleaning.targets import Job, plan
from denoisecli.errors import AudioError, UsageError
from denoisecli.system.pools import cluster


@pytest.fixture
def half(model_folder: Callable[..., Path]) -> DenoiserOptions:
    return DenoiserOptions(model_folder(constant_mask(0.5)), threads=1)


@pytest.fixture
def recordings(
    audio_file: Callable[..., Path], noise: Callable[..., np.ndarray], tmp_path: Path
) -> list[Job]:
    """Three good files, a broken one, a good one."""
    for name in ("a", "b", "c", "e"):
        audio_file(f"in/{name}.wav", noise(1, 16000), 16000)
    (tmp_path / "in" / "d.wav").write_text("no sound")
    return plan([tmp_path / "in"], tmp_path / "out").jobs


def check(outcomes: list[Outcome], jobs: list[Job]) -> None:
    assert [outcome.job for outcome in outcomes] == jobs
    assert [outcome.status for outcome in outcomes] == ["done"] * 3 + ["failed", "done"]
    for outcome in outcomes:
        if outcome.status == "failed":
            assert isinstance(outcome.error, AudioError)
            assert "d.wav is damaged or not an audio" in str(outcome.error)
            assert not outcome.job.target.exists()
        else:
            assert outcome.result.target == outcome.job.target
            before, after = (soundfile.read(p)[0] for p in (outcome.job.source, outcome.job.target))
            np.testing.assert_allclose(after, before / 2, atol=1e-4)


@pytest.mark.parametrize("workers", [1, 2])
def test_one_bad_file_does_not_stop_the_others(
    half: DenoiserOptions, recordings: list[Job], workers: int
) -> None:
    events = []
    outcomes = batch.run(recordings, denoiser=half, workers=workers, on_event=events.append)
    check(outcomes, recordings)
    for job, outcome in zip(recordings, outcomes, strict=True):
        mine = [event for event in events if getattr(event, "job", None) == job]
        if workers == 1:
            assert mine[0] == Started(job)
        assert mine[-1] == outcome
        assert sum(isinstance(event, Outcome) for event in mine) == 1
        if workers == 1 and outcome.status == "done":
            assert Advanced(job, 1.0, 1.0) in mine


def test_other_machines_get_absolute_paths(
    half: DenoiserOptions, recordings: list[Job], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They have another working directory."""
    monkeypatch.chdir(tmp_path)
    Path("model").symlink_to(half.model)
    given: list[Any] = []

    class Executor(ThreadPoolExecutor):
        def submit(self, task: Any, job: Job) -> Any:
            given.extend([job.source, job.target, job.noise_target, task.args[0].model])
            return super().submit(task, job)

    jobs = [Job(Path("in/a.wav"), Path("out/a.wav"), Path("noise/a.wav"))]
    with Executor(1) as executor:
        (outcome,) = batch.run(jobs, denoiser=DenoiserOptions("model"), executor=executor)
    assert outcome.status == "done"
    assert outcome.job == jobs[0]
    assert all(path.is_absolute() for path in given)


def test_a_model_that_is_replaced_is_loaded_again(
    recordings: list[Job], model_folder: Callable[..., Path], tmp_path: Path
) -> None:
    source, folder = recordings[0].source, tmp_path / "model"
    for mask in (0.5, 0.25):
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(model_folder(constant_mask(mask)), folder)
        job = Job(source, tmp_path / f"{mask}.wav")
        (outcome,) = batch.run([job], denoiser=DenoiserOptions(folder, threads=1))
        assert outcome.status == "done"
        before, after = (soundfile.read(path)[0] for path in (source, job.target))
        np.testing.assert_allclose(after, mask * before, atol=1e-4)


def test_existing_targets_are_skipped_or_refused(
    half: DenoiserOptions, recordings: list[Job]
) -> None:
    first, second = recordings[:2]
    batch.run([first], denoiser=half)
    written = first.target.stat().st_mtime_ns
    outcomes = batch.run([first, second], denoiser=half, skip_existing=True)
    assert [outcome.status for outcome in outcomes] == ["skipped", "done"]
    (refused,) = batch.run([first], denoiser=half)
    assert refused.status == "failed"
    assert "already exists" in str(refused.error)
    assert first.target.stat().st_mtime_ns == written
    (replaced,) = batch.run([first], denoiser=half, overwrite=True)
    assert replaced.status == "done"


def test_a_job_is_skipped_only_if_all_its_targets_exist(
    half: DenoiserOptions, recordings: list[Job], tmp_path: Path
) -> None:
    job = Job(recordings[0].source, tmp_path / "x.wav", tmp_path / "n.wav")
    batch.run([job], denoiser=half)
    (tmp_path / "n.wav").unlink()
    (outcome,) = batch.run([job], denoiser=half, skip_existing=True, overwrite=True)
    assert outcome.status == "done"
    assert (tmp_path / "n.wav").exists()


def test_options_reach_the_workers(half: DenoiserOptions, recordings: list[Job]) -> None:
    options = FileOptions(subtype="PCM_24", sample_rate=8000)
    batch.run(recordings[:2], denoiser=half, files=options, workers=2)
    for job in recordings[:2]:
        info = soundfile.info(job.target)
        assert (info.subtype, info.samplerate) == ("PCM_24", 8000)


def test_any_executor_will_do(half: DenoiserOptions, recordings: list[Job]) -> None:
    with ThreadPoolExecutor(2) as executor:
        check(batch.run(recordings, denoiser=half, executor=executor), recordings)


def test_dask(half: DenoiserOptions, recordings: list[Job]) -> None:
    with (
        LocalCluster(
            n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None
        ) as local,
        cluster(local.scheduler_address) as executor,
    ):
        check(batch.run(recordings, denoiser=half, executor=executor), recordings)


def test_interrupted_in_this_process(half: DenoiserOptions, recordings: list[Job]) -> None:
    events = []

    def on_event(event: Any) -> None:
        events.append(event)
        if isinstance(event, Advanced) and event.job == recordings[1]:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        batch.run(recordings, denoiser=half, on_event=on_event)
    folder = recordings[0].target.parent
    assert [path.name for path in folder.iterdir()] == ["a.wav"]
    assert [event.status for event in events if isinstance(event, Outcome)] == ["done"]


class HeldExecutor(Executor):
    """Runs the first task; the others wait."""

    def __init__(self) -> None:
        self.futures: list[Future] = []

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future:
        future: Future = Future()
        if not self.futures:
            future.set_result(function(*args, **kwargs))
        self.futures.append(future)
        return future


def fails_on(kind: type) -> Callable[[Any], None]:
    """Return a callback that fails on events of a kind."""

    def on_event(event: Any) -> None:
        if isinstance(event, kind):
            raise BrokenPipeError

    return on_event


@pytest.mark.parametrize("kind", [Started, Outcome])
def test_a_failing_callback_cancels_what_waits_in_an_executor(
    half: DenoiserOptions, recordings: list[Job], kind: type
) -> None:
    executor = HeldExecutor()
    with pytest.raises(BrokenPipeError) as caught:  # whose frames are kept, see below
        batch.run(recordings[:3], denoiser=half, executor=executor, on_event=fails_on(kind))
    assert caught.tb is not None
    assert [future.cancelled() for future in executor.futures] == [False, True, True]


@pytest.mark.parametrize("kind", mostly_slow([Started, Outcome], Outcome))
def test_a_failing_callback_ends_the_worker_processes(
    half: DenoiserOptions, recordings: list[Job], kind: type
) -> None:
    # The traceback keeps the frames, as that of an error that is shown later does.
    with pytest.raises(BrokenPipeError) as caught:
        batch.run(recordings, denoiser=half, workers=2, on_event=fails_on(kind))
    assert multiprocessing.active_children() == []
    assert caught.tb is not None


PROGRAM = """
import sys
from pathlib import Path
from denoisecli.cleaning import batch
from denoisecli.cleaning.denoiser import DenoiserOptions
from denoisecli.cleaning.targets import plan
if __name__ == "__main__":
    jobs = plan([sys.argv[1]], sys.argv[2]).jobs
    denoiser = DenoiserOptions(sys.argv[3])
    batch.run(jobs, denoiser=denoiser, workers=2)
"""


@pytest.mark.slow
def test_killed_in_the_middle_and_resumed(
    half: DenoiserOptions,
    audio_file: Callable[..., Path],
    noise: Callable[..., np.ndarray],
    tmp_path: Path,
) -> None:
    for i in range(8):
        audio_file(f"in/{i}.wav", noise(40, 8000), 8000)
    (tmp_path / "program.py").write_text(PROGRAM)
    command = [sys.executable, "program.py", "in", "out", half.model]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE)
    out = tmp_path / "out"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and len(list(out.glob("*.wav"))) < 2:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGINT)  # the parent alone, as `kill` does
    _, errors = process.communicate(timeout=60)
    assert b"KeyboardInterrupt" in errors
    finished = sorted(out.iterdir())
    assert 2 <= len(finished) < 8
    for path in finished:  # whole files under their own names, and nothing else
        assert soundfile.info(path).frames == 40 * 8000

    jobs = plan([tmp_path / "in"], out).jobs
    outcomes = batch.run(jobs, denoiser=half, skip_existing=True)
    statuses = sorted(outcome.status for outcome in outcomes)
    assert statuses == ["done"] * (8 - len(finished)) + ["skipped"] * len(finished)
    assert len(list(out.iterdir())) == 8


@pytest.mark.slow
def test_worker_that_dies(
    half: DenoiserOptions, recordings: list[Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch, "_work", _die)
    outcomes = batch.run(recordings[:2], denoiser=half, workers=2)
    assert [outcome.status for outcome in outcomes] == ["failed"] * 2
    assert "a worker process died" in str(outcomes[0].error)


@pytest.mark.slow
def test_worker_that_dies_of_one_file(
    half: DenoiserOptions, recordings: list[Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch, "_work", _die_of_b)
    good = [job for job in recordings if job.source.stem != "d"]
    outcomes = batch.run(good, denoiser=half, workers=2)
    states = {outcome.job.source.stem: outcome.status for outcome in outcomes}
    assert states.pop("b") == "failed"
    # One other may have been in work in the same pool.
    assert sorted(states.values()) in (["done"] * 3, ["done", "done", "failed"])
    assert all(outcome.job.target.exists() == (outcome.status == "done") for outcome in outcomes)


_work = batch._work


def _die_of_b(task: Any, job: Job) -> Any:
    if job.source.stem == "b":
        batch._Worker.events.put(Started(job))
        time.sleep(0.5)  # until the event is sent
        _die(task, job)
    return _work(task, job)


def _die(task: Any, job: Job) -> None:
    os.kill(multiprocessing.current_process().pid, signal.SIGKILL)


def test_workers_are_counted(recordings: list[Job]) -> None:
    with pytest.raises(UsageError, match="number of jobs must be at least 1, not 0"):
        batch.run(recordings, workers=0)
    assert batch.run([]) == []


def test_missing_model_fails_every_job(recordings: list[Job], tmp_path: Path) -> None:
    outcomes = batch.run(recordings[:1], denoiser=DenoiserOptions(tmp_path / "nothing"))
    assert outcomes[0].status == "failed"
    assert isinstance(outcomes[0].error, UsageError)
    assert Path(recordings[0].source).exists()
