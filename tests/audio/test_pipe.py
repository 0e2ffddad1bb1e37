import io
import signal
import struct

import numpy as np
import pytest
import soundfile
from helpers import constant_mask
from hypothesis import given, settings
from hypothesis import strategies as st

from denoisecli.audio import pipe
from denoisecli.audio.metadata import read_metadata
from denoisecli.audio.pipe import PipeWriter, RawFormat, pipe_reader
from denoisecli.audio.reading import reader
from denoisecli.audio.riff import KNOWN_CHUNKS
from denoisecli.cleaning.denoiser import Denoiser
from denoisecli.cleaning.file import FileOptions
from denoisecli.errors import AudioError, DenoiseError, ReaderGone, UsageError


class Pipe(io.RawIOBase):
    """Bytes that come once, in pieces, and cannot be sought in."""

    def __init__(self, content, piece=1 << 30):
        self.content = io.BytesIO(content)
        self.piece = piece

    def read(self, size=-1):
        return self.content.read(min(size, self.piece))

    def seek(self, *_):
        raise io.UnsupportedOperation("seek")


def encoded(sound, sample_rate, **options):
    file = io.BytesIO()
    soundfile.write(file, sound.T, sample_rate, **options)
    return file.getvalue()


def without_sizes(wav):
    """A WAV as ffmpeg writes it to a pipe: all bits set in the sizes."""
    data = wav.index(b"data")
    return wav[:4] + b"\xff" * 4 + wav[8 : data + 4] + b"\xff" * 4 + wav[data + 8 :]


def sound_of(reader):
    return np.concatenate(list(reader), axis=1)


@pytest.fixture
def half(model_folder):
    return Denoiser(model_folder(constant_mask(0.5)))


@pytest.fixture
def stereo(speech, noise):
    return np.stack([speech(3, 44100), noise(3, 44100)])


@pytest.mark.parametrize(
    ("container", "subtype"),
    [
        ("WAV", "PCM_16"),
        ("WAV", "PCM_24"),
        ("WAV", "FLOAT"),
        ("FLAC", "PCM_16"),
        ("AIFF", "PCM_16"),
    ],
)
@pytest.mark.parametrize("piece", [1000, 1 << 30])
def test_pipe_holds_what_a_file_holds(stereo, container, subtype, piece):
    content = encoded(stereo, 44100, format=container, subtype=subtype)
    reader = pipe_reader(Pipe(content, piece))
    assert (reader.info.sample_rate, reader.info.channels) == (44100, 2)
    assert reader.info.frames == stereo.shape[1]
    expected, _ = soundfile.read(io.BytesIO(content), dtype="float32")
    np.testing.assert_array_equal(sound_of(reader), expected.T)


def test_wav_of_unknown_length(stereo):
    reader = pipe_reader(Pipe(without_sizes(encoded(stereo, 44100, format="WAV"))))
    assert reader.info.frames == 0
    assert sound_of(reader).shape == stereo.shape


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "FLOAT", "ALAW"])
def test_wav_goes_on_behind_what_its_header_can_count(stereo, subtype, monkeypatch):
    content = encoded(stereo, 44100, format="WAV", subtype=subtype)
    expected, _ = soundfile.read(io.BytesIO(content), dtype="float32")
    data = content.index(b"data")
    title = b"LIST" + struct.pack("<I", 18) + b"INFOINAM" + struct.pack("<I", 6) + b"Birds\0"
    # A header that says 1000 bytes stands for one that says 4 GB.
    monkeypatch.setattr(pipe, "is_unknown_size", lambda size: 990 < size <= 1000)
    short = title + b"data" + struct.pack("<I", 1000)
    reader = pipe_reader(Pipe(content[:data] + short + content[data + 8 :], 4321))
    assert (reader.info.format, reader.info.subtype) == ("WAV", subtype)
    assert (reader.info.frames, reader.info.tags["title"]) == (0, "Birds")
    np.testing.assert_array_equal(sound_of(reader), expected.T)


def with_wav_size(content, size):
    data = content.index(b"data") + 4
    return content[:data] + struct.pack("<I", size) + content[data + 4 :]


def with_aiff_size(content, size):
    chunk = content.index(b"SSND") + 4
    return content[:chunk] + struct.pack(">I", size) + content[chunk + 4 :]


def as_rf64(content):
    """The header that ffmpeg writes with -rf64 always: its sizes are zero until the end."""
    data = content.index(b"data") + 4
    ds64 = b"ds64" + struct.pack("<I", 28) + bytes(28)
    head = b"RF64" + b"\xff" * 4 + b"WAVE" + ds64 + content[12:data]
    return head + b"\xff" * 4 + content[data + 4 :]


PLACEHOLDERS = {
    "ffmpeg": ("WAV", lambda content: with_wav_size(content, 2**32 - 1)),
    "arecord": ("WAV", lambda content: with_wav_size(content, 2**31)),
    "sox": ("WAV", lambda content: with_wav_size(content, 0x7FFF_F000)),
    "zero": ("WAV", lambda content: with_wav_size(content, 0)),
    "ffmpeg-rf64": ("WAV", as_rf64),
    "sox-aiff": ("AIFF", lambda content: with_aiff_size(content, 0x7F00_0008)),
    "ffmpeg-aiff": ("AIFF", lambda content: with_aiff_size(content, 0)),
    "au": ("AU", lambda content: content[:8] + b"\xff" * 4 + content[12:]),
}


@pytest.mark.parametrize("program", PLACEHOLDERS)
@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT"])
def test_placeholders_of_other_programs(stereo, program, subtype):
    container, change = PLACEHOLDERS[program]
    content = encoded(stereo, 44100, format=container, subtype=subtype, endian="FILE")
    expected, _ = soundfile.read(io.BytesIO(content), dtype="float32")
    reader = pipe_reader(Pipe(change(content), 4321))
    assert reader.info.frames == 0
    assert (reader.info.channels, reader.info.subtype) == (2, subtype)
    np.testing.assert_array_equal(sound_of(reader), expected.T)


@pytest.mark.parametrize("subtype", ["MS_ADPCM", "IMA_ADPCM", "GSM610"])
def test_compressed_wav_of_unknown_length_is_refused_at_once(speech, subtype):
    content = encoded(speech(1, 8000)[None], 8000, format="WAV", subtype=subtype)
    with pytest.raises(AudioError, match=f"is {subtype} of unknown length|its header is"):
        pipe_reader(Pipe(without_sizes(content)))


@pytest.mark.parametrize("size", [50_000, 90_001, 300_000])
@pytest.mark.parametrize("container", ["WAV", "AIFF"])
def test_large_chunks_before_the_sound_are_skipped(stereo, container, size):
    content = encoded(stereo, 44100, format=container, subtype="PCM_16")
    mark, kind = {"WAV": (b"fmt ", "<4sI"), "AIFF": (b"COMM", ">4sI")}[container]
    at = content.index(mark)
    chunk = struct.pack(kind, b"ID3 ", size) + bytes(size + size % 2)
    reader = pipe_reader(Pipe(content[:at] + chunk + content[at:], 4321))
    assert reader.info.frames == stereo.shape[1]
    expected, _ = soundfile.read(io.BytesIO(content), dtype="float32")
    np.testing.assert_array_equal(sound_of(reader), expected.T)


def test_flac_of_unknown_length(stereo):
    content = bytearray(encoded(stereo, 44100, format="FLAC"))
    content[21] &= 0xF0  # the 36 bits that count samples, in the STREAMINFO block
    content[22:26] = bytes(4)
    reader = pipe_reader(Pipe(bytes(content)))
    assert reader.info.frames == 0
    assert sound_of(reader).shape == stereo.shape


def test_raw_samples(rng):
    steps = rng.integers(-(2**15), 2**15, (1000, 3)).astype("<i2")
    reader = pipe_reader(Pipe(steps.tobytes()), RawFormat(8000, 3))
    assert (reader.info.sample_rate, reader.info.frames) == (8000, 0)
    np.testing.assert_array_equal(sound_of(reader), np.float32(steps.T) / 2**15)
    expected = "^libsndfile cannot read headerless PCM_12 of 1 channel at 8000 Hz: "
    with pytest.raises(UsageError, match=expected):
        pipe_reader(Pipe(bytes(8)), RawFormat(8000, 1, "PCM_12"))


@pytest.mark.parametrize(
    ("subtype", "endian"), [("PCM_16", "LITTLE"), ("PCM_16", "BIG"), ("FLOAT", "FILE")]
)
@pytest.mark.parametrize("name", [b"", b"N" * 60])
def test_aiff_of_either_byte_order_with_a_chunk_before_its_description(
    stereo, subtype, endian, name
):
    content = encoded(stereo, 44100, format="AIFF", subtype=subtype, endian=endian)
    expected, _ = soundfile.read(io.BytesIO(content), dtype="float32")
    chunk = b"NAME" + struct.pack(">I", len(name)) + name
    content = content[:12] + chunk + content[12:]
    size = struct.pack(">I", len(content) - 8)
    reader = pipe_reader(Pipe(content[:4] + size + content[8:]))
    np.testing.assert_array_equal(sound_of(reader), expected.T)


def test_no_sound_in_the_pipe(stereo):
    with pytest.raises(AudioError, match="standard input is empty"):
        pipe_reader(Pipe(b""))
    with pytest.raises(AudioError, match="standard input is empty"):
        pipe_reader(Pipe(b""), RawFormat(48000))
    for content in (b"no sound", encoded(stereo, 48000, format="OGG", subtype="VORBIS")):
        with pytest.raises(AudioError, match="has none of the formats that a pipe can carry"):
            pipe_reader(Pipe(content))
    with pytest.raises(AudioError, match="its header is invalid"):
        pipe_reader(Pipe(b"RIFFxxxx" + b"nonsense" * 5))


def test_cut_off_pipe(stereo):
    content = encoded(stereo, 44100, format="WAV")
    with pytest.raises(AudioError, match=r"1\.0 s can be read of the 3\.0 s"):
        sound_of(pipe_reader(Pipe(content[: 44 + 4 * 44100])))
    reader = pipe_reader(Pipe(content[: 44 + 4 * 44100]), keep_readable=True)
    assert sound_of(reader).shape == (2, 44100)
    assert "cut off" in reader.problem


class Broken(Pipe):
    """A pipe that fails after its last byte, or has nothing to give."""

    def __init__(self, content, failure):
        super().__init__(content, 10_000)
        self.failure = failure

    def read(self, size=-1):
        data = super().read(size)
        if not data and self.failure is not None:
            raise self.failure
        return data or None


@pytest.mark.parametrize("failure", [OSError(5, "Input/output error"), None])
def test_broken_pipe_is_not_the_end(stereo, failure):
    content = without_sizes(encoded(stereo, 44100, format="WAV"))
    reader = pipe_reader(Broken(content, failure))
    with pytest.raises(AudioError, match=r"cannot be read beyond 3\.0 s: "):
        sound_of(reader)
    reader = pipe_reader(Broken(content, failure), keep_readable=True)
    assert sound_of(reader).shape == stereo.shape
    assert "cannot be read beyond" in reader.problem
    with pytest.raises(AudioError, match="cannot be read: "):
        pipe_reader(Broken(b"", failure))


@pytest.mark.parametrize("kind", [{"format": "WAV"}, {"format": "FLAC"}, {"format": "AIFF"}])
@pytest.mark.parametrize("position", [0, 30, 200_000])
def test_ctrl_c_is_not_the_end_of_the_pipe(stereo, kind, position):
    """libsndfile calls Python to read, and exceptions do not pass through it."""
    content = encoded(stereo, 44100, **kind)[:position]
    for keep_readable in (False, True):
        with pytest.raises(KeyboardInterrupt):
            sound_of(pipe_reader(Broken(content, KeyboardInterrupt()), keep_readable=keep_readable))


@pytest.mark.parametrize("kind", [{"format": "WAV"}, {"format": "FLAC"}, {"format": "AIFF"}])
@pytest.mark.parametrize("sizes", [True, False])
def test_what_a_dead_writer_sent_is_kept(half, stereo, tmp_path, kind, sizes):
    content = encoded(stereo, 44100, **kind)
    if kind["format"] == "WAV" and not sizes:
        content = without_sizes(content)
    target = tmp_path / "y.wav"
    cut = Pipe(content[: len(content) // 2 + 1])
    result = half.clean_file(cut, target, FileOptions(keep_readable=True))
    assert soundfile.info(target).duration == pytest.approx(1.5, abs=0.2)
    assert result.warnings or not sizes


@pytest.mark.parametrize("subtype", PipeWriter.SUBTYPES)
def test_what_is_written_is_wav(stereo, subtype):
    stream = io.BytesIO()
    writer = PipeWriter(stream, 44100, 2, subtype)
    for start in range(0, stereo.shape[1], 10_000):
        writer.write(stereo[:, start : start + 10_000])
    assert writer.frames == stereo.shape[1]
    back, sample_rate = soundfile.read(io.BytesIO(stream.getvalue()))
    assert sample_rate == 44100
    assert soundfile.info(io.BytesIO(stream.getvalue())).subtype == subtype
    np.testing.assert_allclose(back.T, stereo, atol=2**-7 if subtype == "PCM_U8" else 2**-15)
    assert struct.unpack_from("<I", stream.getvalue(), 40) == (2**32 - 1,)


def test_writer_clamps_and_refuses():
    stream = io.BytesIO()
    writer = PipeWriter(stream, 8000, 1, "PCM_16", bare=True)
    writer.write(np.array([[2.0, -2.0, 0.5]], np.float32))
    assert writer.clipped == 2
    assert struct.unpack("<3h", stream.getvalue()) == (32767, -32768, 16384)
    with pytest.raises(UsageError, match="VORBIS cannot be written to a pipe"):
        PipeWriter(stream, 8000, 1, "VORBIS")


@pytest.mark.parametrize("raw", [None, RawFormat(16000, 2)])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"subtype": "vorbis"}, "^VORBIS cannot be written to a pipe; use one of "),
        ({"clip": "none"}, "^standard output: PCM_16 has no values beyond full scale"),
    ],
)
def test_messages_about_a_pipe_name_no_file(half, stereo, raw, options, message):
    source = encoded(stereo, 16000, format="WAV" if raw is None else "RAW", subtype="PCM_16")
    with pytest.raises(UsageError, match=message):
        half.clean_file(Pipe(source), io.BytesIO(), FileOptions(raw=raw, **options))


def test_listener_that_went_away(stereo):
    class Closed(io.RawIOBase):
        def write(self, data):
            raise BrokenPipeError(32, "Broken pipe")

    with pytest.raises(ReaderGone, match="cannot write to standard output: Broken pipe") as end:
        PipeWriter(Closed(), 8000, 1, "PCM_16")
    assert end.value.exit_code == 128 + signal.SIGPIPE


def test_cleaning_from_pipe_to_pipe(half, stereo):
    content = without_sizes(encoded(stereo, 44100, format="WAV", subtype="PCM_24"))
    stream = io.BytesIO()
    result = half.clean_file(Pipe(content), stream)
    assert str(result.source), str(result.target) == ("standard input", "standard output")
    info = soundfile.info(io.BytesIO(stream.getvalue()))
    assert (info.samplerate, info.channels, info.subtype) == (44100, 2, "PCM_24")
    back, _ = soundfile.read(io.BytesIO(stream.getvalue()))
    np.testing.assert_allclose(back.T, stereo / 2, atol=1e-5)


def test_raw_to_raw(half, speech):
    steps = np.round(32767 * speech(1, 16000)).astype("<i2")
    stream = io.BytesIO()
    half.clean_file(Pipe(steps.tobytes()), stream, FileOptions(raw=RawFormat(16000)))
    back = np.frombuffer(stream.getvalue(), "<i2")
    np.testing.assert_allclose(back, steps / 2, atol=1)


def test_raw_signed_bytes(half, speech):
    steps = np.round(100 * speech(0.5, 16000)).astype("i1")
    raw = RawFormat(16000, 1, "pcm_s8")
    for options in (
        FileOptions(raw=raw),
        FileOptions(raw=RawFormat(16000, 1, "PCM_S8"), subtype="pcm_s8"),
    ):
        stream = io.BytesIO()
        half.clean_file(Pipe(steps.tobytes()), stream, options)
        np.testing.assert_allclose(np.frombuffer(stream.getvalue(), "i1"), steps / 2, atol=1)
    with pytest.raises(UsageError, match="has no values beyond full scale"):
        half.clean_file(Pipe(bytes(8)), io.BytesIO(), FileOptions(raw=raw, clip="none"))
    with pytest.raises(UsageError, match="PCM_S8 cannot be written to a pipe"):
        PipeWriter(io.BytesIO(), 16000, 1, "PCM_S8")


def test_output_begins_before_the_input_ends(half, noise):
    """It is behind by the delay of a stream, and by no more."""
    content = encoded(noise(10, 16000)[None], 16000, format="WAV")
    stream = io.BytesIO()
    seen = []

    class Watched(Pipe):
        def read(self, size=-1):
            seen.append((self.content.tell(), len(stream.getvalue())))
            return super().read(size)

    half.clean_file(Watched(content), stream)
    behind = max(taken - given for taken, given in seen) / 2 / 16000
    assert behind < half.stream(16000).delay + 0.1


def test_a_pipe_has_one_audio_track(half, stereo, tmp_path):
    def source():
        return Pipe(encoded(stereo, 16000, format="WAV"))

    half.clean_file(source(), tmp_path / "one.wav", FileOptions(track=1))
    for track in (0, 2):
        with pytest.raises(UsageError, match=f"a pipe has no audio track {track}; give the file"):
            half.clean_file(source(), tmp_path / "out.wav", FileOptions(track=track))


def test_pipe_to_file_and_back(half, stereo, tmp_path):
    target = tmp_path / "y.flac"
    half.clean_file(Pipe(encoded(stereo, 44100, format="WAV", subtype="PCM_16")), target)
    assert soundfile.info(target).frames == stereo.shape[1]
    stream = io.BytesIO()
    half.clean_file(target, stream)
    back, _ = soundfile.read(io.BytesIO(stream.getvalue()))
    np.testing.assert_allclose(back.T, stereo / 4, atol=1e-4)
    with pytest.raises(UsageError, match="a pipe cannot be rescaled"):
        half.clean_file(target, stream, FileOptions(clip="rescale"))


def with_size(content, size):
    """Return a WAV, AIFF or AU whose header states another size of the sound."""
    if content.startswith(b"RIFF"):
        return with_wav_size(content, size)
    if content.startswith(b".snd"):
        return content[:8] + struct.pack(">I", size) + content[12:]
    at = content.index(b"SSND") + 4
    return content[:at] + struct.pack(">I", size + 8) + content[at + 4 :]


@pytest.mark.parametrize("container", ["WAV", "AIFF", "AU"])
@pytest.mark.parametrize("stated", [8000, 8001])
def test_a_stale_size_does_not_end_a_pipe(stereo, container, stated):
    content = encoded(stereo, 16000, format=container, subtype="PCM_16")
    pipe = pipe_reader(Pipe(with_size(content, stated)))
    np.testing.assert_allclose(sound_of(pipe), stereo, atol=1e-4)
    assert "less sound than there is" in pipe.warnings[0]


def test_what_follows_a_stale_size_is_read_in_pieces_of_any_size(noise):
    sound = noise(1, 44100)
    content = encoded(np.stack([sound] * 3), 44100, format="AIFF", subtype="FLOAT")
    for frames in (1000, 1365, 2731):
        pipe = pipe_reader(io.BytesIO(with_size(content, 12 * frames)))
        assert sound_of(pipe).shape == (3, sound.size)


@pytest.mark.parametrize("container", ["WAV", "AIFF"])
def test_chunks_behind_the_sound_in_a_pipe_are_no_sound(stereo, container):
    content = encoded(stereo, 16000, format=container, subtype="PCM_16")
    size = (600).to_bytes(4, "little" if container == "WAV" else "big")
    for name in sorted(KNOWN_CHUNKS):
        pipe = pipe_reader(Pipe(content + name + size + bytes(600)))
        np.testing.assert_allclose(sound_of(pipe), stereo, atol=1e-4)
        text = f"not kept, because they follow the sound in a pipe: {name.decode().strip()}"
        assert pipe.warnings in ([], [text])  # some only describe the sound, or fill


@pytest.mark.parametrize("container", ["WAV", "AIFF", "AU"])
@pytest.mark.parametrize("size", [1, 8, 1000, 6000])
def test_a_few_bytes_behind_the_sound_in_a_pipe_are_no_sound(stereo, container, size):
    """As in a file: less than 0.1 s, such as padding or a tag."""
    content = encoded(stereo, 16000, format=container, subtype="PCM_16")
    pipe = pipe_reader(Pipe(content + b"\0-" * (size // 2) + bytes(size % 2)))
    np.testing.assert_allclose(sound_of(pipe), stereo, atol=1e-4)
    assert [*pipe.warnings] == [f"it contains {size} bytes of unknown data after the audio"] * (
        size >= 8
    )


@pytest.mark.parametrize("behind", [b"TAG" + bytes(125), bytes(5000), b"\n"])
def test_bytes_behind_a_flac_in_a_pipe_are_no_sound(stereo, behind):
    content = encoded(stereo, 16000, format="FLAC", subtype="PCM_16")
    np.testing.assert_allclose(sound_of(pipe_reader(Pipe(content + behind))), stereo, atol=1e-4)


def test_a_block_fits_into_memory_whatever_the_header_states():
    fmt = struct.pack("<IHHIIHH", 16, 1, 1024, 2**31 - 1, 0, 2048, 16)
    pipe = pipe_reader(Pipe(riff(b"fmt " + fmt, data_chunk(bytes(2048 * 5)))))
    assert sound_of(pipe).shape == (1024, 5)


def test_a_size_that_counts_the_header_in_a_pipe(stereo):
    content = encoded(stereo, 16000, format="WAV", subtype="PCM_16")
    pipe = pipe_reader(Pipe(with_size(content, stereo.size * 2 + 44)))
    np.testing.assert_allclose(sound_of(pipe), stereo, atol=1e-4)
    assert "includes the header itself" in pipe.warnings[0]


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=5), st.integers(16, 65535))
@settings(max_examples=50, deadline=None)
def test_the_end_of_the_metadata_of_a_flac(blocks, block_size):
    """Its beginning tells how many bytes must be kept, however much of it was read."""
    stream_info = struct.pack(">HH", block_size, block_size) + bytes(30)
    content = b"fLaC"
    for number, block in enumerate([stream_info, *blocks]):
        kind = (4 if number else 0) | (0x80 if number == len(blocks) else 0)
        content += bytes([kind]) + len(block).to_bytes(3) + block
    assert pipe._end_of_metadata(content) == len(content)
    assert pipe._end_of_metadata(content + bytes(1000)) == len(content)
    for length in range(8, len(content)):
        assert length < pipe._end_of_metadata(content[:length]) <= len(content) + 4


class Sink(io.RawIOBase):
    """A file without a buffer, which takes at most so many bytes at a time."""

    def __init__(self, *limits):
        self.limits = limits
        self.content = b""

    def writable(self):
        return True

    def write(self, data):
        limit = self.limits[min(len(self.content), len(self.limits) - 1)]
        if limit is not None:
            self.content += data[:limit]
        return limit if limit is None else min(limit, len(data))


def test_a_file_without_a_buffer_gets_everything(rng):
    sink = Sink(100)
    PipeWriter(sink, 8000, 1, "PCM_16").write(rng.uniform(-1, 1, (1, 1000)).astype(np.float32))
    assert len(sink.content) == 44 + 2000


@pytest.mark.parametrize(("limit", "message"), [(None, "non-blocking"), (0, "nothing more")])
def test_what_a_full_pipe_does_not_take_is_an_error(limit, message):
    with pytest.raises(DenoiseError, match=rf"cannot write to standard output: .*{message}"):
        PipeWriter(Sink(44, limit), 8000, 1, "PCM_16").write(np.zeros((1, 10), np.float32))


LIST = b"LIST" + struct.pack("<I", 24) + b"INFOICMT" + struct.pack("<I", 12) + b"field data!\0"


def riff(*chunks):
    content = b"WAVE" + b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(content)) + content


def data_chunk(content, padding=b""):
    return b"data" + struct.pack("<I", len(content)) + content + padding


FMT = b"fmt " + struct.pack("<IHHIIHH", 16, 1, 2, 8000, 32000, 4, 16)
FMT_8_BITS = b"fmt " + struct.pack("<IHHIIHH", 16, 1, 1, 8000, 8000, 1, 8)


@pytest.mark.parametrize(
    ("content", "frames"),
    [
        (riff(FMT, data_chunk(bytes(4002)), LIST * 300), 1000),
        (riff(FMT_8_BITS, data_chunk(b"\x80" * 4001, b"\0"), LIST * 300), 4001),
        (riff(FMT_8_BITS, data_chunk(b"\x80" * 4001), LIST * 300), 4001),
    ],
    ids=["part of a frame", "padded", "not padded"],
)
def test_chunks_behind_sound_of_any_size_are_no_sound(tmp_path, content, frames):
    found = pipe_reader(Pipe(content))
    assert sound_of(found).shape[1] == frames
    assert found.warnings == ["not kept, because they follow the sound in a pipe: LIST"]
    (tmp_path / "x.wav").write_bytes(content)
    with reader(tmp_path / "x.wav") as file:
        assert sum(block.shape[1] for block in file) == frames
        assert not file.warnings
    kept = read_metadata(content, "WAV", 8000, 1).chunks
    assert [name for name, _ in kept] == ["LIST INFO"] * 300


@pytest.mark.parametrize("size", [1000, 70_000, 1_000_000])
def test_a_text_that_ends_in_data_is_no_sound(size):
    text = LIST[:-12] + b"a field data"
    filler = b"JUNK" + struct.pack("<I", size) + bytes(size)
    found = pipe_reader(Pipe(riff(FMT, text, filler, data_chunk(bytes(4000)))))
    assert sound_of(found).shape == (2, 1000)
