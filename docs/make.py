"""Run every command that the documents show, and compare what it prints with what they say.

    python docs/make.py            rewrite the outputs and pictures in README.md and docs/
    python docs/make.py --check    exit with 1 if one of them is out of date

A document shows a command and its output in a fenced block of the language ``console``: lines that
begin with ``$ `` are run by the shell, and the lines after a command are its output (stderr, then
stdout). All blocks run in one temporary folder, those of README.md first, so that a page can use
what an earlier one has made. A comment in front of a block says how it is treated:

    <!-- needs: speech noise -->   skip the block where these recordings or programs are missing
    <!-- shape -->                 compare neither numbers nor the words better and worse
    <!-- sample -->                compare only means, and let them differ by a few intervals

Times, speeds and sizes of memory are never compared, other fractions to two units of their last
digit. The folder links to ``examples`` and to the folders of ``RECORDINGS``. Pictures with the
names of those in docs/ are compared with them pixel by pixel.

So that a check takes few minutes, it trains ``tiny`` with little data, of whose output only the
shape is compared, and evaluates on a sixth of the recordings.
"""

import argparse
import difflib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

SHARED = ROOT.parent / "shared" / "data"
RECORDINGS = {
    "speech": SHARED / "train" / "speech" / "ms-snsd",
    "noise": SHARED / "train" / "noise" / "ms-snsd",
    "valid": SHARED / "valid",
}
"""Name of a folder in the documents, and the recordings that it stands for."""

SCREENSHOT = (
    "{browser} --headless --no-sandbox --disable-gpu --hide-scrollbars --window-size=1280,1160 "
    "--screenshot=report.png report.html 2> /dev/null"
)
"""Command that draws docs/report.png from the report that README.md makes, where it was made."""
PAGE_SCREENSHOT = (
    "{browser} --headless --no-sandbox --disable-gpu --hide-scrollbars --window-size=1280,900 "
    "--virtual-time-budget=20000 --screenshot=serve.png '{address}' 2> /dev/null"
)
"""Command that draws docs/serve.png from the page of `denoise serve`."""
BROWSERS = ("chromium", "chromium-browser", "google-chrome")

BLOCK = re.compile(r"(?P<marks>(?:<!-- [^>]* -->\n)*)```console\n(?P<body>.*?)```", re.DOTALL)
NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?")
MACHINE = re.compile(
    r"in [\d.]+ s \(\d+x real time\)"  # clean
    r"|(?<= )\d+x +[\d.]+ +\d+(?= )"  # evaluate: speed, load time, memory
    r"|[\d.]+ Mi?B"
    r"|\bid [0-9a-f]+"  # dataset
)
"""What depends on the machine."""
MEAN = re.compile(r"(?P<mean>[-+]?[\d.]+) ±(?P<half>[\d.]+)")
CHECK_TRAINING = {
    "steps_per_epoch": 20,
    "batch_size": 8,
    "warmup_steps": 5,
    "average_decay": 0.8,
}
"""Settings of the training in a check."""
CHECK_EVERY = 6
"""Of this number of clean recordings in ``valid``, a check takes one."""
CHECK_HALVES = 2.0
"""Largest difference of a mean over these from that over all, in halves of its interval."""
PIXELS = {"before-after.png": 0.5, "dataset.png": 0.5}
"""Largest mean difference, of 255, between a picture and the one made anew, by its name."""
SCREENSHOT_PIXELS = 8.0
"""The same for pictures of a browser, whose figures depend on the recordings and the machine."""


@dataclass(frozen=True)
class Block:
    """A fenced block of a document: marks, commands and outputs."""

    marks: str
    body: str

    @property
    def commands(self) -> list[str]:
        """Return the commands, without the dollar sign."""
        return [line[2:] for line in self.body.splitlines() if line.startswith("$ ")]

    @property
    def missing(self) -> list[str]:
        """Return the recordings and programs that the block needs and that are not at hand."""
        names = " ".join(re.findall(r"needs: ([\w -]+?) -->", self.marks)).split()
        return [
            name
            for name in names
            if not (RECORDINGS[name].exists() if name in RECORDINGS else shutil.which(name))
        ]

    def run(self, folder: Path) -> "Block":
        """Run the commands in a folder and return the block with their outputs."""
        lines = []
        for command in self.commands:
            lines += [f"$ {command}", *(line.rstrip() for line in shell(command, folder))]
        return Block(self.marks, "\n".join(lines) + "\n")

    def agrees_with(self, other: "Block") -> bool:
        """Return whether two blocks are the same but for what depends on the machine."""
        first, second = (
            re.sub(r"[ \t]+", " ", MACHINE.sub("", block.body)) for block in (self, other)
        )
        if "shape" in self.marks:
            first, second = (re.sub("better|worse", "W", text) for text in (first, second))
        if NUMBER.sub("N", first) != NUMBER.sub("N", second):
            return False
        if "sample" in self.marks:
            means = zip(MEAN.finditer(first), MEAN.finditer(second), strict=True)
            return all(means_agree(*pair) for pair in means)
        pairs = zip(NUMBER.findall(first), NUMBER.findall(second), strict=True)
        return "shape" in self.marks or all(numbers_agree(*pair) for pair in pairs)

    def __str__(self) -> str:
        """Return the block as it stands in a document."""
        return f"{self.marks}```console\n{self.body}```"


def shell(command: str, folder: Path) -> list[str]:
    """Run a command in a folder and return the lines that it prints."""
    before = cpu_seconds()
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        command,
        shell=True,
        cwd=folder,
        env=os.environ | {"PATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    print(f"$ {command}  # {cpu_seconds() - before:.0f} s of CPU time", flush=True)
    if done.returncode:
        raise SystemExit(f"exit code {done.returncode}:\n{done.stdout}")
    return done.stdout.splitlines()


def cpu_seconds() -> float:
    """Return the CPU time in s of all commands so far."""
    times = os.times()
    return times.children_user + times.children_system


def numbers_agree(one: str, other: str) -> bool:
    """Return whether integers are equal, or fractions equal to two units of their last digit."""
    decimals = len(one.partition(".")[2])
    if not decimals:
        return one == other
    return abs(float(one) - float(other)) < 2.5 * 10**-decimals


def means_agree(one: re.Match[str], other: re.Match[str]) -> bool:
    """Return whether means of all recordings and of a sixth of them can be of the same model."""
    half = max(float(match["half"]) for match in (one, other))
    return abs(float(one["mean"]) - float(other["mean"])) <= CHECK_HALVES * half


def link_recordings(folder: Path, *, check: bool) -> None:
    """Link to the recordings that the documents name; in a check, to a part of ``valid``."""
    for name, place in RECORDINGS.items():
        if not place.exists():
            continue
        if not check or name != "valid":
            (folder / name).symlink_to(place)
            continue
        numbers = sorted({path.name.partition("_")[0] for path in (place / "clean").iterdir()})
        for kind in ("clean", "noisy"):
            (folder / name / kind).mkdir(parents=True)
            for path in (place / kind).iterdir():
                if path.name.partition("_")[0] in numbers[::CHECK_EVERY]:
                    (folder / name / kind / path.name).symlink_to(path)


def made_anew(text: str, folder: Path, *, check: bool) -> str:
    """Return the text of a document with the outputs of its commands, run in a folder.

    Args:
        text: Text of the document.
        folder: Folder to run the commands in.
        check: Keep the outputs that agree with the new ones.
    """

    def run(match: re.Match[str]) -> str:
        block = Block(match["marks"], match["body"])
        if block.missing:
            print(f"skipped, no {', '.join(block.missing)}: {block.commands[0]}")
            return str(block)
        made = block.run(folder)
        return str(block if check and block.agrees_with(made) else made)

    return BLOCK.sub(run, text)


def difference(one: Path, other: Path) -> float:
    """Return the mean difference of two pictures, 0 to 255; infinity if their sizes differ."""
    first, second = (np.asarray(Image.open(path).convert("RGB"), float) for path in (one, other))
    return float(np.abs(first - second).mean()) if first.shape == second.shape else float("inf")


def draw_page(browser: str, folder: Path) -> None:
    """Draw serve.png in a folder: the page of `denoise serve` with the noisy example."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    command = ["denoise", "serve", "--no-browser"]
    with subprocess.Popen(
        command, env=os.environ | {"PATH": path}, stdout=subprocess.PIPE, text=True, cwd=folder
    ) as server:
        assert server.stdout is not None
        address = server.stdout.readline().split()[0]
        try:
            disposition = 'Content-Disposition: form-data; name="file"; filename="noisy.wav"'
            recording = (ROOT / "examples" / "noisy.wav").read_bytes()
            body = f"--limit\r\n{disposition}\r\n\r\n".encode() + recording + b"\r\n--limit--\r\n"
            kind = {"Content-Type": "multipart/form-data; boundary=limit"}
            job = json_of(urllib.request.Request(f"{address}api/jobs", body, kind))
            while job["stage"] in ("waiting", "working"):
                time.sleep(0.2)
                job = json_of(f"{address}api/jobs/{job['id']}")
            shell(
                PAGE_SCREENSHOT.format(browser=browser, address=f"{address}?job={job['id']}"),
                folder,
            )
        finally:
            server.terminate()


def json_of(request: str | urllib.request.Request) -> dict[str, str]:
    """Return the JSON object that a server answers with."""
    with urllib.request.urlopen(request) as answer:
        found: dict[str, str] = json.load(answer)
        return found


def main() -> int:
    """Make or check all documents; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare only, change nothing")
    check = parser.parse_args().check
    stale = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "examples").symlink_to(ROOT / "examples")
        link_recordings(folder, check=check)
        if check:
            spec = json.loads((ROOT / "models" / "specs" / "tiny.json").read_bytes())
            spec["training"].update(CHECK_TRAINING)
            (folder / "tiny").write_text(json.dumps(spec))  # a path comes before a bundled spec
        for document in DOCUMENTS:
            before = document.read_text(encoding="utf-8")
            after = made_anew(before, folder, check=check)
            if before == after:
                continue
            stale.append(document.name)
            lines = before.splitlines(keepends=True), after.splitlines(keepends=True)
            sys.stdout.writelines(difflib.unified_diff(*lines, document.name, "made anew"))
            if not check:
                document.write_text(after, encoding="utf-8")
        browser = next(filter(shutil.which, BROWSERS), None)
        if browser and (folder / "report.html").exists():
            shell(SCREENSHOT.format(browser=browser), folder)
        if browser:
            draw_page(browser, folder)
        for kept in sorted((ROOT / "docs").glob("*.png")):
            picture = folder / kept.name
            limit = PIXELS.get(kept.name, SCREENSHOT_PIXELS if check else 0.0)
            if picture.exists() and difference(picture, kept) > limit:
                stale.append(f"docs/{kept.name}")
                if not check:
                    shutil.copy(picture, kept)
    verb = "out of date" if check else "made anew"
    print(f"{verb}: {', '.join(stale)}" if stale else "all documents are up to date")
    return int(bool(stale) and check)


if __name__ == "__main__":
    sys.exit(main())
