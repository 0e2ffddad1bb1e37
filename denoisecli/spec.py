"""The JSON spec: everything about a model and its training, validated, with defaults.

Two-element lists are always ``[frequency, time]``, like the axes of a spectrogram.
"""

import difflib
import json
from math import log10, prod
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from denoisecli.errors import SpecError

PositiveInt = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Pair = tuple[PositiveInt, PositiveInt]
Range = tuple[float, float]
PositiveFloat = Annotated[float, Field(gt=0)]
Attenuation = Annotated[float, Field(ge=-100, le=0)]
SpeedFactor = Annotated[float, Field(ge=0.5, le=1.5)]
DecayTime = Annotated[float, Field(gt=0, le=5)]
Activation = Literal["relu", "leaky_relu", "elu", "silu", "gelu", "tanh", "linear"]
Normalization = Literal["batch", "layer", "none"]
Axis = Literal["frequency", "time"]
Figure = Literal["val_loss", "val_si_sdr_improvement", "val_pesq", "val_estoi"]

PERCEPTUAL_SAMPLE_RATE = 16000
"""In Hz: the loss "perceptual" is made for no other."""


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
    dropout: float = Field(0, ge=0, lt=1)


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
    dropout: float = Field(0, ge=0, lt=1)


class AttentionBlock(Section):
    """Valley: multi-head self-attention along one axis, added to its input."""

    block: Literal["attention"]
    axis: Axis
    heads: PositiveInt = 4
    key_dim: PositiveInt = 16
    normalization: Normalization = "batch"
    dropout: float = Field(0, ge=0, lt=1)


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


class Loss(Section):
    """One weighted term of the loss (see losses.py for what each is)."""

    kind: Literal[
        "compressed_magnitude",
        "compressed_complex",
        "multi_resolution_stft",
        "si_sdr",
        "waveform_l1",
        "weighted_sdr",
        "perceptual",
        "intelligibility",
    ]
    weight: float = Field(gt=0)


class Augmentation(Section):
    """What is done to every training batch (see augment.py); ranges are uniform.

    A fraction says how often: of the examples of a batch, so many are changed.
    """

    remix: bool = Field(True, description="shuffle the noises in a batch, draw new SNRs")
    snr_db: Range = Field((-5.0, 20.0), description="SNR drawn when remixing")
    second_noise: Fraction = Field(
        0.3, description="when remixing: how often two noises are summed"
    )
    third_noise: Fraction = Field(
        0.0, description="when two noises are summed: how often a third joins them"
    )
    clean_only: Fraction = Field(0.03, description="when remixing: how often there is no noise")
    noise_only: Fraction = Field(0.02, description="when remixing: how often there is no speech")
    level_dbfs: Range | None = Field((-45.0, -12.0), description="RMS level of the mix")
    equalization_db: float = Field(6.0, ge=0, le=24, description="random smooth EQ, +- this, each")
    speed: Fraction = Field(
        0.0, description="how often speech, and how often noise, is played faster or slower"
    )
    speed_range: tuple[SpeedFactor, SpeedFactor] = Field(
        (0.9, 1.1), description="factor of speed and pitch"
    )
    time_shift: bool = Field(False, description="shift the noises against the speech")
    reverberation: Fraction = Field(
        0.0,
        description="how often speech is in a synthetic room; the target keeps the reflections of "
        "the first 50 ms",
    )
    rt60_seconds: tuple[DecayTime, DecayTime] = Field(
        (0.1, 0.6), description="time in which the reverberation decays by 60 dB"
    )
    direct_to_reverberant_db: Range = Field(
        (-3.0, 12.0), description="direct sound against all reflections"
    )
    target_highpass_hz: float | None = Field(
        None,
        gt=0,
        le=1000,
        description="the target has no rumble below this; the input keeps it; null: it has",
    )
    coloured_noise: Fraction = Field(0.0, description="how often white to brown noise is added")
    hum: Fraction = Field(0.0, description="how often 50 or 60 Hz hum is added")
    clicks: Fraction = Field(0.0, description="how often clicks are added")
    synthetic_noise_db: Range = Field(
        (-10.0, 10.0), description="level of those three relative to the noise they are added to"
    )
    band_limit: Fraction = Field(
        0.0, description="how often input and target alike lose their highs, half of them lows too"
    )
    low_cut_hz: tuple[PositiveFloat, PositiveFloat] = Field(
        (50.0, 400.0), description="where the lows end, uniform on the logarithm"
    )
    high_cut_hz: tuple[PositiveFloat, PositiveFloat] = Field(
        (2000.0, 7000.0), description="where the highs begin, uniform on the logarithm"
    )
    clipping: Fraction = Field(0.0, description="how often the input, not the target, is clipped")
    clipping_db: tuple[Attenuation, Attenuation] = Field(
        (-15.0, -1.0), description="where it is clipped, relative to its peak"
    )
    masking: Fraction = Field(
        0.0,
        description="how often two short times and two bands of the input, not of the target, are "
        "attenuated",
    )
    masking_db: tuple[Attenuation, Attenuation] = Field((-20.0, -3.0), description="by this")

    @model_validator(mode="after")
    def _ranges(self) -> "Augmentation":
        for name, limits in self:
            if isinstance(limits, tuple) and limits[0] > limits[1]:
                raise ValueError(f"{name}: the range must be [low, high], found {list(limits)}")
        if self.clean_only + self.noise_only > 1:
            raise ValueError("clean_only and noise_only together must not pass 1")
        if self.low_cut_hz[1] >= self.high_cut_hz[0]:
            raise ValueError(
                f"low_cut_hz up to {self.low_cut_hz[1]:g} and high_cut_hz from "
                f"{self.high_cut_hz[0]:g} leave nothing between; they must not overlap"
            )
        return self


class Training(Section):
    """How the model is trained."""

    losses: tuple[Loss, ...] = Field(
        (
            Loss(kind="compressed_magnitude", weight=1.0),
            Loss(kind="compressed_complex", weight=0.5),
            Loss(kind="si_sdr", weight=0.02),
        ),
        min_length=1,
    )
    batch_size: PositiveInt = 16
    segment_seconds: float = Field(3.0, gt=0.1, le=60)
    epochs: PositiveInt = 40
    steps_per_epoch: PositiveInt | None = Field(None, description="null: all data once")
    validation_share: float = Field(0.05, gt=0, lt=1, description="split off the training set")
    optimizer: Literal["adamw", "muon"] = "adamw"
    learning_rate: float = Field(2e-3, gt=0, le=1)
    schedule: Literal["cosine", "constant", "warmup_stable_decay"] = Field(
        "cosine",
        description="of the learning rate; while it is constant, `epochs` may still be changed",
    )
    warmup_steps: int = Field(200, ge=0)
    decay_share: float = Field(
        0.2, gt=0, le=1, description="warmup_stable_decay: share of the steps that decay, the last"
    )
    final_learning_rate: Fraction = Field(0.01, description="share left at the end of a decay")
    weight_decay: float = Field(0.01, ge=0)
    gradient_clip: float = Field(3.0, gt=0, description="largest global gradient norm")
    average_decay: float = Field(
        0.998, ge=0, lt=1, description="exponential moving average of the weights; 0: none"
    )
    monitor: Figure = Field("val_loss", description="what chooses the best epoch")
    perceptual_every: PositiveInt | None = Field(
        None, description="epochs between measurements of PESQ and ESTOI; null: never"
    )
    early_stopping: PositiveInt | None = Field(
        None, description="epochs without improvement; null: never"
    )
    loss_limit: float | None = Field(
        100.0,
        gt=1,
        description="stop when a batch's loss is above the median of the last ones by this many "
        "median deviations; null: never",
    )
    precision: Literal["float32", "mixed_float16", "mixed_bfloat16"] = Field(
        "float32", description="mixed ones are for GPUs that gain from them"
    )
    jit_compile: bool = Field(False, description="by XLA, where that gains")
    augmentation: Augmentation | None = Augmentation()
    seed: int = Field(0, ge=0, lt=2**32)

    @model_validator(mode="after")
    def _measured(self) -> "Training":
        if self.monitor in ("val_pesq", "val_estoi"):
            every = self.perceptual_every
            if every is None:
                raise ValueError(f"monitor {self.monitor!r} needs perceptual_every")
            if self.early_stopping is not None and self.early_stopping < every:
                raise ValueError(
                    f"early_stopping {self.early_stopping} ends training before "
                    f"{self.monitor!r} is measured again; at least {every} is needed"
                )
        return self


class Choice(Section):
    """Searched: one of these values."""

    kind: Literal["choice"]
    values: tuple[Any, ...] = Field(min_length=2)


class IntRange(Section):
    """Searched: a whole number."""

    kind: Literal["int"]
    min: int
    max: int
    step: PositiveInt = 1

    @model_validator(mode="after")
    def _ordered(self) -> "IntRange":
        if self.min + self.step > self.max:
            raise ValueError(f"from {self.min} to {self.max} there is no step of {self.step}")
        return self


class FloatRange(Section):
    """Searched: a number, on a logarithmic scale if wanted."""

    kind: Literal["float"]
    min: float
    max: float
    log: bool = False

    @model_validator(mode="after")
    def _ordered(self) -> "FloatRange":
        if self.min >= self.max:
            raise ValueError(f"min {self.min:g} must be below max {self.max:g}")
        if self.log and self.min <= 0:
            raise ValueError(f"a logarithmic scale needs a min above 0, found {self.min:g}")
        return self


class Boolean(Section):
    """Searched: true or false."""

    kind: Literal["boolean"]


Searched = Annotated[Choice | IntRange | FloatRange | Boolean, Field(discriminator="kind")]


class Search(Section):
    """What `denoise tune` varies, and what it looks for (see search.py)."""

    space: dict[str, Searched] = Field(
        min_length=1,
        description="by the path of a field, as training.learning_rate or downsampling.0.filters; "
        "* stands for all elements or keys, which get the same value",
    )
    objective: Figure = Field(
        "val_si_sdr_improvement", description="the lowest loss, or the highest of the others"
    )
    max_macs: float | None = Field(
        None, gt=0, description="multiply-accumulates per second of audio; more is not trained"
    )
    max_parameters: PositiveInt | None = Field(None, description="more is not trained")

    @property
    def direction(self) -> Literal["min", "max"]:
        """Which way the objective gets better."""
        return "min" if self.objective == "val_loss" else "max"


class Spec(Section):
    """A whole spec file."""

    name: str = Field(min_length=1, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    description: str = ""
    model: Literal["unet"] = "unet"
    causal: bool = Field(False, description="no look-ahead along time, for live use")
    audio: Audio = Audio()
    stft: Stft = Stft()
    features: Features = Features()
    downsampling: tuple[DownLevel, ...] = Field(min_length=1)
    valley: tuple[ValleyBlock, ...] = ()
    upsampling: tuple[UpLevel, ...] = Field(
        min_length=1, description="listed from the valley upwards"
    )
    output: Output = Output()
    training: Training = Training()
    search: Search | None = Field(None, description="for `denoise tune`; no part of a model")

    @property
    def feature_bands(self) -> int:
        """Size of the frequency axis that the network works on."""
        bands = self.features.bands
        return self.stft.bins if bands is None else self.kept_bins + bands.count

    @property
    def kept_bins(self) -> int:
        """Number of low bins that are not merged into bands."""
        bands = self.features.bands
        if bands is None:
            return self.stft.bins
        return int(bands.above_hz * self.stft.n_fft / self.audio.sample_rate) + 1

    @property
    def band_positions(self) -> list[float]:
        """Where each merged bin lies among the bands, 0 to ``count - 1``.

        Bands are evenly spaced on the ERB-rate scale (Glasberg and Moore 1990) or the mel scale
        (O'Shaughnessy 1987) between the first merged bin and half the sample rate.
        """
        bands = self.features.bands
        if bands is None:
            return []
        width = self.audio.sample_rate / self.stft.n_fft
        hertz = [index * width for index in range(self.kept_bins, self.stft.bins)]
        if bands.kind == "erb":
            scale = [21.4 * log10(1 + 0.00437 * f) for f in hertz]
        else:
            scale = [2595 * log10(1 + f / 700) for f in hertz]
        share = (bands.count - 1) / (scale[-1] - scale[0])
        return [(value - scale[0]) * share for value in scale]

    @property
    def total_strides(self) -> Pair:
        """By how much all levels together reduce ``(frequency, time)``."""
        strides = [level.strides for level in self.downsampling]
        return prod(s[0] for s in strides), prod(s[1] for s in strides)

    @model_validator(mode="after")
    def _buildable(self) -> "Spec":
        """Walk down and up through the levels, before anything is built."""
        bands = self.features.bands
        if bands is not None:
            if self.kept_bins + 1 >= self.stft.bins:
                raise ValueError(
                    f"features.bands: above_hz {bands.above_hz:g} leaves no bins to merge; "
                    f"it must be below {self.audio.sample_rate / 2:g}"
                )
            positions = self.band_positions
            if positions[1] > 1:  # the lowest bands are the narrowest
                raise ValueError(
                    f"features.bands: {bands.count} bands above {bands.above_hz:g} Hz are narrower "
                    f"than a bin; about {int((bands.count - 1) / positions[1]) + 1} are possible"
                )
        size = self.feature_bands
        for index, level in enumerate(self.downsampling):
            if level.strides[0] > size:
                raise ValueError(
                    f"downsampling[{index}]: only {size} frequency bands arrive here, a frequency "
                    f"stride of {level.strides[0]} leaves nothing; use fewer levels or strides"
                )
            size = -(-size // level.strides[0])
        if len(self.upsampling) != len(self.downsampling):
            raise ValueError(
                f"upsampling: {len(self.upsampling)} levels cannot mirror the "
                f"{len(self.downsampling)} of downsampling; give one for each"
            )
        self._check_skips()
        if self.causal:
            self._check_causal()
        self._check_losses()
        return self

    def _check_skips(self) -> None:
        arriving = self.downsampling[-1].filters
        for block in self.valley:
            if isinstance(block, ConvolutionBlock):
                arriving = block.filters
        for index, up in enumerate(self.upsampling):
            down_index = len(self.downsampling) - 1 - index
            down = self.downsampling[down_index]
            joined = arriving if down.pooling == "stride" else up.filters
            if up.skip == "add" and joined != down.filters:
                raise ValueError(
                    f"upsampling[{index}]: skip 'add' needs equal filters, but {joined} meet the "
                    f"{down.filters} of downsampling[{down_index}]; use 'convolution' or "
                    "'concatenate', or make them equal"
                )
            arriving = up.filters

    def _check_losses(self) -> None:
        for index, loss in enumerate(self.training.losses):
            if loss.kind == "perceptual" and self.audio.sample_rate != PERCEPTUAL_SAMPLE_RATE:
                raise ValueError(
                    f"training.losses[{index}]: 'perceptual' is made for an audio.sample_rate of "
                    f"{PERCEPTUAL_SAMPLE_RATE}, found {self.audio.sample_rate}; leave it out"
                )

    def _check_causal(self) -> None:
        if self.output.future_taps:
            raise ValueError(
                f"output.future_taps: a causal model can have none, found {self.output.future_taps}"
            )
        for index, level in enumerate(self.downsampling):
            if level.strides[1] > 1:
                raise ValueError(
                    f"downsampling[{index}]: a causal model cannot stride along time "
                    f"(found {level.strides[1]})"
                )
        for index, block in enumerate(self.valley):
            if isinstance(block, ConvolutionBlock) or block.axis == "frequency":
                continue
            if isinstance(block, AttentionBlock):
                raise ValueError(f"valley[{index}]: a causal model cannot attend along time")
            if block.bidirectional:
                raise ValueError(
                    f"valley[{index}]: a causal model cannot be bidirectional along time"
                )


def load_spec(source: str | Path) -> Spec:
    """Read a spec file, the spec in a model folder, or a bundled spec by its name.

    Raises:
        SpecError: there is no such spec, it is not JSON, or it is not a valid spec; the message
            has one line per problem, with its path in the file.
    """
    from denoisecli.models import find_spec

    path = find_spec(source)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"{path}: cannot be read as text: {error}") from error
    try:
        document = json.loads(text)
    except json.JSONDecodeError as error:
        raise SpecError(
            f"{path}: not JSON: {error.msg} at line {error.lineno}, column {error.colno}"
        ) from error
    except (ValueError, RecursionError) as error:  # an absurdly long number, absurd nesting
        raise SpecError(f"{path}: not JSON: {error}") from error
    try:
        return parse_spec(document)
    except SpecError as error:
        raise SpecError(f"{path}: {error}") from error


def parse_spec(document: Any) -> Spec:
    """Validate a spec given as plain JSON data.

    Raises:
        SpecError: one line per problem: where, what was found, what is allowed.
    """
    if isinstance(document, dict):
        document = {key: value for key, value in document.items() if key != "$schema"}
    try:
        # As JSON, so that strictness is JSON's: lists are tuples, integers are not strings.
        spec = Spec.model_validate_json(json.dumps(document), strict=True)
    except ValidationError as error:
        problems = [
            _explain(problem)
            for problem in error.errors()
            # A list of wrong items is not too short, though pydantic counts the right ones only.
            if problem["type"] != "too_short"
            or problem["ctx"]["min_length"] > len(problem["input"])
        ]
        if len(problems) == 1:
            raise SpecError(problems[0]) from error
        listing = "\n".join(f"  {problem}" for problem in problems)
        raise SpecError(f"{len(problems)} problems:\n{listing}") from error
    if spec.search is not None:
        from denoisecli.search import check_space

        check_space(spec)
    return spec


def save_spec(spec: Spec, path: Path) -> None:
    """Write the resolved spec, all defaults spelt out, without what to search for."""
    path.write_text(spec.model_dump_json(indent=2, exclude={"search"}) + "\n", encoding="utf-8")


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of a spec file, for completion in editors."""
    schema = Spec.model_json_schema()
    schema["properties"]["$schema"] = {"type": "string"}  # by which an editor finds this schema
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _explain(problem: Any) -> str:
    """One line for one pydantic error."""
    location, found = list(problem["loc"]), problem["input"]
    for name, place in (("valley", 2), ("search", 3)):
        if location[:1] == [name] and len(location) > place:
            del location[place]  # the kind of block or of range, which is no key in the file
    where = _path(location)
    if problem["type"] == "extra_forbidden":
        allowed = _allowed_keys(problem["loc"][:-1])
        close = difflib.get_close_matches(str(location[-1]), allowed, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        return f"{where}: unknown key; {hint}allowed: {', '.join(allowed)}"
    if problem["type"] == "missing":
        return f"{where}: missing, but required"
    if problem["type"] in ("union_tag_not_found", "union_tag_invalid"):
        key, kinds = ("block", _BLOCKS) if location[0] == "valley" else ("kind", _RANGES)
        what = f"found {json.dumps(found[key])}" if key in found else "missing, but required"
        return f"{where}.{key}: {what}; allowed: {', '.join(kinds)}"
    if problem["type"] == "value_error":
        message = problem["msg"].removeprefix("Value error, ")
        return f"{where}: {message}" if where else message
    message = f"{where or 'the spec'}: {problem['msg'][:1].lower()}{problem['msg'][1:]}"
    return message if isinstance(found, dict | list) else f"{message}, found {json.dumps(found)}"


_BLOCKS = {
    "convolution": ConvolutionBlock,
    "recurrent": RecurrentBlock,
    "attention": AttentionBlock,
}
_RANGES = {"choice": Choice, "int": IntRange, "float": FloatRange, "boolean": Boolean}


def _path(location: list[Any]) -> str:
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}"
    return text.removeprefix(".")


def _allowed_keys(location: tuple[Any, ...]) -> list[str]:
    """Keys of the section at ``location``, found by walking the model's fields."""
    section: Any = Spec
    for part in location:
        if part in _BLOCKS | _RANGES:
            section = (_BLOCKS | _RANGES)[part]
        elif part in section.model_fields:
            section = _section_of(section.model_fields[part].annotation)
    return list(section.model_fields)


def _section_of(annotation: Any) -> Any:
    """The Section class inside ``tuple[Section, ...]``, ``Section | None`` and the like."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        found = _section_of(argument)
        if found is not None:
            return found
    return None
