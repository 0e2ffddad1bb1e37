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
    from denoisecli.audio.pipe import RawFormat
    from denoisecli.cleaning.denoiser import Denoiser
    from denoisecli.cleaning.file import CleanResult, FileOptions
    from denoisecli.cleaning.stream import DenoiseStream
    from denoisecli.errors import AudioError, DenoiseError, ModelError, SpecError, UsageError

__all__ = [
    "AudioError",
    "CleanResult",
    "DenoiseError",
    "DenoiseStream",
    "Denoiser",
    "FileOptions",
    "ModelError",
    "RawFormat",
    "SpecError",
    "UsageError",
    "adapt",
]

_HOMES = {
    "adapt": "denoisecli.adaptation.adapt",
    "AudioError": "denoisecli.errors",
    "CleanResult": "denoisecli.cleaning.file",
    "DenoiseError": "denoisecli.errors",
    "DenoiseStream": "denoisecli.cleaning.stream",
    "Denoiser": "denoisecli.cleaning.denoiser",
    "FileOptions": "denoisecli.cleaning.file",
    "ModelError": "denoisecli.errors",
    "RawFormat": "denoisecli.audio.pipe",
    "SpecError": "denoisecli.errors",
    "UsageError": "denoisecli.errors",
}


def __getattr__(name: str) -> object:
    """Import a public name on its first use, so that importing the package takes no time."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    if name == "__version__":
        from importlib.metadata import version

        return version(__name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """Return the public names, which tools complete."""
    return sorted({*globals(), *__all__, "__version__"})
