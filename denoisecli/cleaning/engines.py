"""Engines that run the network of a model: ONNX Runtime or Keras."""

import hashlib
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import onnxruntime
from jaxtyping import Complex, Float, Shaped

from denoisecli.cleaning.choices import Device, Engine
from denoisecli.errors import ModelError, UsageError
from denoisecli.models.folder import ModelFolder
from denoisecli.system.extras import require
from denoisecli.system.pools import cpu_cores

Arrays = Mapping[str, Shaped[np.ndarray, "..."]]
"""Inputs and outputs of a network by name, as `models.export.onnx_network` defines them.

The input "spectrum" is float32 (batch, frequency, frames, 2), the real and imaginary parts; the
output "mask" is float32 (batch, frequency, frames, parts).
"""

State = dict[str, Shaped[np.ndarray, "..."]]
"""State of a network after the blocks of one channel so far; empty before the first one."""


@dataclass
class FrameState:
    """State of the network for streams after the frames of a stream so far.

    Attributes:
        values: State of every channel.
        ahead: Number of frames whose results are still to come before that of the first frame.
    """

    values: Float[np.ndarray, "channels size"]
    ahead: int


_CUDA = "CUDAExecutionProvider"
_MAX_FRAMES = 10_000  # more than any network here reaches: the file is damaged


@runtime_checkable
class MaskEngine(Protocol):
    """A network that computes the mask for a noisy spectrum."""

    @property
    def ahead(self) -> int:
        """Number of blocks that should be submitted before the result of the first is needed."""

    @property
    def reach(self) -> tuple[int, int] | None:
        """Number of frames at the start and at the end of a block that the mask lacks.

        It lacks them if the recording continues there. None if the network carries no state.
        """

    def submit(self, arrays: Arrays, state: State) -> "Future[Arrays]":
        """Start to compute the mask of a block.

        Args:
            arrays: "spectrum", and, if ``reach`` is not None, "keep", "begins" and "ends".
            state: State of the channel, which is replaced by that after the block.

        Returns:
            The outputs, with the "mask". The future raises ModelError if the arrays do not fit the
            network.
        """


def open_engine(
    folder: ModelFolder,
    *,
    engine: str = Engine.AUTO,
    device: str = Device.AUTO,
    threads: int | None = None,
) -> MaskEngine:
    """Load the network in a model folder.

    Args:
        folder: Model folder.
        engine: "onnx" runs ``model.onnx``; "keras" runs ``model.keras``, which takes seconds to
            load; "auto" uses ONNX Runtime unless only Keras can use the device.
        device: "cpu", "gpu", or "auto" for a GPU if the engine finds one.
        threads: Number of CPU threads (default: one per core).

    Raises:
        ModelError: The network is missing or damaged.
        UsageError: The engine or the device does not exist here, or ``threads`` is below 1.
    """
    for kind, value in ((Engine, engine), (Device, device)):
        if value not in list(kind):
            raise UsageError(
                f"there is no {kind.__name__.lower()} {value!r}; use {', '.join(kind)}"
            )
    if threads is not None and threads < 1:
        raise UsageError(f"the number of threads must be at least 1, not {threads}")
    if engine == Engine.AUTO:
        only_keras = device == Device.GPU and not OnnxEngine.has_gpu()
        engine = Engine.KERAS if only_keras else Engine.ONNX
    if engine == Engine.ONNX:
        return OnnxEngine(folder, device=device, threads=threads)
    return KerasEngine(folder, device=device, threads=threads)


class OnnxEngine:
    """Run ``model.onnx`` with ONNX Runtime; see :func:`open_engine`.

    A small network gains little from more threads. If the folder also holds the network in two
    stages, each of them gets half of the threads, and they work on two blocks at once.
    """

    def __init__(
        self, folder: ModelFolder, *, device: str = Device.AUTO, threads: int | None = None
    ) -> None:
        path = folder.onnx_path
        if not path.is_file():
            raise ModelError(f"{path} does not exist; `denoise train` writes it")
        if device == Device.GPU and not self.has_gpu():
            raise UsageError("ONNX Runtime finds no GPU: it needs CUDA and onnxruntime-gpu")
        threads = min(threads or cpu_cores(), cpu_cores())  # more would wait for each other
        gpu = device != Device.CPU and self.has_gpu()
        self._sessions: list[onnxruntime.InferenceSession] = []
        if threads > 1 and not gpu:
            self._sessions = _open_stages(folder, threads)
        if not self._sessions:
            try:
                self._sessions = [_open_session(path, threads, gpu=gpu)]
            except ModelError:
                if not gpu:
                    raise
                # There is a CUDA build of ONNX Runtime, but no GPU or driver.
                self._sessions = [_open_session(path, threads)]
        # Where the driver or a library is missing, ONNX Runtime may use the CPU without a message.
        self.on_gpu = _CUDA in self._sessions[0].get_providers()
        if device == Device.GPU and not self.on_gpu:
            raise UsageError("ONNX Runtime cannot use the GPU: CUDA or cuDNN is missing")
        # Each stage has its own thread, so that the blocks of a channel pass it in their order.
        self._threads = [ThreadPoolExecutor(1) for _ in self._sessions]
        self.ahead = len(self._sessions) - 1
        self.reach = _reach(self._sessions[0], path)

    @staticmethod
    def has_gpu() -> bool:
        """Return whether ONNX Runtime was built for CUDA."""
        return _CUDA in onnxruntime.get_available_providers()

    def submit(self, arrays: Arrays, state: State) -> "Future[Arrays]":
        """See :class:`MaskEngine`."""
        future = _done(arrays)
        for session, thread in zip(self._sessions, self._threads, strict=True):
            future = thread.submit(_run_stage, session, future, state)
        return future


class FrameEngine:
    """Run ``stream.onnx``, the network for streams, on one frame of every channel at a time.

    Any number of streams and threads can share it. One core is enough, and more of them would only
    wait for each other.

    Args:
        folder: Model folder, which has the file.

    Attributes:
        delay: Number of frames that the network looks ahead.
    """

    def __init__(self, folder: ModelFolder) -> None:
        self._path = folder.stream_path
        self._session = _open_session(self._path, 1, plan_memory=True)
        self.metadata = self._session.get_modelmeta().custom_metadata_map
        try:
            self.delay = int(self.metadata["delay_frames"])
            self._size = int(self._session.get_inputs()[1].shape[1])
            if not 0 <= self.delay <= _MAX_FRAMES:
                raise ValueError(f"a delay of {self.delay} frames")
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise ModelError(f"{self._path} is damaged: {error} in its metadata") from error

    def start(self, channels: int) -> FrameState:
        """Return the state before the first frame."""
        return FrameState(np.zeros((channels, self._size), np.float32), self.delay)

    def run(
        self,
        spectrum: Complex[np.ndarray, "channels bins"],
        state: FrameState,
        *,
        present: bool = True,
    ) -> (
        tuple[Complex[np.ndarray, "channels bins"], Float[np.ndarray, "channels bins parts"]] | None
    ):
        """Process the next frame of every channel.

        Args:
            spectrum: The frame.
            state: State of the stream, which is replaced by that after the frame.
            present: False for the silence after the end of the sound, which returns what the
                network has delayed.

        Returns:
            The cleaned frame and its mask, of ``delay`` frames ago, or None if that is before the
            beginning of the sound.
        """
        shape = (*spectrum.shape, 1, 2)
        inputs = {
            "spectrum": np.ascontiguousarray(spectrum).view(np.float32).reshape(shape),
            "state": state.values,
        }
        if self.delay:
            inputs["present"] = np.array([present], np.float32)
        try:
            cleaned, state.values, mask = self._session.run(
                ["cleaned", "next_state", "mask"], inputs
            )
        except Exception as error:  # ONNX Runtime has no common base class for its errors
            raise ModelError(f"{self._path} does not fit its spec: {error}") from error
        if state.ahead:
            state.ahead -= 1
            return None
        return cleaned[:, :, 0].view(np.complex64)[..., 0], mask[:, :, 0]


def open_frame_engine(folder: ModelFolder) -> FrameEngine | None:
    """Load the network for streams; return None if there is none, or it is of another network."""
    if not folder.stream_path.is_file():
        return None
    engine = FrameEngine(folder)
    return engine if _is_of(engine.metadata, folder) else None


def _is_of(metadata: Mapping[str, str], folder: ModelFolder) -> bool:
    """Return whether a network was made from ``model.onnx`` as it is in the folder."""
    digest = hashlib.sha256(folder.onnx_path.read_bytes()).hexdigest()
    return metadata.get("whole") == digest


def _run_stage(
    session: onnxruntime.InferenceSession, before: "Future[Arrays]", state: State
) -> Arrays:
    """Run a stage on the arrays of the earlier stages, and update its part of the state."""
    arrays = {**before.result(), **state}
    optional = session.get_overridable_initializers()
    inputs = {
        value.name: arrays[value.name]
        for value in (*session.get_inputs(), *optional)
        if value.name in arrays
    }
    names = [value.name for value in session.get_outputs()]
    try:
        outputs = dict(zip(names, session.run(names, inputs), strict=True))
    except Exception as error:  # ONNX Runtime has no common base class for its errors
        if "allocat" in str(error):
            raise ModelError(f"ONNX Runtime has too little memory: {error}") from error
        raise ModelError(f"the ONNX model does not fit its spec: {error}") from error
    for name in names:
        if name.startswith("next_"):
            state[name.removeprefix("next_")] = outputs.pop(name)
    return outputs if "mask" in outputs else {**arrays, **outputs}


def _done(arrays: Arrays) -> "Future[Arrays]":
    future: Future[Arrays] = Future()
    future.set_result(arrays)
    return future


def _open_stages(folder: ModelFolder, threads: int) -> list[onnxruntime.InferenceSession]:
    """Open the stages of a network; return none if they are missing or of another network."""
    paths = folder.stage_paths
    if not all(path.is_file() for path in paths):
        return []
    sessions = []
    for path in paths:
        session = _open_session(path, threads // len(paths))
        if not _is_of(session.get_modelmeta().custom_metadata_map, folder):
            return []
        sessions.append(session)
    return sessions


def _open_session(
    path: Path, threads: int, *, gpu: bool = False, plan_memory: bool = False
) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # its warnings are not for users
    # For inputs of one shape only: planned memory is added to that of the first run, and blocks are
    # large.
    options.enable_mem_pattern = plan_memory
    if not plan_memory:
        # A small array that reuses a buffer keeps all of it allocated. With these two options, a
        # block of 5 s takes 15 MiB less and no more time.
        options.enable_mem_reuse = False
        options.execution_order = onnxruntime.ExecutionOrder.PRIORITY_BASED
    try:
        return onnxruntime.InferenceSession(
            path,
            options,
            providers=[*([_CUDA] if gpu else []), "CPUExecutionProvider"],
            enable_fallback=0,  # which it would announce on stdout
        )
    except Exception as error:  # ONNX Runtime has no common base class for its errors
        raise ModelError(f"{path} cannot be loaded: {error}") from error


def _reach(session: onnxruntime.InferenceSession, path: Path) -> tuple[int, int] | None:
    metadata = session.get_modelmeta().custom_metadata_map
    if not {"past_frames", "future_frames"} <= metadata.keys():
        return None
    try:
        past, future = int(metadata["past_frames"]), int(metadata["future_frames"])
        if not (0 <= past <= _MAX_FRAMES and 0 <= future <= _MAX_FRAMES):
            raise ValueError(f"{past} and {future} frames")
    except ValueError as error:
        raise ModelError(f"{path} is damaged: {error} in its metadata") from error
    return past, future


class KerasEngine:
    """Run ``model.keras`` with Keras; see :func:`open_engine`."""

    ahead = 0
    reach = None

    def __init__(
        self, folder: ModelFolder, *, device: str = Device.AUTO, threads: int | None = None
    ) -> None:
        path = folder.keras_path
        if not path.is_file():
            raise ModelError(f"{path} does not exist; `denoise train` writes it")
        require("train", "keras", "tensorflow", purpose="the Keras engine")
        import keras  # takes seconds
        import tensorflow as tf

        self.on_gpu = device != Device.CPU and bool(tf.config.list_physical_devices("GPU"))
        if device == Device.GPU and not self.on_gpu:
            raise UsageError("Keras finds no GPU: it needs CUDA and tensorflow[and-cuda]")
        if (
            threads is not None
            and threads != tf.config.threading.get_intra_op_parallelism_threads()
        ):
            try:
                tf.config.threading.set_intra_op_parallelism_threads(threads)
            except RuntimeError as error:
                raise UsageError(
                    "the number of threads cannot be changed after TensorFlow has started"
                ) from error
        self._device = "gpu:0" if self.on_gpu else "cpu:0"
        with keras.device(self._device):
            self._network = folder.load_network()

    def submit(self, arrays: Arrays, state: State) -> "Future[Arrays]":
        """See :class:`MaskEngine`; Keras carries no state."""
        import keras

        try:
            with keras.device(self._device):
                mask = self._network(arrays["spectrum"], training=False)
        except Exception as error:  # the errors of Keras have no common base class
            raise ModelError(f"the Keras model does not fit its spec: {error}") from error
        return _done({"mask": np.asarray(keras.ops.convert_to_numpy(mask), np.float32)})
