"""Measure the time of a training step, its arithmetic per second, and the shares of its operations.

    python -m benchmarks.train_step [SPEC ...]

The specs are by default all bundled ones. Batches are generated, so that no data is read or
augmented. The arithmetic per second is compared with that of a large matrix product, measured on
the CPU in the same run. All operations in the loop of a recurrent layer count as recurrent.
"""

import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow as tf

from benchmarks import markdown
from denoisecli.models.catalogue import load_spec, spec_names
from denoisecli.models.summary import summarize_network
from denoisecli.spec.document import Spec
from denoisecli.training.optimizer import make_optimizer
from denoisecli.training.waveform_model import WaveformModel, build_network

STEPS = 4
"""Number of timed steps, of which the fastest counts, and of profiled steps."""

MATRIX = 2048
"""Rows and columns of the matrices whose product is the limit."""

KERNELS = ("convolution", "matrix", "recurrent")
"""Kinds of operations that do the arithmetic of the network."""


def kind_of(operation: str) -> str:
    """Return the kind of an operation from its name in a profile, "path/of/it:Type"."""
    place, _, what = operation.rpartition(":")
    if "/while" in place:
        return "recurrent"
    if "Conv" in what:
        return "convolution"
    if "MatMul" in what or "Einsum" in what:
        return "matrix"
    if "FFT" in what:
        return "Fourier transform"
    return what.lstrip("_")


def times_by_kind(folder: Path) -> Counter[str]:
    """Read the time of CPU operations in s by kind, from a profile that TensorFlow wrote."""
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    space = xplane_pb2.XSpace()
    space.ParseFromString(next(folder.rglob("*.xplane.pb")).read_bytes())
    (plane,) = (plane for plane in space.planes if plane.name == "/host:CPU")
    times: Counter[str] = Counter()
    for line in plane.lines:
        if not line.name.startswith("tf_Compute"):
            continue
        for event in line.events:
            name = plane.event_metadata[event.metadata_id].name
            if ":" in name and "::" not in name:  # an operation, not the executor around it
                times[kind_of(name)] += event.duration_ps / 1e12
    return times


def profile(step: Callable[[], None]) -> Counter[str]:
    """Profile a few steps, and return the time of CPU operations in s by kind."""
    with tempfile.TemporaryDirectory() as folder:
        with tf.profiler.experimental.Profile(folder):
            for _ in range(STEPS):
                step()
        return times_by_kind(Path(folder))


def matrix_product_speed() -> float:
    """Measure floating-point operations per second of a large matrix product, the best of ten."""
    matrix = tf.random.normal((MATRIX, MATRIX))
    multiply = tf.function(lambda: tf.reduce_sum(tf.linalg.matmul(matrix, matrix)))
    multiply()
    best = min(_seconds(lambda: multiply().numpy()) for _ in range(10))
    return 2 * MATRIX**3 / best


def measure(spec: Spec) -> dict[str, Any]:
    """Train on noise for a few steps, and return the figures that `main` prints."""
    model = WaveformModel(spec, build_network(spec, spec.training.precision))
    summary = summarize_network(model.network)
    variables = model.network.trainable_variables
    model.compile(
        optimizer=make_optimizer(spec.training, 1000, variables),
        jit_compile=spec.training.jit_compile,
    )
    rate, training = spec.audio.sample_rate, spec.training
    timesteps = round(training.segment_seconds * rate)
    shape = (training.batch_size, timesteps)
    clean = np.random.default_rng(0).normal(scale=0.1, size=shape).astype(np.float32)
    noisy = clean + np.roll(clean, 1000, axis=1) / 2

    def step() -> None:
        model.train_on_batch(noisy, clean)

    step()
    seconds = min(_seconds(step) for _ in range(STEPS))
    ceiling = matrix_product_speed()
    profile(step)  # the first profile includes the allocation of its memory
    times = profile(step)
    audio = training.batch_size * timesteps / rate
    # A step is one pass forward and about two backward; a multiply-accumulate is two operations.
    speed = 3 * 2 * summary.macs_per_second * audio / seconds
    return {
        "spec": spec.name,
        "parameters": summary.parameters,
        "mmac_per_second": summary.macs_per_second / 1e6,
        "step_seconds": seconds,
        "audio_per_second": audio / seconds,
        "gflops": speed / 1e9,
        "ceiling_gflops": ceiling / 1e9,
        "share_of_ceiling": speed / ceiling,
        "share_in_kernels": sum(times[kind] for kind in KERNELS) / times.total(),
        "shares": {kind: value / times.total() for kind, value in times.most_common(12)},
    }


def _seconds(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    """Measure, and print the tables."""
    tf.config.set_visible_devices([], "GPU")
    rows = [measure(load_spec(name)) for name in sys.argv[1:] or spec_names()]
    columns = (
        "spec", "parameters", "MMAC/s of audio", "step, s", "audio per second, s", "GFLOP/s",
        "of a matrix product", "in kernels",
    )  # fmt: skip
    cells = [
        (
            row["spec"],
            f"{row['parameters']:,}",
            f"{row['mmac_per_second']:.0f}",
            f"{row['step_seconds']:.2f}",
            f"{row['audio_per_second']:.0f}",
            f"{row['gflops']:.0f}",
            f"{row['share_of_ceiling']:.0%}",
            f"{row['share_in_kernels']:.0%}",
        )
        for row in rows
    ]
    shares = [
        (row["spec"], ", ".join(f"{kind} {share:.0%}" for kind, share in row["shares"].items()))
        for row in rows
    ]
    print(markdown.table(columns, cells))
    print()
    print(markdown.table(("spec", "operations by their share of the time"), shares, texts=2))


if __name__ == "__main__":
    main()
