"""Trained models as files for other programs: ONNX, LiteRT, SavedModel."""

import warnings
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from denoisecli.errors import ModelError, UsageError
from denoisecli.models.catalogue import find_model
from denoisecli.models.export.onnx_network import TOLERANCE, export_onnx
from denoisecli.system.atomic_files import refuse_existing, replacing

SUFFIXES = {"onnx": ".onnx", "litert": ".tflite", "saved_model": ""}
"""Formats, and how their files are called; a SavedModel is a folder of any name."""

FRAMES = 64
"""How many frames of a spectrum a LiteRT model takes at a time, by default."""


def export_model(
    model: str | Path,
    target: Path,
    format: str = "onnx",
    *,
    frames: int = FRAMES,
    overwrite: bool = False,
) -> float:
    """Write the network of a trained model for other programs, and compare it with Keras.

    In every format it takes `spectrum` (batch, frequency, time, 2), the real and imaginary parts
    of the STFT, and gives `mask` (batch, frequency, time, parts), both float32; the model's
    ``spec.json`` says which STFT, and what the parts are. ONNX and SavedModel take any batch and
    time. LiteRT knows recurrent layers only for a fixed number of frames, and takes a batch of one.

    Args:
        model: a model folder, or the name of a bundled model.
        target: the file to write, or the folder for a SavedModel.
        format: a key of SUFFIXES.
        frames: of a LiteRT model.
        overwrite: replace ``target``.

    Returns:
        The largest difference from Keras on random input.

    Raises:
        UsageError: no such model or format, a target that exists or has another suffix, or less
            than one frame.
        ModelError: the model is damaged, cannot be written in this format, or computes something
            else in it.
        DenoiseError: the target cannot be written.
    """
    if format not in SUFFIXES:
        raise UsageError(f"there is no format {format!r}; known are {', '.join(SUFFIXES)}")
    if SUFFIXES[format] not in ("", target.suffix.lower()):
        raise UsageError(f"{target}: the format {format} goes to a {SUFFIXES[format]} file")
    if frames < 1:
        raise UsageError(f"the number of frames must be at least 1, not {frames}")
    refuse_existing(target, overwrite=overwrite)
    network = find_model(model).load_network()
    with replacing(target, overwrite=overwrite) as part:
        if format == "onnx":
            return export_onnx(network, part)
        if format == "litert":
            return _export_litert(network, part, frames)
        _save(network, part, (None, None))
        restored = tf.saved_model.load(part.as_posix())
        return _largest_difference(network, lambda x: restored.serve(x)["mask"], (2, 37))


def _save(network: keras.Model, folder: Path, sizes: tuple[int | None, int | None]) -> None:
    """Write a SavedModel that takes this batch and number of frames."""
    batch, frames = sizes
    shape = (batch, network.inputs[0].shape[1], frames, 2)
    archive = keras.export.ExportArchive()
    archive.track(network)
    archive.add_endpoint(
        "serve",
        lambda spectrum: {"mask": network(spectrum, training=False)},
        input_signature=[tf.TensorSpec(shape, tf.float32, "spectrum")],
    )
    archive.write_out(folder.as_posix(), verbose=False)


def _export_litert(network: keras.Model, path: Path, frames: int) -> float:
    with TemporaryDirectory(prefix="denoise-") as folder:
        _save(network, Path(folder), (1, frames))
        try:
            content = tf.lite.TFLiteConverter.from_saved_model(folder).convert()
        except AttributeError as error:
            raise ModelError("this version of TensorFlow cannot write LiteRT") from error
        except Exception as error:  # its errors have no public class
            reason = str(error).strip().splitlines()[0]
            raise ModelError(f"LiteRT has no operators for this network: {reason}") from error
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*tf.lite.Interpreter is deprecated")
        interpreter = tf.lite.Interpreter(model_content=content)
    try:
        run = interpreter.get_signature_runner()
        difference = _largest_difference(network, lambda x: run(spectrum=x)["mask"], (1, frames))
    except RuntimeError as error:
        raise ModelError(f"LiteRT cannot run this network: {error}") from error
    path.write_bytes(content)
    return difference


def _largest_difference(
    network: keras.Model, run: Callable[[np.ndarray], Any], sizes: tuple[int, int]
) -> float:
    batch, frames = sizes
    shape = (batch, network.inputs[0].shape[1], frames, 2)
    spectrum = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    expected = keras.ops.convert_to_numpy(network(spectrum, training=False))
    difference = float(np.abs(expected - np.asarray(run(spectrum))).max())
    if not difference < TOLERANCE:
        raise ModelError(f"the exported network differs from Keras by {difference:.2g}")
    return difference
