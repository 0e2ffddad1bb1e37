from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr

from denoisecli.audio import files as audio
from denoisecli.audio import formats, level, reading, resampling, writing
from denoisecli.errors import AudioError, DenoiseError, UsageError

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


@pytest.fixture
def stereo(speech, noise):
    return np.stack([speech(1, 16000), noise(1, 16000)])


@pytest.mark.parametrize(("suffix", "subtype", "bits"), LOSSLESS)
def test_what_is_written_is_read_back_bit_by_bit(tmp_path, rng, suffix, subtype, bits):
    steps = rng.integers(-(2 ** (bits - 1)), 2 ** (bits - 1), (2, 5000))
    samples = (steps / 2 ** (bits - 1)).astype(np.float32)
    path = tmp_path / f"x.{suffix}"
    audio.write(path, samples, 22050, subtype=subtype)
    back, sample_rate = audio.read(path)
    assert sample_rate == 22050
    np.testing.assert_array_equal(back, samples)
    assert soundfile.info(path).subtype == subtype


@pytest.mark.parametrize("suffix", formats.FORMATS)
def test_every_known_suffix_can_be_written_and_read(tmp_path, stereo, suffix):
    path = tmp_path / f"x{suffix}"
    audio.write(path, stereo, 16000)
    info = audio.probe(path)
    assert (info.sample_rate, info.channels, info.frames) == (16000, 2, 16000)
    assert info.duration == 1
    back, _ = audio.read(path)
    assert back.shape == stereo.shape
    assert back.dtype == np.float32
    assert np.corrcoef(back.ravel(), stereo.ravel())[0, 1] > 0.98


def test_long_vorbis_file_is_written(tmp_path):
    """Written in one piece, libsndfile's encoder overflows its stack."""
    audio.write(tmp_path / "x.ogg", np.zeros((2, 3_000_000), np.float32), 48000)
    assert audio.probe(tmp_path / "x.ogg").frames == 3_000_000


def test_blocks_make_up_the_file(audio_file, stereo):
    path = audio_file("x.flac", stereo, subtype="PCM_24")
    blocks = list(audio.read_blocks(path, frames=1000))
    assert [block.shape for block in blocks] == [(2, 1000)] * 16
    np.testing.assert_array_equal(np.concatenate(blocks, axis=1), soundfile.read(path)[0].T)


def test_mono_is_the_mean_of_the_channels(audio_file, stereo):
    mono, sample_rate = audio.read_mono(audio_file("x.wav", stereo, subtype="FLOAT"))
    np.testing.assert_allclose(mono, stereo.mean(axis=0), atol=1e-7)
    assert sample_rate == 16000


def test_read_resamples(audio_file, stereo):
    path = audio_file("x.wav", stereo, 16000, "FLOAT")
    resampled, sample_rate = audio.read(path, sample_rate=8000)
    assert sample_rate == 8000
    np.testing.assert_array_equal(resampled, soxr.resample(stereo.T, 16000, 8000).T)
    mono, _ = audio.read_mono(path, 8000)
    np.testing.assert_allclose(mono, resampled.mean(axis=0), atol=1e-6)


def test_samples_beyond_full_scale_are_clamped_and_counted(tmp_path):
    samples = np.array([[0.5, 1.5, -1.5, 1.0, -1.0]], np.float32)
    for subtype in ("PCM_16", "ULAW"):
        path = tmp_path / f"{subtype}.wav"
        with writing.writer(path, 8000, 1, frames=5, subtype=subtype) as target:
            target.write(samples)
            assert target.clipped == 2
        np.testing.assert_allclose(audio.read(path)[0], samples.clip(-1, 1), atol=0.02)


def test_floating_point_files_are_not_clamped(tmp_path):
    samples = np.array([1.5, -3.0], np.float32)
    audio.write(tmp_path / "x.wav", samples, 8000, subtype="FLOAT")
    np.testing.assert_array_equal(audio.read(tmp_path / "x.wav")[0][0], samples)


def test_large_wav_becomes_rf64(tmp_path, monkeypatch, stereo):
    monkeypatch.setattr(writing, "_MAX_BYTES", {"WAV": 60_000, "AIFF": 60_000})
    audio.write(tmp_path / "large.wav", stereo, 16000)
    audio.write(tmp_path / "small.wav", stereo[:1], 16000)
    assert audio.probe(tmp_path / "large.wav").format == "RF64"
    assert audio.probe(tmp_path / "small.wav").format == "WAV"
    with pytest.raises(UsageError, match="no more than 4 GB"):
        audio.write(tmp_path / "large.aiff", stereo, 16000)


@pytest.mark.parametrize(
    ("name", "like", "expected"),
    [
        ("x.wav", "PCM_16", "PCM_16"),
        ("x.wav", "FLOAT", "FLOAT"),
        ("x.wav", "ULAW", "ULAW"),
        ("x.wav", "IMA_ADPCM", "PCM_16"),
        ("x.wav", "PCM_S8", "PCM_U8"),
        ("x.wav", "ALAC_20", "PCM_24"),
        ("x.wav", "MPEG_LAYER_III", "PCM_16"),
        ("x.w64", "MPEG_LAYER_III", "PCM_16"),
        ("x.mp3", "MPEG_LAYER_III", "MPEG_LAYER_III"),
        ("x.wav", "VORBIS", "PCM_16"),
        ("x.flac", "PCM_24", "PCM_24"),
        ("x.flac", "PCM_U8", "PCM_S8"),
        ("x.flac", "PCM_32", "PCM_24"),
        ("x.FLAC", "FLOAT", "PCM_24"),
        ("x.ogg", "PCM_24", "VORBIS"),
        ("x.ogg", "OPUS", "OPUS"),
        ("x.opus", "VORBIS", "OPUS"),
        ("x.mp3", "FLOAT", "MPEG_LAYER_III"),
    ],
)
def test_nearest_subtype(name, like, expected):
    assert formats.nearest_subtype(name, like) == expected


@pytest.mark.parametrize("suffix", formats.FORMATS)
def test_every_subtype_on_offer_can_be_written(suffix, tmp_path):
    with pytest.raises(UsageError, match="no subtype NONE here; use ") as error:
        formats.require_subtype(f"x{suffix}", "NONE")
    for subtype in str(error.value).partition("; use ")[2].split(", "):
        if subtype in formats.BITS or subtype == "MPEG_LAYER_III":
            path = tmp_path / f"{subtype}{suffix}"
            audio.write(path, np.zeros(4000, np.float32), 8000, subtype=subtype)
            assert soundfile.info(path).subtype == subtype


@pytest.mark.parametrize("timesteps", [1, 7, 1000, 100_001])
@pytest.mark.parametrize(
    "rates", [(48000, 16000), (16000, 44100), (8000, 16000), (11025, 16000), (16000, 16000)]
)
def test_streamed_resampling_is_that_of_the_whole(rng, rates, timesteps):
    sound = rng.standard_normal((2, timesteps)).astype(np.float32)
    stream = resampling.StreamResampler(*rates, channels=2)
    pieces = [stream(sound[:, i : i + 4093]) for i in range(0, timesteps, 4093)]
    streamed = np.concatenate([*pieces, stream.finish()], axis=1)
    expected = soxr.resample(sound.T, *rates).T
    np.testing.assert_array_equal(streamed, expected)

    whole = resampling.resample(sound, *rates)
    assert whole.shape[1] == max(1, round(timesteps * rates[1] / rates[0] + 1e-9))
    shared = min(whole.shape[1], streamed.shape[1])
    np.testing.assert_array_equal(whole[:, :shared], streamed[:, :shared])
    np.testing.assert_array_equal(resampling.resample(sound[0], *rates), whole[0])


def test_resampling_there_and_back_is_aligned(speech):
    sound = speech(1, 16000)
    back = resampling.resample(resampling.resample(sound, 16000, 44100), 44100, 16000)
    assert level.rms(back - sound) < 0.02 * level.rms(sound)


def test_find_audio(audio_file, stereo, tmp_path):
    for name in ("b/y.flac", "a.WAV", "b/c/z.ogg", "b/._y.flac", ".hidden/x.wav"):
        audio_file(name, stereo)
    (tmp_path / "notes.txt").write_text("no audio")
    (tmp_path / "folder.wav").mkdir()
    found = [path.relative_to(tmp_path).as_posix() for path in audio.find_audio(tmp_path)]
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
    found = [path.relative_to(folder).as_posix() for path in audio.find_audio(folder)]
    assert found == ["noise/y.wav", "speech/x.wav", "z.wav"]


def test_find_audio_refuses(audio_file, stereo, tmp_path):
    with pytest.raises(UsageError, match="does not exist"):
        audio.find_audio(tmp_path / "nowhere")
    with pytest.raises(UsageError, match="no audio files"):
        audio.find_audio(tmp_path)
    with pytest.raises(UsageError, match=r"x\.wav is a file; a folder of recordings is needed"):
        audio.find_audio(audio_file("x.wav", stereo))


def test_missing_file_and_folder_are_wrong_use(tmp_path):
    with pytest.raises(UsageError, match=r"no\.wav does not exist"):
        audio.probe(tmp_path / "no.wav")
    with pytest.raises(UsageError, match="is a folder"):
        audio.read(tmp_path)


def test_text_is_no_audio(tmp_path):
    path = tmp_path / "text.wav"
    path.write_text("This is no sound at all.\n" * 100)
    for function in (audio.probe, audio.read):
        with pytest.raises(AudioError, match=r"text\.wav .*no audio file"):
            function(path)


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


def test_writing_refuses(tmp_path, stereo):
    path = tmp_path / "x.wav"
    audio.write(path, stereo, 16000)
    before = path.read_bytes()
    with pytest.raises(UsageError, match="exists already"):
        audio.write(path, stereo * 0, 16000)
    assert path.read_bytes() == before
    audio.write(path, stereo * 0, 16000, overwrite=True)
    assert path.read_bytes() != before

    with pytest.raises(UsageError, match=r"unknown audio format '\.xyz'; known are \.wav"):
        audio.write(tmp_path / "x.xyz", stereo, 16000)
    with pytest.raises(UsageError, match="Opus only supports sample rates of"):
        audio.write(tmp_path / "x.opus", stereo, 44100)
    with pytest.raises(UsageError, match="cannot write 3 channels at 16000 Hz as MP3"):
        audio.write(tmp_path / "x.mp3", np.zeros((3, 100), np.float32), 16000)
    with pytest.raises(DenoiseError, match="1 channels at 65537 Hz as FLAC/PCM_16: "):
        audio.write(tmp_path / "x.flac", stereo[0], 65537)
    with pytest.raises(UsageError, match="FLAC/FLOAT"):
        audio.write(tmp_path / "x.flac", stereo, 16000, subtype="FLOAT")
    assert [file.name for file in tmp_path.iterdir()] == ["x.wav"]


def test_interrupted_writing_leaves_nothing(tmp_path, stereo):
    with (
        pytest.raises(KeyboardInterrupt),
        writing.writer(tmp_path / "x.wav", 16000, 2, frames=16000) as target,
    ):
        target.write(stereo)
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_levels(rng):
    sine = np.sin(2 * np.pi * np.arange(16000) / 160).astype(np.float32)
    assert level.rms(sine) == pytest.approx(np.sqrt(0.5))
    assert level.rms(np.zeros((2, 0), np.float32)) == 0
    assert level.dbfs(level.rms(sine)) == pytest.approx(-3.01, abs=0.01)
    assert level.dbfs(0.0) == -np.inf


def test_fit_length():
    sound = np.arange(6, dtype=np.float32).reshape(2, 3)
    np.testing.assert_array_equal(resampling.fit_length(sound, 2), [[0, 1], [3, 4]])
    np.testing.assert_array_equal(resampling.fit_length(sound[0], 5), [0, 1, 2, 0, 0])


def test_info_has_the_path(audio_file, stereo):
    path = audio_file("x.wav", stereo, 16000, "PCM_24")
    assert audio.probe(str(path)) == reading.AudioInfo(Path(path), 16000, 2, 16000, "WAV", "PCM_24")
