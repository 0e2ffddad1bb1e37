"""Batch statistics that fit averaged weights."""

from typing import Any

import keras

from denoisecli.training.losses.tensor_stft import as_map, stft
from denoisecli.training.waveform_model import Task

STATISTICS_BATCHES = 16
"""Batches that statistics are estimated from."""


class Statistics(keras.Model):
    """Estimates the means and variances of batch normalizations anew, for the weights as they are.

    The moving averages of training belong to the weights that were trained. Averaged weights have
    other activations: as long as the learning rate is high, they score far below the trained ones
    with their statistics, and above them with their own (Izmailov et al. 2018, section 3).

    Args:
        task: whose network is meant.
    """

    def __init__(self, task: Task):
        super().__init__(name="statistics", dtype="float32")
        self.task = task
        self.seen = self.add_weight(name="seen", initializer="zeros", trainable=False)
        self.normalizations = [
            layer
            for layer in task.network.layers
            if isinstance(layer, keras.layers.BatchNormalization)
        ]

    def call(self, noisy: Any, training: bool | None = None) -> Any:
        """Run the network as in training and take the plain mean over all batches so far."""
        momentum = self.seen / (self.seen + 1)
        before = [layer.momentum for layer in self.normalizations]
        for layer in self.normalizations:
            layer.momentum = momentum
        try:
            spectrum = as_map(stft(noisy, self.task.spec.stft))
            mask = self.task.network(spectrum, training=True)
        finally:
            for layer, value in zip(self.normalizations, before, strict=True):
                layer.momentum = value
        self.seen.assign(self.seen + 1)
        return mask

    def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
        """Nothing is learned here."""
        return keras.ops.zeros(())

    def estimate(self, batches: Any) -> None:
        """Replace the moving statistics by those of the given (noisy, clean) batches.

        The state of dropout's random numbers moves on.
        """
        if self.normalizations:
            self.seen.assign(0.0)
            self.evaluate(batches, verbose=0)
