"""Tags between and behind the frames of MP3 files."""

import struct
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from helpers import speech_like

from denoisecli.audio.integrity import _mp3_timesteps
from denoisecli.audio.reading import reader


def ape(size: int, *, is_version_1: bool = False) -> bytes:
    """Return an APE tag with random bytes in it, as players add it behind an MP3."""
    item = struct.pack("<II", size, 2) + b"Cover Art (Front)\0"
    item += np.random.default_rng(3).bytes(size)
    length = len(item) + 32
    header, footer = (
        b"APETAGEX" + struct.pack("<IIII", 2000, length, 1, flags) + bytes(8)
        for flags in (0xA0000000, 0x80000000)
    )
    return item + footer if is_version_1 else header + item + footer


@pytest.mark.parametrize("size", [1000, 3_000_000])
def test_a_tag_behind_an_mp3_is_no_sound(tmp_path: Path, size: int) -> None:
    sound = speech_like(3, 44100)
    soundfile.write(tmp_path / "a.mp3", sound, 44100)
    content = (tmp_path / "a.mp3").read_bytes()
    for name, stored, parts in (
        ("one", content + ape(size), 1),
        ("two", content + ape(size) + content + ape(size), 2),
        ("text", content + b"no ID3, but text" * 10 + content, 2),
    ):
        path = tmp_path / f"{name}.mp3"
        path.write_bytes(stored)
        with reader(path) as file:
            found = sum(block.shape[1] for block in file)
        assert abs(found - parts * sound.size) < 4 * 1152


def test_frames_behind_a_footer_are_counted(tmp_path: Path) -> None:
    """A tag of version 1 has no header: its footer states the size of what precedes it."""
    path = tmp_path / "a.mp3"
    soundfile.write(path, speech_like(3, 44100), 44100)
    content, alone = path.read_bytes(), _mp3_timesteps(path)
    path.write_bytes(content + ape(20_000, is_version_1=True) + content)
    assert abs(_mp3_timesteps(path) - 2 * alone) <= 1152


@pytest.mark.parametrize("seconds", [0.1, 0.4, 1.0])
def test_a_variable_bit_rate_without_a_header_is_read_to_its_end(
    tmp_path: Path, seconds: float
) -> None:
    """libsndfile estimates the length of such a file from its first frame."""
    path, rate = tmp_path / "x.mp3", 16000
    sound = speech_like(seconds, rate)
    sound[sound.size // 2 :] *= np.float32(0.001)
    with av.open(str(path), "w", format="mp3", options={"write_xing": "0"}) as container:
        stream = container.add_stream("mp3", rate=rate, layout="mono")
        stream.codec_context.flags |= av.codec.context.Flags.qscale
        stream.codec_context.global_quality = 4 * 118  # FF_QP2LAMBDA
        frame = av.AudioFrame.from_ndarray(sound[None], format="fltp", layout="mono")
        frame.sample_rate = rate
        for part in (frame, None):
            container.mux(stream.encode(part))
    with reader(path) as file:
        found = np.concatenate(list(file), axis=1)
    assert found.shape[1] >= sound.size
