"""What runs the network: ONNX Runtime, or Keras."""

import os
from concurrent.futures import Future
from functools import cached_property
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import onnxruntime
from jaxtyping import Float

from denoisecli.errors import ModelError, UsageError
from denoisecli.models.registry import load_network

ENGINES = ("auto", "onnx", "keras")
DEVICES = ("auto", "cpu", "gpu")

BLOCKS_IN_ONE = 3
"""After so many blocks the network is cut in two; short sounds are done before that pays."""

MAX_RUNS = 2
"""How many runs of the network go on at once; each takes about 100 MB."""

CUDA = "CUDAExecutionProvider"

MAX_FRAMES = 10_000
"""More than any network here reaches; a file that says so is damaged."""

State = dict[str, Float[np.ndarray, "batch bands units"]]
"""What a stage of a network remembers of the sound before a block."""

States = tuple["Future[State]", ...]
"""That of all stages, as far as they have come."""

SpectrumBatch = Float[np.ndarray, "batch frequency frames 2"]
MaskBatch = Float[np.ndarray, "batch frequency frames parts"]


@runtime_checkable
class MaskEngine(Protocol):
    """What runs the network; from several threads at once, if ``runs`` is more than one."""

    @property
    def runs(self) -> int:
        """How many calls at once keep the device busy."""

    @property
    def reach(self) -> tuple[int, int] | None:
        """Frames at the start and the end of a block's mask that are wrong in midst of a sound.

        None where more than that is: then `carry` does not help.
        """

    def __call__(self, spectrum: SpectrumBatch) -> MaskBatch:
        """Give the mask for a noisy spectrum.

        Args:
            spectrum: float32 (batch, frequency, frames, 2): real and imaginary part.

        Returns:
            float32 (batch, frequency, frames, 2) complex, or (..., 1) magnitude mask.
        """

    @property
    def stages(self) -> int:
        """How many blocks of one sound can be in the network at once, one behind the other."""

    def carry(
        self, spectrum: SpectrumBatch, before: States | None, after: States, keep: int
    ) -> MaskBatch:
        """Give the mask for a block of a longer sound, going on from the block before.

        Args:
            spectrum: as above.
            before: what the call for the block before has in ``after``, waited for where it is
                needed; None where the sound begins.
            after: is given the states for the next block, one per stage, as soon as each is known.
            keep: the frame of this block that the next one begins with.

        Returns:
            The mask, right but for `reach`.
        """


def open_engine(
    folder: Path,
    *,
    engine: str = "auto",
    device: str = "auto",
    threads: int | None = None,
) -> MaskEngine:
    """Load the network in a model folder.

    Args:
        folder: the model folder.
        engine: "onnx" runs ``model.onnx``, "keras" ``model.keras``, which takes seconds to load;
            "auto" takes ONNX unless it lacks the device.
        device: "gpu", "cpu", or "auto" for a GPU where the engine has one at hand.
        threads: CPU threads; by default one per core.

    Raises:
        ModelError: the file is missing or damaged.
        UsageError: there is no such engine or device here, or ``threads`` is below 1.
    """
    if engine not in ENGINES:
        raise UsageError(f"there is no engine {engine!r}; use auto, onnx or keras")
    if device not in DEVICES:
        raise UsageError(f"there is no device {device!r}; use auto, cpu or gpu")
    if threads is not None and threads < 1:
        raise UsageError(f"threads must be at least 1, not {threads}")
    if engine == "auto":
        engine = "keras" if device == "gpu" and not OnnxEngine.has_gpu() else "onnx"
    kind = OnnxEngine if engine == "onnx" else KerasEngine
    return kind(folder / f"model.{engine}", device=device, threads=threads)


def cpu_cores() -> int:
    """Give the number of cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)  # Linux only
    return len(affinity(0)) if affinity else os.cpu_count() or 1


class OnnxEngine:
    """Run ``model.onnx`` with ONNX Runtime; the arguments are those of :func:`open_engine`.

    A small network gains little from several threads in one run, so there are two runs at once,
    each with its share of the threads.
    """

    def __init__(self, path: Path, *, device: str = "auto", threads: int | None = None) -> None:
        if not path.is_file():
            raise ModelError(f"{path} does not exist; `denoise train` writes it")
        if device == "gpu" and not self.has_gpu():
            raise UsageError("engine onnx has no GPU: it needs CUDA and onnxruntime-gpu")
        threads = threads or cpu_cores()
        self.path = path
        self.on_gpu = device != "cpu" and self.has_gpu()
        if self.on_gpu:
            self._open(threads, [CUDA])
            # Where the driver or a library is missing, ONNX Runtime may take the CPU in silence.
            self.on_gpu = CUDA in self._session.get_providers()
            if device == "gpu" and not self.on_gpu:
                raise UsageError("engine onnx cannot use the GPU: CUDA or cuDNN is missing")
        self.runs = 1 if self.on_gpu else min(MAX_RUNS, threads)
        if not self.on_gpu:
            self._open(threads // self.runs, [])
        facts = self._session.get_modelmeta().custom_metadata_map
        self.reach: tuple[int, int] | None = None
        try:
            if {"past_frames", "future_frames"} <= facts.keys():
                self.reach = _frames(facts["past_frames"]), _frames(facts["future_frames"])
            cut = _frames(facts.get("second_stage", "0"))
        except ValueError as error:
            raise ModelError(f"{path} is damaged: {error} in its metadata") from error
        self._cut = cut if self.runs > 1 else 0
        self.stages = 2 if self._cut else 1
        self._blocks = 0

    def _open(self, threads: int, providers: list[str]) -> None:
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.intra_op_num_threads = threads
        options.log_severity_level = 3  # its warnings are not for users
        try:
            self._session = onnxruntime.InferenceSession(
                self.path,
                options,
                providers=[*providers, "CPUExecutionProvider"],
                enable_fallback=0,  # which it would announce on stdout
            )
        except Exception as error:  # ONNX Runtime has no common base class for its errors
            raise ModelError(f"{self.path} cannot be loaded: {error}") from error
        self._options = options

    @cached_property
    def _halves(self) -> list[onnxruntime.InferenceSession]:
        import onnx

        from denoisecli.models.export.onnx_graph import split

        return [
            onnxruntime.InferenceSession(
                part.SerializeToString(), self._options, providers=["CPUExecutionProvider"]
            )
            for part in split(onnx.load(self.path), self._cut)
        ]

    @staticmethod
    def has_gpu() -> bool:
        """Tell whether ONNX Runtime was built for CUDA."""
        return CUDA in onnxruntime.get_available_providers()

    def __call__(self, spectrum: SpectrumBatch) -> MaskBatch:
        """See :class:`MaskEngine`."""
        return self._run(self._session, ["mask"], {"spectrum": spectrum})[0]

    def carry(
        self, spectrum: SpectrumBatch, before: States | None, after: States, keep: int
    ) -> MaskBatch:
        """See :class:`MaskEngine`."""
        known: dict[str, np.ndarray] = {"spectrum": spectrum, "keep": np.array([keep])}
        if before is not None:
            known["begins"] = np.array([0])
        self._blocks += 1
        in_two = self._cut and self._blocks > BLOCKS_IN_ONE
        for index, session in enumerate(self._halves if in_two else [self._session]):
            waited = (before or ())[index : index + 1] if in_two else before or ()
            state = {name: value for one in waited for name, value in one.result().items()}
            inputs = {
                value.name
                for value in (*session.get_inputs(), *session.get_overridable_initializers())
            }
            outputs = [value.name for value in session.get_outputs()]
            given = {name: value for name, value in (known | state).items() if name in inputs}
            made = dict(zip(outputs, self._run(session, outputs, given), strict=True))
            states = {
                name.removeprefix("next_"): value
                for name, value in made.items()
                if name.startswith("next_state_")
            }
            for one in after[index : index + 1] if in_two else after:
                one.set_result(states)
            known |= made
        return known["mask"]

    def _run(
        self,
        session: onnxruntime.InferenceSession,
        outputs: list[str],
        inputs: dict[str, np.ndarray],
    ) -> list[np.ndarray]:
        try:
            return session.run(outputs, inputs)
        except Exception as error:
            raise ModelError(f"the ONNX model does not fit its spec: {error}") from error


def _frames(text: str) -> int:
    number = int(text)
    if not 0 <= number <= MAX_FRAMES:
        raise ValueError(f"{number} frames")
    return number


class KerasEngine:
    """Run ``model.keras`` with Keras; the arguments are those of :func:`open_engine`."""

    runs = 1
    reach = None
    stages = 1

    def __init__(self, path: Path, *, device: str = "auto", threads: int | None = None) -> None:
        if not path.is_file():
            raise ModelError(f"{path} does not exist; `denoise train` writes it")
        import keras  # takes seconds
        import tensorflow as tf

        self.on_gpu = device != "cpu" and bool(tf.config.list_physical_devices("GPU"))
        if device == "gpu" and not self.on_gpu:
            raise UsageError("engine keras finds no GPU: it needs CUDA and tensorflow[and-cuda]")
        if (
            threads is not None
            and threads != tf.config.threading.get_intra_op_parallelism_threads()
        ):
            try:
                tf.config.threading.set_intra_op_parallelism_threads(threads)
            except RuntimeError as error:
                raise UsageError("TensorFlow runs already; threads cannot be changed") from error
        self._device = "gpu:0" if self.on_gpu else "cpu:0"
        with keras.device(self._device):
            self._model = load_network(path)

    def __call__(self, spectrum: SpectrumBatch) -> MaskBatch:
        """See :class:`MaskEngine`."""
        import keras

        try:
            with keras.device(self._device):
                mask = self._model(spectrum, training=False)
        except Exception as error:
            raise ModelError(f"the Keras model does not fit its spec: {error}") from error
        return np.asarray(keras.ops.convert_to_numpy(mask), np.float32)

    def carry(
        self, spectrum: SpectrumBatch, before: States | None, after: States, keep: int
    ) -> MaskBatch:
        """See :class:`MaskEngine`; Keras keeps no state."""
        return self(spectrum)
