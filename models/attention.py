"""Self-attention along one axis of a map."""
# ruff: noqa: D102 - the methods override those of Keras and of `Traits`, where they are documented

from typing import Any

from keras import ops

from denoisecli.models.export.onnx_graph import Graph, Map
from denoisecli.models.layers import AlongAxis, register
from denoisecli.models.reach import ALL, Reach


@register
class AxisAttention(AlongAxis):
    """Multi-head self-attention along the frequency or the time axis (Vaswani et al. 2017).

    Along frequency, learned position vectors distinguish the bands.

    Args:
        axis: "frequency" or "time".
        heads: Number of heads.
        key_dim: Size of a query, key and value in one head.

    Shape:
        - input and output: (batch, frequency, time, channels)
    """

    def __init__(self, axis: str, heads: int, key_dim: int, **kwargs: Any):
        super().__init__(axis, **kwargs)
        self.heads = heads
        self.key_dim = key_dim

    def build(self, input_shape: Any) -> None:
        channels = input_shape[-1]
        size = self.heads * self.key_dim
        if self.axis == "frequency":
            self.positions = self.add_weight(
                shape=(input_shape[1], channels), initializer="zeros", name="positions"
            )
        self.inward = self.add_weight(
            shape=(channels, 3 * size), initializer="glorot_uniform", name="inward"
        )
        self.outward = self.add_weight(
            shape=(size, channels), initializer="glorot_uniform", name="outward"
        )

    def call(self, inputs: Any) -> Any:
        rows = self.to_sequences(inputs)
        if self.axis == "frequency":
            rows = rows + self.positions
        steps = ops.shape(rows)[1]
        split = ops.reshape(rows @ self.inward, (-1, steps, 3, self.heads, self.key_dim))
        query, key, value = (ops.transpose(split[:, :, i], (0, 2, 1, 3)) for i in range(3))
        scores = query @ ops.transpose(key, (0, 1, 3, 2)) * self.key_dim**-0.5
        # Keras warns about the softmax of a single score, which is one.
        weights = ops.ones_like(scores) if scores.shape[-1] == 1 else ops.softmax(scores)
        heads = ops.transpose(weights @ value, (0, 2, 1, 3))
        mixed = ops.reshape(heads, (-1, steps, self.heads * self.key_dim)) @ self.outward
        return self.from_sequences(mixed, inputs)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "heads": self.heads, "key_dim": self.key_dim}

    def onnx_nodes(self, graph: Graph, *inputs: Map) -> Map:
        (x,) = inputs
        heads, size = self.heads, self.key_dim
        to_rows = [0, 1, 2, 3] if self.axis == "time" else [0, 2, 1, 3]  # its own inverse
        rows = graph.add("Transpose", x.last, perm=to_rows)  # batch, other axis, steps, channels
        shape = graph.slice(graph.add("Shape", rows), 0, 0, 3)
        if self.axis == "frequency":
            rows = graph.add("Add", rows, graph.constant(self.positions.numpy()))
        split = graph.add(
            "Reshape",
            graph.add("MatMul", rows, graph.constant(self.inward.numpy())),
            graph.add("Concat", shape, graph.integers(3, heads, size), axis=0),
        )
        split = graph.add("Transpose", split, perm=[3, 0, 1, 4, 2, 5])
        query, key, value = (
            graph.add("Squeeze", graph.slice(split, 0, i, i + 1), graph.integers(0))
            for i in range(3)
        )
        key = graph.add("Transpose", key, perm=[0, 1, 2, 4, 3])
        query = graph.add("Mul", query, graph.constant(size**-0.5))
        scores = graph.add("Softmax", graph.add("MatMul", query, key), axis=-1)
        mixed = graph.add("Transpose", graph.add("MatMul", scores, value), perm=[0, 1, 3, 2, 4])
        mixed = graph.add(
            "Reshape", mixed, graph.add("Concat", shape, graph.integers(heads * size), axis=0)
        )
        mixed = graph.add("MatMul", mixed, graph.constant(self.outward.numpy()))
        return Map(graph, last=graph.add("Transpose", mixed, perm=to_rows))

    def reach(self, inputs: Reach) -> Reach:
        return inputs.widened(ALL, ALL) if self.axis == "time" else inputs

    def macs_per_output(self, context: float) -> float:
        size = self.heads * self.key_dim
        channels = self.input.shape[-1]
        steps = context if self.axis == "time" else self.input.shape[1]
        return 4 * size + 2 * steps * size / channels
