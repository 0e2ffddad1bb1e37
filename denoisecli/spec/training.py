"""The sections of a spec that say how a model is trained: losses, augmentation, schedule."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from denoisecli.spec.network import PositiveInt, Section

Fraction = Annotated[float, Field(ge=0, le=1)]
Range = tuple[float, float]
PositiveFloat = Annotated[float, Field(gt=0)]
Attenuation = Annotated[float, Field(ge=-100, le=0)]
SpeedFactor = Annotated[float, Field(ge=0.5, le=1.5)]
DecayTime = Annotated[float, Field(gt=0, le=5)]
Figure = Literal["val_loss", "val_si_sdr_improvement", "val_pesq", "val_estoi"]

PERCEPTUAL_SAMPLE_RATE = 16000
"""In Hz: the loss "perceptual" is made for no other."""


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
    start_share: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="with --init-from: share of the weights of the start in those of the end, so "
        "that less of what the model knew is lost",
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
        "float32", description="mixed ones are for GPUs and CPUs that gain from them"
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
