"""Recordings that a model was trained on and that a test set has as well."""

from dataclasses import dataclass

from denoisecli.datasets.manifest import Manifest
from denoisecli.models.folder import Metrics


@dataclass(frozen=True)
class Leak:
    """Number of recordings of a test set that a model was trained on, as far as it is known.

    Recordings are compared by role and name, because nothing else of them is stored. A copy under
    another name is not found, and two different recordings of one name are.

    Attributes:
        known: Whether all recordings that the model was trained on are known.
        clean: Number of clean recordings of the test set with the name of one trained on.
        clean_total: Number of clean recordings of the test set.
        noise: Number of noise recordings of the test set with the name of one trained on.
        noise_total: Number of noise recordings of the test set.
    """

    known: bool
    clean: int = 0
    clean_total: int = 0
    noise: int = 0
    noise_total: int = 0


def find_leak(metrics: Metrics, tested: Manifest, trained: Manifest | None = None) -> Leak:
    """Compare the recordings that a model was trained on with those of a test set.

    Args:
        metrics: Metrics that the training recorded.
        tested: Manifest of the dataset whose test set is evaluated on.
        trained: Manifest of the dataset that the model was trained on, if it can still be read. It
            counts only for models that do not record their recordings.
    """
    if metrics.dataset == tested.id and metrics.init_from is None:
        return Leak(known=True)  # its own test set, whose recordings no training set has
    hashes = set(metrics.training_sources.split())  # with "?" for those of a start model
    if not hashes and trained is not None and trained.id == metrics.dataset:
        hashes = trained.source_hashes("train", "valid")
    if not hashes:
        return Leak(known=False)
    clean, noise = (tested.source_hashes("test", role=role) for role in ("clean", "noise"))
    return Leak("?" not in hashes, len(clean & hashes), len(clean), len(noise & hashes), len(noise))
