"""What recordings carry beside their sound, after cleaning."""

import struct
from fractions import Fraction

import mutagen
import numpy as np
import pytest
import soundfile
from helpers import constant_mask
from mutagen.flac import FLAC, CueSheet, CueSheetTrack, Picture
from mutagen.id3 import APIC, CHAP, CTOC, ID3, TIT2, TXXX, CTOCFlags

from denoisecli.audio.metadata import read_metadata
from denoisecli.cleaning.denoiser import Denoiser
from denoisecli.cleaning.file import FileOptions

RATE = 48000
COVER = b"\x89PNG\r\n" + bytes(range(256)) * 10


@pytest.fixture
def identity(model_folder):
    return Denoiser(model_folder(constant_mask(1.0)))


@pytest.fixture
def sound(noise):
    return noise(0.25, RATE)


def chunk(name, content, order="<"):
    return struct.pack(f"{order}4sI", name, len(content)) + content + b"\0" * (len(content) % 2)


BEXT = bytes(338) + struct.pack("<Q", 48000 * 3600) + bytes(255) + b"coding history"
CUE = struct.pack("<I", 1) + struct.pack("<II4sIII", 7, 4800, b"data", 0, 0, 4800)
ADTL = b"adtl" + chunk(b"labl", struct.pack("<I", 7) + b"marker\0")
ADTL += chunk(b"ltxt", struct.pack("<II4sHHHH", 7, 480, b"rgn ", 0, 0, 0, 0))
CHUNKS = {
    b"bext": BEXT,
    b"iXML": b"<BWFXML/>",
    b"cue ": CUE,
    b"LIST": ADTL,
    b"XyZ ": b"odd",
}


def with_chunks(path, sound, chunks, *, behind=True):
    """Write a WAV with chunks before or behind its sound."""
    soundfile.write(path, sound, RATE)
    content = path.read_bytes()
    extra = b"".join(chunk(name, data) for name, data in chunks.items())
    content = content + extra if behind else content[:12] + extra + content[12:]
    path.write_bytes(content[:4] + struct.pack("<I", len(content) - 8) + content[8:])


def chunks_of(path):
    content = path.read_bytes()
    found, position = {}, 12
    while position + 8 <= len(content):
        name, size = struct.unpack_from("<4sI", content, position)
        found[name] = content[position + 8 : position + 8 + size]
        position += 8 + size + size % 2
    assert struct.unpack_from("<I", content, 4)[0] == len(content) - 8
    return found


@pytest.mark.parametrize("behind", [True, False])
def test_chunks_of_a_wav_are_copied(identity, sound, tmp_path, behind):
    path = tmp_path / "in.wav"
    with_chunks(path, sound, CHUNKS, behind=behind)
    result = identity.clean_file(path, tmp_path / "out.wav")
    assert not result.warnings
    found = chunks_of(tmp_path / "out.wav")
    assert {name: found[name] for name in CHUNKS} == CHUNKS
    assert soundfile.info(tmp_path / "out.wav").frames == len(sound)
    identity.clean_file(path, path, overwrite=True)
    assert chunks_of(path) == found


def test_positions_follow_the_sample_rate(identity, sound, tmp_path):
    path = tmp_path / "in.wav"
    with_chunks(path, sound, {**CHUNKS, b"smpl": bytes(36)})
    result = identity.clean_file(path, tmp_path / "out.wav", FileOptions(sample_rate=16000))
    found = chunks_of(tmp_path / "out.wav")
    assert struct.unpack_from("<Q", found[b"bext"], 338)[0] == 16000 * 3600
    assert struct.unpack_from("<II4sIII", found[b"cue "], 4)[1::4] == (1600, 1600)
    assert struct.unpack_from("<I", found[b"LIST"], found[b"LIST"].index(b"ltxt") + 12)[0] == 160
    assert b"smpl" not in found
    assert "smpl" in " ".join(result.warnings)


def test_chunks_that_the_target_lacks_are_named(identity, sound, tmp_path):
    with_chunks(tmp_path / "in.wav", sound, CHUNKS)
    (warning,) = identity.clean_file(tmp_path / "in.wav", tmp_path / "out.flac").warnings
    for name in ("bext", "iXML", "cue", "LIST adtl", "XyZ"):
        assert name in warning


def test_chunks_of_an_rf64_are_copied(identity, sound, tmp_path):
    path = tmp_path / "in.wav"
    with_chunks(path, sound, CHUNKS)
    identity.clean_file(path, tmp_path / "out.rf64")
    (warning,) = identity.clean_file(path, tmp_path / "out.w64").warnings
    assert "bext" in warning
    copied = read_metadata(tmp_path / "out.rf64", "RF64", RATE, 1)
    assert {bytes(content[:4]) for _, content in copied.chunks} >= set(CHUNKS)
    assert soundfile.info(tmp_path / "out.rf64").frames == len(sound)


def picture():
    cover = Picture()
    cover.data, cover.mime, cover.type, cover.desc = COVER, "image/png", 3, "cover"
    return cover


def with_comments(path, sound):
    soundfile.write(path, sound, RATE, format="FLAC" if path.suffix == ".flac" else "OGG")
    file = mutagen.File(path)
    if file.tags is None:
        file.add_tags()
    file.tags["title"] = "Interview"
    file.tags["microphone"] = ["left", "right"]
    if isinstance(file, FLAC):
        file.add_picture(picture())
    file.save()


@pytest.mark.parametrize("sample_rate", [RATE, 16000])
def test_a_cue_sheet_of_another_rate_is_named(identity, sound, tmp_path, sample_rate):
    path, target = tmp_path / "in.flac", tmp_path / "out.flac"
    with_comments(path, sound)
    file = FLAC(path)
    file.cuesheet = CueSheet(None)
    file.cuesheet.tracks = [CueSheetTrack(1, 0), CueSheetTrack(170, len(sound))]
    file.metadata_blocks.append(file.cuesheet)
    file.save()
    result = identity.clean_file(path, target, FileOptions(sample_rate=sample_rate))
    written = FLAC(target)
    assert (written.cuesheet is not None) == (sample_rate == RATE)
    assert ("cue sheet" in " ".join(result.warnings)) == (sample_rate != RATE)
    assert written.tags["title"] == ["Interview"]
    assert len(written.pictures) == 1


@pytest.mark.parametrize("target", [".flac", ".ogg", ".opus", ".mp3"])
def test_comments_and_pictures_are_copied(identity, sound, tmp_path, target):
    with_comments(tmp_path / "in.flac", sound)
    out = tmp_path / f"out{target}"
    result = identity.clean_file(tmp_path / "in.flac", out)
    assert not result.warnings
    container = soundfile.info(out).format
    copied = read_metadata(out, container, RATE, 1)
    assert dict(copied.comments)["title"] == "Interview"
    assert [value for name, value in copied.comments if name == "microphone"] == ["left", "right"]
    assert [picture.data for picture in copied.pictures] == [COVER]
    assert soundfile.info(out).frames > 0
    if target == ".ogg":
        again = tmp_path / "again.flac"
        identity.clean_file(out, again)
        assert read_metadata(again, "FLAC", RATE, 1).comments == copied.comments
        assert FLAC(again).pictures[0].data == COVER


def test_comments_that_a_wav_lacks_are_named(identity, sound, tmp_path):
    with_comments(tmp_path / "in.flac", sound)
    (warning,) = identity.clean_file(tmp_path / "in.flac", tmp_path / "out.wav").warnings
    assert "microphone" in warning
    assert "pictures" in warning
    assert "title" not in warning
    with soundfile.SoundFile(tmp_path / "out.wav") as file:
        assert file.title == "Interview"


def test_frames_of_an_mp3_are_copied(identity, sound, tmp_path):
    path = tmp_path / "in.mp3"
    soundfile.write(path, sound, RATE)
    tags = ID3()
    tags.add(TIT2(encoding=3, text="Interview"))
    tags.add(TXXX(encoding=3, desc="mood", text="calm"))
    tags.add(APIC(encoding=3, mime="image/png", type=3, desc="", data=COVER))
    tags.add(CTOC(element_id="toc", flags=CTOCFlags.TOP_LEVEL, child_element_ids=["one"]))
    tags.add(CHAP(element_id="one", start_time=0, end_time=200, sub_frames=[TIT2(text="Hello")]))
    tags.save(path)
    result = identity.clean_file(path, tmp_path / "out.mp3")
    assert not result.warnings
    copied = ID3(tmp_path / "out.mp3")
    assert copied.getall("CHAP")[0].sub_frames["TIT2"].text == ["Hello"]
    assert copied.getall("APIC")[0].data == COVER
    for suffix in ("flac", "ogg"):
        warnings = identity.clean_file(path, tmp_path / f"out.{suffix}").warnings
        container = suffix.upper()
        assert warnings == (f"left out, since {container} files cannot hold it: chapters",)
    (warning,) = identity.clean_file(path, tmp_path / "out.wav").warnings
    assert warning.endswith("cannot hold it: chapters, mood, pictures")
    assert FLAC(tmp_path / "out.flac")["mood"] == ["calm"]


def test_chapters_and_tags_of_a_media_file(identity, sound, tmp_path):
    import av

    path = tmp_path / "in.mka"
    with av.open(str(path), "w") as container:
        container.metadata.update({"title": "Interview", "mood": "calm"})
        chapter = {"id": 1, "start": 0, "end": 100, "time_base": Fraction(1, 1000), "metadata": {}}
        container.set_chapters([chapter])
        stream = container.add_stream("pcm_s16le", rate=RATE, layout="mono")
        frame = av.AudioFrame.from_ndarray(
            np.int16(sound * 2**15)[None], format="s16", layout="mono"
        )
        frame.sample_rate = RATE
        for part in (frame, None):
            container.mux(stream.encode(part))
    (warning,) = identity.clean_file(path, tmp_path / "out.wav").warnings
    assert "chapters, mood" in warning
    (warning,) = identity.clean_file(path, tmp_path / "out.flac").warnings
    assert "chapters" in warning
    assert "mood" not in warning
    assert FLAC(tmp_path / "out.flac")["mood"] == ["calm"]


def test_damaged_metadata_do_not_stop_the_sound(identity, sound, tmp_path):
    path = tmp_path / "in.wav"
    soundfile.write(path, sound, RATE)
    path.write_bytes(path.read_bytes() + b"cue \xff\xff\xff\x7fxx")
    identity.clean_file(path, tmp_path / "out.wav", FileOptions(sample_rate=16000))
    with_chunks(path, sound, {b"cue ": b"\xff\xff\xff\xff", b"bext": b"short"})
    warnings = identity.clean_file(path, tmp_path / "2.wav", FileOptions(sample_rate=8000)).warnings
    assert "bext, cue" in " ".join(warnings)
