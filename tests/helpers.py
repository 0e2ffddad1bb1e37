"""Generated sound, small networks and specs, and calls of the program."""

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from filelock import FileLock
from typer.testing import CliRunner, Result

from denoisecli.cli.app import app
from denoisecli.serving import work
from denoisecli.types import AudioVector

TINY_SPEC: dict[str, Any] = {
    "name": "test",
    "audio": {"sample_rate": 4000},
    "stft": {"n_fft": 32, "hop_length": 16},
    "downsampling": [{"filters": 4, "strides": [4, 1]}],
    "upsampling": [{"filters": 4}],
    "training": {
        "losses": [{"kind": "waveform_l1", "weight": 1.0}],
        "batch_size": 4,
        "segment_seconds": 0.2,
        "epochs": 2,
        "steps_per_epoch": 2,
        "average_decay": 0.5,
    },
}
"""A network for the 4 kHz of the fixture tiny_dataset that is traced and trained in seconds."""


def mostly_slow(values: Iterable[Any], *quick: Any) -> list[Any]:
    """Return the parameters of a test, which is slow with all but the quick ones."""
    return [
        pytest.param(
            *(value if isinstance(value, tuple) else (value,)),
            marks=() if value in quick else pytest.mark.slow,
        )
        for value in values
    ]


class SilentObserver:
    """Receives the events of a training run and drops them."""

    def on_message(self, *arguments: object, **options: object) -> None: ...

    on_train_begin = on_batch_end = on_epoch_end = on_message


def speech_like(seconds: float, sample_rate: int, f0: float = 140.0) -> AudioVector:
    """Return harmonics of a gliding fundamental, in syllables of a quarter second, RMS 0.1."""
    return _speech_like(seconds, sample_rate, f0).copy()


@lru_cache(100)
def _speech_like(seconds: float, sample_rate: int, f0: float) -> AudioVector:
    t = np.arange(round(seconds * sample_rate)) / sample_rate
    phase = 2 * np.pi * f0 * (t + 0.05 * np.sin(2 * np.pi * 0.7 * t))
    harmonics = range(1, min(40, int(0.45 * sample_rate / (1.3 * f0))))
    voice = sum((np.sin(k * phase) / k for k in harmonics), np.zeros_like(t))
    syllables = np.clip(np.sin(2 * np.pi * 2.1 * t) + 0.3, 0, None)
    return (0.2 * voice * syllables).astype(np.float32)


def pink_noise(seconds: float, sample_rate: int, rng: np.random.Generator) -> AudioVector:
    """Return noise whose power falls by 3 dB per octave, RMS 0.05."""
    timesteps = round(seconds * sample_rate)
    spectrum = np.fft.rfft(rng.standard_normal(timesteps))
    spectrum /= np.sqrt(np.maximum(np.arange(spectrum.size), 1))
    noise = np.fft.irfft(spectrum, timesteps)
    return (0.05 * noise / np.sqrt(np.mean(noise**2))).astype(np.float32)


def constant_mask(real: float, imaginary: float = 0.0) -> onnx.GraphProto:
    """Return a network whose output is the same complex mask everywhere."""
    nodes = [
        onnx.helper.make_node("Mul", ["spectrum", "zero"], ["nothing"]),
        onnx.helper.make_node("Add", ["nothing", "value"], ["mask"]),
    ]
    constants = {"zero": [0.0], "value": [real, imaginary]}
    return _graph(nodes, constants, parts=2)


def smoothed_power_mask(frames: int = 121) -> onnx.GraphProto:
    """Return a network of the gain p / (p + 1), where p is the power averaged over frames."""
    nodes = [
        onnx.helper.make_node("Mul", ["spectrum", "spectrum"], ["squares"]),
        onnx.helper.make_node("ReduceSum", ["squares", "last"], ["power"], keepdims=1),
        onnx.helper.make_node("Transpose", ["power"], ["image"], perm=[0, 3, 1, 2]),
        onnx.helper.make_node(
            "Conv", ["image", "kernel"], ["smooth"], pads=[0, frames // 2, 0, frames // 2]
        ),
        onnx.helper.make_node("Add", ["smooth", "one"], ["more"]),
        onnx.helper.make_node("Div", ["smooth", "more"], ["gain"]),
        onnx.helper.make_node("Transpose", ["gain"], ["mask"], perm=[0, 2, 3, 1]),
    ]
    kernel = np.hanning(frames + 2)[1:-1]
    constants = {"last": np.array([3]), "one": [1.0], "kernel": (kernel / kernel.sum())}
    constants["kernel"] = np.float32(constants["kernel"])[None, None, None]
    return _graph(nodes, constants, parts=1)


def _graph(nodes: list[Any], constants: dict[str, Any], parts: int) -> onnx.GraphProto:
    def tensor(name: str, size: int) -> onnx.ValueInfoProto:
        shape = ["batch", "frequency", "frames", size]
        return onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)

    initializers = [
        onnx.numpy_helper.from_array(
            value if isinstance(value, np.ndarray) else np.array(value, np.float32), name
        )
        for name, value in constants.items()
    ]
    return onnx.helper.make_graph(
        nodes, "test", [tensor("spectrum", 2)], [tensor("mask", parts)], initializers
    )


def denoise(*arguments: object) -> Result:
    """Call the program in this process."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def fails(result: Result, code: int, *words: str) -> None:
    """Check the exit code, and that stderr holds a message with these words, no traceback."""
    assert result.exit_code == code, result.output
    assert "error: " in result.stderr or "Usage:" in result.stderr
    assert "Traceback" not in result.stderr
    for word in words:
        assert word in result.stderr.replace("\n", " ")


@contextmanager
def worker_thread() -> Iterator[tuple[Executor, work.State]]:
    """Start a worker of the server in a thread, which starts faster than a process."""
    state: work.State = [0.0, 0.0]
    with ThreadPoolExecutor(1, initializer=work.start, initargs=(state,)) as pool:
        try:
            yield pool, state
        finally:
            state[1] = 1.0


def build_once(factory: pytest.TempPathFactory, name: str, build: Callable[[Path], None]) -> Path:
    """Return a folder that is built by the first process of pytest-xdist that wants it."""
    base = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent  # that of all workers
    folder, done = base / name, base / f"{name}.done"
    with FileLock(base / f"{name}.lock"):
        if not done.exists():
            folder.mkdir()
            build(folder)
            done.touch()
    return folder


def verbatim_flac(steps: np.ndarray, bits: int, sample_rate: int, block: int = 4096) -> bytes:
    """Return a FLAC that stores samples as they are (RFC 9639), without any further metadata.

    Args:
        steps: Integers, shape (timesteps,).
        bits: Bits of a sample, a multiple of 4 from 4 to 24.
        sample_rate: Sample rate in Hz.
        block: Number of samples in a frame.
    """
    facts = sample_rate << 44 | (bits - 1) << 36 | steps.size
    info = block.to_bytes(2, "big") * 2 + bytes(6) + facts.to_bytes(8, "big") + bytes(16)
    stream = b"fLaC" + (0x80000000 | len(info)).to_bytes(4, "big") + info
    for number, start in enumerate(range(0, steps.size, block)):
        part = steps[start : start + block]
        header = b"\xff\xf8\x70\0" + bytes([number]) + (part.size - 1).to_bytes(2, "big")
        header += bytes([checksum(header, 0x107)])
        digits = "".join(f"{int(step) % 2**bits:0{bits // 4}x}" for step in part)
        frame = header + b"\x02" + bytes.fromhex(digits + "0" * (len(digits) % 2))
        stream += frame + checksum(frame, 0x18005).to_bytes(2, "big")
    return stream


def checksum(data: bytes, polynomial: int) -> int:
    """Return the remainder of a division of bytes by a polynomial: the CRC without conventions."""
    width = polynomial.bit_length() - 1
    remainder = 0
    for byte in data:
        remainder ^= byte << width - 8
        for _ in range(8):
            remainder <<= 1
            if remainder >> width:
                remainder ^= polynomial
    return remainder
