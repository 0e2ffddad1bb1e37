"""The kit for a machine with an accelerator."""

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import soundfile

KIT = Path(__file__).parents[2] / "examples" / "accelerator"

PYTHON = """#!/usr/bin/env bash
# Stands for pip and for denoise train, which is interrupted the first time.
set -eu
while [ $# -gt 0 ]; do
    if [ "$1" = --target ]; then mkdir "$2"; exit; fi
    if [ "$1" = --run ]; then run=$2; fi
    if [ "$1" = --clean ]; then ls "$2"; fi
    shift
done
mkdir -p "$run"
if [ ! -e "$run/checkpoint.npz" ]; then
    echo epoch > "$run/history.csv"
    echo state > "$run/checkpoint.npz"
    exit 143
fi
rm "$run/checkpoint.npz"
mkdir "$run/model"
echo weights > "$run/model/model.keras"
"""


@pytest.fixture
def kit(
    audio_file: Callable[..., Path],
    noise: Callable[..., np.ndarray],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """Pack a few recordings."""
    for name in ("speech/a/1.wav", "speech/b/1.wav", "noise/2.wav"):
        audio_file(name, noise(0.5, 16000))
    spec = importlib.util.spec_from_file_location("pack", KIT / "pack.py")
    assert spec is not None
    assert spec.loader is not None
    pack = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(pack)
    monkeypatch.setattr(pack, "ProcessPoolExecutor", ThreadPoolExecutor)
    monkeypatch.setattr(pack, "PART_BYTES", 40_000)
    folders = ["--clean", str(tmp_path / "speech"), "--noise", str(tmp_path / "noise")]
    monkeypatch.setattr(sys, "argv", ["pack.py", str(tmp_path / "kit" / "parts"), *folders])
    pack.main()
    (tmp_path / "kit" / "train.sh").write_bytes((KIT / "train.sh").read_bytes())
    python = tmp_path / "python"
    python.write_text(PYTHON)
    python.chmod(0o755)
    return tmp_path / "kit"


def test_an_interrupted_call_returns_its_checkpoint_and_is_resumed(kit: Path) -> None:
    parts = sorted((kit / "parts").iterdir())
    assert len(parts) > 1
    assert max(part.stat().st_size for part in parts) <= 40_000
    for name in ("sounds.part/clean", "packages.part"):  # of a call that was killed
        (kit / "work" / name).mkdir(parents=True)
    (kit / "work" / "sounds.part" / "clean" / "cut off.opus").touch()

    def call() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", kit / "train.sh", "tiny", "1"],
            env={**os.environ, "PYTHON": str(kit.parent / "python"), "OUT": str(kit / "out")},
            capture_output=True,
            text=True,
        )

    done = call()
    assert done.returncode == 143, done.stderr
    assert "a\nb\n" in done.stdout
    sounds = {
        path.relative_to(kit / "work" / "sounds").as_posix(): soundfile.info(path)
        for path in (kit / "work" / "sounds").rglob("*.opus")
    }
    assert {*sounds} == {"clean/a/1.wav.opus", "clean/b/1.wav.opus", "noise/2.wav.opus"}
    assert {(info.samplerate, info.channels) for info in sounds.values()} == {(48000, 1)}
    assert {path.name for path in (kit / "out").iterdir()} == {"checkpoint.npz", "history.csv"}
    assert {path.name for path in (kit / "work").iterdir()} == {"packages", "sounds", "run"}
    done = call()
    assert done.returncode == 0, done.stderr
    assert {path.name for path in (kit / "out").iterdir()} == {"model", "history.csv"}
