"""Videos of two seconds: a flash in the picture and a clap in both audio tracks at 1 s."""

import io
from fractions import Fraction

import av
import numpy as np
import pytest
from helpers import constant_mask
from mutagen.mp4 import MP4, MP4Cover
from PIL import Image

from denoisecli.audio.files import read
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


def write_video(path, late=0.0):
    """Write the video; its sound begins late by some seconds, and the clap stays at its place."""
    sound = np.zeros((2 * RATE, 1))
    sound[RATE : RATE + 480, 0] = 0.8 * np.sign(np.cos(0.3 * np.arange(480)))
    sound = sound[round(late * RATE) :].astype(np.float32)
    picture_codec, sound_codec = CODECS[path.suffix[1:]]
    with av.open(str(path), "w") as container:
        container.metadata["title"] = "My talk"
        picture = container.add_stream(picture_codec, rate=FPS)
        picture.width = picture.height = 64
        picture.pix_fmt = "yuv420p"
        tracks = [container.add_stream(sound_codec, rate=RATE, layout="mono") for _ in "ab"]
        for track, language in zip(tracks, ("eng", "deu"), strict=True):
            track.metadata["language"] = language
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
