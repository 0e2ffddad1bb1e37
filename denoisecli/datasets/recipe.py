"""The recipe of a dataset: everything but the recordings that decides what is in it."""

import math
import re
from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Annotated, Any, TypeVar

import numpy as np
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from denoisecli.audio.stft import window_vector
from denoisecli.datasets.choices import Kind, NoiseDraw, ReverbTarget
from denoisecli.datasets.mix import ratio_from_snr
from denoisecli.errors import UsageError
from denoisecli.spec.network import MAX_SAMPLE_RATE

_Number = TypeVar("_Number", int, float)

MIN_DURATION = 0.1
"""Recordings and clips shorter than this, in seconds, are left out."""

MAX_NOISES = 100
"""Largest number of noises in a mixture."""

VALID_SHARE = 0.05
"""Share of the training groups that are held out for validation by default."""

LONGEST_CLIP = 10.0
"""Longest clip in seconds, unless the recipe has a segment or joins recordings to longer clips."""

_Finite = Annotated[float, Field(allow_inf_nan=False)]
_Share = Annotated[float, Field(ge=0, le=1)]
_Duration = Annotated[float, Field(ge=MIN_DURATION, le=3600, allow_inf_nan=False)]

Range = _Finite | tuple[_Finite, _Finite]
"""A value, or the limits (low, high) that it is drawn between."""


Limits = int | float | tuple[int, int] | tuple[float, float]


class Recipe(BaseModel):
    """All parameters of a dataset; invalid ones raise UsageError.

    Attributes:
        pairs: The noises are noisy recordings, each to be paired with the clean one of its name.
            Nothing is mixed then, and neither a ratio nor an SNR is given.
        ratio: Share of the noise in a mixture, 0..1, or a range (low, high) it is drawn from.
        snr_db: The same as an SNR in dB; exactly one of the two is given.
        split: Share of the files that the training set gets, the rest being for the test set; or
            the shares (train, valid, test). If the test set has folders of its own: 1, or the
            shares (train, valid).
        valid_share: Share of the training set, 0..1, that becomes the validation set, if ``split``
            is a single number; 0 for none. By default, 0.05 if there are enough recordings; see
            ``splitting.VALID_GROUPS``.
        group_by: "file" to split by file; "folder" to keep all files of a folder (a speaker)
            together; or a regular expression: files whose names, relative to the folder that is
            searched, agree in its first group stay together. Noise recordings that all lie in one
            folder are split by file.
        group_noise_by: The same for noise recordings; by default ``group_by``.
        sample_rate: Sample rate of the dataset in Hz.
        segment: Length in seconds, up to 3600, that clean recordings are cut to. The last clip of a
            recording is shorter, and left out if it is below 0.1 s. By default, recordings longer
            than 10 s are cut into equal clips of at most 10 s, so that noises change as often.
        join: Clean recordings of one folder (or group) that are shorter than this, in seconds, are
            joined to clips of up to this length, with short pauses in between.
        pad: Pad clips shorter than ``segment`` with silence.
        min_active: Clips with a smaller share of active frames, 0..1, are left out; see
            ``clips.active_share``.
        max_clipped: Recordings with a larger share of samples at full scale, 0..1, are left out.
        mixtures_per_clip: Number of mixtures of each clean clip, each with another noise.
        noises: Number of noise recordings in a mixture, or a range it is drawn from.
        noise_draw: Draw noise recordings evenly over their folders and then over the files in
            them, so that many files of one kind do not outweigh few of another; evenly over all
            files; or in proportion to their lengths.
        clean_weights: Factors on the number of mixtures, by folder or by pattern of the name such
            as "*_take?.wav", relative to the folder that is searched; 0 leaves recordings out.
        noise_weights: The same for how often noise recordings are drawn.
        level_dbfs: RMS of the noisy sound in dBFS, or a range it is drawn from; lower if a peak
            would exceed full scale. By default the level of the clean recording is kept.
        match_level: Scale the noise to the level of the clean sound before mixing.
        rooms: Number of synthetic rooms for reverberation, in addition to recorded impulse
            responses.
        reverb_share: Share of the mixtures that are reverberant, 0..1, if there are rooms.
        reverb_target: Clean part of a reverberant mixture: "dry", or with "early" reflections.
        kind: Whether pairs of waveforms or of magnitude spectrograms are stored.
        n_fft: Frame length of spectrograms in samples.
        hop_length: Hop between frames of spectrograms in samples.
        window: Name of the window of spectrograms, as ``stft.window_vector`` takes it.
        seed: Seed of all random choices.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    pairs: bool = False
    ratio: Range | None = None
    snr_db: Range | None = None
    split: _Share | tuple[_Share, ...] = 0.8
    valid_share: Annotated[float, Field(ge=0, lt=1)] | None = None
    group_by: str = "file"
    group_noise_by: str | None = None
    sample_rate: int = Field(16000, ge=1000, le=MAX_SAMPLE_RATE)
    segment: _Duration | None = None
    join: _Duration | None = None
    pad: bool = False
    min_active: _Share = 0.0
    max_clipped: _Share = 0.001
    mixtures_per_clip: int = Field(1, ge=1, le=10_000)
    noises: int | tuple[int, int] = 1
    noise_draw: NoiseDraw = NoiseDraw.FOLDER
    clean_weights: dict[str, Annotated[int, Field(ge=0)]] = Field(default_factory=dict)
    noise_weights: dict[str, Annotated[_Finite, Field(ge=0)]] = Field(default_factory=dict)
    level_dbfs: Range | None = None
    match_level: bool = True
    rooms: int = Field(0, ge=0, le=10_000)
    reverb_share: _Share = 0.5
    reverb_target: ReverbTarget = ReverbTarget.EARLY
    kind: Kind = Kind.WAVEFORM
    n_fft: int = 512
    hop_length: int = Field(256, ge=1)
    window: str = "sqrt_hann"
    seed: int = Field(0, ge=0)

    @field_validator("ratio", "snr_db", "level_dbfs", "noises")
    @classmethod
    def _check_order(cls, value: Limits | None) -> Limits | None:
        if isinstance(value, tuple) and value[0] > value[1]:
            raise ValueError(f"the range {value[0]:g}:{value[1]:g} must begin with the lower limit")
        return value

    @field_validator("split")
    @classmethod
    def _check_split(cls, split: float | tuple[float, ...]) -> float | tuple[float, ...]:
        shares = split if isinstance(split, tuple) else (split,)
        complete = len(shares) == 1 or math.isclose(sum(shares), 1, abs_tol=1e-6)
        if not (min(shares, default=0) > 0 and len(shares) <= 3 and complete):
            raise ValueError(
                "the split must be the share of the training set, above 0 and up to 1, or the "
                f"shares of the train, valid and test sets, whose sum is 1; not {split}"
            )
        return split

    @field_validator("group_by", "group_noise_by")
    @classmethod
    def _check_group_by(cls, group_by: str | None) -> str | None:
        if group_by not in (None, "file", "folder"):
            try:
                groups = re.compile(group_by).groups
            except re.error as error:
                raise ValueError(
                    f"group_by {group_by!r} is not a valid regular expression: {error}"
                ) from error
            if groups < 1:
                raise ValueError(
                    "recordings are grouped by 'file', 'folder' or a regular expression with a "
                    f"group that matches the speaker, such as '(spk[0-9]+)_'; not {group_by!r}"
                )
        return group_by

    @model_validator(mode="after")
    def _check(self) -> "Recipe":
        if self.pairs:
            if self.ratio is not None or self.snr_db is not None:
                raise ValueError("pairs are already mixed; give neither a ratio nor an SNR")
            if self.join is not None or self.rooms or limits(self.noises) != (1, 1):
                raise ValueError(
                    "existing pairs cannot be joined, and cannot get rooms or further noises"
                )
        elif (self.ratio is None) == (self.snr_db is None):
            raise ValueError(
                "give either a mixing ratio (--ratio 0.2) or an SNR in dB (--snr=-5:20)"
            )
        if self.ratio is not None:
            low, high = limits(self.ratio)
            if low < 0 or high > 1:
                raise ValueError(f"the ratio must be within 0..1, not {self.ratio}")
        if self.snr_db is not None and max(map(abs, limits(self.snr_db))) > 100:
            raise ValueError(f"the SNR must be within -100..100 dB, not {self.snr_db}")
        if self.snr_db is not None and not self.match_level:
            raise ValueError("an SNR needs matched levels; give a ratio, or match the levels")
        if limits(self.noises)[0] < 1:
            raise ValueError(f"a mixture needs at least 1 noise, not {self.noises}")
        if limits(self.noises)[1] > MAX_NOISES:
            raise ValueError(f"a mixture can have {MAX_NOISES} noises, not {self.noises}")
        if self.level_dbfs is not None:
            low, high = limits(self.level_dbfs)
            if low < -100 or high > 0:
                raise ValueError(f"the level must be within -100..0 dBFS, not {self.level_dbfs}")
        if self.valid_share and isinstance(self.split, tuple):
            raise ValueError(
                "the split already gives the share of the validation set; give one share, or leave "
                "out valid_share"
            )
        if self.join is not None and self.segment is not None and self.join > self.segment:
            raise ValueError("joined clips must not be longer than a segment")
        if self.pad and self.segment is None:
            raise ValueError("padding needs the length of a segment")
        window_vector(self.window, self.n_fft)  # raises UsageError
        return self

    @model_validator(mode="wrap")
    @classmethod
    def _raise_usage_error(cls, data: Any, handler: Callable[[Any], "Recipe"]) -> "Recipe":
        try:
            return handler(data)
        except ValidationError as error:
            raise UsageError(explain(error, depth=1)) from error

    def __hash__(self) -> int:
        return hash(self.model_dump_json())

    @property
    def shares(self) -> dict[str, float]:
        """Share of the recordings that each set gets, by name of the set."""
        if not isinstance(self.split, tuple):
            return self.with_valid(self.valid_share or 0.0)
        return dict(zip(("train", "valid", "test"), self.split, strict=False))

    @property
    def chooses_valid(self) -> bool:
        """Whether the number of recordings decides if there is a validation set."""
        return self.valid_share is None and not isinstance(self.split, tuple)

    def with_valid(self, share: float) -> dict[str, float]:
        """Return the shares, with a share of the training set for validation.

        The test set is the same whatever this share is.
        """
        assert not isinstance(self.split, tuple)
        shares = {
            "train": self.split * (1 - share),
            "valid": self.split * share,
            "test": 1 - self.split,
        }
        return {name: share for name, share in shares.items() if share > 0}

    @property
    def longest_clip(self) -> float:
        """Length in seconds that longer recordings are cut to."""
        return self.segment or max(LONGEST_CLIP, self.join or 0.0)

    def draw_ratio(self, rng: np.random.Generator) -> float:
        """Draw the mixing ratio of one mixture; a range of SNRs is drawn from evenly in dB."""
        if self.ratio is not None:
            return draw(self.ratio, rng)
        assert self.snr_db is not None
        return ratio_from_snr(draw(self.snr_db, rng))


def explain(error: ValidationError, *, depth: int) -> str:
    """Return the first problem of a validation error as a sentence.

    Args:
        error: The error of pydantic.
        depth: Length of the path that names the invalid value.
    """
    problem = error.errors()[0]
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "value_error":
        return message
    where = ".".join(str(part) for part in problem["loc"][:depth])
    found = "" if problem["type"] == "missing" else f", not {problem['input']!r}"
    return f"{where}: {message[:1].lower()}{message[1:]}{found}"


def weight_of(name: str, weights: Mapping[str, int] | Mapping[str, float]) -> float:
    """Return the product of all weights whose folder or pattern matches a recording."""
    factors = (weight for pattern, weight in weights.items() if matches(name, pattern))
    return math.prod(factors, start=1.0)


def check_weights(role: str, names: Iterable[str], weights: Iterable[str]) -> None:
    """Raise UsageError if a folder or pattern that has a weight matches no recording.

    Args:
        role: Role of the recordings, for the message.
        names: Names of all recordings of the role.
        weights: The folders and patterns.
    """
    names = list(names)
    for pattern in weights:
        if not any(matches(name, pattern) for name in names):
            raise UsageError(f"no {role} recording is in the folder or matches the name {pattern}")


def matches(name: str, pattern: str) -> bool:
    """Return whether a recording lies in the folder ``pattern`` or its name matches the pattern.

    Args:
        name: Path of the recording relative to the folder that was searched, with forward slashes.
        pattern: A folder, or a pattern with ``*`` and ``?``.
    """
    return fnmatchcase(name, pattern) or name.startswith(pattern.rstrip("/") + "/")


def draw(value: Range, rng: np.random.Generator) -> float:
    """Draw evenly from a range; a single value consumes a random number as well."""
    return float(rng.uniform(*limits(value)))


def limits(value: _Number | tuple[_Number, _Number]) -> tuple[_Number, _Number]:
    """Return (low, high) of a range; a single value is both."""
    return value if isinstance(value, tuple) else (value, value)
