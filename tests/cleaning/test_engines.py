from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
import onnxruntime
import pytest
from helpers import constant_mask

from denoisecli.cleaning.engines import KerasEngine, MaskEngine, OnnxEngine, open_engine
from denoisecli.errors import ModelError, UsageError
from denoisecli.models.folder import ModelFolder
from denoisecli.models.registry import build_model
from denoisecli.spec.document import parse_spec


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> ModelFolder:
    """A model folder as training writes it, with weights that do something."""
    folder = ModelFolder(tmp_path_factory.mktemp("trained"))
    model = build_model(
        parse_spec(
            {
                "name": "small",
                "downsampling": [{"filters": 4, "strides": [4, 1]}],
                "valley": [{"block": "recurrent", "axis": "time", "units": 4}],
                "upsampling": [{"filters": 4}],
            }
        )
    )
    for weight in model.trainable_variables:
        weight.assign(keras.random.normal(weight.shape, stddev=0.3, seed=1))
    folder.write_network(model)
    return folder


def mask_of(engine: MaskEngine, spectrum: np.ndarray) -> np.ndarray:
    return engine.submit({"spectrum": spectrum}, {}).result()["mask"]


def test_engine_takes_any_batch_and_length(
    model_folder: Callable[..., Path], rng: np.random.Generator
) -> None:
    engine = open_engine(ModelFolder(model_folder(constant_mask(0.5, -0.25))), threads=1)
    for shape in ((1, 257, 1, 2), (3, 257, 50, 2)):
        mask = mask_of(engine, rng.standard_normal(shape).astype(np.float32))
        assert mask.shape == shape
        np.testing.assert_allclose(mask, np.broadcast_to([0.5, -0.25], shape))


def test_engines_agree(trained: ModelFolder, rng: np.random.Generator) -> None:
    spectrum = rng.standard_normal((1, 257, 20, 2)).astype(np.float32)
    masks = [mask_of(open_engine(trained, engine=name), spectrum) for name in ("onnx", "keras")]
    assert masks[0].std() > 0.01
    np.testing.assert_allclose(masks[0], masks[1], atol=1e-4)


def test_auto_takes_onnx_unless_only_keras_could_have_a_gpu(
    trained: ModelFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert isinstance(open_engine(trained), OnnxEngine)
    assert isinstance(open_engine(trained, device="cpu"), OnnxEngine)
    chosen = []
    monkeypatch.setattr(KerasEngine, "__init__", lambda self, folder, **_: chosen.append(folder))
    open_engine(trained, device="gpu")
    assert chosen == [trained]


def test_missing_or_damaged_model(tmp_path: Path) -> None:
    for engine in ("onnx", "keras"):
        with pytest.raises(ModelError, match=rf"model\.{engine} does not exist; `denoise"):
            open_engine(ModelFolder(tmp_path), engine=engine)
        (tmp_path / f"model.{engine}").write_bytes(b"no network")
        with pytest.raises(ModelError, match=rf"model\.{engine} cannot be loaded"):
            open_engine(ModelFolder(tmp_path), engine=engine)


def test_options_are_checked(trained: ModelFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="no engine 'torch'; use auto, onnx, keras"):
        open_engine(trained, engine="torch")
    with pytest.raises(UsageError, match="no device 'tpu'; use auto, cpu, gpu"):
        open_engine(trained, device="tpu")
    with pytest.raises(UsageError, match="number of threads must be at least 1"):
        open_engine(trained, threads=0)


def test_gpu_must_be_there(trained: ModelFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(UsageError, match="ONNX Runtime finds no GPU: it needs CUDA"):
        open_engine(trained, engine="onnx", device="gpu")
    with pytest.raises(UsageError, match="Keras finds no GPU: it needs CUDA"):
        open_engine(trained, engine="keras", device="gpu")


def test_gpu_that_cannot_be_used(trained: ModelFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with onnxruntime-gpu where the driver is missing: built for CUDA, it takes the CPU."""
    monkeypatch.setattr(OnnxEngine, "has_gpu", staticmethod(lambda: True))
    assert not open_engine(trained, threads=2).on_gpu
    message = "ONNX Runtime cannot use the GPU: CUDA or cuDNN is missing"
    with pytest.raises(UsageError, match=message):
        open_engine(trained, engine="onnx", device="gpu")


def test_a_cuda_build_without_a_gpu_takes_the_cpu(
    trained: ModelFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There, opening a session for CUDA fails."""
    opened = onnxruntime.InferenceSession

    def session(*args: Any, providers: list[str], **options: Any) -> onnxruntime.InferenceSession:
        if "CUDAExecutionProvider" in providers:
            raise RuntimeError("CUDA failure 100: no CUDA-capable device is detected")
        return opened(*args, providers=providers, **options)

    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    monkeypatch.setattr(OnnxEngine, "has_gpu", staticmethod(lambda: True))
    assert not open_engine(trained, threads=2).on_gpu
    with pytest.raises(UsageError, match="ONNX Runtime cannot use the GPU"):
        open_engine(trained, engine="onnx", device="gpu")


@pytest.mark.parametrize("value", ["x", "-1", "1000000000"])
def test_metadata_that_makes_no_sense(trained: ModelFolder, tmp_path: Path, value: str) -> None:
    model = onnx.load(trained.onnx_path)
    del model.metadata_props[:]
    facts = {"past_frames": value, "future_frames": "1"}
    onnx.helper.set_model_props(model, facts)
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(ModelError, match=r"model\.onnx is damaged: .* in its metadata"):
        open_engine(ModelFolder(tmp_path))
