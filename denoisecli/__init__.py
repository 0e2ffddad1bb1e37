"""Remove noise from recordings, and train the networks that do it.

>>> from denoisecli import Denoiser
>>> cleaned = Denoiser().clean(audio, sample_rate)  # doctest: +SKIP

The rooms, each of which imports only from those below it:

- ``cli``: the commands, their messages and progress displays
- ``adaptation``: from the user's noise to a model that knows it
- ``tuning``: the search for better hyperparameters of a spec
- ``training``: from a spec and a dataset to a model folder
- ``serving``: the page and the HTTP API that clean recordings
- ``live``: a microphone through a model to a loudspeaker or a virtual microphone
- ``evaluation``: metrics and reports of models and other denoisers
- ``cleaning``: noisy recordings in, clean ones out; ``datasets``: recordings to stored pairs
- ``models``: the U-Net, its layers, its ONNX export, the model folder and the bundled models
- ``audio``: recordings, resampling, STFT; ``spec``: the JSON spec of a model
- ``system``: files, locks, processes, signals, optional packages
- ``errors``, ``types``: the exceptions that users see, and the types of arrays
"""

from importlib import import_module

TYPE_CHECKING = False  # as type checkers understand it: importing typing takes time
if TYPE_CHECKING:
    from denoisecli.adaptation.adapt import adapt
    from denoisecli.cleaning.denoiser import Denoiser
    from denoisecli.cleaning.file import CleanResult, FileOptions
    from denoisecli.errors import DenoiseError

__all__ = ["CleanResult", "DenoiseError", "Denoiser", "FileOptions", "adapt"]

_HOMES = {
    "adapt": "denoisecli.adaptation.adapt",
    "CleanResult": "denoisecli.cleaning.file",
    "DenoiseError": "denoisecli.errors",
    "Denoiser": "denoisecli.cleaning.denoiser",
    "FileOptions": "denoisecli.cleaning.file",
}


def __getattr__(name: str) -> object:
    """Import a public name on its first use, so that importing the package takes no time."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
