import asyncio
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from helpers import worker_thread

from denoisecli.cleaning.denoiser import DenoiserOptions
from denoisecli.cleaning.file import FileOptions
from denoisecli.errors import AudioError, StorageError
from denoisecli.serving import work
from denoisecli.serving.answers import Refused
from denoisecli.serving.jobs import Job, Jobs, Stage, worker_process
from denoisecli.serving.uploads import Upload
from denoisecli.serving.work import Task


def succeed(task: Task) -> dict[str, Any]:
    return {"name": task.source.name}


def wait_for_cancellation(task: Task) -> dict[str, Any]:
    while True:
        work._advance(0.25)


def pid(task: Task) -> dict[str, Any]:
    return {"pid": os.getpid()}


def die(task: Task) -> dict[str, Any]:
    os._exit(9)


def fail(task: Task) -> dict[str, Any]:
    raise AudioError(f"{task.source} is damaged; --keep-readable cleans the rest")


def fill_the_disk(task: Task) -> dict[str, Any]:
    raise StorageError(f"cannot write {task.target}; is the disk full?")


def break_down(task: Task) -> dict[str, Any]:
    raise ZeroDivisionError("unexpected")


async def add(jobs: Jobs, function: Callable[[Task], dict[str, Any]], name: str = "a.wav") -> Job:
    async with jobs.new_folder(0) as folder:
        (folder / "upload.wav").write_bytes(b"sound")
        upload = Upload(name, folder / "upload.wav", 5, {})
        task = Task(upload.path, DenoiserOptions(), FileOptions(), folder / "result.wav")
        return jobs.add(upload, "speech", function, task)


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not happen")


def test_what_renders_ends_with_the_server(tmp_path: Path) -> None:
    async def scenario() -> Job:
        jobs = Jobs(tmp_path, start_worker=worker_thread)
        async with jobs.running():
            job = await add(jobs, succeed)
            await job.ended.wait()
            job.check_present()
        return job

    with pytest.raises(Refused, match="was removed"):
        asyncio.run(scenario()).check_present()


def test_jobs_wait_for_their_turn(tmp_path: Path) -> None:
    async def scenario() -> None:
        jobs = Jobs(tmp_path, start_worker=worker_thread)
        async with jobs.running():
            first = await add(jobs, wait_for_cancellation)
            await until(lambda: first.progress == 0.25)
            second, third = await add(jobs, succeed), await add(jobs, succeed)
            assert [jobs.position(job) for job in (second, third)] == [0, 1]
            jobs.remove(second)
            assert jobs.position(third) == 0
            assert not second.folder.exists()
            jobs.remove(first)  # the worker stops, and goes on with the next job
            await third.ended.wait()
            assert third.result == {"name": "upload.wav"}
            await until(lambda: not first.folder.exists())
        assert list(tmp_path.iterdir()) == []

    asyncio.run(scenario())


def test_what_is_worked_on_is_given_up_at_the_end(tmp_path: Path) -> None:
    async def scenario() -> None:
        jobs = Jobs(tmp_path, start_worker=worker_thread)
        async with jobs.running():
            job = await add(jobs, wait_for_cancellation)
            await until(lambda: job.stage is Stage.WORKING)
        assert list(tmp_path.iterdir()) == []

    asyncio.run(scenario())


def test_errors_name_the_recording_and_no_path_or_option(tmp_path: Path) -> None:
    errors: list[str] = []

    async def scenario() -> None:
        jobs = Jobs(tmp_path, start_worker=worker_thread, on_error=errors.append)
        async with jobs.running():
            damaged, unknown = await add(jobs, fail, "b/talk.wav"), await add(jobs, break_down)
            await unknown.ended.wait()
            assert (damaged.stage, unknown.stage) == (Stage.FAILED, Stage.FAILED)
            assert damaged.error is not None
            assert unknown.error is not None
            assert (damaged.error.status, str(damaged.error)) == (422, "b/talk.wav is damaged")
            assert str(unknown.error) == "a.wav could not be cleaned, for an unknown reason"

    asyncio.run(scenario())
    assert len(errors) == 1
    assert "ZeroDivisionError" in errors[0]


def test_a_disk_that_is_full_during_the_work_is_no_fault_of_the_program(tmp_path: Path) -> None:
    async def scenario() -> None:
        jobs = Jobs(tmp_path, start_worker=worker_thread)
        async with jobs.running():
            job = await add(jobs, fill_the_disk)
            await job.ended.wait()
            assert job.error is not None
            assert job.error.status == 507
            assert str(tmp_path) not in str(job.error)

    asyncio.run(scenario())


@pytest.mark.parametrize("where", ["start", "submit"])
@pytest.mark.parametrize("kind", [OSError, RuntimeError])  # the latter for threads
def test_a_worker_that_cannot_be_started_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, kind: type[Exception]
) -> None:
    monkeypatch.setattr("denoisecli.serving.jobs.RETRY_SECONDS", 0.01)
    errors: list[str] = []
    failures = [1, 1]

    def fail_at_first() -> None:
        if failures:
            failures.pop()
            raise kind("no process can be started")

    @contextmanager
    def start_worker() -> Iterator[Any]:
        if where == "start":
            fail_at_first()
        with worker_thread() as (executor, state):
            submit = executor.submit

            def submit_later(*job: Any) -> Any:
                if where == "submit":
                    fail_at_first()
                return submit(*job)

            monkeypatch.setattr(executor, "submit", submit_later)
            yield executor, state

    async def scenario() -> None:
        jobs = Jobs(tmp_path, start_worker=start_worker, on_error=errors.append)
        async with jobs.running():
            job = await add(jobs, succeed)
            await asyncio.wait_for(job.ended.wait(), 30)
            assert job.stage is Stage.DONE

    asyncio.run(scenario())
    assert len(errors) == 2
    assert "no process can be started" in errors[0]


def test_too_many_uploads_and_full_disks_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        jobs = Jobs(tmp_path, start_worker=worker_thread, max_waiting=1)
        async with jobs.new_folder(0) as folder:
            with pytest.raises(Refused, match="already waiting") as refused:
                async with jobs.new_folder(0):
                    pass
            assert refused.value.status == 503
            assert folder.stat().st_mode & 0o777 == 0o700
        with pytest.raises(Refused, match="too full"):
            async with jobs.new_folder(2**60):
                pass

    asyncio.run(scenario())


@pytest.mark.slow
def test_a_process_that_dies_takes_only_its_own_job_with_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        jobs = Jobs(tmp_path, start_worker=worker_process)
        async with jobs.running():
            killed, survivor = await add(jobs, die), await add(jobs, succeed)
            await survivor.ended.wait()
            assert killed.error is not None
            assert "cleaning this recording crashed" in str(killed.error)
            assert survivor.result == {"name": "upload.wav"}
            running = await add(jobs, wait_for_cancellation)
            await until(lambda: running.progress == 0.25)
        assert list(tmp_path.iterdir()) == []

    asyncio.run(scenario())


@pytest.mark.slow
def test_a_process_survives_the_removal_of_the_job_that_it_works_on(tmp_path: Path) -> None:
    async def scenario() -> None:
        jobs = Jobs(tmp_path, start_worker=worker_process)
        async with jobs.running():
            before = await add(jobs, pid)
            await before.ended.wait()
            removed, after = await add(jobs, wait_for_cancellation), await add(jobs, pid)
            await until(lambda: removed.progress == 0.25)
            jobs.remove(removed)
            await after.ended.wait()
            assert str(removed.error) == "the job was cancelled"
            assert after.result == before.result
        assert list(tmp_path.iterdir()) == []

    asyncio.run(scenario())
