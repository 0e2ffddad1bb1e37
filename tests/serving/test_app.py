import asyncio
import io
import json
import shutil
import time
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

import numpy as np
import pytest
import soundfile
from helpers import constant_mask
from starlette.testclient import TestClient

from denoisecli.audio.reading import AudioReader
from denoisecli.cleaning.strength import Choice
from denoisecli.serving import app, rendering, work

RATE = 8000


@pytest.fixture
def wav(noise: Callable[..., np.ndarray]) -> bytes:
    """Return a stereo recording of half a second."""
    return encoded(np.stack([noise(0.5, RATE), noise(0.5, RATE)]))


def encoded(audio: np.ndarray, format: str = "WAV") -> bytes:
    content = io.BytesIO()
    soundfile.write(content, audio.T, RATE, format=format)
    return content.getvalue()


def decoded(content: bytes) -> np.ndarray:
    audio, rate = soundfile.read(io.BytesIO(content), dtype="float32")
    assert rate == RATE
    return audio.T


def add(client: TestClient, content: bytes, name: str = "talk.wav", **fields: Any) -> str:
    """Send a recording and wait until it is done; return the id of its job."""
    answer = client.post("/api/jobs", files={"file": (name, content)}, data=fields)
    assert answer.status_code == 202, answer.text
    return wait(client, answer.json()["id"])["id"]


def wait(client: TestClient, job: str) -> dict[str, Any]:
    for _ in range(500):
        record = client.get(f"/api/jobs/{job}").json()
        if record["stage"] in ("done", "failed"):
            return record
        time.sleep(0.01)
    raise AssertionError(record)


def refused(answer: Any, status: int, *words: str) -> None:
    assert answer.status_code == status, answer.text
    message = answer.json()["error"]
    for word in words:
        assert word in message
    assert "/tmp" not in message
    assert "Traceback" not in message


def test_clean_answers_with_the_cleaned_file(client: TestClient, wav: bytes, root: Path) -> None:
    answer = client.post("/api/clean", files={"file": ("talk.wav", wav)})
    assert answer.status_code == 200
    assert 'filename="talk.clean.wav"' in answer.headers["content-disposition"]
    assert answer.headers["cache-control"] == "no-store"
    assert json.loads(answer.headers["denoise-warnings"]) == []
    np.testing.assert_allclose(decoded(answer.content), decoded(wav) / 4, atol=2e-4)
    assert list(root.iterdir()) == []


def test_clean_takes_strength_format_and_mono(client: TestClient, wav: bytes) -> None:
    answer = client.post(
        "/api/clean",
        files={"file": ("talk.wav", wav)},
        data={"strength": "0.5", "format": ".flac", "mono": "true"},
    )
    assert soundfile.info(io.BytesIO(answer.content)).format == "FLAC"
    np.testing.assert_allclose(
        decoded(answer.content), decoded(wav).mean(axis=0) * 0.625, atol=2e-4
    )


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"strength": "2"}, ["strength", "less than or equal to 1"]),
        ({"strength": "loud"}, ["strength", "number"]),
        ({"format": ".exe"}, ["format", ".flac"]),
        ({"model": "../../etc"}, ["model", "speech"]),
        ({"volume": "1"}, ["volume", "strength"]),
    ],
)
def test_wrong_fields_are_refused_with_a_sentence(
    client: TestClient, wav: bytes, root: Path, fields: dict[str, str], words: list[str]
) -> None:
    answer = client.post("/api/clean", files={"file": ("talk.wav", wav)}, data=fields)
    refused(answer, 400, *words)
    assert list(root.iterdir()) == []


def test_damaged_recordings_are_refused_by_their_name(
    client: TestClient, wav: bytes, root: Path
) -> None:
    refused(
        client.post("/api/clean", files={"file": ("talk.wav", b"no sound at all" * 9)}),
        422,
        "talk.wav",
    )
    cut = client.post("/api/clean", files={"file": ("talk.wav", wav[:-3000])})
    refused(cut, 422, "talk.wav is cut off")
    kept = client.post(
        "/api/clean", files={"file": ("talk.wav", wav[:-3000])}, data={"keep_readable": "1"}
    )
    assert kept.status_code == 200
    assert "talk.wav is cut off" in json.loads(kept.headers["denoise-warnings"])[0]
    assert list(root.iterdir()) == []


def test_a_job_is_played_shown_and_written_at_any_strength(client: TestClient, wav: bytes) -> None:
    job = add(client, wav)
    result = client.get(f"/api/jobs/{job}").json()["result"]
    assert (result["channels"], result["seconds"], result["warnings"]) == (2, 0.5, [])
    assert result["rms_in_dbfs"] - result["rms_out_dbfs"] == pytest.approx(12.04, abs=0.05)

    preview = decoded(client.get(f"/api/jobs/{job}/preview").content)
    assert result["preview_channels"] == 2
    np.testing.assert_allclose(preview[2:], preview[:2] / 4, atol=2e-4)
    part = client.get(f"/api/jobs/{job}/preview", headers={"Range": "bytes=0-3"})
    assert (part.status_code, part.content) == (206, b"fLaC")

    size = result["spectrogram"]
    levels = np.frombuffer(client.get(f"/api/jobs/{job}/spectrogram").content, np.uint8)
    noisy, clean = levels.reshape(2, size["rows"], size["columns"]).astype(int)
    difference = (noisy - clean)[noisy > 100] / 2
    assert np.median(difference) == pytest.approx(12, abs=0.5)
    assert size["top_hz"] == RATE / 2
    assert size["seconds"] == pytest.approx(0.5, abs=0.01)

    for strength, gain in ((0, 1.0), (0.4, 0.7), (1, 0.25)):
        answer = client.post(f"/api/jobs/{job}/file", json={"strength": strength})
        file = client.get(answer.json()["url"])
        assert 'filename="talk.clean.wav"' in file.headers["content-disposition"]
        np.testing.assert_allclose(decoded(file.content), decoded(wav) * gain, atol=2e-4)


def test_the_strength_is_suggested(
    client: TestClient, noise: Callable[..., np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if the header does not state the length, as in a FLAC from a pipe."""
    content = bytearray(encoded(noise(1.0, RATE), format="FLAC"))
    content[21] &= 0xF0
    content[22:26] = bytes(4)

    def choose(recording: AudioReader, clean: Callable[..., np.ndarray], *, frames: int) -> Choice:
        block = np.concatenate(list(recording), axis=1)
        assert recording.info.frames == 0
        assert frames == block.shape[1] == RATE
        np.testing.assert_allclose(clean(block), block / 4, atol=1e-5)
        return Choice(0.75, {0.0: 1.0, 0.75: 2.0})

    monkeypatch.setattr("denoisecli.serving.work.choose_strength", choose)
    job = add(client, bytes(content), "talk.flac")
    answer = client.post(f"/api/jobs/{job}/strength")
    assert answer.json() == {"strength": 0.75, "ovrl": {"0.0": 1.0, "0.75": 2.0}, "note": None}


def test_the_loudness_is_known_before_and_set_in_the_file(
    client: TestClient, noise: Callable[..., np.ndarray]
) -> None:
    content = encoded(noise(3.0, RATE))
    job = add(client, content)
    result = client.get(f"/api/jobs/{job}").json()["result"]
    before, after = result["loudness"][0], result["loudness"][-1]
    assert before - after == pytest.approx(12.04, abs=0.1)
    assert result["pauses"][0] - result["pauses"][1] == pytest.approx(12.04, abs=0.1)
    url = client.post(f"/api/jobs/{job}/file", json={"loudness": before}).json()["url"]
    np.testing.assert_allclose(decoded(client.get(url).content), decoded(content), atol=2e-3)
    both = {"loudness": -16, "keep_loudness": True}
    refused(client.post(f"/api/jobs/{job}/file", json=both), 400, "cannot be combined")


def test_only_the_last_files_of_a_job_are_kept(client: TestClient, wav: bytes, root: Path) -> None:
    job = add(client, wav)
    urls = [client.post(f"/api/jobs/{job}/file").json()["url"] for _ in range(6)]
    refused(client.get(urls[0]), 404, "request it again")
    assert client.get(urls[-1]).status_code == 200
    assert len(list(root.glob("*/*/result.wav"))) == 4


def test_high_rates_many_channels_and_unknown_formats_get_a_preview(
    client: TestClient, noise: Callable[..., np.ndarray]
) -> None:
    content = io.BytesIO()
    soundfile.write(content, np.stack([noise(0.2, 96000)] * 3).T, 96000, format="WAV")
    job = add(client, content.getvalue(), "studio.wav")
    preview = client.get(f"/api/jobs/{job}/preview").content
    info = soundfile.info(io.BytesIO(preview))
    assert (info.samplerate, info.channels, info.frames) == (48000, 2, 9600)


def test_the_archive_holds_all_results_under_their_own_names(
    client: TestClient, wav: bytes, root: Path
) -> None:
    jobs = [add(client, wav, name) for name in ("a/talk.wav", "a/Talk.wav", "b/talk.wav")]
    answer = client.post("/api/zip", json={"jobs": [{"id": job, "strength": 0} for job in jobs]})
    content = client.get(answer.json()["url"])
    assert content.headers["content-type"] == "application/zip"
    archive = zipfile.ZipFile(io.BytesIO(content.content))
    assert archive.testzip() is None
    assert archive.namelist() == ["a/talk.clean.wav", "a/Talk.clean (2).wav", "b/talk.clean.wav"]
    np.testing.assert_allclose(decoded(archive.read("b/talk.clean.wav")), decoded(wav), atol=2e-4)
    assert list(root.glob("*/*/*.wav")) == []


def test_an_archive_of_removed_recordings_is_gone(client: TestClient, wav: bytes) -> None:
    job = add(client, wav, "talk.wav")
    url = client.post("/api/zip", json={"jobs": [{"id": job}]}).json()["url"]
    assert client.delete(f"/api/jobs/{job}").status_code < 300
    assert client.get(url).status_code == 404


def test_the_archive_lists_what_could_not_be_written(
    client: TestClient, wav: bytes, noise: Callable[..., np.ndarray]
) -> None:
    surround = add(client, encoded(np.stack([noise(0.2, RATE)] * 3)), "surround.wav")
    jobs = [{"id": surround, "format": ".mp3"}, {"id": add(client, wav)}]
    url = client.post("/api/zip", json={"jobs": jobs}).json()["url"]
    archive = zipfile.ZipFile(io.BytesIO(client.get(url).content))
    assert archive.namelist() == ["talk.clean.wav", "errors.txt"]
    assert b"at most 2 channels" in archive.read("errors.txt")
    assert b"/tmp" not in archive.read("errors.txt")


def test_the_escapes_of_forms_are_characters_of_the_name(client: TestClient, wav: bytes) -> None:
    """Browsers, curl and this client write quotation marks so; other percent signs stay."""
    answer = client.post("/api/clean", files={"file": ('100%25 "q".wav', wav)})
    assert quote("100%25 _q_.clean.wav") in answer.headers["content-disposition"]


def test_names_longer_than_file_systems_allow(client: TestClient, wav: bytes) -> None:
    given, name = "雨" * 90, "雨" * 62
    job = add(client, wav, f"{given}.wav")
    rendered = client.post(f"/api/jobs/{job}/file", json={"format": ".flac"}).json()
    assert rendered["name"] == f"{name}.clean.flac"
    answer = client.get(rendered["url"])
    assert quote(rendered["name"]) in answer.headers["content-disposition"]
    assert soundfile.info(io.BytesIO(answer.content)).format == "FLAC"
    url = client.post("/api/zip", json={"jobs": [{"id": job}]}).json()["url"]
    with zipfile.ZipFile(io.BytesIO(client.get(url).content)) as archive:
        assert archive.namelist() == [f"{name}.clean.wav"]
    answer = client.post("/api/clean", files={"file": (f"{given}.wav", wav)})
    assert quote(f"{name}.clean.wav") in answer.headers["content-disposition"]


def test_archives_are_written_two_recordings_at_a_time(
    client: TestClient, wav: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = add(client, wav)
    url = client.post("/api/zip", json={"jobs": [{"id": job}]}).json()["url"]
    running: list[int] = []
    numbers: list[int] = []
    render = rendering.render

    def counted(*arguments: Any) -> Any:
        running.append(1)
        numbers.append(len(running))
        time.sleep(0.02)
        try:
            return render(*arguments)
        finally:
            running.pop()

    monkeypatch.setattr(rendering, "render", counted)
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(client.get, [url] * 8))
    assert [answer.status_code for answer in answers] == [200] * 8
    assert len(numbers) == 8
    assert max(numbers) == 2


def test_bodies_that_are_no_object_are_refused(client: TestClient, wav: bytes) -> None:
    job = add(client, wav)
    for body, words in (
        (b"[1]", ["the body: must be an object"]),
        (b"[" * 100_000, ["not valid JSON"]),
        (b"{", ["not valid JSON"]),
        (b"\xff", ["not valid JSON"]),
        (b"1" * 10_000, []),
        (b'{"model": "\\u0000"}', ["model", "is not one of"]),
    ):
        refused(client.post(f"/api/jobs/{job}", content=body), 400, *words)


@pytest.mark.parametrize("path", ["", "/file"])
def test_a_job_that_is_removed_while_its_request_is_read(
    client: TestClient, wav: bytes, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    job = add(client, wav)
    read = app.App._read

    async def removed(self: app.App, request: Any, form: Any) -> Any:
        jobs.remove(jobs.get(job))
        return await read(self, request, form)

    jobs = client.app.routes[0].endpoint.__self__._jobs
    monkeypatch.setattr(app.App, "_read", removed)
    refused(client.post(f"/api/jobs/{job}{path}", json={}), 404, "no such recording")


@pytest.mark.parametrize("moment", ["waiting", "working", "written"])
@pytest.mark.parametrize("path", ["/file", "/strength", "/zip"])
def test_a_job_that_is_removed_while_a_file_of_it_is_made(
    client: TestClient,
    wav: bytes,
    monkeypatch: pytest.MonkeyPatch,
    path: str,
    moment: str,
) -> None:
    application = client.app.routes[0].endpoint.__self__
    job = application._jobs.get(add(client, wav))
    url = client.post("/api/zip", json={"jobs": [{"id": job.id}]}).json()["url"]

    class Slots(asyncio.Semaphore):
        async def acquire(self) -> Literal[True]:
            application._jobs.remove(job)
            return await super().acquire()

    def removing(function: Callable[..., Any], *, first: bool) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            if first:
                application._jobs.remove(job)
            result = function(*arguments, **options)
            application._jobs.remove(job)
            return result

        return call

    if moment == "waiting":
        monkeypatch.setattr(application, "_rendering_slots", Slots(2))
    elif moment == "working":
        monkeypatch.setattr(rendering, "remix_file", removing(rendering.remix_file, first=True))
        monkeypatch.setattr(work, "reader", removing(work.reader, first=True))
    else:
        for module in (app, rendering):
            monkeypatch.setattr(module, "render", removing(module.render, first=False))
        choice = {"strength": 1.0, "ovrl": {}, "note": None}
        monkeypatch.setattr(work, "suggest_strength", removing(lambda *_: choice, first=False))
    if path == "/zip":
        archive = zipfile.ZipFile(io.BytesIO(client.get(url).content))
        assert archive.namelist() == ["errors.txt"]
        assert b"talk.wav was removed" in archive.read("errors.txt")
    else:
        refused(client.post(f"/api/jobs/{job.id}{path}"), 404, "talk.wav was removed")


def test_the_default_model_is_removed_while_the_server_runs(
    start: Callable[..., TestClient],
    model_folder: Callable[..., Path],
    wav: bytes,
) -> None:
    model = model_folder(constant_mask(0.5))
    client = start(model=str(model))
    assert client.get("/api/models").json()["default"] == model.name
    shutil.rmtree(model)
    listed = client.get("/api/models").json()
    assert listed["default"] in [row["name"] for row in listed["models"]]
    answer = client.post("/api/clean", files={"file": ("talk.wav", wav)})
    refused(answer, 400, "the default of this server was removed")


def test_models_are_searched_once_for_a_request_and_beside_the_event_loop(
    client: TestClient, wav: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    searches: list[bool] = []
    names = app.model_names

    def counted() -> Any:
        with pytest.raises(RuntimeError, match="no running event loop"):
            asyncio.get_running_loop()
        searches.append(True)
        return names()

    monkeypatch.setattr(app, "model_names", counted)
    job = add(client, wav)
    assert len(searches) == 1
    client.post(f"/api/jobs/{job}", json={})
    client.post("/api/clean", files={"file": ("talk.wav", wav)})
    assert len(searches) == 3
    wait(client, job)


def test_a_recording_is_cleaned_again_with_another_model(
    start: Callable[..., TestClient],
    tmp_path: Path,
    model_folder: Callable[..., Path],
    wav: bytes,
) -> None:
    model_folder(constant_mask(0.5)).rename(tmp_path / "runs")
    client = start()
    models = client.get("/api/models").json()
    names = {row["name"]: row["kind"] for row in models["models"]}
    local = "runs"
    assert names["speech"] == "bundled"
    assert names[local] == "local"

    job = add(client, wav)
    assert client.post(f"/api/jobs/{job}", json={"model": local}).status_code == 202
    assert wait(client, job)["model"] == local
    url = client.post(f"/api/jobs/{job}/file").json()["url"]
    np.testing.assert_allclose(decoded(client.get(url).content), decoded(wav) / 2, atol=2e-4)


@pytest.mark.parametrize("place", ["my-studio", "my-studio/model"])
def test_models_in_the_current_folder_are_found(
    start: Callable[..., TestClient],
    tmp_path: Path,
    model_folder: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    place: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(place).parent.mkdir(exist_ok=True)
    model_folder(constant_mask(0.5)).rename(tmp_path / place)
    rows = start().get("/api/models").json()["models"]
    assert [row["kind"] for row in rows if row["name"] == "my-studio"] == ["local"]


@pytest.mark.parametrize(
    ("models", "name"),
    [(".", "x"), ("runs", "runs/x"), ("runs/x", "x"), ("runs/x/model", "model")],
)
def test_models_are_found_in_any_folder_of_a_run(
    start: Callable[..., TestClient],
    tmp_path: Path,
    model_folder: Callable[..., Path],
    wav: bytes,
    monkeypatch: pytest.MonkeyPatch,
    models: str,
    name: str,
) -> None:
    (tmp_path / "runs" / "x").mkdir(parents=True)
    model_folder(constant_mask(0.5)).rename(tmp_path / "runs" / "x" / "model")
    monkeypatch.chdir(tmp_path / ("runs" if models == "." else ""))
    client = start(models_folder=Path(models))
    listed = client.get("/api/models").json()["models"]
    assert {row["name"] for row in listed if row["kind"] == "local"} == {"model0", name}
    answer = client.post("/api/clean", files={"file": ("t.wav", wav)}, data={"model": name})
    np.testing.assert_allclose(decoded(answer.content), decoded(wav) / 2, atol=2e-4)


@pytest.mark.parametrize(("folder", "model"), [("", "x"), ("", "x/model"), ("x", "model")])
def test_the_default_has_the_name_of_its_run(
    start: Callable[..., TestClient],
    tmp_path: Path,
    model_folder: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    folder: str,
    model: str,
) -> None:
    (tmp_path / "x").mkdir()
    model_folder(constant_mask(0.5)).rename(tmp_path / "x" / "model")
    monkeypatch.chdir(tmp_path / folder)
    assert start(model=model).get("/api/models").json()["default"] == "x"


def test_a_removed_job_is_gone_with_its_files(client: TestClient, wav: bytes, root: Path) -> None:
    job = add(client, wav)
    assert client.delete(f"/api/jobs/{job}").status_code == 204
    assert list(root.iterdir()) == []
    for method, path in (("GET", ""), ("GET", "/preview"), ("POST", "/file"), ("DELETE", "")):
        refused(client.request(method, f"/api/jobs/{job}{path}"), 404, "no such recording")
    assert client.get("/api/jobs", params={"id": job}).json() == {"jobs": []}


def test_a_failed_job_keeps_its_sentence(client: TestClient) -> None:
    job = add(client, b"no sound" * 20, "broken.flac")
    record = client.get(f"/api/jobs/{job}").json()
    assert record["stage"] == "failed"
    assert "broken.flac" in record["error"]
    refused(client.get(f"/api/jobs/{job}/preview"), 409, "could not be cleaned")
    refused(client.post("/api/zip", json={"jobs": [{"id": job}]}), 409, "broken.flac")


def test_old_jobs_are_removed(start: Callable[..., TestClient], wav: bytes, root: Path) -> None:
    client = start(keep_seconds=0.2)
    job = client.post("/api/jobs", files={"file": ("talk.wav", wav)}).json()["id"]
    for _ in range(100):
        time.sleep(0.4)  # asking for it more often would keep it
        if (answer := client.get(f"/api/jobs/{job}")).status_code == 404:
            break
    refused(answer, 404, "recordings are removed after")
    assert list(root.iterdir()) == []


@pytest.mark.parametrize(
    "name",
    ["../../../etc/passwd.wav", "C:\\Windows\\win.wav"],
)
def test_no_name_leads_out_of_the_folder(
    client: TestClient, wav: bytes, root: Path, name: str
) -> None:
    job = add(client, wav, name)
    record = client.get(f"/api/jobs/{job}").json()
    assert ".." not in record["name"].split("/")
    assert ":" not in record["name"]
    assert not record["name"].startswith("/")
    assert {path.parent for path in root.rglob("*.*") if path.is_file()} == {root / job}


@pytest.mark.parametrize(
    "path",
    [
        "/static/../app.py",
        "/static/..%2fapp.py",
        "/static/%2e%2e/app.py",
        "/static//etc/passwd",
        "/api/jobs/..%2f..%2fetc%2fpasswd/preview",
        "/etc/passwd",
        "/static/login.html/..",
    ],
)
def test_no_file_of_the_server_can_be_read(client: TestClient, path: str) -> None:
    refused(client.get(path), 404)


def test_the_page_loads_only_files_of_the_package(client: TestClient) -> None:
    page = client.get("/")
    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "http" not in page.text.replace("http://www.w3.org", "")


def test_the_api_is_described_completely(client: TestClient) -> None:
    document = client.get("/api/openapi.json").json()
    described = {
        (path, method.upper())
        for path, operations in document["paths"].items()
        for method in operations
    }
    served = {
        (route.path, method)
        for route in client.app.routes  # type: ignore[attr-defined]
        for method in route.methods - {"HEAD"}
        if route.path.startswith("/api/")
    }
    assert described == served
    form = document["paths"]["/api/clean"]["post"]["requestBody"]["content"]
    assert {"file", "model", "strength"} < set(form["multipart/form-data"]["schema"]["properties"])


def test_answers_have_the_fields_that_are_described(
    client: TestClient, wav: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = client.get("/api/openapi.json").json()
    monkeypatch.setattr(work, "choose_strength", lambda *_, **__: Choice(0.75, {0.0: 1.0}))
    job = add(client, wav)
    for path, body in {
        "/api/jobs/{id}/file": {},
        "/api/jobs/{id}/strength": None,
        "/api/zip": {"jobs": [{"id": job}]},
    }.items():
        answer = client.post(path.replace("{id}", job), json=body).json()
        described = document["paths"][path]["post"]["responses"]["2XX"]
        schema = described["content"]["application/json"]["schema"]
        assert answer.keys() == schema["properties"].keys()
    record = client.get(f"/api/jobs/{job}").json()
    assert record.keys() <= document["components"]["schemas"]["Job"]["properties"].keys()


def test_limits_are_told_in_advance(start: Callable[..., TestClient]) -> None:
    server = start(max_bytes=1000, keep_seconds=120.0).get("/api/server").json()
    assert (server["max_bytes"], server["keep_minutes"]) == (1000, 2)
    assert {".wav", ".mp4"} < set(server["reads"])
    assert ".mp4" not in server["writes"]


def test_a_full_queue_refuses_more(
    start: Callable[..., TestClient], wav: bytes, root: Path
) -> None:
    client = start(max_waiting=0)
    answer = client.post("/api/jobs", files={"file": ("talk.wav", wav)})
    refused(answer, 503, "try again")
    assert answer.headers["retry-after"] == "5"
    assert list(root.iterdir()) == []
