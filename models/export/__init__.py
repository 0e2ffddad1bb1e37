"""Trained networks as files for other programs.

- `convert`: write a model as ONNX, LiteRT or SavedModel, and compare it with Keras
- `onnx_network`: walk over the layers of a network and write each as ONNX
- `onnx_graph`: the ONNX graph under construction, which the layers append their nodes to
- `onnx_stages`: an ONNX network cut in two, for two blocks of a recording at the same time

The nodes of a layer are written by its method `onnx_nodes`, beside the layer itself.
"""

from enum import StrEnum


class ExportFormat(StrEnum):
    """Format that a network is exported to."""

    ONNX = "onnx"
    LITERT = "litert"
    SAVED_MODEL = "saved_model"

    @property
    def suffix(self) -> str:
        """Suffix of the file; empty for a SavedModel, which is a folder."""
        return {"onnx": ".onnx", "litert": ".tflite", "saved_model": ""}[self]
