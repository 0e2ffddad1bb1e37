"""Run every command that the documents show, and compare what it prints with what they say.

    python docs/make.py            rewrite the outputs and pictures in README.md and docs/
    python docs/make.py --check    exit with 1 if one of them is out of date

A document shows a command and its output in a fenced block of the language ``console``: lines that
begin with ``$ `` are run by the shell, one after the other, in one temporary folder per document,
and the lines behind a command are its output (stdout and stderr). A comment in front of a block
says how it is treated:

    <!-- shape -->          numbers are not compared, since they depend on the machine
    <!-- needs: train -->   the block is skipped where these recordings are not at hand
    <!-- not run -->        the block is shown only

Times and speeds are never compared. The folder holds a link to ``examples`` and, where they are at
hand, to the folders of recordings in ``RECORDINGS``. Files that a command writes to ``docs/`` are
pictures of the documents: they replace those in docs/, or are compared with them pixel by pixel.
"""

import argparse
import difflib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SHARED = ROOT.parent / "shared" / "data"
RECORDINGS = {
    "valid": SHARED / "valid",
    "speech": SHARED / "train" / "speech" / "ms-snsd",
    "noise": SHARED / "train" / "noise" / "ms-snsd",
}
"""Name of a folder in the documents, and the recordings that it stands for."""

BLOCK = re.compile(r"(?P<mark>(?:<!-- [^>]* -->\n)*)```console\n(?P<body>.*?)```", re.DOTALL)
PIXELS = 8.0
"""Largest mean difference, of 255, between a picture and the one made anew."""


@dataclass(frozen=True)
class Block:
    """A fenced block: its commands with their outputs, and how it is treated."""

    marks: str
    body: str

    @property
    def commands(self) -> list[str]:
        """Return the commands, without the dollar sign."""
        return [line[2:] for line in self.body.splitlines() if line.startswith("$ ")]

    @property
    def missing(self) -> list[str]:
        """Return the names of the recordings that the block needs and that are not at hand."""
        wanted = re.findall(r"needs: ([a-z ]+)", self.marks)
        return [name for names in wanted for name in names.split() if not RECORDINGS[name].exists()]

    @property
    def comparable(self) -> str:
        """Return the text with all that differs from run to run replaced."""
        text = re.sub(r"\d+(\.\d+)? s in \d+(\.\d+)? s \(\d+x real time\)", "N s in N s", self.body)
        text = re.sub(r"\d+(\.\d+)? min\b", "N min", text)
        if "shape" in self.marks:
            text = re.sub(r"[-+]?\d+(\.\d+)?", "N", text)
        return re.sub(r"[ \t]+", " ", text)

    def run(self, folder: Path) -> "Block":
        """Run the commands in a folder and return the block with their outputs."""
        lines = []
        for command in self.commands:
            print(f"$ {command}", flush=True)
            environment = os.environ | {"COLUMNS": "100", "TF_CPP_MIN_LOG_LEVEL": "3"}
            done = subprocess.run(
                command,
                shell=True,
                cwd=folder,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            if done.returncode:
                raise SystemExit(f"exit code {done.returncode}:\n{done.stdout}")
            lines += [f"$ {command}", *(line.rstrip() for line in done.stdout.splitlines())]
        return replace(self, body="\n".join(lines) + "\n")

    @property
    def text(self) -> str:
        """Return the block as it stands in a document."""
        return f"{self.marks}```console\n{self.body}```"


def made_anew(document: Path, pictures: Path) -> str:
    """Return the text of a document with all outputs made anew, and put its pictures into a folder."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "examples").symlink_to(ROOT / "examples")
        (folder / "docs").mkdir()
        for name, place in RECORDINGS.items():
            if place.exists():
                (folder / name).symlink_to(place)

        def run(match: re.Match[str]) -> str:
            block = Block(match["mark"], match["body"])
            if "not run" in block.marks:
                return block.text
            if block.missing:
                print(f"skipped, no {', '.join(block.missing)}: {block.commands[0]}")
                return block.text
            made = block.run(folder)
            return block.text if made.comparable == block.comparable else made.text

        text = BLOCK.sub(run, document.read_text(encoding="utf-8"))
        for picture in (folder / "docs").iterdir():
            shutil.copy(picture, pictures)
        return text


def difference(one: Path, other: Path) -> float:
    """Return the mean difference of two pictures, 0 to 255; infinity if their sizes differ."""
    first, second = (np.asarray(Image.open(path).convert("RGB"), float) for path in (one, other))
    return float(np.abs(first - second).mean()) if first.shape == second.shape else float("inf")


def main() -> int:
    """Make or check all documents; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare only, change nothing")
    parser.add_argument("documents", nargs="*", type=Path, default=DOCUMENTS)
    arguments = parser.parse_args()
    stale = []
    with tempfile.TemporaryDirectory() as temporary:
        for document in arguments.documents:
            before = document.read_text(encoding="utf-8")
            after = made_anew(document, Path(temporary))
            if before != after:
                stale.append(document.name)
                sys.stdout.writelines(
                    difflib.unified_diff(
                        before.splitlines(True), after.splitlines(True), document.name, "made anew"
                    )
                )
                if not arguments.check:
                    document.write_text(after, encoding="utf-8")
        for picture in sorted(Path(temporary).iterdir()):
            kept = ROOT / "docs" / picture.name
            if not kept.exists() or difference(picture, kept) > PIXELS:
                stale.append(f"docs/{picture.name}")
                if not arguments.check:
                    shutil.copy(picture, kept)
    print(f"out of date: {', '.join(stale)}" if stale else "all documents are up to date")
    return int(bool(stale) and arguments.check)


if __name__ == "__main__":
    sys.exit(main())
