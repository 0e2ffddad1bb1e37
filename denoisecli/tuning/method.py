"""The methods of a search; apart from `oracle`, so that the command line need not load it."""

from enum import StrEnum


class Method(StrEnum):
    """Method by which a search chooses values."""

    BAYESIAN = "bayesian"
    """Bayesian optimization with a Gaussian process."""

    HYPERBAND = "hyperband"
    """Successive halving: many short trials, the best of which go on (Li et al. 2018)."""

    RANDOM = "random"
