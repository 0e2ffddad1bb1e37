"""Check an installation without extras: what it can do, and what it says about the rest.

Run by the Python of that installation, in an empty folder: python check_base.py CHECKOUT
"""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

DENOISE = Path(sys.executable).with_name("denoise")

NEEDS = {
    "train tiny": "train",
    "adapt noisy.wav -o own": "adapt",
    "tune tiny": "tune",
    "build-dataset clean noise --snr 5": "train",
    "dataset data --verify": "train",
    "spec tiny": "train",
    "export speech -o speech.onnx": "train",
    "evaluate speech data": "metrics",
    "evaluate speech --clean clean --noisy noise": "metrics",
    "clean noisy.wav -o out.wav --engine keras": "train",
    "export speech-live --format onnx-stream -o stream.onnx": "train",
    "live --list-devices": "live",
    "clean noisy.wav -o out.wav --cluster tcp://127.0.0.1:1": "cluster",
    "evaluate speech --recordings clean": "dnsmos",
    "serve --no-browser": "serve",
    "live": "live",
}
"""Command -> the extra that it asks for."""

WORKS = (
    "--version",
    "clean noisy.wav -o cleaned.wav",
    "clean noisy.wav -o live.wav --model speech-live",
    "spectrogram noisy.wav -o noisy.npz",
    "plot noisy.wav cleaned.wav -o both.png",
    "mix cleaned.wav noisy.wav --snr 5 -o mixed.wav",
    "models",
    "runs .",
    "spec tiny --resolved",
    "spec --schema",
)


def run(command: str) -> subprocess.CompletedProcess[str]:
    """Run a denoise command."""
    return subprocess.run([DENOISE, *command.split()], capture_output=True, text=True)


def main() -> None:
    """Run all checks; exit with a message that lists the ones that failed."""
    problems = [
        f"{name} is installed" for name in ("tensorflow", "keras", "onnx") if find_spec(name)
    ]
    noisy = (Path(sys.argv[1]) / "examples" / "noisy.wav").read_bytes()
    for folder in ("clean", "noise"):
        Path(folder).mkdir()
        (Path(folder) / "one.wav").write_bytes(noisy)
        (Path(folder) / "two.wav").write_bytes(noisy)
    Path("noisy.wav").write_bytes(noisy)
    for command in WORKS:
        done = run(command)
        if done.returncode != 0:
            problems.append(f"denoise {command}: exit code {done.returncode}, {done.stderr}")
    for command, extra in NEEDS.items():
        done = run(command)
        lines = done.stderr.splitlines()
        install = f'pip install "denoisecli[{extra}]"'
        if done.returncode != 2 or len(lines) != 1 or install not in lines[0]:
            problems.append(f"denoise {command}: exit code {done.returncode}, {done.stderr}")
        else:
            print(f"denoise {command}: {lines[0]}")
    if problems:
        sys.exit("\n".join(problems))


if __name__ == "__main__":
    main()
