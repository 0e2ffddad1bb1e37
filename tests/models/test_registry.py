import sys
from pathlib import Path

import keras
import pytest

from denoisecli.errors import ModelError
from denoisecli.models import registry
from denoisecli.models.catalogue import load_spec
from denoisecli.models.registry import build_model, load_network
from denoisecli.spec.document import Spec


def test_every_class_of_the_spec_can_be_built() -> None:
    named, _ = Spec.model_json_schema()["properties"]["model"]["anyOf"]
    assert set(registry.CLASSES) == set(named["enum"])
    assert type(build_model(load_spec("tiny"))).__name__ == "UNet"


def test_load_network_registers_the_classes_with_keras(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keras.utils.set_random_seed(0)
    network = build_model(load_spec("tiny"))
    network.save(tmp_path / "model.keras")
    # As in a new process.
    monkeypatch.delitem(keras.saving.get_custom_objects(), "denoise>UNet")
    monkeypatch.delitem(sys.modules, "denoisecli.models.unet")
    loaded = load_network(tmp_path / "model.keras")
    assert type(loaded).__name__ == "UNet"
    assert float(loaded.weights[0][0, 0, 0, 0]) == float(network.weights[0][0, 0, 0, 0])


def test_networks_that_cannot_be_loaded(tmp_path: Path) -> None:
    path = tmp_path / "model.keras"
    with pytest.raises(ModelError, match=r"model\.keras cannot be loaded"):
        load_network(path)
    path.write_bytes(b"PK")
    with pytest.raises(ModelError, match=r"model\.keras cannot be loaded"):
        load_network(path)
    # A layer that would run the code of a stranger.
    code = keras.layers.Lambda(lambda x: x + 1, output_shape=(2,))
    keras.Sequential([keras.Input((2,)), code]).save(path)
    with pytest.raises(ModelError, match=r"(?s)cannot be loaded: .*[Ll]ambda"):
        load_network(path)
