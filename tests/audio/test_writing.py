import io
import sys
import wave

import numpy as np
import pytest
import soundfile

from denoisecli.audio import writing
from denoisecli.audio.files import probe, read, write
from denoisecli.audio.formats import BITS, FLOATING
from denoisecli.audio.pipe import PipeWriter
from denoisecli.errors import DenoiseError, UsageError


def test_long_vorbis_file_is_written(tmp_path):
    """Written in one piece, libsndfile's encoder overflows its stack."""
    write(tmp_path / "x.ogg", np.zeros((2, 3_000_000), np.float32), 48000)
    assert probe(tmp_path / "x.ogg").frames == 3_000_000


def test_samples_beyond_full_scale_are_clamped_and_counted(tmp_path):
    samples = np.array([[0.5, 1.5, -1.5, 1.0, -1.0]], np.float32)
    for subtype in ("PCM_16", "ULAW"):
        path = tmp_path / f"{subtype}.wav"
        with writing.writer(path, 8000, 1, frames=5, subtype=subtype) as target:
            target.write(samples)
            assert target.clipped == 2
        np.testing.assert_allclose(read(path)[0], samples.clip(-1, 1), atol=0.02)


INTEGERS = [
    (suffix, subtype)
    for suffix, container in (
        (".wav", "WAV"),
        (".flac", "FLAC"),
        (".aiff", "AIFF"),
        (".w64", "W64"),
        (".rf64", "RF64"),
        (".caf", "CAF"),
        (".au", "AU"),
    )
    for subtype in soundfile.available_subtypes(container)
    if subtype in BITS and subtype not in FLOATING
    if not subtype.startswith("ALAC") or subtype == "ALAC_16"
]


@pytest.mark.parametrize(("suffix", "subtype"), INTEGERS)
def test_integers_are_rounded_half_to_even(tmp_path, rng, suffix, subtype):
    full_scale = 2 ** (BITS[subtype] - 1)
    halves = np.arange(-5.5, 6) / full_scale
    samples = np.concatenate([halves, rng.uniform(-1, 1, 5000), [1, -1]]).astype(np.float32)
    write(tmp_path / f"x{suffix}", samples, 8000, subtype=subtype)
    steps = soundfile.read(tmp_path / f"x{suffix}")[0] * full_scale
    exact = samples * np.float64(full_scale)
    np.testing.assert_array_equal(steps, np.rint(exact).clip(max=full_scale - 1))


@pytest.mark.parametrize("subtype", [name for name in PipeWriter.SUBTYPES if name != "FLOAT"])
def test_integers_are_rounded_in_pipes_as_in_files(tmp_path, rng, subtype):
    samples = rng.uniform(-1, 1, (2, 5000)).astype(np.float32)
    write(tmp_path / "x.wav", samples, 8000, subtype=subtype)
    stream = io.BytesIO()
    PipeWriter(stream, 8000, 2, subtype).write(samples)
    in_pipe, _ = soundfile.read(io.BytesIO(stream.getvalue()))
    np.testing.assert_array_equal(in_pipe, soundfile.read(tmp_path / "x.wav")[0])


def test_floating_point_files_are_not_clamped(tmp_path):
    samples = np.array([1.5, -3.0], np.float32)
    write(tmp_path / "x.wav", samples, 8000, subtype="FLOAT")
    np.testing.assert_array_equal(read(tmp_path / "x.wav")[0][0], samples)


def test_large_wav_becomes_rf64(tmp_path, monkeypatch, stereo):
    monkeypatch.setattr(writing, "_MAX_BYTES", {"WAV": 60_000, "AIFF": 60_000})
    write(tmp_path / "large.wav", stereo, 16000)
    write(tmp_path / "small.wav", stereo[:1], 16000)
    assert probe(tmp_path / "large.wav").format == "RF64"
    assert probe(tmp_path / "small.wav").format == "WAV"
    with pytest.raises(UsageError, match="hold at most 4 GB"):
        write(tmp_path / "large.aiff", stereo, 16000)


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT", "ULAW"])
def test_wav_of_unknown_length_may_grow_and_is_plain_if_it_is_short(tmp_path, stereo, subtype):
    path = tmp_path / "x.wav"
    with writing.writer(path, 16000, 2, frames=0, subtype=subtype, tags={"title": "A"}) as target:
        target.write(stereo)
        assert target._file.format == "RF64"
    info = probe(path)
    assert (info.format, info.subtype, info.tags["title"]) == ("WAV", subtype, "A")
    if subtype.startswith("PCM"):
        with wave.open(str(path)) as file:
            assert file.getnframes() == stereo.shape[1]
    whole = tmp_path / "whole.wav"
    write(whole, stereo, 16000, subtype=subtype)
    np.testing.assert_array_equal(read(path)[0], read(whole)[0])


def test_wav_of_unknown_length_with_a_mask(tmp_path, stereo):
    with writing.writer(tmp_path / "x.wav", 16000, 2, frames=0, mask=0x30) as target:
        target.write(stereo)
    info = probe(tmp_path / "x.wav")
    assert (info.format, info.mask, info.frames) == ("WAVEX", 0x30, stereo.shape[1])


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit of the file size")
@pytest.mark.parametrize("suffix", [".wav", ".w64", ".flac", ".aiff"])
def test_what_was_written_until_the_disk_was_full(tmp_path, rng, suffix):
    """It is removed, unless the caller handles the error."""
    import resource

    block = rng.uniform(-1, 1, (1, 4000)).astype(np.float32)

    def fill(target):
        for _ in range(10):
            target.write(block)

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, limits[1]))
    kept, removed = tmp_path / f"kept{suffix}", tmp_path / f"removed{suffix}"
    try:
        with (
            writing.writer(kept, 16000, 1, frames=0) as target,
            pytest.raises(DenoiseError, match="is the disk full"),
        ):
            fill(target)
        with (
            pytest.raises(DenoiseError, match="is the disk full"),
            writing.writer(removed, 16000, 1, frames=0) as target,
        ):
            fill(target)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert soundfile.info(kept).frames >= 12_000
    assert list(tmp_path.iterdir()) == [kept]


def test_writing_refuses(tmp_path, stereo):
    path = tmp_path / "x.wav"
    write(path, stereo, 16000)
    before = path.read_bytes()
    with pytest.raises(UsageError, match="already exists"):
        write(path, stereo * 0, 16000)
    assert path.read_bytes() == before
    write(path, stereo * 0, 16000, overwrite=True)
    assert path.read_bytes() != before

    with pytest.raises(UsageError, match=r"unknown audio format '\.xyz'; use one of \.wav"):
        write(tmp_path / "x.xyz", stereo, 16000)
    with pytest.raises(UsageError, match="Opus only supports sample rates of"):
        write(tmp_path / "x.opus", stereo, 44100)
    with pytest.raises(DenoiseError, match="1 channel at 65537 Hz as FLAC/PCM_16: "):
        write(tmp_path / "x.flac", stereo[0], 65537)
    with pytest.raises(UsageError, match="FLAC/FLOAT"):
        write(tmp_path / "x.flac", stereo, 16000, subtype="FLOAT")
    assert [file.name for file in tmp_path.iterdir()] == ["x.wav"]


def test_interrupted_writing_leaves_nothing(tmp_path, stereo):
    with (
        pytest.raises(KeyboardInterrupt),
        writing.writer(tmp_path / "x.wav", 16000, 2, frames=16000) as target,
    ):
        target.write(stereo)
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("suffix", "limit"), [("mp3", 2), ("flac", 8), ("ogg", 255), ("opus", 255)]
)
def test_too_many_channels(tmp_path, suffix, limit):
    path = tmp_path / f"x.{suffix}"
    write(path, np.zeros((limit, 100), np.float32), 48000)
    assert probe(path).channels == limit
    path.unlink()
    with pytest.raises(
        UsageError, match=rf"at most {limit} channels, .* has {limit + 1}; write \.wav"
    ):
        write(path, np.zeros((limit + 1, 100), np.float32), 48000)
    assert list(tmp_path.iterdir()) == []


def test_rates_that_the_encoder_crashes_on_are_refused(tmp_path):
    path, sound = tmp_path / "x.ogg", np.zeros((1, 100), np.float32)
    write(path, sound, 200_000)
    assert probe(path).sample_rate == 200_000
    with pytest.raises(UsageError, match="up to 200000 Hz, the sound has 200001 Hz"):
        write(tmp_path / "y.ogg", sound, 200_001)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("subtype", ["PCM_S8", "ALAW"])
@pytest.mark.parametrize("shape", [(1, 9999), (1, 1), (3, 101), (2, 7)])
def test_aiff_of_one_byte_has_its_length(tmp_path, subtype, shape):
    path = tmp_path / "x.aiff"
    write(path, np.full(shape, 0.5, np.float32), 8000, subtype=subtype)
    assert soundfile.info(path).frames == shape[1]
    np.testing.assert_allclose(soundfile.read(path)[0], 0.5, atol=0.02)
