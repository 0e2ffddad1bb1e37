import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from signal import SIGHUP, SIGINT, SIGTERM, Signals

import pytest

from denoisecli.errors import UsageError
from denoisecli.serving.server import PORT, address_of, listening


def test_listens_at_the_port_that_is_asked_for() -> None:
    with listening("127.0.0.1", None) as first, listening("127.0.0.1", None) as second:
        port = first.getsockname()[1]
        assert second.getsockname()[1] not in (port, PORT)
        assert address_of(first, "127.0.0.1") == f"http://127.0.0.1:{port}/"
        with (
            pytest.raises(UsageError, match="Address already in use"),
            listening("127.0.0.1", second.getsockname()[1]),
        ):
            pass


def test_addresses_of_the_page() -> None:
    with listening("::1", None) as bound:
        port = bound.getsockname()[1]
        assert address_of(bound, "::1") == f"http://[::1]:{port}/"
        assert address_of(bound, "0.0.0.0") == f"http://{socket.gethostname()}:{port}/"


def test_unknown_addresses_are_refused() -> None:
    with (
        pytest.raises(UsageError, match="cannot listen at"),
        listening("192.0.2.1", None),
    ):
        pass


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(SIGINT, 130), (SIGTERM, 143), (SIGHUP, 129)])
def test_a_signal_ends_the_server_in_the_middle_of_an_upload(
    tmp_path: Path, number: Signals, code: int
) -> None:
    """All its files and processes are gone."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-c", "from denoisecli.cli.app import main; main()", "serve"]
    server = subprocess.Popen(
        [*command, "--no-browser", "--port", str(port)],
        env={"TMPDIR": str(tmp_path), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert server.stdout is not None
    assert f"http://127.0.0.1:{port}/" in server.stdout.readline()
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/models") as answer:
        assert answer.status == 200
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(
            b"POST /api/clean HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n"
            b"Content-Type: multipart/form-data; boundary=x\r\n\r\n"
            b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\nRIFF'
        )
        while not list(tmp_path.glob("denoise-serve-*/*/upload.wav")):
            time.sleep(0.05)
        server.send_signal(number)
        _, errors = server.communicate(timeout=60)
    assert server.returncode == code, errors
    assert errors == "error: stopped\n"
    assert list(tmp_path.glob("denoise-serve-*")) == []
    assert Path(tempfile.gettempdir()) != tmp_path
