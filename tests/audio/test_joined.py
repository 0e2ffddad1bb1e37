"""Recordings that were joined byte by byte, and FLAC whose header states too few samples."""

import io

import numpy as np
import pytest
import soundfile
from helpers import checksum, verbatim_flac
from mutagen.flac import FLAC

from denoisecli.audio.pipe import pipe_reader
from denoisecli.audio.reading import reader
from denoisecli.errors import AudioError

RATE = 16000
MESSAGE = "holds several recordings that were joined byte by byte"


def content(tmp_path, suffix, seconds, rng):
    path = tmp_path / f"{seconds}.{suffix}"
    soundfile.write(path, 0.1 * rng.standard_normal(round(seconds * RATE)), RATE)
    return path.read_bytes()


@pytest.mark.parametrize("suffix", ["wav", "aiff", "flac", "caf", "w64", "rf64"])
@pytest.mark.parametrize("seconds", [0.05, 0.5, 0.5001])
def test_joined_files(tmp_path, rng, suffix, seconds):
    path = tmp_path / f"joined.{suffix}"
    path.write_bytes(content(tmp_path, suffix, 0.5, rng) + content(tmp_path, suffix, seconds, rng))
    with reader(path) as file, pytest.raises(AudioError, match=MESSAGE):
        list(file)
    with reader(path, keep_readable=True) as file:
        assert sum(block.shape[1] for block in file) == RATE // 2
    assert MESSAGE in file.problem


@pytest.mark.parametrize("suffix", ["wav", "aiff", "flac"])
def test_joined_in_a_pipe(tmp_path, rng, suffix):
    joined = content(tmp_path, suffix, 0.5, rng) + content(tmp_path, suffix, 0.3, rng)
    with pytest.raises(AudioError, match=MESSAGE):
        list(pipe_reader(io.BytesIO(joined)))
    file = pipe_reader(io.BytesIO(joined), keep_readable=True)
    assert sum(block.shape[1] for block in file) == RATE // 2
    assert MESSAGE in file.problem
    one = pipe_reader(io.BytesIO(content(tmp_path, suffix, 0.5, rng)))
    assert sum(block.shape[1] for block in one) == RATE // 2


def with_total(flac, total):
    upper = bytes([flac[21] & 0xF0 | total >> 32])
    return flac[:21] + upper + (total & 0xFFFF_FFFF).to_bytes(4, "big") + flac[26:]


@pytest.mark.parametrize("behind", [b"", b"TAG" + bytes(125)])
@pytest.mark.parametrize("rate", [16000, 44100, 11025, 192000])
def test_a_flac_that_states_too_little_is_read_to_its_end(tmp_path, rng, rate, behind):
    path = tmp_path / "x.flac"
    sound = 0.1 * rng.standard_normal(40_001)
    soundfile.write(path, sound, rate)
    right = path.read_bytes()
    for stated in (1, 20_000, 40_000):
        path.write_bytes(with_total(right, stated) + behind)
        with reader(path) as file:
            back = np.concatenate(list(file), axis=1)
        np.testing.assert_allclose(back[0], sound, atol=1e-4)
        assert "states" in file.warnings[0]
    path.write_bytes(right + behind)
    with reader(path) as file:
        assert sum(block.shape[1] for block in file) == sound.size
    assert not file.warnings


def test_bytes_like_a_frame_within_one_are_no_frame(tmp_path, rng):
    sound = rng.integers(-(2**15), 2**15, 40_001).astype(np.int16)  # stored without compression
    for number in range(1, 10):  # of a frame of 32768 samples, as it would follow an actual one
        header = bytes([0xFF, 0xF8, 0xF0, 0, number])
        samples = np.frombuffer(header + bytes([checksum(header, 0x107)]), ">i2")
        sound[4096 * number - 1000 :][:3] = samples
    path = tmp_path / "x.flac"
    soundfile.write(path, sound, RATE)
    assert path.read_bytes().count(b"\xff\xf8\xf0\0") == 9
    with reader(path) as file:
        assert sum(block.shape[1] for block in file) == sound.size
    assert not file.warnings


def test_a_flac_with_a_picture_is_one_recording(tmp_path, rng):
    path = tmp_path / "x.flac"
    soundfile.write(path, 0.1 * rng.standard_normal(4000), RATE)
    file = FLAC(path)
    file["comment"] = "fLaC"
    file.save()
    with reader(path) as opened:
        assert sum(block.shape[1] for block in opened) == 4000


def test_a_flac_without_any_further_metadata(tmp_path, rng):
    """Its first block is marked as the last one."""
    content = verbatim_flac(rng.integers(-(2**15), 2**15, 9000), 16, RATE)
    path = tmp_path / "x.flac"
    with pytest.raises(AudioError, match=MESSAGE):
        list(pipe_reader(io.BytesIO(content + content)))
    for before in (b"", b"ID3\4\0\0\0\0\0\x0a" + bytes(10)):
        path.write_bytes(before + content + content)
        with reader(path) as file, pytest.raises(AudioError, match=MESSAGE):
            list(file)
        path.write_bytes(before + with_total(content, 4096))
        with reader(path) as file:
            assert sum(block.shape[1] for block in file) == 9000
        assert "states" in file.warnings[0]
        path.write_bytes(before + content)
        with reader(path) as file:
            assert sum(block.shape[1] for block in file) == 9000
        assert not file.warnings


def test_a_rate_of_zero_is_damage(tmp_path, rng):
    path = tmp_path / "x.flac"
    path.write_bytes(with_total(verbatim_flac(rng.integers(-9, 9, 9000), 16, 0), 5))
    with pytest.raises(AudioError), reader(path) as file:
        list(file)
