"""The optimizer, its learning-rate schedule and its weight decay."""

import math
import re
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from denoisecli.spec.training import Training


class StableDecay(keras.optimizers.schedules.LearningRateSchedule):
    """Schedule with a linear warm-up, a constant part and a linear decay (Hägele et al. 2024).

    Unlike a cosine, it needs no decision at the start about the length of the constant part.

    Args:
        learning_rate: Learning rate of the constant part.
        warmup_steps: Number of steps in which the learning rate rises from 0.
        decay_start: Step at which the decay begins.
        total_steps: Step at which the decay ends.
        final: Share of the learning rate that is left at the end of the decay.
    """

    def __init__(
        self,
        learning_rate: float,
        warmup_steps: int,
        decay_start: int,
        total_steps: int,
        final: float,
    ):
        self.learning_rate = learning_rate
        self.warmup_steps = warmup_steps
        self.decay_start = decay_start
        self.total_steps = total_steps
        self.final = final

    def __call__(self, step: Any) -> Any:
        """Return the learning rate of a step."""
        step = ops.cast(step, "float32")
        rise = step / max(1, self.warmup_steps) if self.warmup_steps else 1.0
        fall = (step - self.decay_start) / max(1, self.total_steps - self.decay_start)
        fall = 1 - (1 - self.final) * ops.clip(fall, 0.0, 1.0)
        return self.learning_rate * ops.minimum(rise, 1.0) * fall

    def get_config(self) -> dict[str, float]:
        """Return the arguments of the constructor."""
        return dict(vars(self))


class Stretched(keras.optimizers.schedules.LearningRateSchedule):
    """Another schedule, whose part after the warm-up can be stretched over more or fewer steps.

    Args:
        schedule: The other schedule.
        warmup_steps: Number of its warm-up steps; at most half of all steps are left of them.
        total_steps: Number of all its steps.
    """

    def __init__(
        self,
        schedule: keras.optimizers.schedules.LearningRateSchedule,
        warmup_steps: int,
        total_steps: int,
    ):
        self.schedule = schedule
        self.warmup_steps = warmup_steps
        self.total_steps = total_steps
        self.total: keras.Variable | None = None

    def add_total(self, optimizer: keras.optimizers.Optimizer) -> None:
        """Add a variable for the total number of steps to the optimizer, which has been built.

        A variable takes no compilation when it changes.
        """
        inner = getattr(optimizer, "inner_optimizer", optimizer)  # of one that scales the loss
        self.total = inner.add_variable((), "zeros", "float32", name="total_steps")
        self.total.assign(self.total_steps)

    def stretch(self, total_steps: int | float) -> None:
        """Make the schedule end at a step; `add_total` was called."""
        assert self.total is not None
        self.total.assign(total_steps)

    def __call__(self, step: Any) -> Any:
        """Return the learning rate of a step."""
        if self.total is None:
            return self.schedule(step)
        step = ops.cast(step, "float32")
        total = ops.convert_to_tensor(self.total)
        warmup = ops.minimum(float(self.warmup_steps), total / 2)
        rising = step * (self.warmup_steps / ops.maximum(warmup, 1e-6))
        left = self.total_steps - self.warmup_steps
        later = self.warmup_steps + (step - warmup) * left / ops.maximum(total - warmup, 1.0)
        return self.schedule(ops.where(step < warmup, rising, later))

    def get_config(self) -> dict[str, Any]:
        """Return the configuration of the other schedule."""
        return self.schedule.get_config()


def fitting_variables(
    optimizer: keras.optimizers.Optimizer, arrays: Sequence[np.ndarray]
) -> tuple[list[keras.Variable], list[np.ndarray]]:
    """Return the variables of an optimizer, and the arrays of a checkpoint that belong to them.

    The last variable is that of the number of steps, which runs without a time limit lack.
    """
    variables = list(optimizer.variables)
    if abs(len(variables) - len(arrays)) == 1:
        count = min(len(variables), len(arrays))
        return variables[:count], list(arrays[:count])
    return variables, list(arrays)


def make_schedule(training: Training, total_steps: int) -> Stretched:
    """Return the learning-rate schedule of a run of this many steps."""
    warmup = warmup_steps(training, total_steps)
    planned: keras.optimizers.schedules.LearningRateSchedule
    if training.schedule == "cosine":
        planned = keras.optimizers.schedules.CosineDecay(
            initial_learning_rate=0.0 if warmup else training.learning_rate,
            decay_steps=max(1, total_steps - warmup),
            alpha=training.final_learning_rate,
            warmup_target=training.learning_rate if warmup else None,
            warmup_steps=warmup,
        )
    else:
        planned = StableDecay(
            training.learning_rate,
            warmup,
            decay_start(training, total_steps),
            total_steps,
            1.0 if training.schedule == "constant" else training.final_learning_rate,
        )
    return Stretched(planned, warmup, total_steps)


def warmup_steps(training: Training, total_steps: int) -> int:
    """Return the number of warm-up steps, at most half of all steps."""
    return min(training.warmup_steps, total_steps // 2)


def decay_start(training: Training, total_steps: int) -> int:
    """Return the step from which the learning rate depends on the length of the run."""
    if training.schedule == "cosine":
        return 0
    if training.schedule == "constant":
        return total_steps
    return round(total_steps * (1 - training.decay_share))


def is_vector(variable: keras.Variable) -> bool:
    """Return whether a variable is a bias, a gain or another vector."""
    return (
        len(variable.shape) < 2 or variable.name == "bias"
    )  # the two biases of a GRU are a matrix


class Summed:
    """Mixin that clips the whole gradient instead of each device's part of it.

    Each device gets the same share of the sum, which Keras clips and then sums up again.
    """

    def apply(
        self, grads: Sequence[Any], trainable_variables: Sequence[keras.Variable] | None = None
    ) -> Any:
        """Apply the gradients of all TensorFlow devices."""
        import tensorflow as tf

        context = tf.distribute.get_replica_context()
        total = context.all_reduce(tf.distribute.ReduceOp.SUM, list(grads))
        shares = [gradient / context.num_replicas_in_sync for gradient in total]
        return super().apply(shares, trainable_variables)  # type: ignore[misc]


class SummedAdamW(Summed, keras.optimizers.AdamW):
    """AdamW for several TensorFlow devices."""


class Muon(keras.optimizers.Muon):
    """Muon for all kernels (Jordan et al. 2024); Keras leaves those of convolutions to Adam.

    A kernel is treated as the matrix from all inputs of a convolution to its outputs. Vectors, and
    the kernels of the output layers, are left to Adam.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options, exclude_layers=["^output/", "^taps/", "^gain/"])

    def _should_use_adamw(self, variable: keras.Variable) -> bool:
        if is_vector(variable) or variable.shape[-1] == 1:
            return True
        return any(re.search(layer, variable.path) for layer in self.exclude_layers)

    def zeropower_via_newtonschulz5(self, x: Any, steps: int) -> Any:
        """Return the orthogonal matrix that is nearest to a gradient, in the gradient's shape."""
        matrix = super().zeropower_via_newtonschulz5(ops.reshape(x, (-1, x.shape[-1])), steps)
        return ops.reshape(matrix, x.shape)

    def lr_adjust(self, x: Any) -> Any:
        """Scale an update so that it is as large as one of Adam (Liu et al. 2025)."""
        *inputs, outputs = x.shape
        return x * (self.rms_rate * math.sqrt(max(math.prod(inputs), outputs)))


class SummedMuon(Summed, Muon):
    """Muon for several TensorFlow devices."""


def make_optimizer(
    training: Training,
    schedule: keras.optimizers.schedules.LearningRateSchedule,
    variables: Sequence[keras.Variable] = (),
    replicas: int = 1,
) -> keras.optimizers.Optimizer:
    """Create the optimizer of a spec, with gradient clipping and weight averaging.

    Args:
        training: Section of the spec.
        schedule: Learning rate; see `make_schedule`.
        variables: Trainable variables. Matrices and kernels decay; biases, the gains and shifts of
            normalizations, and other vectors do not.
        replicas: Number of TensorFlow devices that sum up their gradients.
    """
    options: dict[str, Any] = {}
    averaged = training.gradient_steps
    create: type[keras.optimizers.Optimizer] = (
        SummedAdamW if replicas > 1 else keras.optimizers.AdamW
    )
    if training.optimizer == "muon":
        create = SummedMuon if replicas > 1 else Muon
        options["adam_weight_decay"] = training.weight_decay
    optimizer = create(
        learning_rate=schedule,
        weight_decay=training.weight_decay,
        global_clipnorm=training.gradient_clip / replicas,
        use_ema=training.average_decay > 0,
        # Keras averages after every batch, and not only after those that change the weights.
        ema_momentum=(training.average_decay or 0.99) ** (1 / averaged),
        gradient_accumulation_steps=None if averaged == 1 else averaged,
        **options,
    )
    optimizer.exclude_from_weight_decay(var_list=[v for v in variables if is_vector(v)])
    if training.precision == "mixed_float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    return optimizer
