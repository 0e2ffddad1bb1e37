import subprocess
import sys

import numpy as np
import pytest
from helpers import constant_mask

import denoisecli


def test_public_names_are_there(model_folder, speech):
    for name in denoisecli.__all__:
        assert getattr(denoisecli, name).__name__ == name
    sound = speech(1, 16000)
    cleaned = denoisecli.Denoiser(model_folder(constant_mask(0.5))).clean(sound, 16000)
    np.testing.assert_allclose(cleaned, sound / 2, atol=1e-5)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = denoisecli.nothing


def test_the_package_itself_imports_nothing():
    program = "import denoisecli, sys; print(*sys.modules)"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert not {"numpy", "onnxruntime", "soundfile"} & set(result.stdout.split())
