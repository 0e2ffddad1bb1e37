"""Load a running `denoise serve` with many and with difficult clients, and check what it leaves.

    python -m benchmarks.server_load [--large-gib 2] [--leave]

starts a server of its own in a temporary folder and prints a table: 50 uploads at once, of which 5
are broken; a client that goes away while it sends, and one while it waits; a client that sends
slowly; a path in a file name; and one large upload. Then the server is stopped by SIGTERM. The
exit code is 1 if an answer is not what it should be, if memory grew with the size of the upload, or
if a file is left behind.
"""

import argparse
import asyncio
import io
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import soundfile

UPLOADS, BROKEN = 50, 5
SECONDS = 3.0  # of each of them
RATE = 16000
BOUNDARY = b"denoise-load"
MEMORY_MIB = 700
"""Most memory of the server and its worker together, whatever is sent."""

BIG_RATE = 192_000  # samples of 8 bytes: many bytes for little work
PIECE = 2**20


@dataclass
class Report:
    """Rows of the table, and what went wrong."""

    problems: list[str] = field(default_factory=list)

    def row(self, what: str, found: str, *, good: bool) -> None:
        """Print a row."""
        print(f"| {what} | {found} | {'yes' if good else 'NO'} |", flush=True)
        if not good:
            self.problems.append(what)


@dataclass(frozen=True)
class Server:
    """A running server."""

    process: subprocess.Popen[str]
    port: int
    folder: Path

    @property
    def memory_mib(self) -> float:
        """Return the resident memory of the server and its children in MiB."""
        pids = [str(self.process.pid)]
        children = subprocess.run(
            ["ps", "-o", "pid=", "--ppid", pids[0]], capture_output=True, text=True
        )
        pids += children.stdout.split()
        found = subprocess.run(
            ["ps", "-o", "rss=", "-p", ",".join(pids)], capture_output=True, text=True
        )
        return sum(map(int, found.stdout.split())) / 1024

    @property
    def files(self) -> list[Path]:
        """Return the files of all jobs."""
        return [path for path in self.folder.glob("*/*/**/*") if path.is_file()]


def recording(seconds: float) -> bytes:
    """Return a noisy recording as WAV."""
    rng = np.random.default_rng(0)
    content = io.BytesIO()
    soundfile.write(content, 0.1 * rng.standard_normal(round(seconds * RATE)), RATE, format="WAV")
    return content.getvalue()


def head(name: str) -> bytes:
    """Return what comes before the recording in a form."""
    disposition = f'Content-Disposition: form-data; name="file"; filename="{name}"'
    return b"--%b\r\n%b\r\n\r\n" % (BOUNDARY, disposition.encode())


TAIL = b"\r\n--%b--\r\n" % BOUNDARY


async def connect(
    server: Server, length: int, name: str
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Send the headers of an upload and the beginning of its form."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    begin = head(name)
    writer.write(
        b"POST /api/clean HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        b"Content-Type: multipart/form-data; boundary=%b\r\nContent-Length: %d\r\n\r\n"
        % (BOUNDARY, len(begin) + length + len(TAIL))
    )
    writer.write(begin)
    await writer.drain()
    return reader, writer


async def answer(reader: asyncio.StreamReader) -> tuple[int, str, int]:
    """Return the status, the headers and the beginning of the body, and the length of the body."""
    status = int((await reader.readline()).split()[1])
    text = (await reader.readuntil(b"\r\n\r\n")).decode()
    length = 0
    while piece := await reader.read(PIECE):
        if length == 0:
            text += piece[:300].decode("latin-1")
        length += len(piece)
    return status, text, length


async def send(server: Server, content: bytes, name: str) -> tuple[int, str, int]:
    """Send a recording and return the answer."""
    reader, writer = await connect(server, len(content), name)
    writer.write(content + TAIL)
    await writer.drain()
    found = await answer(reader)
    writer.close()
    return found


async def many(server: Server, report: Report) -> None:
    """Send many recordings at once, some of which are broken."""
    good, broken = recording(SECONDS), b"this is no sound " * 1000
    start = time.perf_counter()
    answers = await asyncio.gather(
        *(
            send(server, broken if index % 10 == 3 else good, f"take {index}.wav")
            for index in range(UPLOADS)
        )
    )
    seconds = time.perf_counter() - start
    cleaned = sum(status == 200 and length == len(good) for status, _, length in answers)
    refused = [text for status, text, _ in answers if status == 422]
    report.row(
        f"{UPLOADS} uploads at once, {BROKEN} of them broken",
        f"{cleaned} cleaned, {len(refused)} refused by name, in {seconds:.0f} s",
        good=(cleaned, len(refused)) == (UPLOADS - BROKEN, BROKEN)
        and all(re.search(r"take \d+\.wav is damaged", text) for text in refused),
    )


async def path_in_name(server: Server, report: Report) -> None:
    """Send a recording whose name leads out of the folder."""
    status, text, _ = await send(server, recording(1.0), "../../../../tmp/evil.wav")
    name = re.search(r'filename="([^"]*)"', text)
    report.row(
        "a path in a file name",
        f"status {status}, the answer is named {name[1] if name else 'nothing'}",
        good=status == 200 and name is not None and name[1] == "evil.clean.wav",
    )


async def gone(server: Server, report: Report) -> None:
    """Go away in the middle of sending, and while the recording is cleaned."""
    content = recording(SECONDS)
    _, writer = await connect(server, len(content), "half.wav")
    writer.write(content[: len(content) // 2])
    await writer.drain()
    await until(lambda: bool(server.files))
    writer.close()
    _, waiting = await connect(server, len(content), "waiting.wav")
    waiting.write(content + TAIL)
    await waiting.drain()
    waiting.close()
    left = not await until(lambda: not server.files)
    report.row(
        "clients that go away while they send or wait",
        f"{len(server.files)} files left",
        good=not left,
    )


async def slow(server: Server, report: Report) -> None:
    """Send a recording in small pieces while another client gets its turn."""
    content = recording(1.0)
    reader, writer = await connect(server, len(content), "slow.wav")
    start = time.perf_counter()
    other = None
    for index in range(0, len(content), len(content) // 20 + 1):
        writer.write(content[index : index + len(content) // 20 + 1])
        await writer.drain()
        await asyncio.sleep(0.25)
        if index and other is None:
            other = time.perf_counter()
            await send(server, content, "quick.wav")
            other = time.perf_counter() - other
    writer.write(TAIL)
    status, _, length = await answer(reader)
    report.row(
        "a slow client",
        f"status {status} after {time.perf_counter() - start:.0f} s; another one meanwhile waited "
        f"{other or 0:.1f} s",
        good=status == 200 and length == len(content),
    )


async def large(server: Server, report: Report, gib: float, *, leave: bool) -> None:
    """Send one large recording, and watch the memory; go away once it has arrived, if wanted."""
    frames = int(gib * 2**30) // 8
    rng = np.random.default_rng(0)
    head_file = io.BytesIO()
    with soundfile.SoundFile(head_file, "w", BIG_RATE, 1, "DOUBLE", format="RF64") as file:
        file.write(np.zeros(1))
    # A header for all frames: the sizes of RF64 stand in its chunk ds64.
    header = bytearray(head_file.getvalue()[:-8])
    ds64 = header.index(b"ds64") + 8
    size = len(header) + 8 * frames
    for offset, value in ((0, size - 8), (8, 8 * frames), (16, frames)):
        header[ds64 + offset : ds64 + offset + 8] = value.to_bytes(8, "little")
    piece = (0.05 * rng.standard_normal(PIECE // 8)).tobytes()
    before = server.memory_mib
    most = before
    start = time.perf_counter()
    reader, writer = await connect(server, size, "large.wav")
    writer.write(header)
    sent = len(header)
    while sent < size:
        part = piece[: min(PIECE, size - sent)]
        writer.write(part)
        await writer.drain()
        sent += len(part)
        if sent % (64 * PIECE) < PIECE:
            most = max(most, server.memory_mib)
    writer.write(TAIL)
    await writer.drain()
    uploaded = time.perf_counter() - start
    title = f"an upload of {gib:g} GiB ({frames / BIG_RATE / 60:.0f} min at {BIG_RATE // 1000} kHz)"
    if leave:
        await until(lambda: len(server.files) > 1)  # it is being cleaned
        most = max(most, server.memory_mib)
        writer.close()
        left = not await until(lambda: not server.files)
        report.row(
            f"{title}, given up while it is cleaned",
            f"sent in {uploaded:.0f} s, {before:.0f} -> at most {most:.0f} MiB, "
            f"{len(server.files)} files left",
            good=not left and most < MEMORY_MIB,
        )
        return
    waiting = asyncio.create_task(answer(reader))
    while not waiting.done():
        most = max(most, server.memory_mib)
        await asyncio.sleep(0.5)
    status, text, length = waiting.result()
    report.row(
        title,
        f"status {status}, sent in {uploaded:.0f} s, cleaned after "
        f"{time.perf_counter() - start:.0f} s, {before:.0f} -> at most {most:.0f} MiB",
        good=status == 200 and length > 8 * frames and most < MEMORY_MIB,
    )
    if status != 200:
        print(text, file=sys.stderr)


async def until(condition: object, seconds: float = 120.0) -> bool:
    """Wait for a condition; return whether it came true."""
    assert callable(condition)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        await asyncio.sleep(0.1)
    return False


async def load(server: Server, report: Report, gib: float, *, leave: bool) -> None:
    """Run all parts."""
    await many(server, report)
    await path_in_name(server, report)
    await gone(server, report)
    await slow(server, report)
    if gib > 0:
        await large(server, report, gib, leave=leave)
    left = not await until(lambda: not server.files)
    report.row("afterwards", f"{len(server.files)} files left", good=not left)


def main() -> int:
    """Start a server, load it and stop it; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--large-gib", type=float, default=2.0, help="size of the large upload")
    parser.add_argument(
        "--leave", action="store_true", help="go away once it has arrived, to save the time"
    )
    arguments = parser.parse_args()
    report = Report()
    with tempfile.TemporaryDirectory() as temporary:
        code = "from denoisecli.cli.app import main; main()"
        process = subprocess.Popen(
            [sys.executable, "-c", code, "serve", "--no-browser"],
            env=os.environ | {"TMPDIR": temporary},
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        address = re.search(r":(\d+)/", process.stdout.readline())
        assert address is not None
        server = Server(process, int(address[1]), Path(temporary))
        print("| client | result | as it should be |\n|---|---|---|")
        asyncio.run(load(server, report, arguments.large_gib, leave=arguments.leave))
        process.send_signal(signal.SIGTERM)
        code_found = process.wait(60)
        left = list(Path(temporary).glob("denoise-*"))
        report.row(
            "SIGTERM",
            f"exit code {code_found}, {len(left)} folders left",
            good=code_found == 143 and not left,
        )
    return int(bool(report.problems))


if __name__ == "__main__":
    sys.exit(main())
