"""Export a trained model for other programs."""

import warnings
from pathlib import Path
from tempfile import TemporaryDirectory

import keras

from denoisecli.errors import ModelError, UsageError
from denoisecli.models.catalogue import find_model
from denoisecli.models.export import ExportFormat
from denoisecli.models.export.onnx_network import compare_with_keras, export_onnx
from denoisecli.models.export.onnx_stream import export_stream
from denoisecli.models.export.sherpa import export_sherpa
from denoisecli.system.atomic_files import refuse_existing, replacing
from denoisecli.system.extras import require

_EXPORTED = "the exported network"


def export_model(
    model: str | Path,
    target: Path,
    format: ExportFormat = ExportFormat.ONNX,
    *,
    frames: int = 64,
    overwrite: bool = False,
) -> float:
    """Export the network of a trained model, and compare it with Keras.

    For a stream, the network takes and returns one frame at a time; see `onnx_stream` and `sherpa`.
    In every other format it takes ``spectrum`` (batch, frequency, time, 2), the real and
    imaginary parts of the STFT, and returns ``mask`` (batch, frequency, time, parts), both float32.
    The model's ``spec.json`` describes the STFT and the parts. ONNX and SavedModel take any batch
    size and number of frames. LiteRT supports recurrent layers only for a fixed number of frames
    and takes a batch of one.

    Args:
        model: Path of a model folder, or name of a bundled model.
        target: File to write, or folder for a SavedModel.
        format: Format to write.
        frames: Number of frames that a LiteRT network takes.
        overwrite: Replace an existing target.

    Returns:
        The largest difference from Keras on random input, of the masks or, for a stream, of the
        cleaned spectrum.

    Raises:
        UsageError: There is no such model, the target exists or has the wrong suffix, or
            ``frames`` is less than 1.
        ModelError: The model is damaged, cannot be written in this format, or computes something
            else in it.
        DenoiseError: The target cannot be written.
    """
    if format.suffix not in ("", target.suffix.lower()):
        other = [
            each for each in ExportFormat if each.suffix and each.suffix == target.suffix.lower()
        ]
        hint = f"; {target.suffix} is the suffix of --format {other[0]}" if other else ""
        raise UsageError(
            f"{target}: a file in the format {format} must end in {format.suffix}{hint}"
        )
    if frames < 1:
        raise UsageError(f"the number of frames must be at least 1, not {frames}")
    refuse_existing(target, overwrite=overwrite)
    if format in (ExportFormat.LITERT, ExportFormat.SAVED_MODEL):
        require("train", "tensorflow", purpose=f"exporting {format}")
        if keras.backend.backend() != "tensorflow":
            raise UsageError(f"only TensorFlow exports {format}; unset KERAS_BACKEND")
    network = find_model(model).load_network()
    with replacing(target, overwrite=overwrite) as part:
        if format is ExportFormat.ONNX:
            return export_onnx(network, part)
        if format is ExportFormat.ONNX_STREAM:
            return export_stream(network, part)
        if format is ExportFormat.SHERPA_ONNX:
            return export_sherpa(network, part)
        if format is ExportFormat.LITERT:
            return _export_litert(network, part, frames)
        import tensorflow as tf

        _save(network, part, (None, None))
        restored = tf.saved_model.load(part.as_posix())
        return compare_with_keras(network, lambda x: restored.serve(x)["mask"], _EXPORTED)


def _save(network: keras.Model, folder: Path, sizes: tuple[int | None, int | None]) -> None:
    """Write a SavedModel that takes this batch size and number of frames; None for any."""
    import tensorflow as tf

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
    import tensorflow as tf

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
        difference = compare_with_keras(
            network, lambda x: run(spectrum=x)["mask"], _EXPORTED, (1, frames)
        )
    except RuntimeError as error:
        raise ModelError(f"LiteRT cannot run this network: {error}") from error
    path.write_bytes(content)
    return difference
