"""Tests of the ONNX graph under construction."""

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper

from denoisecli.models.export.onnx_graph import Graph

SHAPE = (1, 3, 8, 5)


def convolution(graph: Graph, x: str, filters: int, operator: str, stride: int = 1) -> str:
    """Append a convolution with random weights."""
    rng = np.random.default_rng(filters)
    shape = (filters, 3, 3, 1) if operator == "Conv" else (3, filters, 3, 1)
    axis = shape.index(filters, 0 if operator == "Conv" else 1)
    weight = rng.normal(size=shape).astype(np.float32)
    options = {"kernel_shape": [3, 1], "strides": [stride, 1]}
    return graph.linear(operator, x, weight, rng.normal(size=filters), axis, **options)


def run(graph: Graph, name: str, x: np.ndarray) -> np.ndarray:
    """Compute a tensor of a graph."""
    value = helper.make_tensor_value_info
    model = graph.model(
        [value("x", TensorProto.FLOAT, SHAPE)], [value(name, TensorProto.FLOAT, None)]
    )
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run([name], {"x": x})[0]


@pytest.mark.parametrize("operator", ["Conv", "ConvTranspose"])
def test_convolutions_of_one_map_are_merged(rng: np.random.Generator, operator: str) -> None:
    x = rng.normal(size=SHAPE).astype(np.float32)
    graph = Graph()
    names = [convolution(graph, "x", filters, operator) for filters in (2, 4)]
    expected = np.concatenate([run(graph, name, x) for name in names], axis=1)
    merged = graph.merged(names)
    assert merged is not None
    assert [node.op_type for node in graph.nodes] == [operator]
    assert len(graph.constants) == 2
    np.testing.assert_allclose(run(graph, merged, x), expected, rtol=1e-5, atol=1e-5)
    assert graph.fold(merged, np.full(6, 2, np.float32), np.ones(6, np.float32))
    np.testing.assert_allclose(run(graph, merged, x), 2 * expected + 1, rtol=1e-5, atol=1e-5)


def test_other_nodes_are_not_merged() -> None:
    graph = Graph()
    first = convolution(graph, "x", 2, "Conv")
    others = [
        convolution(graph, graph.add("Relu", "x"), 2, "Conv"),
        convolution(graph, "x", 2, "Conv", stride=2),
        convolution(graph, "x", 2, "ConvTranspose"),
        graph.add("Relu", "x"),
    ]
    nodes = list(graph.nodes)
    for other in others:
        assert graph.merged([first, other]) is None
    assert graph.nodes == nodes
    assert first in graph.foldable
