from collections.abc import Callable

import numpy as np
import pytest

from denoisecli.types import AudioChannels, AudioVector


@pytest.fixture
def stereo(speech: Callable[..., AudioVector], noise: Callable[..., AudioVector]) -> AudioChannels:
    """One second at 16 kHz: speech on the left, noise on the right."""
    return np.stack([speech(1, 16000), noise(1, 16000)])
