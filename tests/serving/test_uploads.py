import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request
from starlette.testclient import TestClient

from denoisecli.serving.answers import Refused
from denoisecli.serving.uploads import receive, safe_name

BOUNDARY = "limit"
FORM = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}


def part(disposition: str, content: str) -> str:
    return f"--{BOUNDARY}\r\nContent-Disposition: form-data; {disposition}\r\n\r\n{content}\r\n"


FILE = part('name="file"; filename="talk.wav"', "sound")
END = f"--{BOUNDARY}--\r\n"


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (END, 400, 'no field "file"'),
        (part('name="file"; filename="talk.wav"', "") + END, 400, "talk.wav is empty"),
        (part('name="file"; filename="notes.txt"', "x") + END, 415, "notes.txt is not a recording"),
        (part('name="file"', "x") + END, 415, "recording is not a recording"),
        (part('name="sound"; filename="talk.wav"', "x") + END, 400, 'in the field "file"'),
        (FILE + FILE + END, 400, "one at a time"),
        (FILE, 400, "incomplete"),
        ("no form at all", 400, "not valid"),
        (part('name="model"', "x" * 2000) + FILE + END, 400, "too long"),
        ("".join(part(f'name="a{i}"', "x") for i in range(20)) + FILE + END, 400, "too many"),
        (f"--{BOUNDARY}\r\nX: {'y' * 9000}\r\n\r\n", 400, "not valid"),
        (part('name="file"; filename="talk.wav"', "x" * 2000) + END, 413, "larger than"),
    ],
)
def test_wrong_forms_are_refused_with_a_sentence(
    start: Callable[..., TestClient], root: Path, body: str, status: int, words: str
) -> None:
    client = start(max_bytes=1000)
    answer = client.post("/api/jobs", content=body.encode(), headers=FORM)
    assert answer.status_code == status, answer.text
    assert words in answer.json()["error"]
    assert list(root.iterdir()) == []


def test_other_kinds_of_bodies_are_refused(client: TestClient) -> None:
    for headers in ({"Content-Type": "audio/wav"}, {"Content-Type": "multipart/form-data"}, {}):
        answer = client.post("/api/jobs", content=b"RIFF", headers=headers)
        assert answer.status_code == 415
        assert "multipart/form-data" in answer.json()["error"]


def test_a_boundary_that_is_too_long_is_refused(client: TestClient) -> None:
    headers = {"Content-Type": f"multipart/form-data; boundary={'a' * 300}"}
    answer = client.post("/api/jobs", content=b"x", headers=headers)
    assert answer.status_code == 400
    assert "not valid" in answer.json()["error"]


def test_what_is_too_large_is_refused_before_it_is_read(start: Callable[..., TestClient]) -> None:
    client = start(max_bytes=1000)
    headers = FORM | {"Content-Length": str(10**9)}
    answer = client.post("/api/jobs", content=b"--", headers=headers)
    assert answer.status_code == 413
    assert "limit of this server" in answer.json()["error"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has it")
@pytest.mark.parametrize("size", [5, 10_000, 3 * 2**20])
def test_a_full_disk_is_reported_wherever_it_shows(tmp_path: Path, size: int) -> None:
    """The last bytes are only written when the file is closed."""
    (tmp_path / "upload.wav").symlink_to("/dev/full")
    body = part('name="file"; filename="talk.wav"', "x" * size) + END

    async def send() -> dict[str, Any]:
        return {"type": "http.request", "body": body.encode(), "more_body": False}

    headers = [(b"content-type", FORM["Content-Type"].encode())]
    request = Request({"type": "http", "method": "POST", "headers": headers}, send)
    with pytest.raises(Refused, match="cannot be stored: No space left") as refused:
        asyncio.run(receive(request, tmp_path, max_bytes=2**30, timeout=60))
    assert refused.value.status == 507


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("talk.wav", "talk.wav"),
        ("a/b/talk.wav", "a/b/talk.wav"),
        ("../../etc/passwd", "etc/passwd"),
        ("C:\\Users\\me\\talk.wav", "C_/Users/me/talk.wav"),
        ("//server/share/talk.wav", "server/share/talk.wav"),
        ("\u202ewav.exe\x00", "_wav.exe_"),
        ("Gespräch mit Müller?.wav", "Gespräch mit Müller_.wav"),
        (" ... ", "recording"),
        ("", "recording"),
        ("x" * 300 + ".wav", "x" * 196 + ".wav"),
        ("语" * 100 + ".wav", "语" * 62 + ".wav"),
        ("aux.wav", "_aux.wav"),
        ("Com1/NUL", "_Com1/_NUL"),
        ("auxiliary/console.wav", "auxiliary/console.wav"),
        ("/".join("abcdefghijk") + "/talk.wav", "e/f/g/h/i/j/k/talk.wav"),
    ],
)
def test_safe_names(name: str, expected: str) -> None:
    assert safe_name(name) == expected
    assert all(len(part.encode()) <= 255 for part in expected.split("/"))
