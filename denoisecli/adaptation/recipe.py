"""The spec of an adaptation: a short, gentle training that keeps what the model knows."""

import re

from denoisecli.spec.document import Spec
from denoisecli.spec.training import PERCEPTUAL_SAMPLE_RATE, Augmentation, Loss

SEED = 21
"""Seed of the training and of the mixtures that are compared."""


STEPS_PER_EPOCH = 50

EPOCHS_PER_MINUTE = 0.6
"""Most epochs in a minute of the whole adaptation: a faster computer finishes early.

Longer trainings lose more on other recordings than they gain on the user's.
"""

LOSSES = (
    Loss(kind="compressed_magnitude", weight=10.0),
    Loss(kind="compressed_complex", weight=8.0),
    Loss(kind="band_levels", weight=0.1),
    Loss(kind="si_sdr", weight=2.5),
    Loss(kind="perceptual", weight=1.0),
    Loss(kind="intelligibility", weight=20.0),
)
"""Losses of the bundled models, with more weight on SI-SDR, PESQ and ESTOI.

With the weights of the bundled models, 150 steps for the noise of a washing machine gained 0.53 dB
there and lost 0.04 dB on other recordings; with these they gain 0.64 and 0.05 dB.
"""


def adaptation_spec(start: Spec, name: str, minutes: float) -> Spec:
    """Return the spec of an adaptation: the network of the start, and a short gentle training.

    Args:
        start: Spec of the model that is adapted.
        name: Name of the new model; characters that no name of a spec may have become hyphens.
        minutes: Largest total time of the adaptation in minutes.
    """
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-._")[:100] or "adapted"
    given = start.training.augmentation or Augmentation()
    augmentation = given.model_copy(
        update={
            "remix": True,
            "snr_db": (-5.0, 20.0),
            "second_noise": 0.15,
            "third_noise": 0.0,
            "clean_only": 0.1,
            "noise_only": 0.02,
            "level_dbfs": (-40.0, -15.0),
            "equalization_db": 2.0,
            "speed": 0.0,
            "time_shift": True,
            "coloured_noise": 0.2,
            "hum": 0.05,
            "clicks": 0.05,
            "synthetic_noise_db": (-12.0, 12.0),
        }
    )
    training = start.training.model_copy(
        update={
            "batch_size": 4,
            "gradient_steps": 1,
            "segment_seconds": 3.0,
            "epochs": max(1, round(EPOCHS_PER_MINUTE * minutes)),  # or as many as there is time for
            "steps_per_epoch": STEPS_PER_EPOCH,
            "learning_rate": 5e-4,
            "schedule": "warmup_stable_decay",
            "warmup_steps": 10,
            "decay_share": 0.7,
            "final_learning_rate": 0.02,
            "average_decay": 0.0,
            "start_share": 0.0,  # chosen afterwards
            "fixed_normalization": True,  # little data has other statistics than speech in general
            "monitor": "val_loss",
            "perceptual_every": None,
            "early_stopping": None,
            "augmentation": augmentation,
            "losses": tuple(
                loss
                for loss in LOSSES
                if loss.kind != "perceptual" or start.stft_at(PERCEPTUAL_SAMPLE_RATE) is not None
            ),
            "seed": SEED,
        }
    )
    return start.model_copy(
        update={
            "name": name,
            "description": f"{start.name}, adapted to recordings",
            "training": training,
        }
    )
