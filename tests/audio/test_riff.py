import struct

import numpy as np
import pytest
import soundfile

from denoisecli.audio.riff import sound_layout, walk_chunks


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


def test_size_beyond_any_file(tmp_path):
    path = tmp_path / "x.w64"
    soundfile.write(path, np.zeros(1000), 8000)
    content = bytearray(path.read_bytes())
    at = sound_layout(path).size_at
    content[at : at + 8] = struct.pack("<Q", 2**64 - 1)
    path.write_bytes(content)
    layout = sound_layout(path)
    assert layout.stated > layout.available == 2000
    assert layout.trailing == 0
