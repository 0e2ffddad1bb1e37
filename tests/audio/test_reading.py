import os
import sys

import numpy as np
import pytest
import soundfile

from denoisecli.audio import files as audio
from denoisecli.audio.reading import reader
from denoisecli.errors import AudioError

KINDS = {
    "wav": {},
    "w64": {},
    "rf64": {"format": "RF64"},
    "aiff": {},
    "au": {},
    "flac": {},
    "ogg": {},
    "opus": {"format": "OGG", "subtype": "OPUS"},
    "mp3": {},
}


@pytest.fixture
def written(tmp_path, noise):
    """Make ``written(suffix)``: a file of 4 s, 48 kHz, stereo."""

    def write(suffix):
        path = tmp_path / f"x.{suffix}"
        soundfile.write(path, np.stack([noise(4, 48000)] * 2).T, 48000, **KINDS[suffix])
        return path

    return write


@pytest.mark.parametrize("suffix", KINDS)
def test_whole_files_are_whole(written, suffix):
    with reader(written(suffix)) as file:
        assert sum(block.shape[1] for block in file) == file.info.frames == 4 * 48000
        assert file.problem is None


@pytest.mark.parametrize("suffix", KINDS)
@pytest.mark.parametrize("share", [0.6, 0.97])
def test_cut_off_files_are_noticed(written, suffix, share):
    path = written(suffix)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(AudioError, match=rf"x\.{suffix} is (cut off|damaged at \d s)"):
        audio.read(path)
    with reader(path, keep_readable=True) as file:
        timesteps = sum(block.shape[1] for block in file)
    assert (share - 0.15) * 4 * 48000 < timesteps < 4 * 48000
    assert file.problem is not None


@pytest.mark.parametrize("missing", [1000, 100_000])
def test_cut_off_caf(tmp_path, noise, missing):
    path = tmp_path / "x.caf"
    soundfile.write(path, noise(4, 48000), 48000)
    path.write_bytes(path.read_bytes()[:-missing])
    with pytest.raises(AudioError, match=r"cut off|damaged"):
        audio.read(path)


def test_file_cut_off_by_one_sample(written):
    path = written("wav")
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(AudioError, match="is cut off"):
        audio.read(path)


def test_wav_of_unknown_size_is_whole(written):
    """ffmpeg sets all bits of the sizes when it cannot go back to fill them in."""
    path = written("wav")
    content = bytearray(path.read_bytes())
    content[4:8] = content[40:44] = b"\xff" * 4
    path.write_bytes(content)
    assert audio.read(path)[0].shape == (2, 4 * 48000)


def test_flac_of_unknown_length_is_counted(written):
    path = written("flac")
    content = bytearray(path.read_bytes())
    content[21] &= 0xF0  # the 36 bits that count samples, in the STREAMINFO block
    content[22:26] = bytes(4)
    path.write_bytes(content)
    assert audio.probe(path).frames == 4 * 48000
    assert audio.read(path)[0].shape == (2, 4 * 48000)


def test_mp3_that_counts_no_frames(written):
    """Its bit rate varies, so libsndfile expects a wrong length and would stop early."""
    path = written("mp3")
    content = path.read_bytes()
    first = max(content.find(b"Xing"), content.find(b"Info"))
    second = content.index(content[:2], first)  # the sync word of the first frame of sound
    path.write_bytes(content[second:])
    assert soundfile.info(path).frames < 2 * 48000
    assert audio.read(path)[0].shape[1] == pytest.approx(4 * 48000, abs=5000)


def test_joined_mp3_files(written):
    """The first of them counts its own frames only."""
    path = written("mp3")
    path.write_bytes(path.read_bytes() * 3)
    assert audio.read(path)[0].shape[1] == pytest.approx(12 * 48000, abs=15_000)


def test_damage_in_the_middle(written):
    path = written("flac")
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 20_000] = bytes(20_000)
    path.write_bytes(content)
    with pytest.raises(AudioError, match=r"x\.flac is damaged at [12] s or later"):
        audio.read(path)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems know no such names")
def test_name_that_is_no_text(written, tmp_path):
    path = written("wav").rename(tmp_path / os.fsdecode(b"caf\xe9.wav"))
    with pytest.raises(AudioError, match=r"has a name that is no UTF-8 text; rename the file"):
        audio.read(path)
