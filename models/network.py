"""The base class of all networks: from a noisy spectrum to a mask, built from a spec alone."""

from typing import Any, Self

import keras

from denoisecli.errors import UsageError
from denoisecli.spec.document import Spec, parse_spec


class MaskNetwork(keras.Model):
    """A network that computes the mask for a noisy spectrum; subclasses define `build_mask`.

    Args:
        spec: The spec, which describes the network completely.

    Shape:
        - input: (batch, frequency, time, 2), real and imaginary part of the noisy STFT, with
          n_fft // 2 + 1 frequencies and any number of frames
        - output: the mask, (batch, frequency, time, 2) if complex, (batch, frequency, time, 1) if
          magnitude; with taps (batch, frequency, time, 2 * taps), in the order of
          `spec.output.offsets`

    Raises:
        UsageError: The mask has another shape, or is computed by something other than layers.
    """

    def __init__(self, spec: Spec, **kwargs: Any):
        spectrum = keras.Input((spec.stft.bins, None, 2), name="spectrum")
        mask = self.build_mask(spec, spectrum)
        expected = (None, spec.stft.bins, None, spec.output.parts)
        if tuple(mask.shape) != expected:
            raise UsageError(
                f"{type(self).__name__}.build_mask returns the shape {tuple(mask.shape)}, but the "
                f"spec {spec.name!r} needs (batch, frequency, time, parts), {expected}"
            )
        kwargs.setdefault("name", type(self).__name__.lower())
        super().__init__(inputs=spectrum, outputs=mask, **kwargs)
        for operation in self.operations:
            if not isinstance(operation, keras.layers.Layer):
                raise UsageError(
                    f"{type(self).__name__}.build_mask calls the operation {operation.name}, which "
                    "cannot be exported; put it into a layer"
                )
        self.spec = spec

    @staticmethod
    def build_mask(spec: Spec, spectrum: Any) -> Any:
        """Return the mask for a spectrum, computed by layers only."""
        raise NotImplementedError

    def get_config(self) -> dict[str, Any]:
        """Return the spec, from which the network can be built again."""
        return {"spec": self.spec.model_dump(mode="json")}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Self:
        """Build the network from the result of `get_config`."""
        return cls(parse_spec(config["spec"]))
