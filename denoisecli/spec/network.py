"""The sections of a spec that say what the network is: sound in, layers, mask out."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

PositiveInt = Annotated[int, Field(ge=1)]
Pair = tuple[PositiveInt, PositiveInt]
Activation = Literal["relu", "leaky_relu", "elu", "silu", "gelu", "tanh", "linear"]
Normalization = Literal["batch", "layer", "none"]
Axis = Literal["frequency", "time"]
Dropout = Annotated[
    float, Field(ge=0, lt=1, description="share of the channels left out while training, as wholes")
]
"""Whole maps, since neighbours in a map are alike (Tompson et al. 2015)."""


class Section(BaseModel):
    """A part of the spec; an unknown key is an error, never a silent default."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Audio(Section):
    """What the model hears."""

    sample_rate: int = Field(16000, ge=4000, le=192000, description="in Hz")


class Stft(Section):
    """The short-time Fourier transform around the network."""

    n_fft: int = Field(512, ge=16, le=16384, multiple_of=2, description="window length in samples")
    hop_length: PositiveInt = Field(256, description="samples between windows")
    window: Literal["hann", "sqrt_hann", "hamming", "blackman"] = "sqrt_hann"

    @property
    def bins(self) -> int:
        """Number of frequency bins."""
        return self.n_fft // 2 + 1

    @model_validator(mode="after")
    def _overlaps(self) -> "Stft":
        if self.hop_length > self.n_fft // 2:
            raise ValueError(
                f"hop_length {self.hop_length} leaves gaps between windows of n_fft {self.n_fft}; "
                f"at most {self.n_fft // 2} is allowed"
            )
        return self


class Bands(Section):
    """Merge the bins above a frequency into wider and wider bands."""

    kind: Literal["erb", "mel"] = "erb"
    count: PositiveInt = Field(64, description="number of bands above `above_hz`")
    above_hz: float = Field(2000, ge=0, description="bins up to here are kept as they are")


class Features(Section):
    """What of the noisy spectrum the network sees."""

    compression: float = Field(0.3, gt=0, le=1, description="power that magnitudes are raised to")
    channels: tuple[Literal["real", "imaginary", "magnitude"], ...] = Field(
        ("real", "imaginary", "magnitude"), min_length=1
    )
    bands: Bands | None = None


class Convolutions(Section):
    """A stack of convolutions at one resolution."""

    filters: PositiveInt
    kernel_size: Pair = (3, 3)
    convolutions: int = Field(1, ge=1, le=16, description="how many, one after the other")
    kind: Literal["plain", "depthwise_separable", "residual"] = "plain"
    normalization: Normalization = "batch"
    activation: Activation = "relu"
    dropout: Dropout = 0


class DownLevel(Convolutions):
    """One level of the way down.

    With ``pooling`` "stride" the first convolution strides and the skip is taken behind it;
    with "max" or "average" the skip is taken at full resolution and the pooling follows.
    """

    strides: Pair = (2, 1)
    pooling: Literal["stride", "max", "average"] = "stride"


class UpLevel(Convolutions):
    """One level of the way up; it undoes the strides of the level it mirrors."""

    skip: Literal["concatenate", "add", "convolution", "none"] = "concatenate"
    upsampling: Literal["transposed", "nearest"] = "transposed"
    upsampling_size: PositiveInt | None = Field(
        None, description="taps along frequency of the upsampling; null: twice the stride"
    )


class ConvolutionBlock(Convolutions):
    """Valley: convolutions, dilated if wanted, added to their input when `residual_input`."""

    block: Literal["convolution"]
    dilation: Pair = (1, 1)
    residual_input: bool = True


class RecurrentBlock(Section):
    """Valley: a recurrent layer along one axis, then a dense layer back, added to its input."""

    block: Literal["recurrent"]
    axis: Axis
    units: PositiveInt = Field(description="per direction")
    cell: Literal["gru", "lstm"] = "gru"
    bidirectional: bool = True
    normalization: Normalization = "batch"
    dropout: Dropout = 0


class AttentionBlock(Section):
    """Valley: multi-head self-attention along one axis, added to its input."""

    block: Literal["attention"]
    axis: Axis
    heads: PositiveInt = 4
    key_dim: PositiveInt = 16
    normalization: Normalization = "batch"
    dropout: Dropout = 0


ValleyBlock = Annotated[
    ConvolutionBlock | RecurrentBlock | AttentionBlock, Field(discriminator="block")
]


class Output(Section):
    """The mask that the noisy spectrum is multiplied with.

    With taps it is a filter along time, a complex factor for each of several frames, whose products
    are summed (deep filtering: Mack and Habets 2020, DeepFilterNet).
    """

    mask: Literal["complex", "magnitude"] = "complex"
    limit: float = Field(
        2.0,
        gt=1,
        le=100,
        description="bound of the mask: of its real and its imaginary part, or of the gain",
    )
    past_taps: int = Field(0, ge=0, le=16, description="frames before, filtered in as well")
    future_taps: int = Field(0, ge=0, le=16, description="frames behind, filtered in as well")
    gain: bool = Field(
        False,
        description="a gain of 0 to 1 on top of the mask or filter: it silences where they cannot",
    )

    @property
    def offsets(self) -> tuple[int, ...]:
        """The frames that a frame is made of, in the order of the factors: 0, -1, ..., 1, ..."""
        return (0, *range(-1, -self.past_taps - 1, -1), *range(1, self.future_taps + 1))

    @property
    def parts(self) -> int:
        """How many numbers there are per bin."""
        return (2 if self.mask == "complex" else 1) * len(self.offsets)

    @model_validator(mode="after")
    def _filters_phases(self) -> "Output":
        if self.mask != "complex" and len(self.offsets) > 1:
            raise ValueError("past_taps and future_taps need the mask 'complex'")
        return self
