"""How weights are updated: the optimizer, its learning rate over time, what decays."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from denoisecli.spec.training import Training


class StableDecay(keras.optimizers.schedules.LearningRateSchedule):
    """Warm-up, then constant, then a straight line down (Hägele et al. 2024).

    Unlike with a cosine, how long the constant part is need not be known at the beginning.

    Args:
        learning_rate: of the constant part.
        warmup_steps: steps of the rise from 0.
        decay_start: step at which the fall begins.
        total_steps: step at which it ends.
        final: share of the learning rate that is left there.
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
        """Learning rate of a step."""
        step = ops.cast(step, "float32")
        rise = step / max(1, self.warmup_steps) if self.warmup_steps else 1.0
        fall = (step - self.decay_start) / max(1, self.total_steps - self.decay_start)
        fall = 1 - (1 - self.final) * ops.clip(fall, 0.0, 1.0)
        return self.learning_rate * ops.minimum(rise, 1.0) * fall

    def get_config(self) -> dict[str, Any]:
        """All arguments."""
        return dict(vars(self))


def make_schedule(
    training: Training, total_steps: int
) -> keras.optimizers.schedules.LearningRateSchedule:
    """The learning rate over the steps of a run, as the spec wants it."""
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
    """Steps of the warm-up, at most half of all."""
    return min(training.warmup_steps, total_steps // 2)


def decay_start(training: Training, total_steps: int) -> int:
    """The step from which on the learning rate depends on the length of the run."""
    if training.schedule == "cosine":
        return 0
    if training.schedule == "constant":
        return total_steps
    return round(total_steps * (1 - training.decay_share))


def make_optimizer(
    training: Training, total_steps: int, variables: Sequence[Any] = (), replicas: int = 1
) -> keras.optimizers.Optimizer:
    """AdamW or Muon on the spec's schedule, with gradient clipping and weight averaging.

    Args:
        training: the section of the spec.
        total_steps: length of the run.
        variables: what is trained; matrices and kernels of it decay, biases, what belongs to
            normalizations and other vectors do not.
        replicas: TensorFlow's devices that sum up their gradients.
    """
    options: dict[str, Any] = {
        "learning_rate": make_schedule(training, total_steps),
        "weight_decay": training.weight_decay,
        "global_clipnorm": training.gradient_clip / replicas,
        "use_ema": training.average_decay > 0,
        "ema_momentum": training.average_decay or 0.99,
    }
    if training.optimizer == "adamw":
        optimizer = keras.optimizers.AdamW(**options)
    else:  # which leaves all but matrices to Adam, with a weight decay of its own
        optimizer = keras.optimizers.Muon(adam_weight_decay=training.weight_decay, **options)
    optimizer.exclude_from_weight_decay(
        # A GRU has two biases, one above the other.
        var_list=[v for v in variables if len(v.shape) < 2 or v.name == "bias"]
    )
    if replicas > 1:
        _sum_before_clipping(optimizer, replicas)
    if training.precision == "mixed_float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    return optimizer


def _sum_before_clipping(optimizer: keras.optimizers.Optimizer, replicas: int) -> None:
    """Let the whole gradient be clipped, not each device's part of it.

    Every device gets the same share of the sum, which Keras clips and then sums up again.
    """
    import tensorflow as tf

    apply = optimizer.apply

    def apply_sum(grads: Sequence[Any], trainable_variables: Any = None) -> Any:
        context = tf.distribute.get_replica_context()
        total = context.all_reduce(tf.distribute.ReduceOp.SUM, list(grads))
        return apply([gradient / replicas for gradient in total], trainable_variables)

    optimizer.apply = apply_sum
