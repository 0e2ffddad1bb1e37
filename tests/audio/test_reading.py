import os
import re
import struct
import sys
from contextlib import suppress
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from helpers import verbatim_flac

from denoisecli.audio import files as audio
from denoisecli.audio import reading, riff
from denoisecli.audio.reading import reader
from denoisecli.audio.riff import sound_layout
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


@pytest.mark.parametrize("suffix", ["wav", "w64", "rf64", "aiff", "au", "caf"])
@pytest.mark.parametrize("missing", [1, 2, 3, 5, 6, 7])
def test_the_last_bytes_are_missing(tmp_path, suffix, missing):
    path = tmp_path / f"x.{suffix}"
    soundfile.write(path, np.full((200, 2), 0.5), 32000, "PCM_24")
    path.write_bytes(path.read_bytes()[:-missing])
    with pytest.raises(AudioError, match="is cut off"):
        audio.read(path)


@pytest.mark.parametrize("missing", [1, 60, 5000])
def test_a_cut_off_alac(tmp_path, noise, missing):
    path = tmp_path / "x.caf"
    soundfile.write(path, noise(1, 48000), 48000, "ALAC_16")
    expected = soundfile.read(path, dtype="float32")[0]
    path.write_bytes(path.read_bytes()[:-missing])
    try:
        np.testing.assert_array_equal(audio.read(path)[0][0], expected)
    except AudioError as error:
        assert re.search("is cut off|is damaged", str(error))
    else:
        assert missing == 1  # of what pads the last packet


def test_text_is_no_sound_whatever_its_suffix(tmp_path):
    for suffix in ("au", "snd", "wav", "aiff", "vox"):
        path = tmp_path / f"x.{suffix}"
        path.write_bytes(b"This is no sound, but text.\n" * 20)
        with pytest.raises(AudioError, match="is damaged"), reader(path, keep_readable=True):
            pass


def test_aiff_whose_sample_rate_is_out_of_range(tmp_path):
    path = tmp_path / "x.aiff"
    soundfile.write(path, np.full(1000, 0.5), 32000)
    content = bytearray(path.read_bytes())
    at = content.index(b"COMM") + 16
    for exponent in (0x7FFF, 0x7F00, 0x0001, 0xFFFF):
        content[at : at + 2] = exponent.to_bytes(2, "big")
        path.write_bytes(content)
        try:
            audio.read(path)
        except AudioError as error:
            assert "is damaged" in str(error)


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


def test_joined_mp3_files_with_tags_between_them(written):
    path = written("mp3")
    tag = b"ID3\4\0\0\0\0\1\0" + b"TIT2\0\0\0\5\0\0\3Wind" + bytes(113)
    path.write_bytes((tag + path.read_bytes()) * 3)
    assert audio.read(path)[0].shape[1] == pytest.approx(12 * 48000, abs=15_000)


def whole(path):
    with reader(path) as file:
        return np.concatenate(list(file), axis=1), file.warnings


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT", "MS_ADPCM"])
@pytest.mark.parametrize("container", ["WAV", "RF64"])
@pytest.mark.parametrize("seconds", [0, 1])
def test_all_sound_is_read_when_the_header_states_too_little(
    tmp_path, noise, subtype, container, seconds
):
    """A recorder that lost power leaves the size with which it began, or an old one."""
    if (container, subtype) == ("RF64", "MS_ADPCM"):
        pytest.skip("libsndfile cannot write it")
    if (subtype, seconds) == ("MS_ADPCM", 1):
        seconds = 0.9  # whole blocks
    path = tmp_path / "x.wav"
    soundfile.write(path, noise(4, 48000), 48000, subtype, format=container)
    expected = soundfile.read(path, dtype="float32")[0]
    content = path.read_bytes()
    layout = sound_layout(path)
    stated = int(min(layout.stated, seconds * layout.byte_rate)) // layout.frame_bytes
    width = struct.calcsize(layout.size_format)
    size = (stated * layout.frame_bytes).to_bytes(width, "little")
    # Without the chunks that libsndfile writes behind the sound.
    content = content[: layout.start + layout.stated]
    path.write_bytes(content[: layout.size_at] + size + content[layout.size_at + width :])
    sound, warnings = whole(path)
    np.testing.assert_array_equal(sound[0], expected)
    assert f"x.wav states {seconds:.1f} s of sound; all 4" in warnings[0]


@pytest.mark.parametrize(
    "behind",
    [
        pytest.param(struct.pack("<4sI", b"id3 ", 20_000) + b"\x7f" * 15_000, id="cut"),
        pytest.param(
            struct.pack("<4sI", b"LIST", 21)
            + b"INFO"
            + bytes(17)
            + struct.pack("<4sI", b"_PMX", 9000)
            + b"\x7f" * 9000,
            id="not padded",
        ),
        pytest.param(struct.pack("<4sI", b"AbCd", 9000) + b"\x7f" * 9001, id="of another program"),
    ],
)
@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24"])
def test_chunks_behind_the_sound_are_no_sound(tmp_path, noise, subtype, behind):
    """Even where they are damaged, and where an odd size of the sound is not padded."""
    path = tmp_path / "x.wav"
    soundfile.write(path, noise(1, 16001)[:16001], 16001, subtype)
    expected = soundfile.read(path, dtype="float32")[0]
    layout = sound_layout(path)
    path.write_bytes(path.read_bytes()[: layout.start + layout.stated] + behind)
    sound, _ = whole(path)
    np.testing.assert_array_equal(sound[0], expected)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 6, 7, 8, 5000])
def test_what_lies_behind_the_sound_of_a_w64_is_no_sound(tmp_path, noise, size):
    """Padding to eight bytes, or a chunk."""
    path = tmp_path / "x.w64"
    for timesteps in range(5000, 5008):
        soundfile.write(path, noise(1, 8000)[:timesteps], 8000, "PCM_U8")
        expected = soundfile.read(path, dtype="float32")[0][:timesteps]
        content = path.read_bytes()[: sound_layout(path).start + timesteps]
        content += bytes(-len(content) % 8)
        if size > 8:  # of the GUID of a list of levels
            guid = b"levl" + bytes.fromhex("f3ac d311 8cd1 00c0 4f8e db8a")
            content += guid + struct.pack("<Q", 24 + size) + b"\x7f" * size
        content = content[:16] + struct.pack("<Q", len(content)) + content[24:]
        path.write_bytes(content)
        sound, warnings = whole(path)
        np.testing.assert_array_equal(sound[0], expected)
        assert not warnings


@pytest.mark.parametrize("excess", [44, 36])
@pytest.mark.parametrize("channels", [1, 2, 6])
def test_size_that_counts_the_header(tmp_path, rng, excess, channels):
    path = tmp_path / "x.wav"
    steps = rng.integers(-(2**15), 2**15, (1000, channels)).astype(np.int16)
    soundfile.write(path, steps, 8000)
    content = bytearray(path.read_bytes())
    at = content.index(b"data") + 4
    content[at : at + 4] = (len(steps.tobytes()) + excess).to_bytes(4, "little")
    path.write_bytes(content)
    sound, warnings = whole(path)
    np.testing.assert_array_equal(sound * 2**15, steps.T)
    assert "includes the header itself" in warnings[0]


def test_rf64_with_another_sample_count_is_read_by_its_size(written):
    path = written("rf64")
    expected, _ = whole(path)
    content = bytearray(path.read_bytes())
    at = content.index(b"ds64") + 24
    for count in (5, 10**7):
        content[at : at + 8] = count.to_bytes(8, "little")
        path.write_bytes(content)
        np.testing.assert_array_equal(whole(path)[0], expected)


@pytest.mark.parametrize("junk", [b"TAG" + bytes(125), bytes(range(256)) * 20, b"\n"])
def test_bytes_behind_the_sound(written, junk):
    for suffix in ("wav", "flac"):
        path = written(suffix)
        expected, _ = whole(path)
        path.write_bytes(path.read_bytes() + junk)
        sound, warnings = whole(path)
        np.testing.assert_array_equal(sound, expected)
        assert bool(warnings) == (suffix == "wav" and len(junk) > 128)


def test_equal_seconds_are_told_apart_in_samples(written):
    path = written("wav")
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(AudioError, match="191999 samples can be read of the 192000 samples"):
        audio.read(path)


@pytest.mark.parametrize("suffix", ["ogg", "opus"])
def test_chained_ogg(written, suffix):
    path = written(suffix)
    expected, _ = whole(path)
    content = path.read_bytes()
    path.write_bytes(content * 3)
    assert audio.probe(path).frames == 3 * 4 * 48000
    np.testing.assert_array_equal(whole(path)[0], np.tile(expected, 3))
    path.write_bytes((content * 3)[:-1000])
    with pytest.raises(AudioError, match=r"is cut off|is damaged"):
        audio.read(path)


def test_one_link_of_a_chain_is_open_at_a_time(tmp_path, noise, monkeypatch):
    """There may be more of them than files may be open."""
    path, count = tmp_path / "x.ogg", 0
    soundfile.write(path, noise(0.2, 48000), 48000)
    path.write_bytes(path.read_bytes() * 20)
    open_at_once = []

    class Counted(riff.FileSlice):
        def __init__(self, *arguments):
            nonlocal count
            super().__init__(*arguments)
            count += 1
            open_at_once.append(count)

        def close(self):
            nonlocal count
            count -= not self.closed
            super().close()

    monkeypatch.setattr(reading, "FileSlice", Counted)
    assert audio.read(path)[0].shape[1] == 20 * 9600
    assert len(open_at_once) == 40
    assert max(open_at_once) == 1
    assert count == 0


@pytest.mark.parametrize("suffix", ["ogg", "opus"])
@pytest.mark.parametrize("size", [27, 60, 400, 2000])
def test_chained_ogg_that_breaks_off_in_a_header(tmp_path, noise, suffix, size):
    path = tmp_path / f"x.{suffix}"
    soundfile.write(path, noise(0.2, 48000), 48000, **KINDS[suffix])
    content = path.read_bytes()
    expected, _ = whole(path)
    path.write_bytes(content + content[:size])
    with pytest.raises(AudioError, match=r"is cut off|is damaged"):
        audio.read(path)
    with reader(path, keep_readable=True) as file:
        sound = np.concatenate(list(file), axis=1)
        assert "is cut off" in file.problem or "is damaged" in file.problem
    np.testing.assert_array_equal(sound[:, : expected.shape[1]], expected)


def test_chained_ogg_with_a_damaged_link(tmp_path, noise):
    path = tmp_path / "x.ogg"
    soundfile.write(path, noise(0.2, 48000), 48000)
    content = path.read_bytes()
    damaged = content[:28] + bytes(30) + content[58:]
    path.write_bytes(content + damaged + content)
    with pytest.raises(AudioError, match="is damaged: recording 2 of its 3 cannot be opened"):
        audio.read(path)


def test_chained_ogg_of_different_kinds(written, tmp_path, noise):
    path = written("ogg")
    soundfile.write(tmp_path / "y.ogg", noise(1, 16000), 16000)
    path.write_bytes(path.read_bytes() + (tmp_path / "y.ogg").read_bytes())
    with pytest.raises(AudioError, match="is a chain of recordings with different sample rates"):
        audio.read(path)


@pytest.mark.parametrize("kind", ["webm", "m4a", "avi", "flac-in-ogg", "mp3-in-wav", "caf"])
@pytest.mark.parametrize("suffix", ["wav", "mp3", "unknown"])
def test_the_content_chooses_the_decoder(tmp_path, speech, kind, suffix):
    container, codec = {
        "webm": ("webm", "libopus"),
        "m4a": ("mp4", "aac"),
        "avi": ("avi", "pcm_s16le"),
        "flac-in-ogg": ("ogg", "flac"),
        "mp3-in-wav": ("wav", "libmp3lame"),
        "caf": ("caf", "adpcm_ima_qt"),
    }[kind]
    path = tmp_path / f"x.{suffix}"
    with av.open(str(path), "w", format=container) as file:
        if codec not in av.codec.codecs_available:
            pytest.skip(f"this FFmpeg has no {codec}")
        stream = file.add_stream(codec, rate=48000, layout="mono")
        steps = np.int16(32767 * speech(2, 48000))[None]
        frame = av.AudioFrame.from_ndarray(steps, format="s16", layout="mono")
        frame.sample_rate, frame.pts = 48000, 0
        size = stream.frame_size or 960
        resampler = av.AudioResampler(stream.format, "mono", 48000, frame_size=size)
        for part in [*resampler.resample(frame), *resampler.resample(None)]:
            file.mux(stream.encode(part))
        file.mux(stream.encode(None))
    sound, _ = whole(path)
    assert sound.shape[1] == pytest.approx(2 * 48000, abs=3000)
    assert np.std(sound) == pytest.approx(np.std(speech(2, 48000)), rel=0.1)


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
    with (
        pytest.raises(AudioError, match=r"at 0\.750 s"),
        reader(path, block_frames=1000) as file,
    ):
        list(file)


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


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24"])
@pytest.mark.parametrize("container", ["AIFF", "W64", "AU"])
@pytest.mark.parametrize("frames", [0, 10_000])
def test_all_sound_of_other_formats_is_read_when_the_header_states_too_little(
    tmp_path, rng, subtype, container, frames
):
    path = tmp_path / f"x.{container.lower()}"
    soundfile.write(path, 0.1 * rng.standard_normal((20_000, 2)), 8000, subtype)
    expected = soundfile.read(path, dtype="float32")[0]
    content = bytearray(path.read_bytes())
    size = frames * 2 * int(subtype[4:]) // 8
    marks = {"AIFF": (b"SSND", 4, 8, 4), "W64": (b"data", 16, 24, 8), "AU": (b".snd", 8, 0, 4)}
    mark, offset, counted, width = marks[container]
    at = content.index(mark) + offset
    order = "little" if container == "W64" else "big"
    content[at : at + width] = ((size + counted) if size else 0).to_bytes(width, order)
    path.write_bytes(content)
    sound, _ = whole(path)
    np.testing.assert_array_equal(sound.T, expected)


def test_bytes_behind_the_sound_of_a_w64_are_no_sound(written):
    path = written("w64")
    expected, _ = whole(path)
    path.write_bytes(path.read_bytes() + b"junk" * 50)
    sound, warnings = whole(path)
    np.testing.assert_array_equal(sound, expected)
    assert "200 bytes of unknown data after the audio" in warnings[0]


def test_aac_named_mp3(tmp_path, speech):
    av = pytest.importorskip("av")
    path = tmp_path / "x.mp3"
    sound = speech(1.0, 48000)
    with av.open(str(path), "w", format="adts") as container:
        stream = container.add_stream("aac", rate=48000, layout="mono")
        frame = av.AudioFrame.from_ndarray(sound[None], format="flt", layout="mono")
        frame.sample_rate = 48000
        for part in (frame, None):
            container.mux(stream.encode(part))
    tag = b"ID3\4\0\0\0\0\0\x0a" + bytes(10)
    for content in (path.read_bytes(), tag + path.read_bytes()):
        path.write_bytes(content)
        with reader(path) as file:
            assert sum(block.shape[1] for block in file) == pytest.approx(sound.size, abs=2048)


def test_bw64_is_read_as_rf64(tmp_path, noise):
    """ITU-R BS.2088 gives RF64 another name."""
    path, sound = tmp_path / "x.wav", noise(0.5, 16000)
    soundfile.write(path, sound, 16000, format="RF64")
    content = path.read_bytes()
    assert content.startswith(b"RF64")
    for stated in (content, content[:-3000]):
        path.write_bytes(b"BW64" + stated[4:])
        with reader(path, keep_readable=True) as file:
            found = np.concatenate(list(file), axis=1)
            assert file.info.sample_rate == 16000
        assert found.shape[1] == sound.size - (len(content) - len(stated)) // 2
        np.testing.assert_allclose(found[0], sound[: found.shape[1]], atol=1e-4)


def test_a_caf_that_was_written_to_a_pipe(tmp_path, noise):
    """Its size is -1: up to the end of the file (Core Audio Format, Audio Data chunk)."""
    path, sound = tmp_path / "x.caf", noise(0.5, 16000)
    soundfile.write(path, sound, 16000)
    content = path.read_bytes()
    size_at = content.index(b"data") + 4
    path.write_bytes(content[:size_at] + b"\xff" * 8 + content[size_at + 8 :])
    with reader(path) as file:
        np.testing.assert_allclose(np.concatenate(list(file), axis=1)[0], sound, atol=1e-4)


@pytest.mark.parametrize("bits", [4, 8, 12, 16, 20, 24])
@pytest.mark.parametrize("frames", [1, 4095, 9000])
def test_flac_of_every_depth(tmp_path, rng, bits, frames):
    path = tmp_path / "x.flac"
    steps = rng.integers(-(2 ** (bits - 1)), 2 ** (bits - 1), frames)
    path.write_bytes(verbatim_flac(steps, bits, 48000))
    np.testing.assert_array_equal(audio.read(path)[0][0] * 2 ** (bits - 1), steps)


@pytest.mark.parametrize("frames", [4096, 9000, 48000])
def test_alac_as_ffmpeg_stores_it_in_caf(tmp_path, noise, frames):
    path, sound = tmp_path / "x.caf", noise(1, 48000)[:frames]
    with av.open(str(path), "w", format="caf") as container:
        stream = container.add_stream("alac", rate=48000, layout="mono")
        steps = np.round(sound * 2**15).astype(np.int16)
        for start in range(0, frames, 4096):
            part = steps[None, start : start + 4096]
            frame = av.AudioFrame.from_ndarray(part, format="s16p", layout="mono")
            frame.sample_rate, frame.pts = 48000, start
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    found = audio.read(path)[0][0]
    np.testing.assert_allclose(found[:frames], steps / 2**15, atol=1e-6)
    assert found.size == frames


@pytest.mark.parametrize("family", [1, 255])
def test_channels_of_opus_without_positions_keep_their_order(tmp_path, family):
    """RFC 7845, section 5.1.1: family 1 is surround sound, family 255 has no positions."""
    path, timesteps = tmp_path / "x.opus", np.arange(48000) / 48000
    tones = 200 * np.arange(1, 7)
    sound = 0.1 * np.sin(2 * np.pi * tones[:, None] * timesteps).astype(np.float32)
    with av.open(str(path), "w") as container:
        options = {"mapping_family": str(family), "b": "600k"}
        stream = container.add_stream("libopus", rate=48000, layout="5.1", options=options)
        frame = av.AudioFrame.from_ndarray(
            sound.T.reshape(1, -1).copy(), format="flt", layout="5.1"
        )
        frame.sample_rate = 48000
        for part in (frame, None):
            container.mux(stream.encode(part))
    with reader(path) as file:
        found = np.concatenate(list(file), axis=1)[:, 4800:43200]
        assert file.info.mask == (63 if family == 1 else 0)
    loudest = np.abs(np.fft.rfft(found * np.hanning(found.shape[1]))).argmax(axis=1)
    wanted = [0, 1, 2, 4, 5] if family == 1 else range(6)  # coders cut off the bass channel
    hertz = loudest * 48000 / found.shape[1]
    np.testing.assert_allclose(hertz[list(wanted)], tones[list(wanted)], atol=3)


@pytest.mark.parametrize("suffix", [*KINDS, "caf", "m4a", "mkv", "webm", "ts", "aac"])
def test_damaged_files_are_read_or_refused_with_a_message(tmp_path, noise, suffix):
    """Whatever bytes are changed, nothing but the project's own errors is raised."""
    path = tmp_path / f"x.{suffix}"
    sound = noise(0.4, 48000)
    if suffix in KINDS or suffix == "caf":
        soundfile.write(path, np.stack([sound] * 2).T, 48000, **KINDS.get(suffix, {}))
    else:
        container = {"aac": "adts", "ts": "mpegts", "mkv": "matroska", "m4a": "ipod"}
        codec = "libopus" if suffix in ("webm", "mkv") else "aac"
        with av.open(str(path), "w", format=container.get(suffix, suffix)) as output:
            stream = output.add_stream(codec, rate=48000, layout="mono")
            frame = av.AudioFrame.from_ndarray(sound[None], format="flt", layout="mono")
            frame.sample_rate = 48000
            for part in (frame, None):
                output.mux(stream.encode(part))
    content = path.read_bytes()
    rng = np.random.default_rng(len(content))
    for number in range(40):
        damaged = bytearray(content[: rng.integers(20, len(content))] if number % 4 else content)
        for _ in range(number % 5):  # mostly in the header
            damaged[int(len(damaged) ** rng.uniform()) - 1] = rng.integers(256)
        path.write_bytes(damaged)
        with suppress(AudioError), reader(path) as file:
            assert sum(block.shape[1] for block in file) > 0
