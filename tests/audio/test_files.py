from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr

from denoisecli.audio import files
from denoisecli.audio.files import find_audio, probe, read, read_mono, write
from denoisecli.audio.formats import FORMATS
from denoisecli.audio.reading import AudioInfo
from denoisecli.errors import UsageError

LOSSLESS = [
    ("wav", "PCM_U8", 8),
    ("wav", "PCM_16", 16),
    ("wav", "PCM_24", 24),
    ("wav", "FLOAT", 24),
    ("flac", "PCM_16", 16),
    ("flac", "PCM_24", 24),
    ("aiff", "PCM_24", 24),
    ("caf", "ALAC_16", 16),
    ("w64", "PCM_16", 16),
]


@pytest.mark.parametrize(("suffix", "subtype", "bits"), LOSSLESS)
def test_what_is_written_is_read_back_bit_by_bit(tmp_path, rng, suffix, subtype, bits):
    steps = rng.integers(-(2 ** (bits - 1)), 2 ** (bits - 1), (2, 5000))
    samples = (steps / 2 ** (bits - 1)).astype(np.float32)
    path = tmp_path / f"x.{suffix}"
    write(path, samples, 22050, subtype=subtype)
    back, sample_rate = read(path)
    assert sample_rate == 22050
    np.testing.assert_array_equal(back, samples)
    assert soundfile.info(path).subtype == subtype


@pytest.mark.parametrize("suffix", FORMATS)
def test_every_known_suffix_can_be_written_and_read(tmp_path, stereo, suffix):
    path = tmp_path / f"x{suffix}"
    write(path, stereo, 16000)
    info = probe(path)
    assert (info.sample_rate, info.channels, info.frames) == (16000, 2, 16000)
    assert info.duration == 1
    back, _ = read(path)
    assert back.shape == stereo.shape
    assert back.dtype == np.float32
    assert np.corrcoef(back.ravel(), stereo.ravel())[0, 1] > 0.98


def test_blocks_make_up_the_file(audio_file, stereo):
    path = audio_file("x.flac", stereo, subtype="PCM_24")
    with files.reader(path, block_frames=1000) as file:
        blocks = list(file)
    assert [block.shape for block in blocks] == [(2, 1000)] * 16
    np.testing.assert_array_equal(np.concatenate(blocks, axis=1), soundfile.read(path)[0].T)


def test_mono_is_the_mean_of_the_channels(audio_file, stereo):
    mono, sample_rate = read_mono(audio_file("x.wav", stereo, subtype="FLOAT"))
    np.testing.assert_allclose(mono, stereo.mean(axis=0), atol=1e-7)
    assert sample_rate == 16000


@pytest.mark.parametrize("function", [read, read_mono])
def test_a_file_is_opened_once(audio_file, stereo, monkeypatch, function):
    path, opened = audio_file("x.wav", stereo), []
    reader = files.reader

    def counted(*arguments, **options):
        opened.append(arguments)
        return reader(*arguments, **options)

    monkeypatch.setattr(files, "reader", counted)
    function(path)
    assert len(opened) == 1


def test_read_resamples(audio_file, stereo):
    path = audio_file("x.wav", stereo, 16000, "FLOAT")
    mono, sample_rate = read_mono(path, 8000)
    assert sample_rate == 8000
    np.testing.assert_allclose(mono, soxr.resample(stereo.mean(axis=0), 16000, 8000), atol=1e-6)


def test_find_audio(audio_file, stereo, tmp_path):
    for name in ("b/y.flac", "a.WAV", "b/c/z.ogg", "b/._y.flac", ".hidden/x.wav"):
        audio_file(name, stereo)
    (tmp_path / "notes.txt").write_text("no audio")
    (tmp_path / "folder.wav").mkdir()
    found = [path.relative_to(tmp_path).as_posix() for path in find_audio(tmp_path)]
    assert found == ["a.WAV", "b/c/z.ogg", "b/y.flac"]


def test_find_audio_follows_links(audio_file, stereo, tmp_path):
    audio_file("elsewhere/speech/x.wav", stereo)
    audio_file("all/noise/y.wav", stereo)
    folder = tmp_path / "all"
    (folder / "a").symlink_to("noise")  # has a path of its own
    (folder / "noise/loop").symlink_to(folder)
    (folder / "noise/gone").symlink_to("nowhere")
    (folder / "speech").symlink_to(tmp_path / "elsewhere/speech")
    (folder / "z.wav").symlink_to(tmp_path / "elsewhere/speech/x.wav")
    found = [path.relative_to(folder).as_posix() for path in find_audio(folder)]
    assert found == ["noise/y.wav", "speech/x.wav", "z.wav"]


def test_find_audio_refuses(audio_file, stereo, tmp_path):
    with pytest.raises(UsageError, match="does not exist"):
        find_audio(tmp_path / "nowhere")
    with pytest.raises(UsageError, match="no audio files"):
        find_audio(tmp_path)
    with pytest.raises(UsageError, match=r"x\.wav is a file; a folder of recordings is needed"):
        find_audio(audio_file("x.wav", stereo))


def test_info_has_the_path(audio_file, stereo):
    path = audio_file("x.wav", stereo, 16000, "PCM_24")
    assert probe(str(path)) == AudioInfo(Path(path), 16000, 2, 16000, "WAV", "PCM_24")
