import os
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from denoisecli.audio import files as audio
from denoisecli.audio.reading import reader
from denoisecli.errors import AudioError, UsageError

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
    with pytest.raises(AudioError, match=r"has a name that is not UTF-8 text; rename the file"):
        audio.read(path)


def test_cut_off_flac_is_damaged(audio_file, noise):
    path = audio_file("x.flac", noise(5, 16000))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(AudioError, match=r"x\.flac is damaged at 0 s or later"):
        audio.read(path)


def test_unreadable_file(audio_file, stereo, monkeypatch):
    def denied(*_, **__):
        raise PermissionError(13, "Permission denied")

    path = audio_file("x.wav", stereo)
    monkeypatch.setattr(Path, "open", denied)  # a mode of 000 would not stop root
    with pytest.raises(AudioError, match=r"cannot read .*x\.wav: Permission denied"):
        audio.probe(path)


def test_file_without_samples(audio_file):
    path = audio_file("empty.wav", np.zeros((2, 0)))
    for function in (audio.probe, audio.read):
        with pytest.raises(AudioError, match=r"empty\.wav has no samples"):
            function(path)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_non_finite_samples_are_located(audio_file, stereo, value):
    stereo[1, 12000] = value
    path = audio_file("bad.wav", stereo, subtype="FLOAT")
    with pytest.raises(AudioError, match=r"bad\.wav .* at 0\.750 s, channel 2"):
        audio.read(path)
    with pytest.raises(AudioError, match=r"at 0\.750 s"):
        list(audio.read_blocks(path, frames=1000))


def test_missing_file_and_folder_are_wrong_use(tmp_path):
    with pytest.raises(UsageError, match=r"no\.wav does not exist"):
        audio.probe(tmp_path / "no.wav")
    with pytest.raises(UsageError, match="is a folder"):
        audio.read(tmp_path)


def test_text_is_no_audio(tmp_path):
    path = tmp_path / "text.wav"
    path.write_text("This is no sound at all.\n" * 100)
    for function in (audio.probe, audio.read):
        with pytest.raises(AudioError, match=r"text\.wav .*not an audio file"):
            function(path)
