"""An ONNX network in two stages, which can work on two blocks of a recording at the same time.

The network carries its state from block to block, so that a block has to wait for the one before
it; but the second stage of a block can run beside the first stage of the next one.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import onnx
import onnx.shape_inference
import onnx.utils


def write_stages(path: Path, stage_paths: Sequence[Path]) -> None:
    """Write the stages of a network beside it, if it has stages.

    The outputs of the first stage are inputs of the second one, by name. Their metadata are those
    of the network, and ``whole``, the SHA-256 of its file, which shows that they belong to it.

    Args:
        path: ONNX network as `export_onnx` writes it. Its metadata ``second_stage`` is the index of
            the node that the second stage begins with, or 0.
        stage_paths: Two files to write.
    """
    model = onnx.load(path)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    second_stage = int(metadata.get("second_stage", "0"))
    if second_stage == 0:
        return
    nodes = model.graph.node
    first_outputs = {name for node in nodes[:second_stage] for name in node.output}
    first_inputs = {name for node in nodes[:second_stage] for name in node.input}
    second_inputs = {name for node in nodes[second_stage:] for name in node.input}
    inputs = [value.name for value in model.graph.input]
    outputs = [value.name for value in model.graph.output]
    between = sorted(second_inputs & first_outputs)
    ends = [
        (
            [name for name in inputs if name in first_inputs],
            between + [name for name in outputs if name in first_outputs],
        ),
        (
            between + [name for name in inputs if name in second_inputs],
            [name for name in outputs if name not in first_outputs],
        ),
    ]
    extractor = onnx.utils.Extractor(onnx.shape_inference.infer_shapes(model))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    for stage_path, (begin, end) in zip(stage_paths, ends, strict=True):
        stage = extractor.extract_model(begin, end)
        onnx.helper.set_model_props(stage, {**metadata, "whole": digest})
        onnx.save(stage, stage_path)
