"""Fixtures of generated sound; array shapes are checked at run time in every test."""

import signal
from pathlib import Path

from jaxtyping import install_import_hook

PACKAGE = Path(__file__).parents[1] / "denoisecli"
# Not denoisecli.models: Keras reads the signatures of its layers, which the hook hides.
install_import_hook(
    [f"denoisecli.{path.stem}" for path in PACKAGE.iterdir() if path.stem != "__init__"],
    "beartype.beartype",
)

import json  # noqa: E402
from collections.abc import Callable  # noqa: E402
from typing import Any  # noqa: E402

import numpy as np  # noqa: E402
import onnx  # noqa: E402
import pytest  # noqa: E402
import soundfile  # noqa: E402
from helpers import pink_noise, speech_like  # noqa: E402

from denoisecli.types import AudioVector  # noqa: E402


def pytest_configure() -> None:
    # A shell starts programs in the background with Ctrl-C ignored, and the tests of it fail.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20240229)


@pytest.fixture
def speech() -> Callable[..., AudioVector]:
    """Make ``speech(seconds, sample_rate)``."""
    return speech_like


@pytest.fixture
def noise(rng: np.random.Generator) -> Callable[..., AudioVector]:
    """Make ``noise(seconds, sample_rate)``."""
    return lambda seconds, sample_rate: pink_noise(seconds, sample_rate, rng)


@pytest.fixture
def audio_file(tmp_path: Path) -> Callable[..., Path]:
    """Make ``audio_file(name, audio, sample_rate, subtype=None)`` below tmp_path."""

    def write(
        name: str, audio: np.ndarray, sample_rate: int = 16000, subtype: str | None = None
    ) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        # soundfile itself, not denoisecli.audio.files, so that the tests have a second opinion
        soundfile.write(path, audio.T, sample_rate, subtype=subtype)
        return path

    return write


@pytest.fixture
def model_folder(tmp_path: Path) -> Callable[..., Path]:
    """Make ``model_folder(graph, **sections of the spec)``: a model folder that can clean."""

    def write(graph: onnx.GraphProto, **sections: Any) -> Path:
        folder = tmp_path / f"model{len(list(tmp_path.glob('model*')))}"
        folder.mkdir()
        level = [{"filters": 1}]
        spec = {"name": folder.name, "downsampling": level, "upsampling": level, **sections}
        (folder / "spec.json").write_text(json.dumps(spec))
        opsets = [onnx.helper.make_opsetid("", 17)]
        onnx.save(
            onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8),
            folder / "model.onnx",
        )
        return folder

    return write
