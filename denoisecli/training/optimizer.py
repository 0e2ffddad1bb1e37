"""The optimizer, its learning-rate schedule and its weight decay."""

from collections.abc import Sequence
from typing import Any

import keras
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


def make_schedule(
    training: Training, total_steps: int
) -> keras.optimizers.schedules.LearningRateSchedule:
    """Return the learning-rate schedule of a run of this many steps."""
    warmup = warmup_steps(training, total_steps)
    if training.schedule == "cosine":
        return keras.optimizers.schedules.CosineDecay(
            initial_learning_rate=0.0 if warmup else training.learning_rate,
            decay_steps=max(1, total_steps - warmup),
            alpha=training.final_learning_rate,
            warmup_target=training.learning_rate if warmup else None,
            warmup_steps=warmup,
        )
    return StableDecay(
        training.learning_rate,
        warmup,
        decay_start(training, total_steps),
        total_steps,
        1.0 if training.schedule == "constant" else training.final_learning_rate,
    )


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


class _Summed:
    """Mixin that clips the whole gradient in place of each device's part of it.

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


class _SummedAdamW(_Summed, keras.optimizers.AdamW):
    """AdamW for several TensorFlow devices."""


class _SummedMuon(_Summed, keras.optimizers.Muon):
    """Muon for several TensorFlow devices."""


def make_optimizer(
    training: Training,
    total_steps: int,
    variables: Sequence[keras.Variable] = (),
    replicas: int = 1,
) -> keras.optimizers.Optimizer:
    """Create the optimizer of a spec, with its schedule, gradient clipping and weight averaging.

    Args:
        training: Section of the spec.
        total_steps: Number of steps of the run.
        variables: Trainable variables. Matrices and kernels decay; biases, the gains and shifts of
            normalizations, and other vectors do not.
        replicas: Number of TensorFlow devices that sum up their gradients.
    """
    options: dict[str, Any] = {}
    create: type[keras.optimizers.Optimizer] = (
        _SummedAdamW if replicas > 1 else keras.optimizers.AdamW
    )
    if training.optimizer == "muon":  # it leaves all but matrices to Adam, with its own decay
        create = _SummedMuon if replicas > 1 else keras.optimizers.Muon
        options["adam_weight_decay"] = training.weight_decay
    optimizer = create(
        learning_rate=make_schedule(training, total_steps),
        weight_decay=training.weight_decay,
        global_clipnorm=training.gradient_clip / replicas,
        use_ema=training.average_decay > 0,
        ema_momentum=training.average_decay or 0.99,
        **options,
    )
    optimizer.exclude_from_weight_decay(
        # The two biases of a GRU form a matrix.
        var_list=[v for v in variables if len(v.shape) < 2 or v.name == "bias"]
    )
    if training.precision == "mixed_float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    return optimizer
