"""The sections of a spec that describe the network: input, layers and mask."""

import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import PydanticCustomError, core_schema

MAX_SAMPLE_RATE = 384_000
"""Highest sample rate of a model and of a dataset in Hz."""

Size = Annotated[int, Field(ge=1, le=4096)]
"""Number of channels of a map, or something of the kind."""
Activation = Literal["relu", "leaky_relu", "elu", "silu", "gelu", "tanh", "linear"]
Normalization = Literal["batch", "layer", "none"]
Axis = Literal["frequency", "time"]
Dropout = Annotated[
    float,
    Field(
        ge=0,
        lt=1,
        description="Share of the channels that are dropped in training, as whole maps, because "
        "neighbouring values of a map are similar (Tompson et al. 2015).",
    ),
]


def _both_axes(value: Any) -> Any:
    """Let one integer stand for both axes, as it does in Keras."""
    if type(value) is int:
        return value, value
    return tuple(value) if isinstance(value, list) else value


OWN_NAME = r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$"
"""A user-defined class or function, such as ``mine.networks:Small``."""


@dataclass(frozen=True)
class OneOfOrOwn:
    """Metadata of a string: one of several names, or a user-defined object.

    Attributes:
        names: The names.
    """

    names: tuple[str, ...]

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        """Return the schema by which pydantic validates."""
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """Return the JSON Schema."""
        own = {"type": "string", "pattern": OWN_NAME, "format": "module:name"}
        return {"anyOf": [{"type": "string", "enum": list(self.names)}, own]}

    def _check(self, value: str) -> str:
        if value not in self.names and not re.match(OWN_NAME, value):
            raise PydanticCustomError("unknown_name", "unknown name")
        return value


AxisSize = Annotated[int, Field(ge=1, le=255)]
Pair = Annotated[
    tuple[AxisSize, AxisSize],
    BeforeValidator(_both_axes, json_schema_input_type=tuple[AxisSize, AxisSize] | AxisSize),
]
"""(frequency, time)."""


class Section(BaseModel):
    """A section of a spec. An unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Audio(Section):
    """The sound that the network processes."""

    sample_rate: int = Field(
        16000,
        ge=1000,
        le=MAX_SAMPLE_RATE,
        description="Sample rate in Hz; other recordings are resampled.",
    )


MIN_N_FFT = 16
"""Shortest window in samples."""


class Stft(Section):
    """The short-time Fourier transform before the network, and its inverse after it."""

    n_fft: int = Field(
        512, ge=MIN_N_FFT, le=16384, multiple_of=2, description="Length of a window in samples."
    )
    hop_length: int = Field(
        256,
        ge=1,
        le=8192,
        description="Samples from one window to the next; at most half of `n_fft`.",
    )
    window: Literal["hann", "sqrt_hann", "hamming", "blackman"] = Field(
        "sqrt_hann", description="Window function, used for analysis and synthesis."
    )

    @property
    def bins(self) -> int:
        """Number of frequency bins."""
        return self.n_fft // 2 + 1

    @model_validator(mode="after")
    def _windows_overlap(self) -> "Stft":
        if self.hop_length > self.n_fft // 2:
            raise ValueError(
                f"hop_length {self.hop_length} leaves gaps between windows of n_fft {self.n_fft}; "
                f"it must be at most {self.n_fft // 2}"
            )
        return self


class Bands(Section):
    """Merge the bins above a frequency into bands that get wider with frequency."""

    kind: Literal["erb", "mel"] = Field(
        "erb",
        description="Frequency scale on which the bands are evenly spaced: ERB rate (Glasberg and "
        "Moore 1990) or mel (O'Shaughnessy 1987).",
    )
    count: Size = Field(64, description="Number of bands above `above_hz`.")
    above_hz: float = Field(
        2000, ge=0, description="Frequency in Hz up to which the bins are kept as they are."
    )


class Features(Section):
    """The input of the network, computed from the noisy spectrum."""

    compression: float = Field(
        0.3, gt=0, le=1, description="Exponent applied to the magnitudes; phases are kept."
    )
    channels: tuple[Literal["real", "imaginary", "magnitude"], ...] = Field(
        ("real", "imaginary", "magnitude"),
        min_length=1,
        description="Parts of the compressed spectrum that the network receives as channels.",
    )
    bands: Bands | None = Field(
        None, description="Merging of high bins into bands; null keeps all bins."
    )


class Convolutions(Section):
    """A stack of convolutions at one resolution."""

    filters: Size = Field(description="Number of output channels.")
    kernel_size: Pair = Field((3, 3), description="Size of each kernel.")
    convolutions: int = Field(
        1, ge=1, le=16, description="Number of convolutions, one after another."
    )
    kind: Literal["plain", "depthwise_separable", "residual"] = Field(
        "plain",
        description="Kind of convolution; with `residual` the input of each is added to its "
        "output.",
    )
    normalization: Normalization = Field(
        "batch", description="Normalization after each convolution."
    )
    activation: Activation = Field("relu", description="Activation after each convolution.")
    dropout: Dropout = 0


class DownLevel(Convolutions):
    """A level of the encoder (an element of `downsampling`)."""

    strides: Pair = Field((2, 1), description="Factors by which the level reduces its input.")
    pooling: Literal["stride", "max", "average"] = Field(
        "stride",
        description="How the level reduces its input: with the strides of its first convolution, "
        "and the skip connection starts after the convolutions; or with max or average pooling "
        "after the convolutions, and the skip connection starts before the pooling.",
    )


class UpLevel(Convolutions):
    """A level of the decoder (an element of `upsampling`).

    It undoes the strides of the corresponding level of the encoder.
    """

    skip: Literal["concatenate", "add", "convolution", "none"] = Field(
        "concatenate",
        description="How the skip connection is joined: concatenated, added, or added after a "
        "convolution of size 1 that matches the number of channels.",
    )
    upsampling: Literal["transposed", "nearest"] = Field(
        "transposed",
        description="How the level upsamples: with a transposed convolution, or by repeating "
        "values before a convolution.",
    )
    upsampling_size: AxisSize | None = Field(
        None,
        description="Kernel size of the upsampling along frequency; null for twice the stride.",
    )


class ConvolutionBlock(Convolutions):
    """A block of `valley`: a stack of convolutions."""

    block: Literal["convolution"] = Field(description="Kind of block.")
    dilation: Pair = Field((1, 1), description="Dilation of the kernels.")
    residual_input: bool = Field(
        True, description="Whether the input of the block is added to its output."
    )


class RecurrentBlock(Section):
    """A block of `valley`: a recurrent and a dense layer along one axis, added to the input."""

    block: Literal["recurrent"] = Field(description="Kind of block.")
    axis: Axis = Field(description="Axis that the layer runs along.")
    units: Size = Field(description="Number of units per direction.")
    cell: Literal["gru", "lstm"] = Field("gru", description="Kind of recurrent cell.")
    bidirectional: bool = Field(True, description="Whether the layer runs in both directions.")
    normalization: Normalization = Field(
        "batch", description="Normalization after the dense layer."
    )
    dropout: Dropout = 0


class AttentionBlock(Section):
    """A block of `valley`: multi-head self-attention along one axis, added to the input."""

    block: Literal["attention"] = Field(description="Kind of block.")
    axis: Axis = Field(description="Axis that the positions lie along.")
    heads: int = Field(4, ge=1, le=64, description="Number of attention heads.")
    key_dim: Size = Field(16, description="Size of a query, key and value in one head.")
    normalization: Normalization = Field("batch", description="Normalization after the attention.")
    dropout: Dropout = 0


ValleyBlock = Annotated[
    ConvolutionBlock | RecurrentBlock | AttentionBlock, Field(discriminator="block")
]


class Expander(Section):
    """An expander of the gain: what the network attenuates much is attenuated more.

    With ``upper_ratio``, what it attenuates little is attenuated less, as by a mask that decides
    more sharply between speech and noise.
    """

    ratio: float = Field(
        2.0,
        gt=1,
        le=10,
        description="Factor of the difference between gain and threshold, in dB, below the "
        "threshold.",
    )
    upper_ratio: float = Field(
        1.0, gt=0, le=1, description="Factor of the gain in dB above the threshold."
    )
    threshold_db: float = Field(
        -12.0, ge=-60, le=0, description="Gain in dB at which the ratio changes."
    )
    above_hz: float = Field(
        0.0, ge=0, description="Frequency in Hz above which the expander works."
    )


class Output(Section):
    """The mask that the noisy spectrum is multiplied by.

    With taps it is a filter along time: one complex factor for each of several frames, whose
    products are summed (deep filtering: Mack and Habets 2020, DeepFilterNet).
    """

    mask: Literal["complex", "magnitude"] = Field(
        "complex", description="Whether the mask changes phases too, or magnitudes only."
    )
    limit: float = Field(
        2.0,
        gt=1,
        le=100,
        description="Bound of the real and imaginary part of a complex mask, or of a magnitude "
        "mask.",
    )
    past_taps: int = Field(
        0, ge=0, le=16, description="Number of earlier frames that the filter includes."
    )
    future_taps: int = Field(
        0, ge=0, le=16, description="Number of later frames that the filter includes."
    )
    gain: bool = Field(
        False,
        description="Whether the mask is multiplied by a gain from 0 to 1, which can silence what "
        "the mask cannot.",
    )
    expander: Expander | None = Field(
        None, description="Expander of the gain; it requires `gain`. Null for none."
    )

    @property
    def offsets(self) -> tuple[int, ...]:
        """Frames that the factors apply to, relative to the output frame: 0, -1, ..., 1, ..."""
        return (0, *range(-1, -self.past_taps - 1, -1), *range(1, self.future_taps + 1))

    @property
    def parts(self) -> int:
        """Number of values per bin."""
        return (2 if self.mask == "complex" else 1) * len(self.offsets)

    @model_validator(mode="after")
    def _filters_are_complex(self) -> "Output":
        if self.mask != "complex" and len(self.offsets) > 1:
            raise ValueError("past_taps and future_taps need the mask 'complex'")
        return self

    @model_validator(mode="after")
    def _expander_has_a_gain(self) -> "Output":
        if self.expander is not None and not self.gain:
            raise ValueError('an expander needs the gain: add "gain": true')
        return self
