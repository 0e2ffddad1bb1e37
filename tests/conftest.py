"""Fixtures of generated sound and of what is built once per session.

Array shapes are checked at run time in every test.
"""

import re
import signal
import sys
from pathlib import Path

from jaxtyping import install_import_hook, jaxtyped

if "jax" not in sys.modules:  # the first use of jaxtyped imports it if it can, which takes seconds
    sys.modules["jax"] = None  # type: ignore[assignment]
    jaxtyped(lambda: None, typechecker=None)
    del sys.modules["jax"]

PACKAGE = Path(__file__).parents[1] / "denoisecli"
# Of other modules, mypy checks as much, and the hook costs time in each process and at each call.
MODULES_WITH_ARRAYS = [
    ".".join(("denoisecli", *path.relative_to(PACKAGE).with_suffix("").parts))
    for path in PACKAGE.rglob("*.py")
    if path.name != "__init__.py"
    and re.search(r"denoisecli\.types|jaxtyping", path.read_text(encoding="utf-8"))
]
install_import_hook(MODULES_WITH_ARRAYS, "beartype.beartype")

import json  # noqa: E402
from collections.abc import Callable  # noqa: E402
from typing import Any  # noqa: E402

import numpy as np  # noqa: E402
import onnx  # noqa: E402
import pytest  # noqa: E402
import soundfile  # noqa: E402
from helpers import TINY_SPEC, SilentObserver, build_once, pink_noise, speech_like  # noqa: E402

from denoisecli.types import AudioVector  # noqa: E402


def pytest_configure() -> None:
    # A shell starts programs in the background with Ctrl-C ignored, and nohup with SIGHUP ignored;
    # the processes that tests start would inherit it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20240229)


@pytest.fixture
def speech() -> Callable[..., AudioVector]:
    """Return ``speech(seconds, sample_rate)``."""
    return speech_like


@pytest.fixture
def noise(rng: np.random.Generator) -> Callable[..., AudioVector]:
    """Return ``noise(seconds, sample_rate)``."""
    return lambda seconds, sample_rate: pink_noise(seconds, sample_rate, rng)


@pytest.fixture
def audio_file(tmp_path: Path) -> Callable[..., Path]:
    """Return ``audio_file(name, audio, sample_rate, subtype=None)``, which writes to tmp_path."""

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
    """Return ``model_folder(graph, **sections of the spec)``, which writes a model folder."""

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


@pytest.fixture(scope="session")
def tiny_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a dataset of eight sines in white noise, 4 kHz, 1 s each. Do not change it."""

    def build(folder: Path) -> None:
        from denoisecli.datasets.building import build
        from denoisecli.datasets.recipe import Recipe

        rng = np.random.default_rng(0)
        t = np.arange(4000) / 4000
        for kind, count in (("clean", 8), ("noise", 4)):
            (folder / kind).mkdir()
            for number in range(count):
                sound = 0.1 * rng.normal(size=t.size)
                if kind == "clean":
                    sound = 0.2 * np.sin(2 * np.pi * 150 * (number + 1) * t)
                soundfile.write(folder / kind / f"{number}.wav", sound, 4000)
        recipe = Recipe(snr_db=(0.0, 5.0), sample_rate=4000)
        build(folder / "clean", folder / "noise", folder / "data", recipe)

    return build_once(tmp_path_factory, "tiny_dataset", build) / "data"


@pytest.fixture(scope="session")
def tiny_run(tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a finished run of TINY_SPEC on tiny_dataset. Do not change it."""

    def train(folder: Path) -> None:
        from denoisecli.spec.document import parse_spec
        from denoisecli.training.train import train

        train(parse_spec(TINY_SPEC), tiny_dataset, folder, SilentObserver())

    return build_once(tmp_path_factory, "tiny_run", train)
