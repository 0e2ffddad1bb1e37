import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers import constant_mask

import denoisecli


def modules_loaded_by(program: str) -> set[str]:
    """Return the names of the top-level modules that are loaded after a program has run."""
    code = f"{program}\nimport sys; print(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_public_names_are_there(
    model_folder: Callable[..., Path], speech: Callable[..., np.ndarray]
) -> None:
    for name in denoisecli.__all__:
        assert getattr(denoisecli, name).__name__ == name
    assert {*denoisecli.__all__, "__version__"} <= set(dir(denoisecli))
    assert denoisecli.__version__[0].isdigit()
    sound = speech(1, 16000)
    cleaned = denoisecli.Denoiser(model_folder(constant_mask(0.5))).clean(sound, 16000)
    np.testing.assert_allclose(cleaned, sound / 2, atol=1e-5)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = denoisecli.nothing


def test_the_package_itself_imports_nothing() -> None:
    loaded = modules_loaded_by("import denoisecli")
    assert not {"numpy", "onnxruntime", "pydantic", "soundfile"} & loaded


def test_rooms_of_the_base_installation_load_quickly() -> None:
    """What takes long to import, or comes with an extra, is imported where it is used."""
    loaded = modules_loaded_by(
        "import importlib, pkgutil\n"
        "for room in ('audio', 'cleaning', 'cli', 'spec', 'system'):\n"
        "    room = importlib.import_module('denoisecli.' + room)\n"
        "    for module in pkgutil.walk_packages(room.__path__, room.__name__ + '.'):\n"
        "        importlib.import_module(module.name)"
    )
    assert not {"av", "keras", "librosa", "matplotlib", "onnx", "scipy", "tensorflow"} & loaded
