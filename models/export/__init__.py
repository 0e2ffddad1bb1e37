"""Trained networks as files for other programs.

- `convert`: write a model as ONNX, LiteRT or SavedModel, and compare it with Keras
- `metadata`: what a program has to know to use a network, written into its ONNX file
- `onnx_network`: walk over the layers of a network and write each as ONNX
- `onnx_graph`: the ONNX graph under construction, which the layers append their nodes to
- `stream_graph`: the ONNX graph of one frame per run, which keeps what the layers remember
- `onnx_stream`: walk over the layers and write each for a stream, frame by frame
- `sherpa`: the graph for streams in the form that sherpa-onnx loads
- `onnx_stages`: an ONNX network cut in two, for two blocks of a recording at the same time

The nodes of a layer are written by its methods `onnx_nodes` and `stream_nodes`, beside the layer
itself.
"""

from enum import StrEnum


class ExportFormat(StrEnum):
    """Format that a network is exported to."""

    ONNX = "onnx"
    ONNX_STREAM = "onnx-stream"
    """A graph for streams: one frame in, one cleaned frame out."""
    SHERPA_ONNX = "sherpa-onnx"
    """The same graph with the names and metadata that sherpa-onnx expects."""
    LITERT = "litert"
    SAVED_MODEL = "saved_model"

    @property
    def suffix(self) -> str:
        """Suffix of the file; empty for a SavedModel, which is a folder."""
        return {"litert": ".tflite", "saved_model": ""}.get(self, ".onnx")
