"""The sections of a spec that describe the training: losses, augmentation, schedule."""

from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, Field, model_validator

from denoisecli.spec.network import MAX_SAMPLE_RATE, OneOfOrOwn, Section

Fraction = Annotated[float, Field(ge=0, le=1)]
Decibels = Annotated[float, Field(ge=-100, le=100)]
Range = tuple[Decibels, Decibels]
Level = Annotated[float, Field(ge=-100, le=0)]
"""Level in dBFS, or gain in dB, at most 0."""
Count = Annotated[int, Field(ge=1, le=1_000_000)]
FromDataset = Literal["dataset"]
Frequency = Annotated[float, Field(gt=0, le=MAX_SAMPLE_RATE)]
SpeedFactor = Annotated[float, Field(ge=0.5, le=1.5)]
DecayTime = Annotated[float, Field(ge=0.01, le=5)]
MonitoredMetric = Literal["val_loss", "val_si_sdr_improvement", "val_pesq", "val_estoi"]

ReverberationTarget = Literal["dry", "early", "reverberant"]

PERCEPTUAL_SAMPLE_RATE = 16000
"""Sample rate in Hz of the losses "perceptual" and "listening_quality"."""


LossName = Literal[
    "compressed_magnitude",
    "compressed_complex",
    "band_levels",
    "multi_resolution_stft",
    "si_sdr",
    "waveform_l1",
    "weighted_sdr",
    "perceptual",
    "intelligibility",
    "listening_quality",
]


LossKind = Annotated[str, OneOfOrOwn(get_args(LossName))]


class Loss(Section):
    """A weighted term of the loss. The name of a loss by itself means a weight of 1.

    - `compressed_magnitude`: squared difference of magnitudes raised to `features.compression`
    - `compressed_complex`: the same with the phases kept
    - `band_levels`: absolute difference of the levels in bands of half an ERB, in dB
    - `multi_resolution_stft`: both compressed differences, averaged over three window lengths
    - `si_sdr`: negative scale-invariant SDR in dB
    - `waveform_l1`: absolute difference of the samples, relative to the clean RMS
    - `weighted_sdr`: negative cosine similarity of speech and noise, weighted by their energies
    - `perceptual`: a differentiable wide-band PESQ, which covers up to 8 kHz, subtracted from the
      best score; it needs a sample rate of at least 16 kHz
    - `intelligibility`: a differentiable ESTOI, subtracted from 1
    - `listening_quality`: the overall rating that DNSMOS predicts, subtracted from 5, of the first
      quarter of each batch; it covers up to 8 kHz, and needs a sample rate of at least 16 kHz and
      the extra `[dnsmos]`
    """

    kind: LossKind = Field(
        description="Kind of loss, or a user-defined function as `module:name`, whose code runs "
        "only if `--loss` names it too."
    )
    weight: float = Field(1.0, gt=0, le=1e6, description="Factor that the term is multiplied by.")


def _loss_of_name(value: Any) -> Any:
    return {"kind": value} if isinstance(value, str) else value


class Augmentation(Section):
    """Random changes of every training batch.

    A pair of numbers is a range from which values are drawn, uniformly unless stated otherwise. A
    share is the fraction of the examples that are changed.
    """

    remix: bool = Field(
        True,
        description="Whether to shuffle the noises of a batch and mix them at new SNRs; without a "
        "dataset (`train --clean`), every batch is mixed.",
    )
    snr_db: Range | FromDataset = Field(
        "dataset",
        description='SNR in dB of the new mixtures; "dataset" takes the range that the dataset was '
        "built with.",
    )
    second_noise: Fraction | FromDataset = Field(
        "dataset",
        description='Share of the new mixtures with the sum of two noises; "dataset" takes the '
        "share in the dataset.",
    )
    third_noise: Fraction | FromDataset = Field(
        "dataset",
        description='Share of the mixtures of two noises that get a third one; "dataset" takes the '
        "share in the dataset.",
    )
    clean_only: Fraction = Field(0.03, description="Share of the new mixtures without noise.")
    noise_only: Fraction = Field(0.02, description="Share of the new mixtures without speech.")
    level_dbfs: tuple[Level, Level] | FromDataset | None = Field(
        "dataset",
        description='RMS level of the mixture in dBFS; null keeps the level, "dataset" takes the '
        "range that the dataset was built with, or -45 to -12 dBFS if it was built without one.",
    )
    whisper: Fraction = Field(
        0.0,
        description="Share of the speech that is turned into whispering, in input and target: its "
        "voice is replaced by noise with the same spectral envelope.",
    )
    level_change: Fraction = Field(
        0.0,
        description="Share of the speech of which a part becomes louder or softer, in input and "
        "target, as when a speaker shouts or turns away.",
    )
    level_change_db: Range = Field(
        (-12.0, 12.0), description="Change in dB of the level of such a part."
    )
    equalization_db: float = Field(
        6.0,
        ge=0,
        le=24,
        description="Largest gain in dB, up or down, of a random smooth equalization of speech "
        "and of noise.",
    )
    speed: Fraction = Field(
        0.0, description="Share of the speech, and of the noise, that is played at another speed."
    )
    speed_range: tuple[SpeedFactor, SpeedFactor] = Field(
        (0.9, 1.1), description="Factor by which speed and pitch change."
    )
    time_shift: bool = Field(
        False, description="Whether to shift the noises in time relative to the speech."
    )
    reverberation: Fraction = Field(
        0.0,
        description="Share of the speech that is placed in a synthetic room; `training.target` "
        "says what the target keeps of it.",
    )
    rt60_seconds: tuple[DecayTime, DecayTime] = Field(
        (0.1, 0.6), description="Time in seconds in which the reverberation decays by 60 dB."
    )
    direct_to_reverberant_db: Range = Field(
        (-3.0, 12.0), description="Level in dB of the direct sound relative to all reflections."
    )
    target_highpass_hz: float | None = Field(
        None,
        gt=0,
        le=1000,
        description="Frequency in Hz below which rumble is removed from the target, but not from "
        "the input; null keeps it in both.",
    )
    target_pause_db: float | None = Field(
        None,
        ge=-80,
        le=-20,
        description="Level in dB, relative to the loudest part of the target, below which its "
        "pauses are attenuated, so that the noise of clean recordings is not learned; null keeps "
        "them.",
    )
    coloured_noise: Fraction = Field(
        0.0, description="Share of the noises to which white to brown noise is added."
    )
    hum: Fraction = Field(
        0.0, description="Share of the noises to which mains hum of 50 or 60 Hz is added."
    )
    clicks: Fraction = Field(0.0, description="Share of the noises to which clicks are added.")
    synthetic_noise_db: Range = Field(
        (-10.0, 10.0),
        description="Level in dB of coloured noise, hum and clicks relative to the noise to which "
        "they are added.",
    )
    band_limit: Fraction = Field(
        0.0,
        description="Share of the examples that lose their high frequencies, and half of these "
        "their low ones too, in input and target.",
    )
    low_cut_hz: tuple[Frequency, Frequency] = Field(
        (50.0, 400.0),
        description="Frequency in Hz below which a band limit cuts, drawn on a logarithmic scale.",
    )
    high_cut_hz: tuple[Frequency, Frequency] = Field(
        (2000.0, 7000.0),
        description="Frequency in Hz above which a band limit cuts, drawn on a logarithmic scale.",
    )
    low_pass: Fraction = Field(
        0.0,
        description="Share of the examples that lose everything above one of the frequencies in "
        "`low_pass_hz`, in input and target, as at a low sample rate.",
    )
    low_pass_hz: tuple[Frequency, ...] = Field(
        (4000.0, 5500.0, 8000.0, 11000.0, 15000.0),
        min_length=1,
        description="Frequencies in Hz that `low_pass` chooses from; those above 0.94 times the "
        "Nyquist frequency are left out.",
    )
    clipping: Fraction = Field(
        0.0, description="Share of the inputs that are clipped; the target is unchanged."
    )
    clipping_db: tuple[Level, Level] = Field(
        (-15.0, -1.0), description="Level in dB, relative to the peak, at which inputs are clipped."
    )
    masking: Fraction = Field(
        0.0,
        description="Share of the inputs in which two short time spans and two frequency bands are "
        "attenuated; the target is unchanged.",
    )
    masking_db: tuple[Level, Level] = Field(
        (-20.0, -3.0), description="Gain in dB of the masked time spans and bands."
    )

    @model_validator(mode="after")
    def _ranges_are_ordered(self) -> "Augmentation":
        for name, limits in self:
            is_range = isinstance(limits, tuple) and name != "low_pass_hz"
            if is_range and limits[0] > limits[1]:
                raise ValueError(f"{name}: the range must be [low, high], found {list(limits)}")
        if self.clean_only + self.noise_only > 1:
            raise ValueError("the sum of clean_only and noise_only must be at most 1")
        if self.low_cut_hz[1] >= self.high_cut_hz[0]:
            raise ValueError(
                f"low_cut_hz up to {self.low_cut_hz[1]:g} and high_cut_hz from "
                f"{self.high_cut_hz[0]:g} must not overlap"
            )
        return self


class Training(Section):
    """Settings of the training."""

    losses: tuple[
        Annotated[Loss, BeforeValidator(_loss_of_name, json_schema_input_type=Loss | LossKind)], ...
    ] = Field(
        (
            Loss(kind="compressed_magnitude", weight=1.0),
            Loss(kind="compressed_complex", weight=0.5),
            Loss(kind="si_sdr", weight=0.02),
        ),
        min_length=1,
        description="Terms of the loss, which are summed.",
    )
    batch_size: int = Field(16, ge=1, le=4096, description="Number of segments in a batch.")
    gradient_steps: Annotated[int, Field(ge=1, le=1000)] = Field(
        1, description="Number of batches whose gradients are averaged for each update."
    )
    segment_seconds: float = Field(
        3.0, gt=0.1, le=60, description="Length of a training segment in seconds."
    )
    epochs: Count = Field(40, description="Number of epochs.")
    steps_per_epoch: Count | None = Field(
        None, description="Number of batches in an epoch; null for one pass through the data."
    )
    validation_share: float = Field(
        0.05,
        gt=0,
        lt=1,
        description="Share of the training set that is used for validation only; no effect where "
        "the dataset stores a validation set.",
    )
    optimizer: Literal["adamw", "muon"] = Field(
        "adamw", description="Optimizer. Muon updates kernels only; AdamW updates the rest."
    )
    learning_rate: float = Field(2e-3, gt=0, le=1, description="Peak learning rate.")
    schedule: Literal["cosine", "constant", "warmup_stable_decay"] = Field(
        "cosine",
        description="Learning rate after the warm-up: a cosine decay, constant, or constant with "
        "a decay at the end. While it is constant, `epochs` may still be changed.",
    )
    warmup_steps: int = Field(
        200,
        ge=0,
        le=1_000_000_000,
        description="Number of steps over which the learning rate rises from 0.",
    )
    decay_share: float = Field(
        0.2,
        gt=0,
        le=1,
        description="With `warmup_stable_decay`: share of the steps, at the end, over which the "
        "learning rate decays.",
    )
    final_learning_rate: Fraction = Field(
        0.01, description="Learning rate at the end of a decay, relative to the peak."
    )
    weight_decay: float = Field(0.01, ge=0, le=1, description="Decoupled weight decay.")
    gradient_clip: float = Field(
        3.0, gt=0, le=1e6, description="Global norm to which the gradients are clipped."
    )
    average_decay: float = Field(
        0.998,
        ge=0,
        lt=1,
        description="Decay of the exponential moving average of the weights; 0 for no average.",
    )
    start_share: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="With `--init-from`: share of the starting weights in the final weights, which "
        "keeps more of what the starting model has learned.",
    )
    fixed_normalization: bool = Field(
        False,
        description="With `--init-from`: keep the batch normalizations of the starting model as "
        "they are, which suits a short training on little data.",
    )
    monitor: MonitoredMetric = Field(
        "val_loss", description="Validation metric that selects the best epoch."
    )
    perceptual_every: Count | None = Field(
        None,
        description="Interval in epochs between measurements of PESQ and ESTOI; null for never.",
    )
    early_stopping: Count | None = Field(
        None,
        description="Number of epochs without improvement after which training stops; null for "
        "never.",
    )
    loss_limit: float | None = Field(
        100.0,
        gt=1,
        description="Number of median absolute deviations by which the loss of a batch can exceed "
        "the median of the last batches before training stops; null for no limit.",
    )
    precision: Literal["float32", "mixed_float16", "mixed_bfloat16"] = Field(
        "float32",
        description="Keras dtype policy; the mixed policies are faster on GPUs and CPUs that "
        "support them.",
    )
    jit_compile: bool = Field(
        False,
        description="Whether to compile the training step with XLA; ignored on GPUs for networks "
        "with recurrent layers, which XLA cannot compile there.",
    )
    target: ReverberationTarget = Field(
        "early",
        description="Reflections that the target keeps when speech is placed in a room in "
        "training: none, those of the first 50 ms, or all, so that the model preserves rooms.",
    )
    augmentation: Augmentation | None = Field(
        Augmentation(), description="Random changes of the training data; null for none."
    )
    seed: int = Field(0, ge=0, lt=2**32, description="Seed of weights, batches and augmentation.")

    @model_validator(mode="after")
    def _monitor_is_measured(self) -> "Training":
        if self.monitor in ("val_pesq", "val_estoi"):
            every = self.perceptual_every
            if every is None:
                raise ValueError(f"monitor {self.monitor!r} needs perceptual_every")
            if self.early_stopping is not None and self.early_stopping < every:
                raise ValueError(
                    f"early_stopping {self.early_stopping} stops before {self.monitor!r} is "
                    f"measured again; it must be at least {every}"
                )
        return self
