"""The rating of speech by listeners, as DNSMOS P.835 predicts it, differentiable.

Source: Reddy, Gopal and Cutler, "DNSMOS P.835: A non-intrusive perceptual objective speech quality
metric to evaluate noise suppressors", ICASSP 2022. `denoisecli.audio.dnsmos` rates recordings with
the same network, whose weights are a file of the package speechmos.
"""

from functools import cache
from typing import Any, NamedTuple

import numpy as np
from keras import ops

from denoisecli.audio.dnsmos import RATING_CURVES, network_path

_FRAME = 320
_HOP = 160
_FLOOR = 1e-12  # added to the power of each bin, so that silence has a logarithm
_POOLED = (3, 4, 5)  # the convolutions that a pooling follows


class _Network(NamedTuple):
    """Weights of the network: both parts of the transform, and kernels with their biases."""

    transform: tuple[np.ndarray, np.ndarray]
    convolutions: list[tuple[np.ndarray, np.ndarray]]
    dense: list[tuple[np.ndarray, np.ndarray]]


def ratings(sound: Any) -> Any:
    """Predict the ratings of speech of any length.

    The network was trained with windows of 9 s. It takes the maximum over time, so that a shorter
    sound is rated nearly as its repetition.

    Args:
        sound: Speech at 16 kHz, full scale -1..1, at least 0.09 s.

    Returns:
        Ratings of the speech, of the background and overall, 1 (bad) to 5 (excellent).

    Raises:
        UsageError: The package speechmos is not installed.

    Shape:
        - sound: (batch, timesteps)
        - output: (batch, 3)
    """
    network = _network()
    frames = ops.extract_sequences(sound, _FRAME, _HOP)
    power = sum(ops.square(ops.matmul(frames, part)) for part in network.transform)
    x = ops.log10(power + _FLOOR)[..., None]
    for index, (kernel, bias) in enumerate(network.convolutions):
        x = ops.relu(ops.conv(x, kernel, padding="same") + bias)
        if index in _POOLED:
            x = ops.max_pool(x, 2, 2)
    x = ops.max(x, axis=(1, 2))
    *hidden, (kernel, bias) = network.dense
    for weights, shift in hidden:
        x = ops.relu(ops.matmul(x, weights) + shift)
    x = ops.matmul(x, kernel) + bias
    square, slope, constant = np.array(RATING_CURVES, np.float32).T
    return (square * x + slope) * x + constant


@cache
def _network() -> _Network:
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(network_path()).graph
    values = {item.name: numpy_helper.to_array(item) for item in graph.initializer}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    products = [node for node in graph.node if node.op_type == "MatMul"]
    biases = {
        node.input[0]: values[node.input[1]]
        for node in graph.node
        if node.op_type == "Add" and node.input[1] in values
    }
    real, imaginary = (values[node.input[1]][:, :, 0].T for node in convolutions[:2])
    return _Network(
        transform=(real, imaginary),
        convolutions=[
            (values[node.input[1]].transpose(2, 3, 1, 0), values[node.input[2]])
            for node in convolutions[2:]
        ],
        dense=[(values[node.input[1]], biases[node.output[0]]) for node in products],
    )
