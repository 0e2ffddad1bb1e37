import struct

import numpy as np
import pytest
import soundfile

from denoisecli.audio.riff import FileSlice, Patched, sound_layout, walk_chunks


@pytest.mark.parametrize(
    ("container", "names"),
    [
        ("WAV", [b"fmt ", b"data"]),
        ("RF64", [b"ds64", b"fmt ", b"data"]),
        ("W64", [b"fmt ", b"data"]),
        ("AIFF", [b"COMM", b"SSND"]),
    ],
)
def test_chunks_are_found_up_to_bytes_that_are_none(tmp_path, container, names):
    path = tmp_path / "x"
    soundfile.write(path, np.zeros((1000, 2)), 8000, "PCM_16", format=container)
    size = path.stat().st_size
    path.write_bytes(path.read_bytes() + bytes(100))
    with path.open("rb") as raw:
        chunks = list(walk_chunks(raw))
    assert [chunk.name for chunk in chunks] == names
    assert chunks[-1].end == size
    assert sound_layout(path).trailing == 100


@pytest.mark.parametrize("whence", [0, 1, 2])
@pytest.mark.parametrize("offset", [-(2**70), -(2**62), -11, 11, 2**62, 2**70])
def test_positions_outside_a_file_are_its_ends(tmp_path, offset, whence):
    """Damaged headers lead there, where an exception would be printed by the callback."""
    path = tmp_path / "x"
    path.write_bytes(b"0123456789")
    views = {FileSlice(path, 2, 8): b"234567", Patched(path, {1: b"x"}): b"0x23456789"}
    for view, whole in views.items():
        with view:
            view.seek(3)
            view.seek(offset, whence)
            assert view.read(100) == (whole if offset < 0 else b"")


@pytest.mark.parametrize("container", ["W64", "RF64"])
@pytest.mark.parametrize("size", [2**64 - 1, 2**64 - 10**6, 2**63, 2**62])
def test_size_beyond_any_file(tmp_path, container, size):
    path = tmp_path / "x"
    soundfile.write(path, np.zeros(1000), 8000, "PCM_16", format=container)
    content = bytearray(path.read_bytes())
    at = sound_layout(path).size_at
    content[at : at + 8] = struct.pack("<Q", size)
    path.write_bytes(content)
    layout = sound_layout(path)
    assert layout.stated > layout.available == 2000
    assert layout.trailing == 0
