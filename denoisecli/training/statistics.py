"""Estimate the statistics of batch normalizations for averaged weights."""

from collections.abc import Iterable
from typing import Any

import keras

from denoisecli.training.losses.tensor_stft import as_map, stft
from denoisecli.training.stream import Batch, for_keras
from denoisecli.training.waveform_model import Prebuilt, WaveformModel

STATISTICS_BATCHES = 16
"""Number of batches that the statistics are estimated from."""


def batch_normalizations(network: keras.Model) -> list[keras.layers.BatchNormalization]:
    """Return the batch normalizations of a network."""
    return [layer for layer in network.layers if isinstance(layer, keras.layers.BatchNormalization)]


class BatchStatistics(Prebuilt):
    """Estimates the means and variances of the batch normalizations for the current weights.

    The moving averages of training belong to the weights that were trained. Averaged weights have
    other activations: as long as the learning rate is high, they score far below the trained ones
    with the statistics of those, and above them with their own (Izmailov et al. 2018, section 3).

    Args:
        model: Model whose network has the normalizations. Those that are not trainable keep their
            statistics.
    """

    def __init__(self, model: WaveformModel):
        super().__init__(name="batch_statistics", dtype="float32")
        self.model = model
        self.seen = self.add_weight(name="seen", initializer="zeros", trainable=False)
        self.normalizations = [
            layer for layer in batch_normalizations(model.network) if layer.trainable
        ]

    def call(self, noisy: Any, training: bool | None = None) -> Any:
        """Run the network in training mode and average the statistics of all batches so far."""
        momentum = self.seen / (self.seen + 1)
        original = [layer.momentum for layer in self.normalizations]
        for layer in self.normalizations:
            layer.momentum = momentum
        try:
            spectrum = as_map(stft(noisy, self.model.spec.stft))
            mask = self.model.network(spectrum, training=True)
        finally:
            for layer, value in zip(self.normalizations, original, strict=True):
                layer.momentum = value
        self.seen.assign(self.seen + 1)
        return mask

    def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
        """Return zero, because nothing is learned here."""
        return keras.ops.zeros(())

    def estimate(self, batches: Iterable[Batch], count: int) -> None:
        """Replace the moving statistics by those of batches of (noisy, clean).

        The random state of dropout layers advances.

        Args:
            batches: The batches, at least `count`.
            count: Number of batches to take.
        """
        if self.normalizations:
            self.seen.assign(0.0)
            # Without the number, Keras tries a step without data, which counts.
            self.evaluate(for_keras(iter(batches)), steps=count, verbose=0)
