"""The model that is trained: a mask network with the STFT, the losses and the metrics around it."""

from typing import Any

import keras
from keras import ops

from denoisecli.models.layers import BoundedMask, Features
from denoisecli.models.ops import apply_mask
from denoisecli.models.registry import build_model
from denoisecli.spec.document import Spec
from denoisecli.training.losses.signals import SILENCE, within_band
from denoisecli.training.losses.tensor_stft import as_map, istft, stft
from denoisecli.training.losses.waveform import si_sdr_db, total_loss


class Prebuilt(keras.Model):
    """A model of which nothing is left to build when data comes."""

    def _maybe_symbolic_build(self, *args: Any, **kwargs: Any) -> None:
        """Override Keras, which would take a batch from the data here, and lose it.

        There is no public way to leave that out.
        """


class WaveformModel(Prebuilt):
    """A mask network between an STFT and its inverse: noisy waveforms in, estimates out.

    Args:
        spec: Spec with the STFT and the losses.
        network: Mask network, from the noisy spectrum to the mask.
        replicas: Number of devices that share a batch. Each computes its share of the loss, and
            the shares are summed.

    Shape:
        - input and output: (batch, timesteps)
    """

    def __init__(self, spec: Spec, network: keras.Model, replicas: int = 1):
        super().__init__(name="waveform_model", dtype="float32")
        self.spec = spec
        self.network = network
        self.replicas = replicas
        self.improvement = keras.metrics.Mean(name="si_sdr_improvement")

    def call(self, noisy: Any, training: bool | None = None) -> Any:
        """Denoise a batch of waveforms."""
        spectrum = stft(noisy, self.spec.stft)
        mask = self.network(as_map(spectrum), training=training)
        length = ops.shape(noisy)[1]
        return istft(apply_mask(mask, spectrum, self.spec.output.offsets), self.spec.stft, length)

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        """Compute this device's share of the weighted sum of the spec's losses.

        `sample_weight` carries the bandwidths of the clean recordings, if the batches have them.
        """
        return total_loss(y_pred, y, x, self.spec, sample_weight) / self.replicas

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        """Update the mean improvement of the SI-SDR over the noisy input, in dB.

        Segments without speech or without noise do not count, and neither does what lies above the
        bandwidths that `sample_weight` carries.
        """
        if sample_weight is not None:
            x, y_pred = (within_band(audio, y, self.spec, sample_weight) for audio in (x, y_pred))
        has_speech = ops.var(y, axis=1) > SILENCE
        has_noise = ops.var(y - x, axis=1) > SILENCE * 1e-3
        weight = ops.cast(ops.logical_and(has_speech, has_noise), "float32")
        self.improvement.update_state(si_sdr_db(y_pred, y) - si_sdr_db(x, y), weight)
        return self.get_metrics_result()


def build_network(spec: Spec, precision: str = "float32") -> keras.Model:
    """Build the untrained network of a spec.

    Args:
        spec: The spec.
        precision: Keras dtype policy to compute in; the weights are float32 in any case.
    """
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy(precision)
    try:
        network = build_model(spec)
    finally:
        keras.config.set_dtype_policy(policy)
    for layer in network.layers:
        # 16 bits hold neither small powers nor the mask.
        if isinstance(layer, Features | BoundedMask) or layer.name in network.output_names:
            layer.dtype_policy = "float32"
    return network
