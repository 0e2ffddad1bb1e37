"""Compare the rate of training batches with that of the training step that consumes them.

    python -m benchmarks.input_pipeline [DATA]

DATA is a folder that `denoise build-dataset` wrote (default: data). The pipeline alone is measured
without augmentation, with the augmentation of the spec, and with all kinds of augmentation.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import markdown
from denoisecli.models.catalogue import load_spec
from denoisecli.spec.document import Spec
from denoisecli.spec.training import Augmentation

SPECS = ("tiny", "speech")
ENOUGH = 5.0
"""Smallest acceptable ratio of the two rates."""

ALL: dict[str, Any] = {
    "third_noise": 0.3,
    "speed": 0.3,
    "time_shift": True,
    "reverberation": 0.3,
    "target_highpass_hz": 60.0,
    "coloured_noise": 0.1,
    "hum": 0.1,
    "clicks": 0.1,
    "band_limit": 0.2,
    "clipping": 0.2,
    "masking": 0.2,
}
"""All kinds of augmentation, as often as they are useful."""


def with_augmentation(spec: Spec, augmentation: Augmentation | None, steps: int) -> Spec:
    """Return a spec with another augmentation and number of steps."""
    changes = {"augmentation": augmentation, "steps_per_epoch": steps}
    return spec.model_copy(update={"training": spec.training.model_copy(update=changes)})


def batches_per_second(data: Path, spec: Spec, batches: int) -> float:
    """Measure the pipeline alone, after it is opened and its buffers are full."""
    from denoisecli.training.batches import open_batches

    warm_up = 20  # more than is prefetched
    spec = with_augmentation(spec, spec.training.augmentation, warm_up + batches)
    pipeline = iter(open_batches(data, spec).training(0))
    for _ in range(warm_up):
        next(pipeline)
    return batches / seconds(lambda: [next(pipeline) for _ in range(batches)])


def steps_per_second(data: Path, spec: Spec, steps: int) -> float:
    """Measure the training step alone, on the same batch and after it is compiled."""
    from denoisecli.models.registry import build_model
    from denoisecli.training.batches import open_batches
    from denoisecli.training.optimizer import make_optimizer, make_schedule
    from denoisecli.training.waveform_model import WaveformModel

    noisy, clean, *others = next(iter(open_batches(data, spec).training(0)))
    network = build_model(spec)
    model = WaveformModel(spec, network)
    optimizer = make_optimizer(
        spec.training, make_schedule(spec.training, 1000), network.trainable_variables
    )
    model.compile(optimizer=optimizer, jit_compile=False)
    for _ in range(2):
        model.train_on_batch(noisy, clean, *others)
    return steps / seconds(
        lambda: [model.train_on_batch(noisy, clean, *others) for _ in range(steps)]
    )


def seconds(work: Callable[[], object]) -> float:
    """Return the elapsed time of a function in s."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def measure(
    data: Path = Path("data"),
    specs: tuple[str, ...] = SPECS,
    batches: int = 100,
    steps: int = 10,
    rounds: int = 3,
) -> list[dict[str, Any]]:
    """Measure all specs; the fastest of several rounds counts, because other load only adds time.

    Returns:
        A record for each spec and augmentation: the rates of pipeline and step, and their ratio.
    """
    results = []
    for name in specs:
        spec = load_spec(name)
        own = spec.training.augmentation or Augmentation()
        kinds = {
            "none": with_augmentation(spec, None, 1),
            "of the spec": spec,
            "all": with_augmentation(spec, own.model_copy(update=ALL), 1),
        }
        rates = dict.fromkeys(kinds, 0.0)
        step = 0.0
        for _ in range(rounds):
            for kind, changed in kinds.items():
                rates[kind] = max(rates[kind], batches_per_second(data, changed, batches))
            step = max(step, steps_per_second(data, spec, steps))
        for kind, rate in rates.items():
            results.append(
                {
                    "spec": name,
                    "augmentation": kind,
                    "batches_per_second": rate,
                    "steps_per_second": step,
                    "ratio": rate / step,
                }
            )
    return results


def table(results: list[dict[str, Any]]) -> str:
    """Return the results as a table."""
    columns = ("spec", "augmentation", "batches/s", "training steps/s", f"ratio (>= {ENOUGH:g})")
    rows = [
        (
            row["spec"],
            row["augmentation"],
            f"{row['batches_per_second']:.1f}",
            f"{row['steps_per_second']:.2f}",
            f"{row['ratio']:.1f}",
        )
        for row in results
    ]
    return markdown.table(columns, rows, texts=2)


def main() -> None:
    """Measure, and print the table."""
    data = Path(sys.argv[1] if len(sys.argv) > 1 else "data")
    print(table(measure(data)))


if __name__ == "__main__":
    main()
