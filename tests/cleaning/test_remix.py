from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from helpers import constant_mask

from denoisecli.cleaning.denoiser import Denoiser
from denoisecli.cleaning.file import FileOptions
from denoisecli.cleaning.remix import remix_file
from denoisecli.errors import AudioError, UsageError


@pytest.fixture
def model(model_folder: Callable[..., Path]) -> Path:
    return model_folder(constant_mask(0.25))


@pytest.mark.parametrize("strength", [0.0, 0.6, 1.0])
def test_remixed_file_equals_the_one_cleaned_at_that_strength(
    tmp_path: Path,
    audio_file: Callable[..., Path],
    noise: Callable[..., np.ndarray],
    model: Path,
    strength: float,
) -> None:
    stereo = np.stack([noise(0.5, 16000), noise(0.5, 16000)])
    source = audio_file("noisy.flac", stereo, 16000)
    whole = tmp_path / "whole.w64"
    Denoiser(model).clean_file(source, whole, FileOptions(subtype="FLOAT"))
    Denoiser(model, strength=strength).clean_file(source, tmp_path / "direct.flac")

    result = remix_file(source, whole, tmp_path / "remixed.flac", strength=strength)

    direct, _ = soundfile.read(tmp_path / "direct.flac")
    remixed, rate = soundfile.read(tmp_path / "remixed.flac")
    assert (rate, result.channels) == (16000, 2)
    assert np.abs(direct - remixed).max() <= 1.01 / 2**15  # a step of rounding


def test_refuses_another_recording_and_wrong_strengths(
    tmp_path: Path, audio_file: Callable[..., Path], noise: Callable[..., np.ndarray]
) -> None:
    source = audio_file("noisy.wav", noise(0.5, 16000))
    shorter = audio_file("shorter.w64", noise(0.4, 16000), 16000, "FLOAT")
    with pytest.raises(AudioError, match="not a clean version"):
        remix_file(source, shorter, tmp_path / "out.wav")
    with pytest.raises(UsageError, match="between 0 and 1"):
        remix_file(source, source, tmp_path / "out.wav", strength=1.5)
    assert not (tmp_path / "out.wav").exists()
