"""A spec with a `search` section as KerasTuner sees it."""

import json
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import keras
import keras_tuner
from keras_tuner.errors import FailedTrialError, FatalError

from denoisecli.errors import DenoiseError, SpecError
from denoisecli.models.describe import describe
from denoisecli.spec.document import Spec
from denoisecli.spec.search import Boolean, Choice, IntRange
from denoisecli.spec.search_space import values_at, with_values
from denoisecli.training.batches import open_batches
from denoisecli.training.devices import Devices
from denoisecli.training.trainer import Trainer
from denoisecli.tuning.trials import SearchObserver


class Infeasible(FailedTrialError):
    """Values that are not trained: they do not go together, or are above a cap."""


class Stopped(FatalError):
    """Leaves a trial as it is: time is up, or Ctrl-C. Other errors are caught by KerasTuner."""


class SpecHyperModel(keras_tuner.HyperModel):
    """Networks whose specs differ in the fields that are searched.

    Args:
        spec: with a `search` section.
        data: folder of the stored dataset.
        devices: where to train.
        epochs: of a trial; None: as many as the spec says.
    """

    def __init__(self, spec: Spec, data: Path, devices: Devices, epochs: int | None = None):
        super().__init__(name=spec.name)
        assert spec.search is not None
        self.spec, self.data, self.devices, self.epochs = spec, data, devices, epochs
        self.search = spec.search
        self.facts: dict[str, float] = {}
        self.trainer: Any = None

    def declare_hyperparameters(self, hp: keras_tuner.HyperParameters) -> None:
        """Register the searched fields by their paths."""
        for path, searched in self.search.space.items():
            if isinstance(searched, Choice):
                # As text, which is what KerasTuner can hold of any value.
                hp.Choice(path, [json.dumps(value) for value in searched.values])
            elif isinstance(searched, Boolean):
                hp.Boolean(path)
            elif isinstance(searched, IntRange):
                hp.Int(path, searched.min, searched.max, searched.step)
            else:
                sampling = "log" if searched.log else "linear"
                hp.Float(path, searched.min, searched.max, sampling=sampling)

    def values_of(self, hp: keras_tuner.HyperParameters) -> dict[str, Any]:
        """The searched fields as they stand in a spec."""
        values: dict[str, Any] = {}
        for path, searched in self.search.space.items():
            value = hp.values[path]
            if isinstance(searched, Choice):
                values[path] = json.loads(value)
            elif isinstance(searched, Boolean):
                values[path] = bool(value)
            elif isinstance(searched, IntRange):
                values[path] = int(value)
            else:  # all digits that survive the way to a worker
                values[path] = float(f"{value:.6g}")
        return values

    def own_values(self) -> dict[str, Any] | None:
        """The spec's own values as KerasTuner holds them; None if they are not in the space."""
        own: dict[str, Any] = {}
        for path, searched in self.search.space.items():
            value, *others = values_at(self.spec, path)
            if any(other != value for other in others):
                return None
            if isinstance(searched, Choice):
                known = value in searched.values
            elif isinstance(searched, Boolean):
                known = isinstance(value, bool)
            elif isinstance(searched, IntRange):
                known = value in range(searched.min, searched.max + 1, searched.step)
            else:
                known = searched.min <= value <= searched.max
            if not known:
                return None
            own[path] = json.dumps(value) if isinstance(searched, Choice) else value
        return own

    def spec_of(self, hp: keras_tuner.HyperParameters) -> Spec:
        """The spec of a trial.

        Raises:
            SpecError: these values do not go together.
        """
        spec = with_values(self.spec, self.values_of(hp))
        if self.epochs is None:
            return spec
        training = spec.training.model_copy(update={"epochs": self.epochs})
        return spec.model_copy(update={"training": training})

    def build(
        self, hp: keras_tuner.HyperParameters, folder: Path, watch: "TrialWatch"
    ) -> keras.Model:
        """Make what `denoise train` would train with these values.

        Args:
            hp: values of the searched fields.
            folder: of the trial; a checkpoint in it is gone on from.
            watch: is told how training goes.

        Raises:
            Infeasible: they are not to be trained.
        """
        self.facts = {}
        try:
            spec = self.spec_of(hp)
        except SpecError as error:
            raise Infeasible(str(error)) from error
        described = describe(spec)
        self.facts |= {"macs": described.macs, "parameters": float(described.parameters)}
        caps = (("max_macs", self.search.max_macs), ("max_parameters", self.search.max_parameters))
        for (name, cap), found in zip(caps, self.facts.values(), strict=True):
            if cap is not None and found > cap:
                raise Infeasible(f"{found:,.0f} is above {name} {cap:,.0f}")
        keras.utils.set_random_seed(spec.training.seed)
        self.trainer = Trainer(spec, open_batches(self.data, spec), folder, watch, self.devices)
        if self.trainer.checkpoint.exists():
            self.trainer.resume()
        return self.trainer.task

    def fit(
        self, hp: keras_tuner.HyperParameters, model: keras.Model, *args: Any, **kwargs: Any
    ) -> dict[str, float]:
        """Train what `build` has built, for as many epochs as Hyperband wants of it.

        Returns:
            Figures of the validation at the epoch with the best objective.

        Raises:
            DenoiseError: training went wrong, or the objective was never measured.
        """
        watch, state = self.trainer.observer, self.trainer.state
        if watch.until is None or state.epoch < watch.until:
            with suppress(_Enough):
                self.trainer.fit()
        name, best = self.search.objective, max if self.search.direction == "max" else min
        rows = [row for row in state.history if name in row]
        if not rows:
            raise DenoiseError(f"no epoch has measured {name}")
        row = best(rows, key=lambda row: row[name])
        figures = {key: value for key, value in row.items() if key.startswith("val_")}
        return figures | {"epochs": float(len(state.history))}


class _Enough(Exception):
    """Hyperband wants no more epochs of a trial for now."""


class TrialWatch:
    """Observes the training of a trial; ends it when time is up, or Hyperband has seen enough."""

    def __init__(
        self, name: str, until: int | None, stop: threading.Event, observer: SearchObserver
    ):
        self.name, self.until, self.stop, self.observer = name, until, stop, observer
        self.epochs = self.steps = 0

    def on_message(self, text: str) -> None:
        """Say that a trial goes on, and the like."""
        self.observer.on_message(f"trial {self.name}: {text}")

    def on_train_begin(self, epochs: int, steps: int, epoch: int) -> None:
        """Training begins."""
        self.epochs, self.steps = self.until or epochs, steps

    def on_batch_end(self, epoch: int, step: int, logs: dict[str, float]) -> None:
        """A batch is done."""
        if self.stop.is_set():
            raise Stopped("time is up")
        self.observer.progress(
            self.name,
            f"epoch {epoch + 1} of {self.epochs}, step {step} of {self.steps}, "
            f"loss {logs['loss']:.4f}",
        )

    def on_epoch_end(self, row: dict[str, Any], *, best: bool) -> None:
        """An epoch is done and saved."""
        if row["epoch"] == self.until:
            raise _Enough
