"""The section of a spec that says what `denoise tune` varies."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from denoisecli.spec.network import PositiveInt, Section
from denoisecli.spec.training import Figure


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
