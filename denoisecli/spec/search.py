"""The section of a spec that describes the search of `denoise tune`."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from denoisecli.spec.network import Section
from denoisecli.spec.training import MonitoredMetric


class Choice(Section):
    """One of several values."""

    kind: Literal["choice"] = Field(description="Kind of range.")
    values: tuple[Any, ...] = Field(min_length=2, description="Values to choose from.")


class IntRange(Section):
    """An integer in a range."""

    kind: Literal["int"] = Field(description="Kind of range.")
    min: int = Field(description="Smallest value.")
    max: int = Field(description="Largest value.")
    step: int = Field(1, ge=1, description="Distance between two values.")

    @model_validator(mode="after")
    def _is_not_empty(self) -> "IntRange":
        if self.min + self.step > self.max:
            raise ValueError(
                f"the range from {self.min} to {self.max} holds no second value at a step of "
                f"{self.step}"
            )
        return self


class FloatRange(Section):
    """A number in a range."""

    kind: Literal["float"] = Field(description="Kind of range.")
    min: float = Field(description="Smallest value.")
    max: float = Field(description="Largest value.")
    log: bool = Field(
        False, description="Whether values are drawn uniformly on a logarithmic scale."
    )

    @model_validator(mode="after")
    def _is_not_empty(self) -> "FloatRange":
        if self.min >= self.max:
            raise ValueError(f"min {self.min:g} must be less than max {self.max:g}")
        if self.log and self.min <= 0:
            raise ValueError(
                f"min must be greater than 0 on a logarithmic scale, found {self.min:g}"
            )
        return self


class Boolean(Section):
    """True or false."""

    kind: Literal["boolean"] = Field(description="Kind of range.")


Searched = Annotated[Choice | IntRange | FloatRange | Boolean, Field(discriminator="kind")]


class Search(Section):
    """The search space and the objective of `denoise tune`."""

    space: dict[str, Searched] = Field(
        min_length=1,
        description="Range of each field to search, by the path of the field, such as "
        "`training.learning_rate` or `downsampling.0.filters`; `*` stands for all elements or "
        "keys, which then get the same value.",
    )
    objective: MonitoredMetric = Field(
        "val_si_sdr_improvement",
        description="Validation metric to optimize: the loss is minimized, the others are "
        "maximized.",
    )
    max_macs: float | None = Field(
        None,
        gt=0,
        description="Multiply-accumulates per second of audio above which a network is not "
        "trained; null for no limit.",
    )
    max_parameters: int | None = Field(
        None,
        ge=1,
        description="Number of parameters above which a network is not trained; null for no limit.",
    )

    @property
    def direction(self) -> Literal["min", "max"]:
        """Whether the objective is minimized or maximized."""
        return "min" if self.objective == "val_loss" else "max"
