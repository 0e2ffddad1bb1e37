"""User-defined losses, which a spec names as ``module:name``."""

from denoisecli.errors import UsageError
from denoisecli.spec.document import Spec
from denoisecli.system.extras import require
from denoisecli.system.references import load_reference
from denoisecli.training.losses.waveform import LOSSES


def allow_loss(reference: str) -> None:
    """Import a user-defined loss, which runs its code, and let specs name it.

    Args:
        reference: Module and name of a function that takes `Signals` and returns a tensor of shape
            (batch,), such as ``"mine:hiss"``.

    Raises:
        UsageError: There is no such function.
    """
    function = load_reference(reference)
    if not callable(function):
        raise UsageError(f"{reference} is not a function")
    LOSSES[reference] = function


def require_losses(spec: Spec) -> None:
    """Check that all losses of a spec can be computed.

    Raises:
        UsageError: The spec names a loss that `allow_loss` has not loaded, or one whose package is
            not installed.
    """
    for index, loss in enumerate(spec.training.losses):
        if loss.kind not in LOSSES:
            raise UsageError(
                f"training.losses[{index}]: {loss.kind} is code that is not part of denoise; "
                f"--loss {loss.kind} runs it"
            )
        if loss.kind == "listening_quality":
            require("dnsmos", "speechmos", purpose=f"the loss {loss.kind}")
