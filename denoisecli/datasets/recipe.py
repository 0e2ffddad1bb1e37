"""What decides, besides the recordings, what is in a dataset."""

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from fnmatch import fnmatchcase
from typing import Any, Literal, get_args

import numpy as np

from denoisecli.audio.stft import window_vector
from denoisecli.datasets.mix import ratio_from_snr
from denoisecli.errors import UsageError

MIN_DURATION = 0.1
"""Recordings and clips shorter than this (s) are left out."""

Kind = Literal["waveform", "spectrogram"]
NoiseDraw = Literal["folder", "file", "length"]
ReverbTarget = Literal["dry", "early"]
Range = float | tuple[float, float]


@dataclass(frozen=True)
class Recipe:
    """All that decides, besides the recordings, what is in a dataset.

    Attributes:
        ratio: Share of the noise, 0..1, or a range (low, high) it is drawn from for each mix.
        snr_db: The same as an SNR in dB; exactly one of the two is given.
        split: Share of the files that goes to the train set, the rest to the test set; or the
            shares (train, valid, test). Where the test set has folders of its own, 1 or the
            shares (train, valid).
        group_by: Split by "file", or by "folder": all files of a folder (a speaker) stay together;
            or a regular expression: files stay together whose names below the folder that is
            searched agree in its first group. Noises that all lie in one folder are split by file.
        sample_rate: Rate of the dataset in Hz.
        segment: Cut clean recordings into clips of this many seconds; the last one is shorter,
            and left out below 0.1 s. By default a clip is a whole recording.
        join: Join clean recordings of a folder (or group) that are shorter than this many seconds
            to clips of up to that length, with short pauses in between.
        pad: Lengthen clips shorter than ``segment`` with silence.
        min_active: Leave out clips with a smaller share of active frames, 0..1; see
            ``clips.active_share``.
        max_clipped: Leave out recordings with a larger share of samples at full scale, 0..1.
        mixes_per_clip: Mixes made of each clean clip, each with a noise of its own.
        noises: Noises at a time in a mix, or a range (low, high) it is drawn from.
        noise_draw: Noises are drawn evenly over the "folder" they are in and then over its files,
            so that many files of one kind do not drown few of another; or evenly over each "file";
            or in proportion to their "length".
        clean_weights: How many times as many mixes are made of recordings of a folder, or with
            names like "*_take?.wav", below the one that is searched; 0 leaves them out.
        noise_weights: The same for noises: how many times as often they are drawn.
        level_dbfs: RMS of the noisy sound, or a range it is drawn from; less where a peak would
            pass full scale. By default the clean recording decides.
        match_level: Scale the noise to the level of the clean sound before mixing.
        rooms: Number of synthetic rooms for reverberation, besides recorded impulse responses.
        reverb_share: Share of the mixes that have reverberation, if there are rooms.
        reverb_target: What the clean part of such a mix is: "dry", or with "early" reflections.
        kind: What is stored: pairs of "waveform" or of "spectrogram" (magnitudes).
        n_fft: Frame length of spectrograms in samples; see ``pairs.to_spectrograms``.
        hop_length: Samples from one frame of a spectrogram to the next.
        window: Name of the window of spectrograms.
        seed: Chooses everything that is left to chance.

    Raises:
        UsageError: a value is not allowed.
    """

    ratio: Range | None = None
    snr_db: Range | None = None
    split: float | tuple[float, ...] = 0.8
    group_by: str = "file"
    sample_rate: int = 16000
    segment: float | None = None
    join: float | None = None
    pad: bool = False
    min_active: float = 0.0
    max_clipped: float = 0.001
    mixes_per_clip: int = 1
    noises: int | tuple[int, int] = 1
    noise_draw: NoiseDraw = "folder"
    clean_weights: Mapping[str, int] = field(default_factory=dict)
    noise_weights: Mapping[str, float] = field(default_factory=dict)
    level_dbfs: Range | None = None
    match_level: bool = True
    rooms: int = 0
    reverb_share: float = 0.5
    reverb_target: ReverbTarget = "early"
    kind: Kind = "waveform"
    n_fft: int = 512
    hop_length: int = 256
    window: str = "sqrt_hann"
    seed: int = 0

    def __post_init__(self) -> None:
        self._check_mixing()
        self._check_clips()
        shares = self.split if isinstance(self.split, tuple) else (self.split,)
        whole = len(shares) == 1 or math.isclose(sum(shares), 1, abs_tol=1e-6)
        if not (all(0 < share <= 1 for share in shares) and len(shares) <= 3 and whole):
            raise UsageError(
                "the split is the share that trains, between 0 and 1, or the shares of train, "
                f"valid and test, which sum to 1; not {self.split}"
            )
        if self.group_by not in ("file", "folder"):
            try:
                groups = re.compile(self.group_by).groups
            except re.error as error:
                raise UsageError(
                    f"group_by {self.group_by!r} is no regular expression: {error}"
                ) from error
            if groups < 1:
                raise UsageError(
                    f"group_by is file, folder or a regular expression with a group in parentheses "
                    f"that says who is heard, as '(spk[0-9]+)_'; not {self.group_by!r}"
                )
        if self.kind not in get_args(Kind):
            raise UsageError(f"the kind is {' or '.join(get_args(Kind))}, not {self.kind}")
        window_vector(self.window, self.n_fft)  # raises as well
        _check_least("the hop length", self.hop_length, 1)
        _check_least("the seed", self.seed, 0)

    def _check_mixing(self) -> None:
        if (self.ratio is None) == (self.snr_db is None):
            raise UsageError("give a mixing ratio, for example 0.2, or an SNR in dB, and not both")
        if self.ratio is not None and not 0 <= _low(self.ratio) <= _high(self.ratio) <= 1:
            raise UsageError(f"the ratio must be within 0..1, low before high, not {self.ratio}")
        if self.snr_db is not None:
            _check_range("the SNR", self.snr_db)
            if not self.match_level:
                raise UsageError("an SNR needs matched levels; give a ratio, or match the levels")
        if self.level_dbfs is not None:
            _check_range("the level", self.level_dbfs)
            if not -100 <= _low(self.level_dbfs) <= _high(self.level_dbfs) <= 0:
                raise UsageError(f"the level must be within -100..0 dBFS, not {self.level_dbfs}")
        if not 1 <= _low(self.noises) <= _high(self.noises):
            raise UsageError(f"there must be 1 or more noises, low before high, not {self.noises}")
        if self.noise_draw not in get_args(NoiseDraw):
            raise UsageError(
                f"noises are drawn by {', '.join(get_args(NoiseDraw))}, not {self.noise_draw}"
            )
        for name, weights in (("clean", self.clean_weights), ("noise", self.noise_weights)):
            if not all(0 <= weight < math.inf for weight in weights.values()):
                raise UsageError(f"{name} weights must be 0 or more, not {dict(weights)}")
        if self.reverb_target not in get_args(ReverbTarget):
            raise UsageError(
                f"the target is {' or '.join(get_args(ReverbTarget))}, not {self.reverb_target}"
            )
        _check_least("the number of rooms", self.rooms, 0)
        _check_least("the number of mixes per clip", self.mixes_per_clip, 1)
        _check_share("the share with reverberation", self.reverb_share)

    def _check_clips(self) -> None:
        _check_least("the sample rate in Hz", self.sample_rate, 1000)
        for name, seconds in (("segments", self.segment), ("joined clips", self.join)):
            if seconds is not None and not MIN_DURATION <= seconds < math.inf:
                raise UsageError(f"{name} must last {MIN_DURATION} s or more, not {seconds}")
        if None not in (self.join, self.segment) and self.join > self.segment:  # type: ignore[operator]
            raise UsageError("joined clips must not be longer than a segment")
        if self.pad and self.segment is None:
            raise UsageError("clips are padded to the length of a segment: give that too")
        _check_share("the share of active frames", self.min_active)
        _check_share("the share of clipped samples", self.max_clipped)

    @property
    def shares(self) -> dict[str, float]:
        """Share of the recordings that each set gets."""
        if not isinstance(self.split, tuple):
            rest = {"test": 1 - self.split} if self.split < 1 else {}
            return {"train": float(self.split), **rest}
        return dict(zip(("train", "valid", "test"), self.split, strict=False))

    def draw_ratio(self, rng: np.random.Generator) -> float:
        """Draw the mixing ratio of one mix; from a range of SNRs it is drawn evenly in dB."""
        if self.ratio is not None:
            return draw(self.ratio, rng)
        assert self.snr_db is not None
        return ratio_from_snr(draw(self.snr_db, rng))

    def to_json(self) -> dict[str, Any]:
        """Give it as plain JSON data."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Recipe":
        """Undo :meth:`to_json`; what an older version did not know has its default."""
        known = {field.name for field in fields(cls)}
        given: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in data.items()
            if name in known
        }
        return cls(**given)


def weight_of(name: str, weights: Mapping[str, int] | Mapping[str, float]) -> float:
    """Product of the weights whose folder a recording is in, or whose pattern its name fits."""
    factors = (weight for pattern, weight in weights.items() if is_meant(name, pattern))
    return math.prod(factors, start=1.0)


def is_meant(name: str, pattern: str) -> bool:
    """Tell whether a recording lies in a folder, or its name (with forward slashes) fits."""
    return fnmatchcase(name, pattern) or name.startswith(pattern.rstrip("/") + "/")


def draw(value: Range, rng: np.random.Generator) -> float:
    """Draw evenly from a range; a single value takes a number from ``rng`` as well."""
    return float(rng.uniform(_low(value), _high(value)))


_Limits = int | Range | tuple[int, int]


def _low(value: _Limits) -> int | float:
    return value[0] if isinstance(value, tuple) else value


def _high(value: _Limits) -> int | float:
    return value[1] if isinstance(value, tuple) else value


def _check_range(name: str, value: Range) -> None:
    low, high = _low(value), _high(value)
    if not (math.isfinite(low) and math.isfinite(high) and low <= high):
        raise UsageError(f"{name} must be finite, low before high, not {value}")


def _check_least(name: str, value: int, least: int) -> None:
    if value < least:
        raise UsageError(f"{name} must be {least} or more, not {value}")


def _check_share(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise UsageError(f"{name} must be between 0 and 1, not {value}")
