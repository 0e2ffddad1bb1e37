"""The ASGI application: the page, and the API that it uses."""

import asyncio
import json
import secrets
import shutil
import time
import traceback
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, Field, ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import (
    FileResponse,
    HTMLResponse,
    JSONResponse,
    Response,
    StreamingResponse,
)
from starlette.routing import Route

from denoisecli.audio import dnsmos, loudness
from denoisecli.audio.formats import FORMATS, SUFFIXES
from denoisecli.cleaning.denoiser import DenoiserOptions
from denoisecli.cleaning.file import FileOptions
from denoisecli.errors import DenoiseError
from denoisecli.models.catalogue import find_model, local_models, model_names
from denoisecli.models.folder import ModelFolder
from denoisecli.serving import schema, work
from denoisecli.serving.answers import Refused, SentOnce, as_refused, attachment, error_answer
from denoisecli.serving.guard import LOOPBACK, Guard
from denoisecli.serving.jobs import Job, Jobs, Stage, StartWorker, worker_process
from denoisecli.serving.page import ASSETS
from denoisecli.serving.rendering import Body, Rendering, clean_name, render, zip_pieces
from denoisecli.serving.uploads import Upload, chunks_of, receive
from denoisecli.serving.work import Task

_MAX_BODY = 2**20  # of a request without a recording
_MAX_QUERY_IDS = 200
_KEPT_FILES = 4
_KEPT_ARCHIVES = 32
_DRAIN_SECONDS = 2.0


@dataclass(frozen=True)
class Settings:
    """Settings and limits of a server.

    Attributes:
        model: Name of the model that is used where a client names none.
        models_folder: Folder with further models.
        workers: Number of recordings that are cleaned at a time.
        threads: CPU threads of each worker (default: one per core).
        max_bytes: Largest size of a recording in bytes.
        max_waiting: Largest number of recordings that wait or are being sent.
        keep_seconds: Time in s after which a recording that no client asks for is removed.
        upload_timeout: Time in s in which the next part of an upload must arrive.
        token: Token that every request must carry; None requires none.
        names: Host names under which the server may be addressed.
        beyond_loopback: The server can be reached from other machines.
    """

    model: str = "speech"
    models_folder: Path = Path("runs")
    workers: int = 1
    threads: int | None = None
    max_bytes: int = 4 * 2**30
    max_waiting: int = 100
    keep_seconds: float = 3600.0
    upload_timeout: float = 60.0
    token: str | None = None
    names: frozenset[str] = frozenset(LOOPBACK)
    beyond_loopback: bool = False


class CleanForm(Rendering):
    """The fields of ``POST /api/clean`` beside the recording."""

    model: str | None = Field(None, description="Name of a model; see GET /api/models.")
    auto_strength: bool = Field(
        False, description="Choose the strength by DNSMOS; `strength` is its upper end."
    )
    mono: bool = Field(False, description="Clean and write the mean of the channels.")
    keep_readable: bool = Field(
        False, description="Clean what can be read of a damaged recording, instead of failing."
    )


class JobForm(Body):
    """The fields of ``POST /api/jobs`` beside the recording, and of cleaning it again."""

    model: str | None = Field(None, description="Name of a model; see GET /api/models.")


class ArchiveEntry(Rendering):
    """A recording in an archive."""

    id: str = Field(description="The job.")


class Archive(Body):
    """The recordings in an archive."""

    jobs: list[ArchiveEntry] = Field(min_length=1, max_length=1000)


_Form = TypeVar("_Form", bound=BaseModel)


@dataclass(frozen=True)
class _Models:
    """The models that clients can choose.

    Attributes:
        found: Folder and kind, "bundled" or "local", of each model by its name.
        default: The model that is used where a client names none; None if it was removed.
    """

    found: dict[str, tuple[Path, str]]
    default: str | None

    def choose(self, name: str | None) -> tuple[str, Path]:
        """Return the name and the folder of a model, or of the default; raise Refused if none."""
        name = name or self.default
        if name is None:
            raise Refused(400, "model: the default of this server was removed; name another one")
        if name not in self.found:
            raise Refused(400, f"model: {name!r} is not one of {', '.join(self.found)}")
        return name, self.found[name][0]

    def describe(self) -> list[dict[str, Any]]:
        """Return what clients see of the models; those that are damaged are left out."""
        rows = []
        for name, (path, kind) in self.found.items():
            with suppress(DenoiseError):
                spec = find_model(path).spec
                rows.append(
                    {
                        "name": name,
                        "kind": kind,
                        "description": spec.description,
                        "sample_rate": spec.audio.sample_rate,
                        "causal": spec.causal,
                    }
                )
        return rows


class App(Starlette):
    """The application.

    Args:
        settings: Its settings and limits.
        root: Folder for all files; the caller removes it.
        start_worker: Starts a worker.
        on_error: Called with the traceback of an error that should not happen.
    """

    def __init__(
        self,
        settings: Settings,
        root: Path,
        *,
        start_worker: StartWorker = worker_process,
        on_error: Callable[[str], None] = print,
    ) -> None:
        self._settings = settings
        self._on_error = on_error
        self._jobs = Jobs(
            root,
            start_worker=start_worker,
            count=settings.workers,
            max_waiting=settings.max_waiting,
            keep_seconds=settings.keep_seconds,
            on_error=on_error,
        )
        self._archives: dict[str, list[tuple[Job, Rendering]]] = {}
        self._rendering_slots = asyncio.Semaphore(2)
        routes = [
            Route("/", self._index),
            Route("/static/{name}", self._static),
            Route("/api/openapi.json", self._openapi),
            Route("/api/server", self._server),
            Route("/api/models", self._list_models),
            Route("/api/clean", self._clean, methods=["POST"]),
            Route("/api/jobs", self._list, methods=["GET"]),
            Route("/api/jobs", self._add, methods=["POST"]),
            Route("/api/jobs/{id}", self._show, methods=["GET"]),
            Route("/api/jobs/{id}", self._again, methods=["POST"]),
            Route("/api/jobs/{id}", self._remove, methods=["DELETE"]),
            Route("/api/jobs/{id}/preview", self._preview),
            Route("/api/jobs/{id}/spectrogram", self._spectrogram),
            Route("/api/jobs/{id}/strength", self._suggest, methods=["POST"]),
            Route("/api/jobs/{id}/file", self._render, methods=["POST"]),
            Route("/api/jobs/{id}/file/{key}", self._file),
            Route("/api/zip", self._archive, methods=["POST"]),
            Route("/api/zip/{key}", self._zip),
        ]
        super().__init__(
            routes=routes,
            middleware=[
                Middleware(
                    Guard,
                    names=settings.names,
                    beyond_loopback=settings.beyond_loopback,
                    token=settings.token,
                )
            ],
            exception_handlers={
                Refused: lambda request, error: error_answer(error),
                HTTPException: _http_error,
                Exception: self._unexpected_error,
                ClientDisconnect: lambda request, error: Response(status_code=499),
            },
            lifespan=self._lifespan,
        )

    async def _unexpected_error(self, request: Request, error: Exception) -> Response:
        self._on_error("".join(traceback.format_exception(error)))
        return error_answer(Refused(500, "the server could not answer, for an unknown reason"))

    @asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        async with self._jobs.running():
            yield

    # The page and facts about the server

    async def _index(self, request: Request) -> Response:
        return HTMLResponse(ASSETS["index.html"][0])

    async def _static(self, request: Request) -> Response:
        asset = ASSETS.get(request.path_params["name"])
        if asset is None:
            raise Refused(404, "there is no such file")
        content, media_type = asset
        return Response(content, media_type=media_type)

    async def _openapi(self, request: Request) -> Response:
        return JSONResponse(schema.openapi(CleanForm, JobForm, Rendering, Archive))

    async def _server(self, request: Request) -> Response:
        settings = self._settings
        return JSONResponse(
            {
                "version": version("denoisecli"),
                "max_bytes": settings.max_bytes,
                "keep_minutes": settings.keep_seconds / 60,
                "reads": SUFFIXES,
                "writes": list(FORMATS),
                "loudness": loudness.is_installed(),
                "auto_strength": dnsmos.is_installed(),
                "on_this_machine": not settings.beyond_loopback,
            }
        )

    async def _list_models(self, request: Request) -> Response:
        models = await asyncio.to_thread(self._find_models)
        rows = await asyncio.to_thread(models.describe)
        return JSONResponse({"models": rows, "default": models.default or next(iter(models.found))})

    def _find_models(self) -> _Models:
        found = {name: (find_model(name).path, "bundled") for name in model_names()}
        for pattern in ("*/model.onnx", "*/model/model.onnx"):  # where `adapt -o NAME` writes
            for path in sorted(Path().glob(pattern)):
                found.setdefault(ModelFolder(path.parent).name, (path.parent, "local"))
        root = self._settings.models_folder
        for model in local_models(root) if root.is_dir() else []:
            path = root if model.path == root else model.named_path
            found[(Path(root.name) / path.relative_to(root)).as_posix()] = (model.path, "local")
        try:
            model = find_model(self._settings.model)
        except DenoiseError:  # it was removed while the server runs
            return _Models(found, None)
        if all(path != model.path for path, _ in found.values()):
            found[model.name] = (model.path, "local")
        return _Models(found, next(name for name, (path, _) in found.items() if path == model.path))

    async def _choose(self, name: str | None) -> tuple[str, Path]:
        """Return the name and the folder of the model that a client has named, or of the default.

        Raises:
            Refused: There is no such model.
        """
        models = await asyncio.to_thread(self._find_models)
        return models.choose(name)

    def _denoiser(self, folder: Path, strength: float = 1.0) -> DenoiserOptions:
        return DenoiserOptions(folder, strength, threads=self._settings.threads)

    # One request, one cleaned file

    async def _clean(self, request: Request) -> Response:
        async with self._arriving(request, CleanForm) as (upload, form):
            model, folder = await self._choose(form.model)
            suffix = form.suffix(upload.name)
            options = form.options(
                auto_strength=form.auto_strength,
                mono=form.mono,
                keep_readable=form.keep_readable,
            )
            denoiser = self._denoiser(folder, form.strength)
            task = Task(upload.path, denoiser, options, upload.path.with_name(f"result{suffix}"))
            job = self._jobs.add(upload, model, work.clean, task)
        try:
            await _ended_or_gone(request, job)
            if job.error is not None:
                raise job.error
        except BaseException:
            self._jobs.remove(job)
            raise
        warnings = [job.plain(warning) for warning in job.result["warnings"]]
        return SentOnce(
            task.target,
            lambda: self._jobs.remove(job),
            headers={
                "Content-Disposition": attachment(clean_name(upload.name, suffix).name),
                "Denoise-Warnings": json.dumps(warnings),
            },
        )

    # Jobs

    async def _add(self, request: Request) -> Response:
        async with self._arriving(request, JobForm) as (upload, form):
            model, folder = await self._choose(form.model)
            job = self._jobs.add(upload, model, work.prepare, self._task(upload, folder))
        return JSONResponse(self._record(job), 202)

    def _task(self, upload: Upload, folder: Path) -> Task:
        options = FileOptions(subtype="FLOAT", keep_readable=True)
        target = upload.path.with_name("cleaned.w64")
        return Task(upload.path, self._denoiser(folder), options, target)

    async def _list(self, request: Request) -> Response:
        found = []
        for name in request.query_params.getlist("id")[:_MAX_QUERY_IDS]:
            with suppress(Refused):
                found.append(self._record(self._jobs.get(name)))
        return JSONResponse({"jobs": found})

    async def _show(self, request: Request) -> Response:
        return JSONResponse(self._record(self._job(request)))

    async def _again(self, request: Request) -> Response:
        form = await self._read(request, JobForm)
        model, folder = await self._choose(form.model)
        job = self._job(request)  # last, since it may be removed meanwhile
        if not job.ended.is_set():
            raise Refused(409, "the recording is still being cleaned; wait until it is done")
        self._jobs.add_again(job, model, self._task(job.upload, folder))
        return JSONResponse(self._record(job), 202)

    async def _remove(self, request: Request) -> Response:
        self._jobs.remove(self._job(request))
        return Response(status_code=204)

    def _job(self, request: Request) -> Job:
        return self._jobs.get(request.path_params["id"])

    def _done(self, request: Request) -> Job:
        return _require_done(self._job(request))

    def _record(self, job: Job) -> dict[str, Any]:
        """Return what clients see of a job."""
        record: dict[str, Any] = {
            "id": job.id,
            "name": job.upload.name,
            "bytes": job.upload.size,
            "model": job.model,
            "stage": job.stage,
            "progress": round(job.progress, 4),
        }
        if job.stage is Stage.WAITING:
            record["before"] = self._jobs.position(job)
        if job.error is not None:
            record["error"] = str(job.error)
        if job.result:
            warnings = [job.plain(warning) for warning in job.result["warnings"]]
            record["result"] = job.result | {"warnings": warnings}
        return record

    async def _preview(self, request: Request) -> Response:
        job = self._done(request)
        return FileResponse(job.task.preview, media_type="audio/flac")

    async def _spectrogram(self, request: Request) -> Response:
        job = self._done(request)
        return FileResponse(job.task.pictures, media_type="application/octet-stream")

    async def _suggest(self, request: Request) -> Response:
        job = self._done(request)
        with job.in_use():
            async with self._rendering_slots:
                try:
                    choice = await asyncio.to_thread(
                        work.suggest_strength, job.task, job.check_present
                    )
                except DenoiseError as error:
                    raise as_refused(error, job.plain(str(error))) from error
        return JSONResponse(choice)

    # Files to download

    async def _render(self, request: Request) -> Response:
        rendering = await self._read(request, Rendering)
        job = self._done(request)
        with job.in_use():
            async with self._rendering_slots:
                path, warnings = await asyncio.to_thread(render, job, rendering)
        for key in list(job.files)[: -_KEPT_FILES + 1]:
            shutil.rmtree(job.files.pop(key).parent, ignore_errors=True)
        key = secrets.token_urlsafe(8)
        job.files[key] = path
        return JSONResponse(
            {
                "url": f"/api/jobs/{job.id}/file/{key}",
                "name": _file_name(job, path),
                "bytes": path.stat().st_size,
                "warnings": warnings,
            }
        )

    async def _file(self, request: Request) -> Response:
        job = self._done(request)
        path = job.files.get(request.path_params["key"])
        if path is None:
            raise Refused(404, "this file has been removed; request it again")
        return FileResponse(
            path, headers={"Content-Disposition": attachment(_file_name(job, path))}
        )

    async def _archive(self, request: Request) -> Response:
        body = await self._read(request, Archive)
        jobs = [(_require_done(self._jobs.get(entry.id)), entry) for entry in body.jobs]
        for job, entry in jobs:
            entry.suffix(job.upload.name)
        key = secrets.token_urlsafe(16)
        for old in list(self._archives)[: -_KEPT_ARCHIVES + 1]:
            del self._archives[old]
        self._archives[key] = [*jobs]
        return JSONResponse({"url": f"/api/zip/{key}"})

    async def _zip(self, request: Request) -> Response:
        entries = self._archives.get(request.path_params["key"])
        if entries is None:
            raise Refused(404, "there is no such archive any more; ask for it again")
        for job, _ in entries:
            job.touched = time.monotonic()
        if all(job.removed for job, _ in entries):
            raise Refused(404, "all recordings of this archive were removed")
        return StreamingResponse(
            zip_pieces(entries, self._rendering_slots),
            media_type="application/zip",
            headers={"Content-Disposition": attachment("denoised.zip")},
        )

    async def _read(self, request: Request, form: type[_Form]) -> _Form:
        """Read a JSON body; an empty one has the defaults."""
        body = bytearray()
        async for chunk in chunks_of(request, self._settings.upload_timeout):
            body.extend(chunk)
            if len(body) > _MAX_BODY:
                raise Refused(413, "the body of the request is too large")
        try:
            values = json.loads(body or b"{}")
        except (ValueError, RecursionError) as error:
            raise Refused(400, "the body is not valid JSON") from error
        return _validate(form, values)

    @asynccontextmanager
    async def _arriving(
        self, request: Request, form: type[_Form]
    ) -> AsyncIterator[tuple[Upload, _Form]]:
        """Receive an upload; the block puts it into the queue, or it is removed."""
        length = request.headers.get("content-length", "")
        expected = min(int(length) if length.isdecimal() else 0, self._settings.max_bytes)
        async with self._jobs.new_folder(expected) as folder:
            try:
                upload = await receive(
                    request,
                    folder,
                    max_bytes=self._settings.max_bytes,
                    timeout=self._settings.upload_timeout,
                )
            except Refused:
                await _drain(request)
                raise
            yield upload, _validate(form, upload.fields)


def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    messages = {404: "there is no such address", 405: "this address does not allow that method"}
    message = messages.get(error.status_code, error.detail)
    return error_answer(Refused(error.status_code, message, error.headers))


def _validate(form: type[_Form], values: object) -> _Form:
    try:
        return form.model_validate(values)
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(map(str, problem["loc"])) or "the body"
        message = problem["msg"].replace("Input should be", "must be")
        if problem["type"] == "model_type":
            message = "must be an object"
        if problem["type"] == "extra_forbidden":
            message = f"is not known; known are {', '.join(form.model_fields)}"
        raise Refused(400, f"{where}: {message}") from error


async def _drain(request: Request) -> None:
    """Read on for a while, since a client that still sends does not see the answer."""
    with suppress(TimeoutError, ClientDisconnect, RuntimeError):
        async with asyncio.timeout(_DRAIN_SECONDS):
            async for _ in request.stream():
                pass


async def _ended_or_gone(request: Request, job: Job) -> None:
    """Wait for a job; raise ClientDisconnect if the client goes away before its end."""
    waits = [
        asyncio.create_task(job.ended.wait()),
        asyncio.create_task(_until_disconnect(request)),
    ]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
    if not job.ended.is_set():
        raise ClientDisconnect


async def _until_disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _file_name(job: Job, path: Path) -> str:
    """Return the name under which a client saves a result."""
    return clean_name(job.upload.name, path.suffix).name


def _require_done(job: Job) -> Job:
    if job.stage is Stage.FAILED and job.error is not None:
        raise Refused(409, f"{job.upload.name} could not be cleaned: {job.error}")
    if job.stage is not Stage.DONE:
        raise Refused(409, f"{job.upload.name} is not ready yet")
    return job
