"""The JSON spec of a model and its training: validation, reading and writing.

Two-element lists of a spec are [frequency, time], like the axes of a spectrogram.
"""

import json
from math import ceil, log10, prod
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, JsonValue, ValidationError, WithJsonSchema, model_validator

from denoisecli.errors import SpecError
from denoisecli.spec.errors import explain, merge_unions
from denoisecli.spec.network import (
    MIN_N_FFT,
    AttentionBlock,
    Audio,
    ConvolutionBlock,
    Convolutions,
    DownLevel,
    Features,
    OneOfOrOwn,
    Output,
    Section,
    Stft,
    UpLevel,
    ValleyBlock,
)
from denoisecli.spec.search import Search
from denoisecli.spec.training import PERCEPTUAL_SAMPLE_RATE, Training

ModelName = Annotated[str, OneOfOrOwn(("unet",))]

MAX_BATCH_SAMPLES = 1_000_000_000
"""Largest number of samples in a batch, which takes 4 GB for each of its signals."""

MAX_WEIGHTS = 500_000_000
"""Number of weights of a network, about, above which a spec is taken for a mistake."""

LEVELS = ("downsampling", "upsampling")
"""Keys that the class `unet` needs."""


def erb_rate(hertz: float) -> float:
    """Return the number of equivalent rectangular bandwidths (ERB) below a frequency in Hz.

    Source: Glasberg and Moore, "Derivation of auditory filter shapes from notched-noise data",
    1990.
    """
    return 21.4 * log10(1 + 0.00437 * hertz)


class Spec(Section):
    """The description of a model and of its training."""

    name: str = Field(
        min_length=1,
        max_length=100,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        description="Name of the model; `train` writes to `runs/NAME`.",
    )
    description: str = Field("", description="One line about the model, for `denoise models`.")
    model: ModelName = Field(
        "unet",
        description="Class of the network: `unet`, or a user-defined one as `module:name`, whose "
        "code runs only if `--model-class` names it too.",
    )
    options: dict[str, Annotated[JsonValue, WithJsonSchema({})]] = Field(
        {}, description="Options of a user-defined class; `unet` has none."
    )
    causal: bool = Field(
        False,
        description="Whether the network has to be causal: it then cannot look ahead in time, as "
        "live use requires.",
    )
    audio: Audio = Field(Audio(), description="The sound that the network processes.")
    stft: Stft = Field(Stft(), description="The short-time Fourier transform.")
    features: Features = Field(Features(), description="The input of the network.")
    downsampling: tuple[DownLevel, ...] = Field(
        (),
        description="Levels of the encoder, from the input down; only `unet` needs them.",
        json_schema_extra={"minItems": 1},
    )
    valley: tuple[ValleyBlock, ...] = Field(
        (), description="Blocks of the bottleneck, at the lowest resolution, in order."
    )
    upsampling: tuple[UpLevel, ...] = Field(
        (),
        description="Levels of the decoder, from the valley up; as many as in `downsampling`.",
        json_schema_extra={"minItems": 1},
    )
    output: Output = Field(Output(), description="The mask that the network returns.")
    training: Training = Field(Training(), description="How the network is trained.")
    search: Search | None = Field(
        None, description="What `denoise tune` varies; it is not saved with a trained model."
    )

    def __hash__(self) -> int:
        """Return the hash of the whole document, as `options` has none."""
        return hash(self.model_dump_json())

    @property
    def feature_bands(self) -> int:
        """Number of frequency bands at the input of the network."""
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
        """Position of each merged bin among the bands, from 0 to ``count - 1``.

        Bands are evenly spaced on the ERB-rate scale (see `erb_rate`) or the mel scale
        (O'Shaughnessy 1987) between the first merged bin and half the sample rate.
        """
        bands = self.features.bands
        if bands is None:
            return []
        width = self.audio.sample_rate / self.stft.n_fft
        hertz = [index * width for index in range(self.kept_bins, self.stft.bins)]
        if bands.kind == "erb":
            scale = [erb_rate(f) for f in hertz]
        else:
            scale = [2595 * log10(1 + f / 700) for f in hertz]
        share = (bands.count - 1) / (scale[-1] - scale[0])
        return [(value - scale[0]) * share for value in scale]

    @property
    def expanded_band(self) -> int:
        """Index of the first band whose gain the expander of the output changes."""
        expander = self.output.expander
        if expander is None:
            return self.feature_bands
        bin_ = int(expander.above_hz * self.stft.n_fft / self.audio.sample_rate)
        if bin_ < self.kept_bins:
            return bin_ + (expander.above_hz > 0)
        positions = self.band_positions[bin_ - self.kept_bins + 1 :]
        return self.kept_bins + ceil(positions[0]) if positions else self.feature_bands

    def stft_at(self, sample_rate: int) -> Stft | None:
        """Return the STFT at a lower sample rate in Hz, with frames and hops of equal duration.

        Its bins are the lowest bins of the spec's STFT. It is None if the rate is higher than the
        spec's, or if its lengths would not be whole numbers of samples, or below `MIN_N_FFT`.
        """
        rate = self.audio.sample_rate
        n_fft, n_rest = divmod(self.stft.n_fft * sample_rate, rate)
        hop_length, hop_rest = divmod(self.stft.hop_length * sample_rate, rate)
        if sample_rate > rate or n_rest or hop_rest or n_fft % 2 or n_fft < MIN_N_FFT:
            return None
        return self.stft.model_copy(update={"n_fft": n_fft, "hop_length": hop_length})

    @property
    def total_strides(self) -> tuple[int, int]:
        """Factors by which all levels together reduce (frequency, time)."""
        strides = [level.strides for level in self.downsampling]
        return prod(s[0] for s in strides), prod(s[1] for s in strides)

    def attention_bytes(self, seconds: float) -> int:
        """Return the memory of the attention along time, which grows with the square of the time.

        Args:
            seconds: Length of the sound in s.

        Returns:
            Bytes of the scores of one block of the valley, twice: before and after the softmax.
        """
        stride = self.total_strides
        bands = -(-self.feature_bands // stride[0])
        steps = seconds * self.audio.sample_rate / self.stft.hop_length / stride[1]
        heads = [
            block.heads
            for block in self.valley
            if isinstance(block, AttentionBlock) and block.axis == "time"
        ]
        return int(8 * bands * max(heads, default=0) * steps**2)

    @model_validator(mode="after")
    def _can_be_built(self) -> "Spec":
        """Check that the sections fit together, before anything is built."""
        self._check_bands()
        if self.output.expander is not None and self.expanded_band == self.feature_bands:
            raise ValueError(
                f"output.expander: no band lies above {self.output.expander.above_hz:g} Hz; it "
                f"must be less than {self.audio.sample_rate / 2:g}"
            )
        if self.model == "unet":
            self._check_sizes()
            self._check_skips()
            self._check_weights()
        if self.causal:
            self._check_causal()
        self._check_losses()
        self._check_batch()
        return self

    def _check_batch(self) -> None:
        training = self.training
        samples = training.batch_size * training.segment_seconds * self.audio.sample_rate
        if samples > MAX_BATCH_SAMPLES:
            raise ValueError(
                f"training: a batch of {training.batch_size} segments of "
                f"{training.segment_seconds:g} s at {self.audio.sample_rate} Hz has "
                f"{samples / 1e6:.0f} million samples, more than {MAX_BATCH_SAMPLES / 1e6:.0f} "
                "million; reduce batch_size or segment_seconds"
            )

    def _check_bands(self) -> None:
        bands = self.features.bands
        if bands is None:
            return
        if self.kept_bins + 1 >= self.stft.bins:
            raise ValueError(
                f"features.bands: above_hz {bands.above_hz:g} leaves no bins to merge; "
                f"it must be less than {self.audio.sample_rate / 2:g}"
            )
        positions = self.band_positions
        if positions[1] > 1:  # the lowest bands are the narrowest
            raise ValueError(
                f"features.bands: {bands.count} bands above {bands.above_hz:g} Hz are narrower "
                f"than a bin; about {int((bands.count - 1) / positions[1]) + 1} are possible"
            )

    def _check_sizes(self) -> None:
        if self.options:
            raise ValueError(f"options: the class unet has none, found {', '.join(self.options)}")
        for name in LEVELS:
            if not getattr(self, name):
                raise ValueError(f"{name}: must be a list of at least 1 element, found []")
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

    def _check_weights(self) -> None:
        weights, channels = 0, len(self.features.channels)
        skips: list[int] = []
        for level in (*self.downsampling, *self.valley, *self.upsampling):
            joined = channels
            if isinstance(level, UpLevel) and skips:
                skip = skips.pop()
                joined += skip if level.skip == "concatenate" else 0
                stride, time_stride = self.downsampling[len(skips)].strides
                size = (level.upsampling_size or 2 * stride) * time_stride
                weights += size * max(channels, level.filters) * level.filters
            if isinstance(level, Convolutions):
                inner = (level.convolutions - 1) * level.filters
                size = prod(level.kernel_size)
                if level.kind == "depthwise_separable":
                    weights += (joined + inner) * (size + level.filters)
                else:
                    weights += size * (joined + inner) * level.filters
                channels = level.filters
            elif isinstance(level, AttentionBlock):
                weights += 4 * channels * level.heads * level.key_dim
            else:
                weights += 8 * level.units * (channels + level.units)
            if isinstance(level, DownLevel):
                skips.append(level.filters)
        if weights > MAX_WEIGHTS:
            raise ValueError(
                f"the network has about {weights / 1e6:,.0f} million weights, more than "
                f"{MAX_WEIGHTS / 1e6:.0f} million; use fewer filters or units, or smaller kernels"
            )

    def _check_losses(self) -> None:
        for index, loss in enumerate(self.training.losses):
            wide = loss.kind in ("perceptual", "listening_quality")
            if wide and self.stft_at(PERCEPTUAL_SAMPLE_RATE) is None:
                raise ValueError(
                    f"training.losses[{index}]: '{loss.kind}' needs an audio.sample_rate of "
                    f"{PERCEPTUAL_SAMPLE_RATE}, or a higher one at which stft.n_fft and "
                    f"stft.hop_length are whole numbers of samples at {PERCEPTUAL_SAMPLE_RATE}, "
                    f"found {self.audio.sample_rate}; leave it out"
                )

    def _check_causal(self) -> None:
        if self.output.future_taps:
            raise ValueError(
                "output.future_taps: a causal model cannot have any, "
                f"found {self.output.future_taps}"
            )
        for index, level in enumerate(self.downsampling):
            if level.strides[1] > 1:
                raise ValueError(
                    f"downsampling[{index}]: a causal model cannot stride along time "
                    f"(found {level.strides[1]}); use [{level.strides[0]}, 1]"
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


def read_spec(path: Path) -> Spec:
    """Read a spec file.

    Raises:
        SpecError: The file cannot be read, is not JSON or is not a valid spec; the message has
            one line per problem, with its path in the file.
    """
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


def parse_spec(document: object) -> Spec:
    """Validate a spec given as plain JSON data.

    Raises:
        SpecError: The spec is not valid; the message has one line per problem, which says where it
            is, what is allowed and what was found.
    """
    missing: list[str] = []
    if isinstance(document, dict):
        document = {key: value for key, value in document.items() if key != "$schema"}
        if document.get("model", "unet") == "unet":
            missing = [f"{key}: missing, but required" for key in LEVELS if key not in document]
    try:
        # As JSON, so that strictness is JSON's: lists are tuples, integers are not strings.
        return Spec.model_validate_json(json.dumps(document), strict=True)
    except ValidationError as error:
        schema = Spec.model_json_schema()
        problems = missing + [
            explain(problem, schema)
            for problem in merge_unions(error.errors(), document)
            # How the sections fit together cannot be said if one is missing.
            if not (missing and problem["type"] == "value_error" and not problem["loc"])
            # A list of wrong items is not too short, though pydantic counts the right ones only.
            and (
                problem["type"] != "too_short"
                or problem["ctx"]["min_length"] > len(problem["input"])
            )
        ]
        if len(problems) == 1:
            raise SpecError(problems[0]) from error
        listing = "\n".join(f"  {problem}" for problem in problems)
        raise SpecError(f"{len(problems)} problems:\n{listing}") from error


def save_spec(spec: Spec, path: Path) -> None:
    """Write a spec with all its defaults, without its search section."""
    path.write_text(spec.model_dump_json(indent=2, exclude={"search"}) + "\n", encoding="utf-8")


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of a spec file, for completion in editors."""
    schema = Spec.model_json_schema()
    schema["if"] = {"properties": {"model": {"const": "unet"}}}  # also if there is no such key
    schema["then"] = {"required": list(LEVELS)}
    schema["properties"]["$schema"] = {"type": "string"}  # by which an editor finds this schema
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
