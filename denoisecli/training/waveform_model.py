"""What is trained: a mask network with the STFT, the losses and the metrics around it."""

from typing import Any

import keras

from denoisecli.models.ops import apply_mask
from denoisecli.models.registry import build_model
from denoisecli.spec.document import Spec
from denoisecli.training.losses.spectral import SILENCE, si_sdr_db, total_loss
from denoisecli.training.losses.tensor_stft import as_map, istft, stft

FULL_PRECISION = ("features", "mask")
"""Layers that always compute in float32: small powers and the mask itself need its digits."""


class Task(keras.Model):
    """A mask network with all around it: noisy waveform in, estimate of the clean one out.

    Args:
        spec: says the STFT and the losses.
        network: from noisy spectrum to mask.
        replicas: devices that share a batch, each with losses of its own that are then summed.

    Shape:
        - input and output: (batch, timesteps)
    """

    def __init__(self, spec: Spec, network: keras.Model, replicas: int = 1):
        super().__init__(name="task", dtype="float32")
        self.spec = spec
        self.network = network
        self.replicas = replicas
        self.improvement = keras.metrics.Mean(name="si_sdr_improvement")

    def call(self, noisy: Any, training: bool | None = None) -> Any:
        """Denoise a batch of waveforms."""
        spectrum = stft(noisy, self.spec.stft)
        mask = self.network(as_map(spectrum), training=training)
        length = keras.ops.shape(noisy)[1]
        return istft(apply_mask(mask, spectrum, self.spec.output.offsets), self.spec.stft, length)

    def _maybe_symbolic_build(self, *args: Any, **kwargs: Any) -> None:
        """Look at no batch before training on several devices: that would shuffle the data anew."""

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        """Weighted sum of the spec's losses, this device's share of it."""
        return total_loss(y_pred, y, x, self.spec) / self.replicas

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        """Improvement of SI-SDR over the noisy input, in dB, where there is speech."""
        heard = keras.ops.mean(keras.ops.square(y), axis=1) > SILENCE
        noise = keras.ops.mean(keras.ops.square(y - x), axis=1) > SILENCE * 1e-3
        weight = keras.ops.cast(keras.ops.logical_and(heard, noise), "float32")
        self.improvement.update_state(si_sdr_db(y_pred, y) - si_sdr_db(x, y), weight)
        return self.get_metrics_result()


def build_network(spec: Spec, precision: str = "float32") -> keras.Model:
    """Build the untrained network, computing in a precision of Keras; weights are float32."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(precision)
    try:
        network = build_model(spec)
    finally:
        keras.config.set_dtype_policy(before)
    for name in FULL_PRECISION:
        network.get_layer(name).dtype_policy = "float32"
    return network
