"""The model folder that training writes and cleaning reads.

This is the only module that knows the names of the files in it. Keras and ONNX are imported by the
functions that need them, so that cleaning with ONNX Runtime starts fast.
"""

from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, Field, ValidationError

from denoisecli.errors import ModelError
from denoisecli.models.registry import find_class, load_network
from denoisecli.spec.document import Spec, read_spec, save_spec

if TYPE_CHECKING:
    import keras


class Metrics(BaseModel):
    """Content of ``metrics.json``: how a model was trained and what was measured.

    Every field may be missing, because earlier versions wrote fewer of them.
    """

    epochs: int | None = Field(None, description="Epochs trained in this run.")
    best_epoch: int | None = Field(None, description="Number of the best epoch, from 1.")
    minutes: float | None = Field(None, description="Training time of this run in minutes.")
    audio_hours: float | None = Field(None, description="Hours of audio seen in this run.")
    dataset: str | None = Field(None, description="Identifier of the dataset.")
    init_from: str | None = Field(None, description="Model that the run took its weights from.")
    training_sources: str = Field(
        "",
        description="Hashes of the names of the recordings trained on, those of `init_from` "
        "included, and ? if those are not recorded; separated by spaces.",
    )
    seed: int | None = Field(None, description="Seed of the run.")
    parameters: int | None = Field(None, description="Number of weights of the network.")
    macs_per_second: float | None = Field(
        None, description="Multiply-accumulates per second of audio."
    )
    validation: dict[str, float | None] = Field(
        {}, description="Validation metrics of the best epoch."
    )
    test: dict[str, float | None] = Field({}, description="Metrics of the model on the test set.")
    code: str | None = Field(None, description="Hash of the source files that trained the model.")
    versions: dict[str, str] = Field({}, description="Versions of the packages used.")
    onnx_difference: float | None = Field(
        None, description="Largest difference between the masks of ONNX Runtime and Keras."
    )


class ModelFolder:
    """A trained model on disk.

    Args:
        path: The folder; it need not exist yet if it is to be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.spec_path = path / "spec.json"
        self.keras_path = path / "model.keras"
        self.onnx_path = path / "model.onnx"
        self.stage_paths = [path / "stage1.onnx", path / "stage2.onnx"]
        self.stream_path = path / "stream.onnx"
        self.metrics_path = path / "metrics.json"
        self.history_path = path / "history.csv"
        self.curves_path = path / "curves.png"

    @property
    def named_path(self) -> Path:
        """Folder that the model is known by: that of its run, or its own."""
        return self.path.parent if self.path.name == "model" else self.path

    @property
    def name(self) -> str:
        """Name that the model is known by: that of `named_path`, also of a relative path."""
        return ModelFolder(self.path.absolute()).named_path.name

    @cached_property
    def spec(self) -> Spec:
        """The resolved spec; raises SpecError if it cannot be read."""
        return read_spec(self.spec_path)

    def read_metrics(self) -> Metrics:
        """Read what training measured.

        Raises:
            ModelError: The file is missing or damaged.
        """
        try:
            return Metrics.model_validate_json(self.metrics_path.read_bytes())
        except OSError as error:
            raise ModelError(f"{self.metrics_path} cannot be read: {error.strerror}") from error
        except ValidationError as error:
            problem = error.errors()[0]
            where = ".".join(map(str, problem["loc"]))
            reason = f"{where}: {problem['msg']}" if where else problem["msg"]
            raise ModelError(f"{self.metrics_path} is damaged: {reason}") from error

    def load_network(self) -> "keras.Model":
        """Load the Keras network.

        Raises:
            ModelError: The network is missing or damaged.
            UsageError: It is of a class that `registry.allow_class` has not loaded.
        """
        if self.spec_path.is_file():
            find_class(self.spec.model)
        return load_network(self.keras_path)

    def write_network(self, network: "keras.Model") -> float:
        """Write the spec, the Keras network and the ONNX networks into the existing folder.

        Returns:
            The largest difference between the masks of ONNX Runtime and Keras on random input.

        Raises:
            ModelError: The network cannot be written as ONNX, or its ONNX graph differs from it.
        """
        from denoisecli.models.export.onnx_network import export_onnx
        from denoisecli.models.export.onnx_stages import write_stages
        from denoisecli.models.export.onnx_stream import export_stream

        save_spec(network.spec, self.spec_path)
        network.save(self.keras_path)
        difference = export_onnx(network, self.onnx_path)
        write_stages(self.onnx_path, self.stage_paths)
        with suppress(ModelError):  # without this file, streams are cleaned in blocks
            export_stream(network, self.stream_path, whole=self.onnx_path)
        return difference

    def write_metrics(self, metrics: Metrics) -> None:
        """Write ``metrics.json``; infinity and NaN become null."""
        self.metrics_path.write_text(metrics.model_dump_json(indent=2) + "\n", encoding="utf-8")
