"""The U-Net: from a noisy spectrum to a mask, built from a spec."""

from typing import Any

import keras
import numpy as np
from keras import layers as kl

from denoisecli.models import layers
from denoisecli.models.attention import AxisAttention
from denoisecli.models.network import MaskNetwork
from denoisecli.models.normalization import BatchNormalization
from denoisecli.models.recurrence import AxisRecurrent
from denoisecli.spec.document import Spec
from denoisecli.spec.network import (
    AttentionBlock,
    ConvolutionBlock,
    Convolutions,
    DownLevel,
    UpLevel,
    ValleyBlock,
)

INITIAL_GAIN = 4.0
"""Logit of the gain before training: a gain of 0.98, close to one but still easy to change."""


@layers.register
class UNet(MaskNetwork):
    """U-Net (Ronneberger et al. 2015) over frequency and time.

    Args:
        spec: The spec, whose sections `features`, `downsampling`, `valley`, `upsampling` and
            `output` describe the network.
    """

    @staticmethod
    def build_mask(spec: Spec, spectrum: Any) -> Any:
        """Return the mask for a spectrum."""
        return _Builder(spec).mask(spectrum)


class _Builder:
    """Builds the layers of a U-Net, section by section of the spec."""

    def __init__(self, spec: Spec):
        self.spec = spec

    def mask(self, spectrum: Any) -> Any:
        """Return the mask for a spectrum: the whole network."""
        spec = self.spec
        x = layers.Features(spec.features.compression, spec.features.channels, name="features")(
            spectrum
        )
        if spec.features.bands is not None:
            to_bands, to_bins = band_matrices(spec)
            x = layers.FrequencyMatrix(to_bands, name="bins_to_bands")(x)
        whole = x
        bands_stride, frames_stride = spec.total_strides
        padded = whole.shape[1] % bands_stride != 0 or frames_stride > 1
        if padded:
            x = layers.PadToMultiple(spec.total_strides, name="pad")(x)
        skips = []
        for index, level in enumerate(spec.downsampling):
            x, skip = self.down(x, level, f"down{index}")
            skips.append(skip)
        for index, block in enumerate(spec.valley):
            x = self.valley(x, block, f"valley{index}")
        for index, up in enumerate(spec.upsampling):
            last = index == len(spec.upsampling) - 1
            x = self.up(x, skips.pop(), up, spec.downsampling[-1 - index], f"up{index}", last)
        if padded:
            x = layers.CropLike(name="crop")(x, whole)
        output = spec.output
        expander: dict[str, Any] = {}
        if output.expander is not None:
            expander = output.expander.model_dump(exclude={"above_hz"})
            expander["first_band"] = spec.expanded_band
        # Bounds and gains are cheaper in bands than in bins.
        name = "mask" if spec.features.bands is None else "band_mask"
        x = layers.BoundedMask(output.mask, output.limit, output.gain, **expander, name=name)(x)
        if spec.features.bands is None:
            return x
        return layers.FrequencyMatrix(to_bins, name="mask")(x)

    def down(self, x: Any, level: DownLevel, name: str) -> tuple[Any, Any]:
        """Append a level of the encoder; return its output and its skip connection."""
        if level.pooling == "stride":
            x = self.stack(x, level, name, strides=level.strides)
            return x, x
        x = self.stack(x, level, name)
        pool = {"max": kl.MaxPooling2D, "average": kl.AveragePooling2D}[level.pooling]
        return pool(level.strides, name=f"{name}_pool")(x), x

    def up(self, x: Any, skip: Any, up: UpLevel, down: DownLevel, name: str, last: bool) -> Any:
        """Append a level of the decoder; the last one ends in the linear layer "output"."""
        if down.pooling == "stride":
            x = self.stack(self.join(x, skip, up, name), up, name)
            return self.upsample(x, up, down.strides, name, last)
        x = self.upsample(x, up, down.strides, name, last=False)
        x = self.stack(self.join(x, skip, up, name), up, name)
        return self.output(kl.Conv2D, x, kernel_size=1) if last else x

    def join(self, x: Any, skip: Any, up: UpLevel, name: str) -> Any:
        """Join a skip connection."""
        if up.skip == "none":
            return x
        if up.skip == "concatenate":
            return kl.Concatenate(name=f"{name}_concatenate")([x, skip])
        if up.skip == "convolution":
            skip = kl.Conv2D(x.shape[-1], 1, name=f"{name}_skip")(skip)
        return kl.Add(name=f"{name}_add")([x, skip])

    def upsample(self, x: Any, up: UpLevel, strides: tuple[int, int], name: str, last: bool) -> Any:
        """Undo the strides of a level.

        Along time the kernel is as long as the stride, so that a causal network stays causal.
        """
        size = (up.upsampling_size or 2 * strides[0], strides[1])
        options: dict[str, Any] = {"kernel_size": size, "padding": "same"}
        kind = kl.Conv2DTranspose
        if up.upsampling == "nearest":
            x = kl.UpSampling2D(strides, name=f"{name}_nearest")(x)
            kind = kl.Conv2D
        else:
            options["strides"] = strides
        if last:
            return self.output(kind, x, **options)
        return kind(filters=up.filters, name=f"{name}_upsample", **options)(x)

    def output(self, kind: Any, x: Any, **options: Any) -> Any:
        """Append the output layers, such that an untrained network is close to the identity.

        Taps and gain are separate layers, so that training can start from a model without them.
        """
        output = self.spec.output
        bias = layers.BoundedMask(output.mask, output.limit).identity_bias()
        mask = kind(
            filters=len(bias),
            kernel_initializer=keras.initializers.RandomNormal(stddev=1e-2),
            bias_initializer=lambda shape, dtype=None: keras.ops.convert_to_tensor(bias, dtype),
            name="output",
            **options,
        )(x)
        options["kernel_initializer"] = "zeros"
        parts = [mask]
        if output.parts > len(bias):
            parts += [kind(filters=output.parts - len(bias), name="taps", **options)(x)]
        if output.gain:
            initial = keras.initializers.Constant(INITIAL_GAIN)
            parts += [kind(filters=1, bias_initializer=initial, name="gain", **options)(x)]
        return kl.Concatenate(name="mask_parts")(parts) if len(parts) > 1 else mask

    def stack(
        self,
        x: Any,
        stack: Convolutions,
        name: str,
        strides: tuple[int, int] = (1, 1),
        dilation: tuple[int, int] = (1, 1),
    ) -> Any:
        """Append a stack of convolutions with normalization, activation and dropout."""
        for index in range(stack.convolutions):
            label = f"{name}_{index}"
            step = strides if index == 0 else (1, 1)
            y = self.convolve(x, stack, label, step, dilation)
            y = self.normalize(y, stack.normalization, label)
            if stack.kind == "residual":
                if step != (1, 1) or x.shape[-1] != stack.filters:
                    x = kl.Conv2D(stack.filters, 1, step, name=f"{label}_shortcut")(x)
                y = kl.Add(name=f"{label}_add")([x, y])
            if stack.activation != "linear":
                y = kl.Activation(stack.activation, name=f"{label}_{stack.activation}")(y)
            x = self.drop(y, stack.dropout, label)
        return x

    def convolve(
        self,
        x: Any,
        stack: Convolutions,
        name: str,
        strides: tuple[int, int],
        dilation: tuple[int, int],
    ) -> Any:
        """Append a convolution, padded such that only its strides change the size."""
        options: dict[str, Any] = {"dilation_rate": dilation, "padding": "same"}
        frames = (stack.kernel_size[1] - 1) * dilation[1]
        if self.spec.causal and frames > 0:
            # Along frequency pad as "same" does, given that sizes are multiples of the strides.
            step = 1 if stack.kind == "depthwise_separable" else strides[0]
            bands = max((stack.kernel_size[0] - 1) * dilation[0] + 1 - step, 0)
            x = layers.CausalPad(bands, frames, name=f"{name}_past")(x)
            options["padding"] = "valid"
        # A normalization after it has a bias of its own.
        use_bias = stack.normalization == "none"
        if stack.kind != "depthwise_separable":
            return kl.Conv2D(
                stack.filters,
                stack.kernel_size,
                strides,
                use_bias=use_bias,
                name=f"{name}_convolution",
                **options,
            )(x)
        # TensorFlow's depthwise kernel needs equal strides, so the pointwise kernel strides.
        x = kl.DepthwiseConv2D(
            stack.kernel_size, use_bias=False, name=f"{name}_depthwise", **options
        )(x)
        return kl.Conv2D(stack.filters, 1, strides, use_bias=use_bias, name=f"{name}_pointwise")(x)

    def valley(self, x: Any, block: ValleyBlock, name: str) -> Any:
        """Append a block of the valley."""
        if isinstance(block, ConvolutionBlock):
            y = self.stack(x, block, name, dilation=block.dilation)
            if not block.residual_input:
                return y
            if x.shape[-1] != block.filters:
                x = kl.Conv2D(block.filters, 1, name=f"{name}_shortcut")(x)
            return kl.Add(name=f"{name}_add")([x, y])
        if isinstance(block, AttentionBlock):
            y = AxisAttention(block.axis, block.heads, block.key_dim, name=f"{name}_attention")(x)
        else:
            y = AxisRecurrent(
                block.axis,
                block.cell,
                block.units,
                block.bidirectional,
                name=f"{name}_{block.cell}",
            )(x)
            use_bias = block.normalization == "none"
            y = kl.Dense(x.shape[-1], use_bias=use_bias, name=f"{name}_dense")(y)
        y = self.drop(self.normalize(y, block.normalization, name), block.dropout, name)
        return kl.Add(name=f"{name}_add")([x, y])

    def normalize(self, x: Any, kind: str, name: str) -> Any:
        """Append a normalization, unless its kind is "none"."""
        if kind == "batch":
            return BatchNormalization(momentum=0.98, epsilon=1e-5, name=f"{name}_norm")(x)
        if kind == "layer":
            return kl.LayerNormalization(epsilon=1e-5, name=f"{name}_norm")(x)
        return x

    def drop(self, x: Any, rate: float, name: str) -> Any:
        """Append a dropout of whole maps, unless its rate is 0."""
        return kl.SpatialDropout2D(rate, name=f"{name}_dropout")(x) if rate else x


def band_matrices(spec: Spec) -> tuple[np.ndarray, np.ndarray]:
    """Return the matrices from bins to bands, (bins, bands), and back, (bands, bins).

    A band is the mean of its bins, weighted by a triangle. On the way back, a bin is interpolated
    between its two nearest bands. Bins below `above_hz` are kept as they are.
    """
    kept = spec.kept_bins
    weights = np.zeros((spec.stft.bins, spec.feature_bands), "float32")
    weights[:kept, :kept] = np.eye(kept)
    positions = np.arange(spec.feature_bands - kept)
    for index, position in enumerate(spec.band_positions):
        weights[kept + index, kept:] = np.maximum(0, 1 - np.abs(positions - position))
    return weights / weights.sum(axis=0), weights.T
