import sys
from fractions import Fraction

import av
import numpy as np
import pytest
import soundfile
from helpers import constant_mask

from denoisecli.audio import files as audio
from denoisecli.audio.reading import reader
from denoisecli.audio.writing import writer
from denoisecli.cleaning.denoiser import Denoiser
from denoisecli.cleaning.file import FileOptions
from denoisecli.errors import AudioError, UsageError

KINDS = {"m4a": "aac", "aac": "aac", "mp4": "aac", "mov": "aac", "mkv": "aac", "webm": "libopus"}


@pytest.fixture
def media_file(tmp_path):
    """Make ``media_file(suffix, sound, video=False, **options of the container)``."""

    def write(suffix, sound, video=False, **options):
        path = tmp_path / f"x.{suffix}"
        with av.open(str(path), "w", options=options) as container:
            container.metadata["title"] = "Wind"
            layout = "stereo" if len(sound) == 2 else "mono"
            stream = container.add_stream(KINDS[suffix], rate=48000, layout=layout)
            stream.bit_rate = 256_000
            if video:
                picture = container.add_stream("mpeg4", rate=10)
                picture.width = picture.height = 32
                for _ in range(10):
                    frame = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8))
                    container.mux(picture.encode(frame))
                container.mux(picture.encode(None))
            interleaved = np.ascontiguousarray(sound.T).reshape(1, -1).astype(np.float32)
            frame = av.AudioFrame.from_ndarray(interleaved, format="flt", layout=layout)
            frame.sample_rate = 48000
            frame.pts = 0  # or else the container does not learn of the encoder's delay
            resampler = av.AudioResampler(
                format=stream.format, layout=layout, rate=48000, frame_size=stream.frame_size or 960
            )
            for one in [*resampler.resample(frame), *resampler.resample(None)]:
                container.mux(stream.encode(one))
            container.mux(stream.encode(None))
        return path

    return write


@pytest.fixture
def stereo(speech):
    return np.stack([speech(3, 48000), 0.5 * speech(3, 48000)])


@pytest.mark.parametrize("suffix", KINDS)
def test_sound_is_read(media_file, stereo, suffix):
    path = media_file(suffix, stereo)
    info = audio.probe(path)
    assert (info.sample_rate, info.channels) == (48000, 2)
    assert info.duration == pytest.approx(3, abs=0.2)
    sound, _ = audio.read(path)
    lag = 1024 if suffix == "aac" else 0  # a bare stream says nothing of the encoder's delay
    assert abs(sound.shape[1] - lag - stereo.shape[1]) < 3000
    shared = sound[:, lag:][:, : stereo.shape[1]]
    for channel, expected in zip(shared, stereo, strict=True):
        assert np.corrcoef(channel, expected[: shared.shape[1]])[0, 1] > 0.98


@pytest.mark.parametrize(
    ("suffix", "codec", "form", "subtype"),
    [
        ("mov", "pcm_s24le", "s32", "PCM_24"),
        ("mov", "pcm_s16be", "s16", "PCM_16"),
        ("mkv", "pcm_f32le", "flt", "FLOAT"),
        ("mkv", "pcm_s32le", "s32", "PCM_32"),
        ("mkv", "flac", "s32", "PCM_24"),
        ("mkv", "flac", "s16", "PCM_16"),
        ("m4a", "alac", "s32p", "PCM_24"),
        ("m4a", "alac", "s16p", "PCM_16"),
    ],
)
def test_bit_depth_is_kept(tmp_path, speech, model_folder, suffix, codec, form, subtype):
    path = tmp_path / f"x.{suffix}"
    sound = 2 * speech(1, 48000) if subtype == "FLOAT" else speech(1, 48000)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=48000, layout="mono", format=form)
        frame = av.AudioFrame.from_ndarray(sound[None], format="flt", layout="mono")
        frame.sample_rate, frame.pts = 48000, 0
        size = stream.frame_size or 960
        resampler = av.AudioResampler(form, "mono", 48000, frame_size=size)
        for part in [*resampler.resample(frame), *resampler.resample(None)]:
            container.mux(stream.encode(part))
        container.mux(stream.encode(None))
    Denoiser(model_folder(constant_mask(1))).clean_file(path, tmp_path / "y.wav")
    assert soundfile.info(tmp_path / "y.wav").subtype == subtype
    back, _ = soundfile.read(tmp_path / "y.wav")
    np.testing.assert_allclose(back, sound, atol=2**-14 if "16" in subtype else 1e-6)


CODECS = {"mp4": "aac", "mov": "pcm_s16le", "mkv": "libopus", "webm": "libopus"}


def write_parts(path, tracks, default=None):
    """Write a video of 4 s with audio tracks, each a list of (start in s, sound) at 48 kHz."""
    with av.open(str(path), "w") as container:
        picture = container.add_stream("libvpx" if path.suffix == ".webm" else "mpeg4", rate=10)
        picture.width = picture.height = 32
        streams = []
        for number, _ in enumerate(tracks):
            stream = container.add_stream(CODECS[path.suffix[1:]], rate=48000, layout="mono")
            stream.bit_rate = 128_000
            if default is not None:
                stream.disposition = int(number == default)
            streams.append(stream)
        for _ in range(40):
            frame = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8))
            container.mux(picture.encode(frame))
        container.mux(picture.encode(None))
        for stream, parts in zip(streams, tracks, strict=True):
            size = stream.frame_size or 960
            for start, sound in parts:
                for at in range(0, sound.size, size):
                    piece = sound[at : at + size]
                    if stream.format.is_planar or stream.format.name == "flt":
                        piece, form = piece[None], "fltp" if stream.format.is_planar else "flt"
                    else:
                        piece, form = np.int16(32767 * piece)[None], "s16"
                    frame = av.AudioFrame.from_ndarray(piece, format=form, layout="mono")
                    frame.sample_rate, frame.time_base = 48000, Fraction(1, 48000)
                    frame.pts = round(start * 48000) + at
                    container.mux(stream.encode(frame))
            container.mux(stream.encode(None))


def onset(sound):
    """Return the time in s at which a sound begins."""
    return np.argmax(np.abs(sound) > 0.05) / 48000


@pytest.mark.parametrize("suffix", CODECS)
def test_sound_that_begins_late_fits_the_picture(tmp_path, suffix):
    path = tmp_path / f"x.{suffix}"
    tone = np.float32(0.3 * np.sin(2 * np.pi * 440 * np.arange(2 * 48000) / 48000))
    write_parts(path, [[(1.5, tone)]])
    sound, _ = audio.read(path)
    assert sound.shape[1] / 48000 == pytest.approx(3.5, abs=0.05)
    assert onset(sound[0]) == pytest.approx(1.5, abs=0.03)


@pytest.mark.parametrize("suffix", ["mkv", "webm"])
@pytest.mark.parametrize("gap", [0.1, 1.0])
def test_gaps_are_silent(tmp_path, suffix, gap):
    path = tmp_path / f"x.{suffix}"
    tone = np.float32(0.3 * np.sin(2 * np.pi * 440 * np.arange(24_000) / 48000))
    starts = [number * (0.5 + gap) for number in range(3)]
    write_parts(path, [[(start, tone) for start in starts]])
    sound, _ = audio.read(path)
    assert sound.shape[1] / 48000 == pytest.approx(starts[-1] + 0.5, abs=0.05)
    for start in starts:
        around = sound[0, round(max(start - gap / 2, 0) * 48000) :]
        assert onset(around) == pytest.approx(start - max(start - gap / 2, 0), abs=0.03)


@pytest.mark.parametrize(
    ("suffix", "codec"), [("mp4", "aac"), ("mkv", "aac"), ("mkv", "libopus"), ("webm", "libopus")]
)
def test_lost_packets_are_silent(tmp_path, suffix, codec):
    """Every tenth packet of 20 ms is missing, and the sound keeps its length and its places."""
    path = tmp_path / f"x.{suffix}"
    click = np.zeros(3 * 48000, np.float32)
    click[2 * 48000 + 9600 :] = 0.5 * np.sign(np.sin(np.arange(48000 - 9600)))
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=48000, layout="mono")
        frame = av.AudioFrame.from_ndarray(click[None], format="flt", layout="mono")
        frame.sample_rate, frame.pts = 48000, 0
        packets = [packet for part in (frame, None) for packet in stream.encode(part)]
        for number, packet in enumerate(packets):
            if number % 10 != 5 or number == 105:  # the one with the click
                container.mux(packet)
    with reader(path) as file:
        sound = np.concatenate(list(file), axis=1)
    assert not file.warnings
    assert sound.shape[1] == pytest.approx(click.size, abs=1024)
    assert onset(sound[0]) == pytest.approx(2.2, abs=0.005)


def test_rounded_timestamps_are_no_gaps(tmp_path):
    """Timestamps that tremble by up to 4 ms, as those of live recordings, add no silence."""
    path = tmp_path / "x.mkv"
    rng = np.random.default_rng(0)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libopus", rate=48000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.ones((1, 96000), np.float32), "flt", "mono")
        frame.sample_rate, frame.pts = 48000, 0
        packets = [packet for part in (frame, None) for packet in stream.encode(part)]
        for packet in packets[:-1]:
            packet.pts += int(rng.integers(0, 190))
            packet.dts = packet.pts
            container.mux(packet)
    assert audio.read(path)[0].shape[1] == pytest.approx(96000, abs=960)


@pytest.mark.parametrize("share", [0.97, 0.9, 0.8])
def test_a_missing_end_is_named(tmp_path, share):
    path = tmp_path / "x.mkv"
    tone = np.float32(0.3 * np.sin(2 * np.pi * 440 * np.arange(96_000) / 48000))
    write_parts(path, [[(0, tone)]])
    content = path.read_bytes()
    path.write_bytes(content[: round(share * len(content))])
    with reader(path, keep_readable=True) as file:
        timesteps = sum(block.shape[1] for block in file)
    if 96_000 - timesteps > 2 * 960:
        assert file.problem is not None or "may be cut off" in file.warnings[-1]


@pytest.mark.parametrize("suffix", ["mkv", "mov"])
def test_tracks(tmp_path, model_folder, speech, suffix):
    path, half = tmp_path / f"x.{suffix}", Denoiser(model_folder(constant_mask(0.5)))
    tracks = [[(0, np.zeros(96_000, np.float32))], [(0, speech(2, 48000))]]
    write_parts(path, tracks, default=1)
    result = half.clean_file(path, tmp_path / "y.wav")
    assert "has 2 audio tracks, of which track 2 is used" in result.warnings[0]
    assert np.std(soundfile.read(tmp_path / "y.wav")[0]) > 0.01
    result = half.clean_file(path, tmp_path / "z.wav", FileOptions(track=1))
    assert not result.warnings
    assert not soundfile.read(tmp_path / "z.wav")[0].any()
    for source in (path, tmp_path / "z.wav"):
        with pytest.raises(UsageError, match="has no audio track 3"):
            half.clean_file(source, tmp_path / "w.wav", FileOptions(track=3))


@pytest.mark.parametrize("suffix", ["m4a", "mkv", "webm"])
def test_tags_in_another_encoding_do_not_stop_the_sound(media_file, stereo, tmp_path, suffix):
    path = media_file(suffix, stereo)
    content = path.read_bytes()
    assert b"Wind" in content
    path.write_bytes(content.replace(b"Wind", b"W\xf1\xe9d"))
    assert audio.read(path)[0].size
    with (
        reader(path) as file,
        writer(tmp_path / "y.flac", 48000, 2, frames=9, tags=file.info.tags) as target,
    ):
        target.write(np.zeros((2, 9), np.float32))


def test_blocks_make_up_the_file(media_file, stereo):
    path = media_file("m4a", stereo)
    whole, _ = audio.read(path)
    with reader(path, block_frames=1000) as file:
        blocks = list(file)
    assert {block.shape[1] for block in blocks[:-1]} == {1000}
    np.testing.assert_array_equal(np.concatenate(blocks, axis=1), whole)


def test_sound_of_a_video_is_cleaned(media_file, stereo, model_folder, tmp_path):
    path = media_file("mp4", stereo, video=True)
    result = Denoiser(model_folder(constant_mask(0.5))).clean_file(path, tmp_path / "y.flac")
    info = soundfile.info(tmp_path / "y.flac")
    assert (info.samplerate, info.channels, info.subtype) == (48000, 2, "PCM_16")
    assert abs(info.frames - stereo.shape[1]) < 2000
    assert result.rms_out_dbfs - result.rms_in_dbfs == pytest.approx(-6.02, abs=0.01)
    assert soundfile.SoundFile(tmp_path / "y.flac").copy_metadata()["title"] == "Wind"


@pytest.mark.parametrize("suffix", ["m4a", "mkv", "webm"])
def test_cut_off_media(media_file, stereo, suffix):
    options = {"movflags": "faststart"} if suffix == "m4a" else {}
    path = media_file(suffix, stereo, **options)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(AudioError, match=rf"x\.{suffix} is (cut off|damaged at)"):
        audio.read(path)
    with reader(path, keep_readable=True) as file:
        timesteps = sum(block.shape[1] for block in file)
    assert 48_000 < timesteps < 2 * 48_000
    assert file.problem is not None


@pytest.mark.parametrize("seconds", [0.2, 1.0])
def test_short_media_are_cut_off_too(media_file, stereo, seconds):
    path = media_file("webm", stereo[:, : round(48000 * seconds)])
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(AudioError, match=r"is (cut off|damaged at)"):
        audio.read(path)


def test_mp3_that_libsndfile_refuses_is_cut_off(tmp_path, speech):
    path = tmp_path / "x.mp3"
    soundfile.write(path, np.stack([speech(0.256, 16000)] * 2, 1), 16000)
    content = path.read_bytes()
    for share in (0.45, 0.7, 0.99):
        path.write_bytes(content[: round(share * len(content))])
        with pytest.raises(AudioError, match=r"is cut off|is damaged"):
            audio.read(path)


def test_codec_that_ffmpeg_does_not_know(media_file, stereo):
    path = media_file("m4a", stereo)
    content = path.read_bytes().replace(b"mp4a", b"zz0z")
    path.write_bytes(content.replace(b"\x40\x15", b"\xfe\x15"))  # the codec's number in MPEG-4
    with pytest.raises(AudioError, match="codec that FFmpeg cannot decode"):
        audio.read(path)


def test_no_sound_there(tmp_path):
    path = tmp_path / "x.mp4"
    path.write_bytes(b"no media" * 100)
    with pytest.raises(AudioError, match=r"x\.mp4 is damaged or not a media file"):
        audio.read(path)
    with av.open(str(path), "w") as container:
        picture = container.add_stream("mpeg4", rate=10)
        picture.width = picture.height = 32
        frame = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8))
        container.mux([*picture.encode(frame), *picture.encode(None)])
    with pytest.raises(AudioError, match=r"x\.mp4 has no audio track"):
        audio.read(path)


def test_pyav_is_missing(tmp_path, monkeypatch):
    (tmp_path / "x.m4a").write_bytes(b"sound")
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(
        UsageError, match=r"reading .*x\.m4a needs PyAV: pip install \"denoisecli\[media"
    ):
        audio.probe(tmp_path / "x.m4a")


@pytest.mark.parametrize("content", [b"no sound in it", b"not a recording " * 500, bytes(2000)])
def test_bytes_that_are_no_media_file(tmp_path, content) -> None:
    path = tmp_path / "text.m4a"
    path.write_bytes(content)
    with pytest.raises(AudioError, match=r"text\.m4a"), reader(path):
        pass
