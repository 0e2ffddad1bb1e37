"""Measure the time of a training step, its arithmetic per second, and the shares of its operations.

    python -m benchmarks.train_step [SPEC ...] [--data DATA] [--clean DIR --noise DIR]
        [--backends tensorflow jax] [--steps 4]

The specs are by default all bundled ones. Each is measured on one generated batch, which needs no
reading or augmentation; on the batches of a stored dataset, if one of its sample rate is given; and
on batches that are mixed from recordings, if folders of them are given. Waiting is the share of the
time in which the step waits for its batch. The arithmetic per second is compared with that of large
matrix products on the same device, measured in the same run. The shares of operations are measured
with TensorFlow on a CPU only; all operations in the loop of a recurrent layer count as recurrent.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np

from benchmarks import markdown
from denoisecli.datasets.manifest import load_manifest
from denoisecli.models.catalogue import load_spec, spec_names
from denoisecli.models.summary import summarize_network
from denoisecli.spec.document import Spec
from denoisecli.training.batches import open_batches
from denoisecli.training.mixed_batches import Mixing, mix_batches
from denoisecli.training.optimizer import make_optimizer, make_schedule
from denoisecli.training.recordings import Folders
from denoisecli.training.stream import AHEAD, Batch, compiled
from denoisecli.training.waveform_model import WaveformModel, build_network

STEPS = 4
"""Number of timed and of profiled steps."""

WARM_UP = AHEAD + 2
"""Number of steps before, more than batches are prepared ahead."""

MATRIX = {"cpu": 2048, "gpu": 8192}
"""Rows and columns of the matrices whose product is the limit."""

PRODUCTS = {"cpu": 2, "gpu": 16}
"""Number of products after which the device is waited for."""

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
    import tensorflow as tf

    with tempfile.TemporaryDirectory() as folder:
        with tf.profiler.experimental.Profile(folder):
            for _ in range(STEPS):
                step()
        return times_by_kind(Path(folder))


def matrix_product_speed() -> float:
    """Measure floating-point operations per second of a large matrix product, the best of ten."""
    devices = keras.distribution.list_devices()  # JAX fails if it is asked for GPUs and has none
    kind = "gpu" if any("gpu" in name.lower() for name in devices) else "cpu"
    size, products = MATRIX[kind], PRODUCTS[kind]
    matrix = np.random.default_rng(0).normal(scale=size**-0.5, size=(size, size))
    matrix = keras.ops.convert_to_tensor(matrix.astype(np.float32))

    def multiply(matrix: Any) -> Any:
        power = matrix
        for _ in range(products):
            power = keras.ops.matmul(power, matrix)
        return keras.ops.sum(power)

    program = compiled(multiply)
    float(program(matrix))
    best = min(_seconds(lambda: float(program(matrix))) for _ in range(10))
    return 2 * size**3 * products / best


def _repeated(spec: Spec) -> Iterator[Batch]:
    """Yield the same batch of noise again and again."""
    timesteps = round(spec.training.segment_seconds * spec.audio.sample_rate)
    shape = (spec.training.batch_size, timesteps)
    clean = np.random.default_rng(0).normal(scale=0.1, size=shape).astype(np.float32)
    noisy = clean + np.roll(clean, 1000, axis=1) / 2
    while True:
        yield noisy, clean


def _routes(spec: Spec, options: argparse.Namespace, folder: Path) -> dict[str, Iterator[Batch]]:
    """Return endless batches by the way in which they are made."""
    count = WARM_UP + options.steps + 1
    training = spec.training.model_copy(update={"steps_per_epoch": count})
    spec = spec.model_copy(update={"training": training})
    routes = {"one batch": _repeated(spec)}
    rate = spec.audio.sample_rate
    if options.data is not None and load_manifest(options.data).recipe.sample_rate == rate:
        routes["stored"] = iter(open_batches(options.data, spec).training(0))
    if options.clean is not None and options.noise is not None:
        mixing = Mixing(Folders(options.clean, options.noise), cache=folder / spec.name)
        routes["on the fly"] = iter(mix_batches(mixing, spec, folder).training(0))
    return routes


def measure(spec: Spec, options: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """Train for a few steps on each route, and return the figures that `main` prints."""
    model = WaveformModel(spec, build_network(spec, spec.training.precision))
    summary = summarize_network(model.network)
    on_tensorflow = keras.backend.backend() == "tensorflow"
    model.compile(
        optimizer=make_optimizer(
            spec.training, make_schedule(spec.training, 1000), model.network.trainable_variables
        ),
        jit_compile=spec.training.jit_compile if on_tensorflow else "auto",
    )
    ceiling = matrix_product_speed()
    rows = []
    for route, batches in _routes(spec, options, folder).items():

        def step(batches: Iterator[Batch] = batches) -> float:
            """Train on a batch, and return the time in s that it was waited for."""
            start = time.perf_counter()
            noisy, clean, *others = next(batches)
            waited = time.perf_counter() - start
            model.train_on_batch(noisy, clean, *others)  # which returns when the loss is known
            return waited

        for _ in range(WARM_UP):
            step()
        start = time.perf_counter()
        waited = sum(step() for _ in range(options.steps))
        seconds = (time.perf_counter() - start) / options.steps
        audio = spec.training.batch_size * spec.training.segment_seconds
        # A step is one pass forward and about two backward; a multiply-accumulate is two
        # operations.
        speed = 3 * 2 * summary.macs_per_second * audio / seconds
        row = {
            "spec": spec.name,
            "backend": keras.backend.backend(),
            "route": route,
            "parameters": summary.parameters,
            "mmac_per_second": summary.macs_per_second / 1e6,
            "step_seconds": seconds,
            "audio_per_second": audio / seconds,
            "waiting_share": waited / options.steps / seconds,
            "gflops": speed / 1e9,
            "ceiling_gflops": ceiling / 1e9,
            "share_of_ceiling": speed / ceiling,
        }
        if on_tensorflow and route == "one batch" and options.profile:
            profile(step)  # the first profile includes the allocation of its memory
            times = profile(step)
            row["share_in_kernels"] = sum(times[kind] for kind in KERNELS) / times.total()
            row["shares"] = {kind: value / times.total() for kind, value in times.most_common(12)}
        rows.append(row)
    return rows


def _seconds(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("specs", nargs="*")
    for name in ("--data", "--clean", "--noise"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--backends", nargs="+", default=[keras.backend.backend()])
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--profile", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    return parser.parse_args()


def main() -> None:
    """Measure, and print the tables."""
    options = _arguments()
    rows: list[dict[str, Any]] = []
    if options.backends == [keras.backend.backend()]:
        with tempfile.TemporaryDirectory() as folder:
            for name in options.specs or spec_names():
                rows += measure(load_spec(name), options, Path(folder))
    else:  # a process has one backend
        own = [*sys.argv[1:], "--json", "--backends"]
        for backend in options.backends:
            done = subprocess.run(
                [sys.executable, "-m", "benchmarks.train_step", *own, backend],
                env={**os.environ, "KERAS_BACKEND": backend},
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            )
            rows += json.loads(done.stdout.splitlines()[-1])
    if options.json:
        print(json.dumps(rows))
        return
    columns = (
        "spec", "backend", "batches", "parameters", "MMAC/s of audio", "step, s",
        "audio per second, s", "waiting", "GFLOP/s", "of a matrix product", "in kernels",
    )  # fmt: skip
    cells = [
        (
            row["spec"],
            row["backend"],
            row["route"],
            f"{row['parameters']:,}",
            f"{row['mmac_per_second']:.0f}",
            f"{row['step_seconds']:.2f}",
            f"{row['audio_per_second']:.0f}",
            f"{row['waiting_share']:.1%}",
            f"{row['gflops']:.0f}",
            f"{row['share_of_ceiling']:.0%}",
            f"{row['share_in_kernels']:.0%}" if "shares" in row else "-",
        )
        for row in rows
    ]
    print(markdown.table(columns, cells, texts=3))
    shares = [
        (row["spec"], ", ".join(f"{kind} {share:.0%}" for kind, share in row["shares"].items()))
        for row in rows
        if "shares" in row
    ]
    if shares:
        print()
        print(markdown.table(("spec", "operations by their share of the time"), shares, texts=2))


if __name__ == "__main__":
    main()
