"""Videos of two seconds: a flash in the picture and a clap in both audio tracks at 1 s."""

import io
import struct
from fractions import Fraction

import av
import numpy as np
import pytest
from helpers import constant_mask, mostly_slow
from mutagen.mp4 import MP4, MP4Cover
from PIL import Image

from denoisecli.audio.channels import mask_of_names
from denoisecli.audio.files import read
from denoisecli.audio.media import channel_names
from denoisecli.audio.reading import reader
from denoisecli.cleaning.denoiser import Denoiser
from denoisecli.cleaning.file import FileOptions
from denoisecli.errors import UsageError

RATE = 48000
FPS = 10
CODECS = {
    "mp4": ("mpeg4", "aac"),
    "mov": ("mpeg4", "pcm_s16le"),
    "mkv": ("mpeg4", "aac"),
    "webm": ("libvpx", "libopus"),
}
USUAL = {"mp4": "aac", "mov": "pcm_s16le", "mkv": "aac", "webm": "opus"}


def write_video(path, late=0.0, attachment=None, **tags):
    """Write the video; its sound begins late by some seconds, and the clap stays at its place."""
    sound = np.zeros((2 * RATE, 1))
    sound[RATE : RATE + 480, 0] = 0.8 * np.sign(np.cos(0.3 * np.arange(480)))
    sound = sound[round(late * RATE) :].astype(np.float32)
    picture_codec, sound_codec = CODECS[path.suffix[1:]]
    with av.open(str(path), "w") as container:
        container.metadata.update({"title": "My talk", **tags})
        picture = container.add_stream(picture_codec, rate=FPS)
        picture.width = picture.height = 64
        picture.pix_fmt = "yuv420p"
        tracks = [container.add_stream(sound_codec, rate=RATE, layout="mono") for _ in "ab"]
        for track, language in zip(tracks, ("eng", "deu"), strict=True):
            track.metadata["language"] = language
        if attachment is not None:
            container.add_attachment("notes.txt", "text/plain", attachment)
        container.set_chapters(
            [
                {
                    "id": n,
                    "start": n,
                    "end": n + 1,
                    "time_base": Fraction(1),
                    "metadata": {"title": f"Part {n}"},
                }
                for n in range(2)
            ]
        )
        for number in range(2 * FPS):
            level = 255 if number == FPS else 0
            image = np.full((64, 64, 3), level, np.uint8)
            container.mux(picture.encode(av.VideoFrame.from_ndarray(image)))
        container.mux(picture.encode(None))
        for track in tracks:
            frame = av.AudioFrame.from_ndarray(sound.T.copy(), format="fltp", layout="mono")
            frame.sample_rate, frame.time_base = RATE, Fraction(1, RATE)
            frame.pts = round(late * RATE)
            container.mux(track.encode(frame))
            container.mux(track.encode(None))
    return path


def clap(path, track):
    """Return the time of the clap in samples."""
    with av.open(str(path)) as container:
        first = None
        parts = []
        for frame in container.decode(audio=track):
            first = frame.pts * frame.time_base if first is None else first
            parts.append(frame.to_ndarray().reshape(-1) / (32768 if frame.format.is_packed else 1))
    found = int(np.argmax(np.abs(np.concatenate(parts)) > 0.25))
    return round(float(first) * RATE) + found


def streams(path):
    with av.open(str(path)) as container:
        kinds = [
            (stream.type, stream.codec_context.codec.canonical_name)
            for stream in container.streams
            if stream.codec_context is not None
        ]
        languages = [stream.metadata.get("language") for stream in container.streams.audio]
        chapters = [chapter["metadata"]["title"] for chapter in container.chapters()]
        return kinds, languages, chapters, container.metadata["title"]


def pictures(path):
    with av.open(str(path)) as container:
        packets = container.demux(video=0)
        return [(packet.pts, bytes(packet)) for packet in packets if packet.size]


def clean(model_folder, source, target, **options):
    denoiser = Denoiser(model_folder(constant_mask(1)))
    return denoiser.clean_file(source, target, FileOptions(**options))


@pytest.mark.parametrize("suffix", CODECS)
def test_all_but_the_sound_is_copied_and_the_clap_stays_with_the_flash(
    tmp_path, model_folder, suffix
):
    source = write_video(tmp_path / f"talk.{suffix}")
    target = tmp_path / f"clean.{suffix}"
    clean(model_folder, source, target, track=2)
    kinds, languages, chapters, title = streams(target)
    assert kinds == streams(source)[0]
    assert kinds[2] == ("audio", USUAL[suffix])
    assert languages == streams(source)[1]
    assert chapters == ["Part 0", "Part 1"]
    assert title == "My talk"
    assert pictures(target) == pictures(source)
    assert clap(target, 0) == clap(source, 0)
    assert abs(clap(target, 1) - clap(source, 1)) <= (0 if suffix == "mov" else 2)  # it is lossy


def test_sound_that_begins_late_keeps_its_place(tmp_path, model_folder):
    source = write_video(tmp_path / "talk.mov", late=0.5)
    target = tmp_path / "clean.mov"
    clean(model_folder, source, target)
    assert clap(target, 0) == clap(source, 0) == RATE
    with av.open(str(target)) as container:
        assert container.streams.audio[0].start_time == 0  # the gap is silence


def test_another_container_and_another_rate(tmp_path, model_folder):
    source = write_video(tmp_path / "talk.mov")
    target = tmp_path / "clean.mkv"
    clean(model_folder, source, target, sample_rate=44100)
    sound, rate = read(target)
    assert rate == 44100
    assert int(np.argmax(np.abs(sound) > 0.25)) == pytest.approx(44100, abs=2)
    assert streams(target)[0][0] == ("video", "mpeg4")


@pytest.mark.parametrize("suffix", ["mkv", "webm", "mov"])
@pytest.mark.parametrize("wanted", [None, 44100])
def test_the_reported_rate_is_that_of_the_file(tmp_path, model_folder, suffix, wanted):
    source = write_video(tmp_path / f"talk.{suffix}")
    target = tmp_path / f"clean.{suffix}"
    result = clean(model_folder, source, target, sample_rate=wanted)
    with av.open(str(target)) as container:
        assert result.sample_rate == container.streams.audio[0].rate
    said = f"the sound is stored at {result.sample_rate} Hz"
    is_other = result.sample_rate != (wanted or RATE)
    assert is_other == (suffix == "webm" and wanted is not None)
    assert any(said in warning for warning in result.warnings) == is_other


def test_a_loudness_is_reached_in_a_video(tmp_path, model_folder):
    source = write_video(tmp_path / "talk.mp4")
    result = clean(model_folder, source, tmp_path / "clean.mp4", loudness=-30.0)
    assert result.loudness_lufs == pytest.approx(-30, abs=0.1)


def test_a_picture_that_the_container_cannot_hold(tmp_path, model_folder):
    source = write_video(tmp_path / "talk.mp4")
    with pytest.raises(UsageError, match=r"picture \(mpeg4\) cannot be copied into a webm file"):
        clean(model_folder, source, tmp_path / "clean.webm")
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".webm"] == []


def test_options_of_audio_formats_are_refused(tmp_path, model_folder):
    source = write_video(tmp_path / "talk.mp4")
    with pytest.raises(UsageError, match="takes neither --subtype nor --clip none"):
        clean(model_folder, source, tmp_path / "clean.mp4", subtype="PCM_16")


def test_a_recording_without_a_picture_becomes_aac(tmp_path, model_folder, audio_file, speech):
    source = audio_file("talk.wav", speech(1.0, 16000))
    clean(model_folder, source, tmp_path / "clean.m4a")
    sound, rate = read(tmp_path / "clean.m4a")
    assert rate == 16000
    assert np.corrcoef(sound[0, :15000], speech(1.0, 16000)[:15000])[0, 1] > 0.95


def test_a_cover_is_copied(tmp_path, model_folder, audio_file, speech):
    source = tmp_path / "song.m4a"
    clean(model_folder, audio_file("song.wav", speech(0.5, 16000)), source)
    cover = io.BytesIO()
    Image.new("RGB", (8, 8)).save(cover, "PNG")
    tags = MP4(source)
    tags["covr"] = [MP4Cover(cover.getvalue(), MP4Cover.FORMAT_PNG)]
    tags.save()
    clean(model_folder, source, tmp_path / "clean.m4a")
    assert bytes(MP4(tmp_path / "clean.m4a")["covr"][0]) == cover.getvalue()
    (warning,) = clean(model_folder, source, tmp_path / "clean.mka").warnings
    assert "the picture (png) cannot be copied into a matroska file, and was left out" in warning


def test_floating_point_sound_is_not_clamped(tmp_path, model_folder):
    source = tmp_path / "loud.mkv"
    with av.open(str(source), "w") as container:
        track = container.add_stream("pcm_f32le", rate=16000, layout="mono")
        sound = np.full((1, 1600), 2, np.float32)
        sound[:, ::2] *= -1
        frame = av.AudioFrame.from_ndarray(sound, format="flt", layout="mono")
        frame.sample_rate = 16000
        for part in (frame, None):
            container.mux(track.encode(part))
    result = clean(model_folder, source, tmp_path / "clean.mkv")
    assert (result.clipped_samples, result.warnings) == (0, ())
    with av.open(str(tmp_path / "clean.mkv")) as container:
        assert max(abs(frame.to_ndarray()).max() for frame in container.decode(audio=0)) > 1.5


@pytest.mark.parametrize("suffix", ["mov", "mp4", "mkv"])
def test_a_timecode_is_kept(tmp_path, model_folder, suffix):
    source = write_video(tmp_path / "talk.mov", timecode="01:00:00:00")
    with av.open(str(source)) as container:
        assert [stream.type for stream in container.streams].count("data") >= 1
    result = clean(model_folder, source, tmp_path / f"clean.{suffix}")
    assert not any("left out" in warning for warning in result.warnings)
    with av.open(str(tmp_path / f"clean.{suffix}")) as container:
        tags = {name.lower(): text for name, text in container.streams.video[0].metadata.items()}
        tags |= {name.lower(): text for name, text in container.metadata.items()}
    assert tags["timecode"].startswith("01:00:00:0")


def test_attachments_are_copied_or_named(tmp_path, model_folder):
    source = write_video(tmp_path / "talk.mkv", attachment=b"what was said")
    result = clean(model_folder, source, tmp_path / "clean.mkv")
    assert "left out" not in " ".join(result.warnings)
    assert b"what was said" in (tmp_path / "clean.mkv").read_bytes()
    result = clean(model_folder, source, tmp_path / "clean.mp4")
    message = "the attachment stream cannot be copied into a mp4 file, and was left out"
    assert message in result.warnings
    assert clap(tmp_path / "clean.mp4", 0) == pytest.approx(RATE, abs=2)


LAYOUTS = ("mono", "2.1", "4.0", "5.0(side)", "5.1", "5.1(side)", "6.1", "7.1", "7.1(wide)")


def write_surround(path, layout, codec):
    """Write a file whose channels are as many tones, of 200 Hz, 300 Hz and so on."""
    channels = av.AudioLayout(layout).nb_channels
    tones = np.arange(2, channels + 2)[:, None] * 100 * np.arange(RATE // 2) / RATE
    sound = np.float32(0.1 * np.sin(2 * np.pi * tones))
    with av.open(str(path), "w") as container:
        track = container.add_stream(codec, rate=RATE, layout=layout)
        if codec == "wavpack":
            track.format = "s16p"  # the first one has 8 bits
        elif codec == "tta":
            track.format = "s16"
        frame = av.AudioFrame.from_ndarray(sound.T.reshape(1, -1), format="flt", layout=layout)
        frame.sample_rate, frame.pts = RATE, 0
        for part in (frame, None):
            container.mux(track.encode(part))
    return sound


@pytest.mark.parametrize("layout", mostly_slow(LAYOUTS, "2.1", "5.1(side)"))
@pytest.mark.parametrize(("suffix", "codec"), [("mov", "pcm_s16le"), ("mkv", "flac")])
def test_channels_keep_their_places(tmp_path, model_folder, layout, suffix, codec):
    source, target = tmp_path / f"in.{suffix}", tmp_path / f"out.{suffix}"
    sound = write_surround(source, layout, codec)
    assert clean(model_folder, source, target).warnings == ()
    for path in (source, target):
        back, _ = read(path)
        np.testing.assert_allclose(back, sound, atol=1e-3)
        with av.open(str(path)) as container:
            expected = [channel.name for channel in av.AudioLayout(layout).channels]
            assert channel_names(container.streams.audio[0].codec_context) == expected or (
                layout in ("6.1", "7.1")  # which MOV reorders
            )
    clean(model_folder, source, tmp_path / "out.wav")
    clean(model_folder, tmp_path / "out.wav", tmp_path / "again.mov")
    with reader(tmp_path / "again.mov") as file:
        assert file.info.mask in (0, mask_of_names(expected))


def test_a_layout_that_the_codec_lacks_is_named(tmp_path, model_folder):
    write_surround(tmp_path / "in.mkv", "5.0(side)", "flac")
    with (
        av.open(str(tmp_path / "in.mkv")) as original,
        av.open(str(tmp_path / "in.webm"), "w") as container,
    ):
        track = container.add_stream("libopus", rate=RATE, layout="5.0")
        for frame in original.decode(audio=0):
            container.mux(track.encode(frame))
        container.mux(track.encode(None))
    warnings = clean(model_folder, tmp_path / "in.mkv", tmp_path / "out.webm").warnings
    expected = "the channel layout 5.0(side) was changed to 5.0, because libopus"
    assert any(warning.startswith(expected) for warning in warnings)
    assert read(tmp_path / "out.webm")[0].shape[0] == 5


def test_loudness_of_eight_channels(tmp_path, model_folder):
    write_surround(tmp_path / "in.mov", "7.1", "pcm_s16le")
    result = clean(model_folder, tmp_path / "in.mov", tmp_path / "out.wav", loudness=-30.0)
    assert result.loudness_lufs == pytest.approx(-30, abs=0.2)


@pytest.mark.parametrize("codec", ["wavpack", "tta", "flac"])
def test_lossless_sound_stays_lossless_in_matroska(tmp_path, model_folder, codec):
    sound = write_surround(tmp_path / "in.mkv", "stereo", codec)
    clean(model_folder, tmp_path / "in.mkv", tmp_path / "out.mkv")
    with av.open(str(tmp_path / "out.mkv")) as container:
        assert container.streams.audio[0].codec_context.name == "flac"
    np.testing.assert_allclose(read(tmp_path / "out.mkv")[0], sound, atol=1e-4)


@pytest.mark.parametrize("suffix", ["mkv", "mov", "mp4", "m4a"])
def test_flac_can_be_written_to_every_container(tmp_path, model_folder, suffix):
    sound = write_surround(tmp_path / "in.mkv", "stereo", "flac")
    clean(model_folder, tmp_path / "in.mkv", tmp_path / f"out.{suffix}")
    found = read(tmp_path / f"out.{suffix}")[0]
    with av.open(str(tmp_path / f"out.{suffix}")) as container:
        codec = container.streams.audio[0].codec_context.name
    assert codec in ("flac", "alac")
    np.testing.assert_allclose(found, sound, atol=1e-4)


def test_tags_that_ffmpeg_does_not_copy(tmp_path, model_folder, audio_file, speech):
    source, target = tmp_path / "song.m4a", tmp_path / "clean.m4a"
    clean(model_folder, audio_file("song.wav", speech(0.5, 16000)), source)
    tags = MP4(source)
    tags["----:com.apple.iTunes:MYTAG"] = [b"mine"]
    tags["----:com.apple.iTunes:replaygain_track_gain"] = [b"+12 dB"]
    tags["----:com.apple.iTunes:iTunSMPB"] = [b" 00000000 00000840"]
    tags["tmpo"] = [120]
    tags.save()
    assert clean(model_folder, source, target).warnings == ()
    kept = MP4(target).tags
    assert kept["----:com.apple.iTunes:MYTAG"] == [b"mine"]
    assert kept["tmpo"] == [120]
    assert not {name for name in kept if "gain" in name or "SMPB" in name}
    (warning,) = clean(model_folder, source, tmp_path / "clean.mov").warnings
    assert warning.startswith("not kept in the MOV file: ")
    assert "MYTAG" in warning


@pytest.mark.parametrize("suffix", ["m4a", "mka"])
def test_chunks_of_a_wav_are_named(tmp_path, model_folder, audio_file, speech, suffix):
    source = audio_file("song.wav", speech(0.5, 16000))
    content = source.read_bytes() + b"iXML\x09\0\0\0<BWFXML/>\0" + b"cue \x04\0\0\0\0\0\0\0"
    content += b"bext" + struct.pack("<I", 602) + bytes(602)
    source.write_bytes(content[:4] + struct.pack("<I", len(content) - 8) + content[8:])
    (warning,) = clean(model_folder, source, tmp_path / f"clean.{suffix}").warnings
    upper = suffix.upper()
    assert warning == f"not kept in the {upper} file: bext, cue, iXML"
