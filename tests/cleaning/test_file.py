import io
import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from helpers import constant_mask, pink_noise
from hypothesis import given, settings
from hypothesis import strategies as st

from denoisecli.cleaning import masking
from denoisecli.cleaning.denoiser import Denoiser
from denoisecli.cleaning.file import FileOptions
from denoisecli.cleaning.masking import Blocks
from denoisecli.errors import AudioError, DenoiseError, UsageError


@pytest.fixture
def identity(model_folder: Callable[..., Path]) -> Denoiser:
    return Denoiser(model_folder(constant_mask(1)))


@pytest.fixture
def half(model_folder: Callable[..., Path]) -> Denoiser:
    return Denoiser(model_folder(constant_mask(0.5)))


@pytest.fixture
def loud(model_folder: Callable[..., Path]) -> Denoiser:
    return Denoiser(model_folder(constant_mask(1.5)))


@pytest.fixture
def sine_file(audio_file: Callable[..., Path]) -> Callable[[str], Path]:
    """A sine of amplitude 0.8."""
    sine = 0.8 * np.sin(2 * np.pi * 440 * np.arange(16000) / 16000)

    def write(subtype: str) -> Path:
        return audio_file(f"sine-{subtype}.wav", sine, 16000, subtype)

    return write


def samples(path: Path) -> np.ndarray:
    return soundfile.read(path, always_2d=True)[0].T


def test_rate_subtype_and_channels_on_request(
    half: Denoiser,
    audio_file: Callable[..., Path],
    speech: Callable[..., np.ndarray],
    tmp_path: Path,
) -> None:
    sound = np.stack([speech(2, 48000), 0.5 * speech(2, 48000)])[:, :90_001]
    path = audio_file("x.wav", sound, 48000)
    options = FileOptions(sample_rate=16000, subtype="pcm_24", mono=True)
    result = half.clean_file(path, tmp_path / "y.wav", options)
    info = soundfile.info(tmp_path / "y.wav")
    assert (info.samplerate, info.channels, info.subtype) == (16000, 1, "PCM_24")
    assert info.frames == 30_000  # 90001 / 3, to the nearest
    assert (result.sample_rate, result.channels) == (16000, 1)
    expected = 0.75 * 0.5 * sound[0, :90_000:3]
    assert np.abs(samples(tmp_path / "y.wav")[0] - expected).max() < 0.01


@pytest.mark.parametrize("rates", [(8000, 48000), (44100, 16000), (11025, 44100)])
@pytest.mark.parametrize("timesteps", [1, 2, 3, 999, 20_001])
def test_length_at_another_rate(
    half: Denoiser,
    audio_file: Callable[..., Path],
    noise: Callable[..., np.ndarray],
    tmp_path: Path,
    rates: tuple[int, int],
    timesteps: int,
) -> None:
    path = audio_file("x.wav", noise(3, rates[0])[:timesteps], rates[0])
    half.clean_file(path, tmp_path / "y.wav", FileOptions(sample_rate=rates[1]))
    length = soundfile.info(tmp_path / "y.wav").frames
    assert abs(length - timesteps * rates[1] / rates[0]) <= 0.5 or length == 1


@pytest.mark.parametrize(
    ("second", "found"),
    [
        (-1.0, "the mean of the channels is silent, since they cancel each other out"),
        (-0.8, "the mean of the channels is 19 dB below them"),
        (0.0, None),
        (1.0, None),
    ],
)
def test_channels_that_cancel_each_other_out(
    half: Denoiser,
    audio_file: Callable[..., Path],
    speech: Callable[..., np.ndarray],
    tmp_path: Path,
    second: float,
    found: str | None,
) -> None:
    sound = np.stack([speech(1, 16000), second * speech(1, 16000)])
    path = audio_file("x.wav", sound)
    result = half.clean_file(path, tmp_path / "y.wav", FileOptions(mono=True))
    assert bool(result.warnings) == bool(found)
    assert all(found and warning.startswith(found) for warning in result.warnings)


def test_silence_cancels_nothing(
    half: Denoiser, audio_file: Callable[..., Path], tmp_path: Path
) -> None:
    path = audio_file("x.wav", np.zeros((2, 1000)))
    assert not half.clean_file(path, tmp_path / "y.wav", FileOptions(mono=True)).warnings


def test_clean_and_noise_make_up_the_source(
    half: Denoiser,
    audio_file: Callable[..., Path],
    speech: Callable[..., np.ndarray],
    tmp_path: Path,
) -> None:
    sound = np.stack([speech(1, 44100), 0.5 * speech(1, 44100)])
    path = audio_file("x.wav", sound, 44100, "FLOAT")
    result = half.clean_file(path, tmp_path / "y.wav", noise_target=tmp_path / "n.wav")
    assert result.noise_target == tmp_path / "n.wav"
    clean, removed = samples(tmp_path / "y.wav"), samples(tmp_path / "n.wav")
    assert np.abs(removed).max() > 0.05
    np.testing.assert_allclose(clean + removed, sound, atol=1e-6)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has other permissions")
def test_what_is_made_from_a_private_recording_is_private(
    half: Denoiser, sine_file: Callable[[str], Path], tmp_path: Path
) -> None:
    path = sine_file("PCM_16")
    path.chmod(0o600)
    half.clean_file(path, tmp_path / "y.wav", noise_target=tmp_path / "n.wav")
    for name in ("y.wav", "n.wav"):
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o600


def test_noise_beyond_full_scale_is_counted(
    model_folder: Callable[..., Path], sine_file: Callable[[str], Path], tmp_path: Path
) -> None:
    inverting = Denoiser(model_folder(constant_mask(-0.5)))  # the noise is 1.5 times the source
    result = inverting.clean_file(
        sine_file("PCM_16"), tmp_path / "y.wav", noise_target=tmp_path / "n.wav"
    )
    assert result.clipped_samples == 0
    (warning,) = result.warnings
    assert warning.endswith(" samples of the noise were beyond full scale and clamped")


def test_metadata_that_the_noise_file_cannot_hold_is_named(
    half: Denoiser,
    audio_file: Callable[..., Path],
    noise: Callable[..., np.ndarray],
    tmp_path: Path,
) -> None:
    path = audio_file("x.wav", noise(0.5, 16000))
    content = path.read_bytes() + b"cue " + (4).to_bytes(4, "little") + bytes(4)
    path.write_bytes(content[:4] + (len(content) - 8).to_bytes(4, "little") + content[8:])
    for kept, other, lost in ((".wav", ".flac", "FLAC"), (".flac", ".au", "AU")):
        result = half.clean_file(
            path, tmp_path / f"y{kept}", noise_target=tmp_path / f"n{other}", overwrite=True
        )
        assert any(
            warning.startswith(f"not kept in the {lost} file: ") for warning in result.warnings
        )


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="open files are not listed")
@pytest.mark.parametrize("name", ["x.wav", "x.flac", "x.ogg", "x.mp3"])
def test_the_source_is_closed_before_it_is_replaced(
    half: Denoiser,
    audio_file: Callable[..., Path],
    speech: Callable[..., np.ndarray],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    path = audio_file(name, speech(1, 16000))
    rename = Path.replace
    opened = []

    def replace(self, target: Path) -> Path:
        opened.extend(os.path.realpath(link) for link in Path("/proc/self/fd").iterdir())
        return rename(self, target)

    monkeypatch.setattr(Path, "replace", replace)
    half.clean_file(path, path, overwrite=True)
    assert opened
    assert str(path) not in opened


def test_no_noise_remains_if_the_clean_file_fails(
    half: Denoiser,
    audio_file: Callable[..., Path],
    speech: Callable[..., np.ndarray],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The file of the noise is complete first."""
    path, target = audio_file("x.wav", speech(1, 16000)), tmp_path / "y.wav"
    replace = Path.replace

    def fail_at_target(source: Path, place: Path) -> Path:
        if place == target:
            assert (tmp_path / "n.wav").exists()
            raise DenoiseError("the disk is full")
        return replace(source, place)

    monkeypatch.setattr(Path, "replace", fail_at_target)
    with pytest.raises(DenoiseError, match="the disk is full"):
        half.clean_file(path, target, noise_target=tmp_path / "n.wav")
    assert not target.exists()
    assert not (tmp_path / "n.wav").exists()


def test_noise_must_have_a_file_of_its_own(
    half: Denoiser,
    audio_file: Callable[..., Path],
    speech: Callable[..., np.ndarray],
    tmp_path: Path,
) -> None:
    path = audio_file("x.wav", speech(1, 16000))
    with pytest.raises(UsageError, match="cannot hold both"):
        half.clean_file(path, tmp_path / "y.wav", noise_target=tmp_path / "." / "y.wav")
    with pytest.raises(UsageError, match=r"x\.wav is the recording itself"):
        half.clean_file(path, tmp_path / "y.wav", noise_target=path, overwrite=True)
    (tmp_path / "n.wav").write_text("precious")
    with pytest.raises(UsageError, match=r"n\.wav already exists"):
        half.clean_file(path, tmp_path / "y.wav", noise_target=tmp_path / "n.wav")
    assert not (tmp_path / "y.wav").exists()


def test_clamping_is_counted_for_integers_only(
    loud: Denoiser, sine_file: Callable[[str], Path], tmp_path: Path
) -> None:
    result = loud.clean_file(sine_file("PCM_16"), tmp_path / "y.wav")
    over = np.count_nonzero(1.2 * np.abs(np.sin(2 * np.pi * 440 * np.arange(16000) / 16000)) > 1)
    assert result.clipped_samples == pytest.approx(over, abs=20)
    assert result.warnings[0].startswith(f"{result.clipped_samples} samples were beyond full scale")
    assert np.abs(samples(tmp_path / "y.wav")).max() == 1

    assert loud.clean_file(sine_file("FLOAT"), tmp_path / "g.wav").clipped_samples == 0
    assert np.abs(samples(tmp_path / "g.wav")).max() == pytest.approx(1.2, abs=0.01)


@pytest.mark.parametrize("subtype", ["PCM_16", "FLOAT"])
def test_rescaling_fits_the_whole(
    loud: Denoiser, sine_file: Callable[[str], Path], tmp_path: Path, subtype: str
) -> None:
    path = sine_file(subtype)
    options = FileOptions(clip="rescale")
    result = loud.clean_file(path, tmp_path / "y.wav", options, noise_target=tmp_path / "n.wav")
    assert result.clipped_samples == 0
    assert result.gain == pytest.approx(1 / 1.2, rel=0.01)
    clean, removed = samples(tmp_path / "y.wav"), samples(tmp_path / "n.wav")
    assert np.abs(clean).max() == pytest.approx(1, abs=1e-3)
    level = 10 * np.log10(np.mean(np.square(clean)))
    assert result.rms_out_dbfs == pytest.approx(level, abs=0.01)
    assert result.warnings == ("scaled down by 1.6 dB to stay within full scale",)
    np.testing.assert_allclose(clean + removed, result.gain * samples(path), atol=2e-4)
    assert sorted(file.suffix for file in tmp_path.iterdir()) == ["", ".wav", ".wav", ".wav"]


def test_rescaling_leaves_alone_what_fits(
    half: Denoiser, sine_file: Callable[[str], Path], tmp_path: Path
) -> None:
    path = sine_file("PCM_16")
    result = half.clean_file(path, tmp_path / "y.wav", FileOptions(clip="rescale"))
    assert result.gain == 1
    assert np.abs(samples(tmp_path / "y.wav")).max() == pytest.approx(0.4, abs=0.01)


def test_no_clipping_wanted(
    loud: Denoiser, sine_file: Callable[[str], Path], tmp_path: Path
) -> None:
    options = FileOptions(clip="none")
    with pytest.raises(UsageError, match="PCM_16 has no values beyond full scale"):
        loud.clean_file(sine_file("PCM_16"), tmp_path / "y.wav", options)
    loud.clean_file(sine_file("FLOAT"), tmp_path / "y.wav", options)
    assert np.abs(samples(tmp_path / "y.wav")).max() == pytest.approx(1.2, abs=0.01)


def test_options_are_checked(
    half: Denoiser, sine_file: Callable[[str], Path], tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="clip must be one of clamp, rescale, none, not squash"):
        FileOptions(clip="squash")
    with pytest.raises(UsageError, match="sample rate must be 1000 to"):
        FileOptions(sample_rate=0)
    with pytest.raises(UsageError, match="must be 1000 to 768000 Hz, not 1000000000"):
        FileOptions(sample_rate=1_000_000_000)
    with pytest.raises(UsageError, match=r"does not support the subtype PCM_12; use .*PCM_16"):
        half.clean_file(sine_file("PCM_16"), tmp_path / "y.wav", FileOptions(subtype="PCM_12"))


def test_nan_is_replaced_on_request(
    half: Denoiser,
    audio_file: Callable[..., Path],
    speech: Callable[..., np.ndarray],
    tmp_path: Path,
) -> None:
    sound = np.stack([speech(1, 16000)] * 2)
    sound[1, 5000:5010] = [np.nan, np.inf, -np.inf, 1e11, -3e38] * 2
    path = audio_file("x.wav", sound, 16000, "FLOAT")
    with pytest.raises(AudioError, match=r"NaN or infinite sample at 0\.3"):
        half.clean_file(path, tmp_path / "y.wav")
    result = half.clean_file(path, tmp_path / "y.wav", FileOptions(replace_nan=True))
    assert result.replaced_samples == 10
    assert result.warnings == ("10 samples were NaN, infinite or above 1e10, and set to zero",)
    sound[1, 5000:5010] = 0
    np.testing.assert_allclose(samples(tmp_path / "y.wav"), sound / 2, atol=1e-5)


def test_cut_off_file(
    half: Denoiser,
    audio_file: Callable[..., Path],
    noise: Callable[..., np.ndarray],
    tmp_path: Path,
) -> None:
    path = audio_file("x.wav", noise(4, 16000))
    path.write_bytes(path.read_bytes()[: 44 + 2 * 24_000])
    with pytest.raises(AudioError, match=r"1\.5 s can be read of the 4\.0 s that its header"):
        half.clean_file(path, tmp_path / "y.wav")
    assert not (tmp_path / "y.wav").exists()
    result = half.clean_file(path, tmp_path / "y.wav", FileOptions(keep_readable=True))
    assert len(result.warnings) == 1
    assert "x.wav is cut off" in result.warnings[0]
    assert soundfile.info(tmp_path / "y.wav").frames == 24_000
    assert result.seconds == 1.5


@pytest.mark.parametrize("kept", [3000, None])
def test_a_recording_of_which_nothing_can_be_read_stays(
    half: Denoiser,
    audio_file: Callable[..., Path],
    noise: Callable[..., np.ndarray],
    kept: int | None,
) -> None:
    path = audio_file("x.flac", noise(4, 16000))
    data = path.read_bytes()
    start = data.index(b"\xff\xf8")  # of the first frame
    data = data[: start + 20] + bytes(len(data) - start - 20) if kept is None else data[:kept]
    path.write_bytes(data)
    options = FileOptions(keep_readable=True)
    with pytest.raises(AudioError, match=r"x\.flac is (damaged|cut off)"):
        half.clean_file(path, path, options, overwrite=True)
    assert path.read_bytes() == data


def test_file_that_changes_while_it_is_read(
    half: Denoiser,
    audio_file: Callable[..., Path],
    noise: Callable[..., np.ndarray],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(masking, "WHOLE", Blocks(1.0, 1.0, 1.0))
    path = audio_file("x.wav", noise(20, 16000))

    def append(done: int, total: int) -> None:
        with path.open("ab") as file:
            file.write(b"\0" * 100)

    with pytest.raises(AudioError, match=r"x\.wav was changed while it was read"):
        half.clean_file(path, tmp_path / "y.wav", on_progress=append)
    assert not (tmp_path / "y.wav").exists()


def test_two_runs_on_one_target(
    half: Denoiser,
    audio_file: Callable[..., Path],
    noise: Callable[..., np.ndarray],
    tmp_path: Path,
) -> None:
    path = audio_file("x.wav", noise(30, 16000))

    def other_run(done: int, total: int) -> None:
        (tmp_path / "y.wav").write_text("of the other run")

    with pytest.raises(UsageError, match="already exists"):
        half.clean_file(path, tmp_path / "y.wav", on_progress=other_run)
    assert (tmp_path / "y.wav").read_text() == "of the other run"


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg"])
def test_full_disk(
    half: Denoiser,
    audio_file: Callable[..., Path],
    noise: Callable[..., np.ndarray],
    tmp_path: Path,
    suffix: str,
) -> None:
    path = audio_file("x.wav", noise(5, 16000))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(DenoiseError, match=r"cannot write .*is the disk full"):
            half.clean_file(path, tmp_path / f"y{suffix}")
        with pytest.raises(DenoiseError, match="cannot store the sound"):
            half.clean_file(path, tmp_path / "z.wav", FileOptions(clip="rescale"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["model0", "x.wav"]


def test_folder_that_cannot_be_written_to(
    half: Denoiser,
    audio_file: Callable[..., Path],
    noise: Callable[..., np.ndarray],
    tmp_path: Path,
) -> None:
    path = audio_file("x.wav", noise(1, 16000))
    with pytest.raises(DenoiseError, match="cannot write to"):
        half.clean_file(path, path / "y.wav")
    with pytest.raises(DenoiseError, match="cannot write to /proc"):
        half.clean_file(path, "/proc/y.wav")


def test_names_with_anything_in_them(
    half: Denoiser,
    audio_file: Callable[..., Path],
    noise: Callable[..., np.ndarray],
    tmp_path: Path,
) -> None:
    path = audio_file("two words\n日本 'é'.wav", noise(1, 16000))
    target = tmp_path / "new\tfolder" / "ü *?[1].flac"
    result = half.clean_file(path, target)
    assert soundfile.info(str(target)).frames == 16000
    assert result.target == target


def test_tags_are_carried_over(
    half: Denoiser, noise: Callable[..., np.ndarray], tmp_path: Path
) -> None:
    with soundfile.SoundFile(tmp_path / "x.flac", "w", 16000, 1) as file:
        file.title, file.artist = "Wind", "Jörg"
        file.write(noise(1, 16000))
    for name in ("y.flac", "y.wav", "y.ogg", "y.mp3", "y.aiff", "y.au"):
        half.clean_file(tmp_path / "x.flac", tmp_path / name)
    for name in ("y.flac", "y.wav", "y.ogg", "y.mp3"):
        tags = soundfile.SoundFile(tmp_path / name).copy_metadata()
        assert (tags["title"], tags["artist"]) == ("Wind", "Jörg"), name


def test_options_may_be_numbers_of_numpy(
    model_folder: Callable[..., Path], audio_file: Callable[..., Path], tmp_path: Path
) -> None:
    """In a process of its own, since arguments must have exactly the annotated types here."""
    path = audio_file("x.wav", np.full(144_000, 0.1), 48000)
    code = """
import sys
import numpy as np
from denoisecli import Denoiser, FileOptions
options = FileOptions(sample_rate=np.int32(16000), loudness=np.float32(-30))
print(Denoiser(sys.argv[1]).clean_file(*sys.argv[2:], options).record()["gain"])
"""
    model, target = model_folder(constant_mask(0.5)), tmp_path / "y.wav"
    command = [sys.executable, "-c", code, str(model), str(path), str(target)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert float(done.stdout) > 0
    assert soundfile.info(target).frames == 48_000


def test_record_is_json(half: Denoiser, audio_file: Callable[..., Path], tmp_path: Path) -> None:
    path = audio_file("x.wav", np.zeros(16000))
    record = half.clean_file(path, tmp_path / "y.wav").record()
    back = json.loads(json.dumps(record, allow_nan=False))
    assert back["source"] == str(path)
    assert back["rms_in_dbfs"] is None
    assert back["seconds"] == 1
    assert back["real_time_factor"] > 0


@pytest.mark.parametrize("strength", [1.0, 0.25, 0.0])
def test_a_constant_is_no_sound(
    model_folder: Callable[..., Path],
    audio_file: Callable[..., Path],
    tmp_path: Path,
    strength: float,
) -> None:
    path = audio_file("x.wav", np.full(20_000, 0.5), 44100)
    identity = Denoiser(model_folder(constant_mask(1.0)), strength=strength)
    identity.clean_file(path, tmp_path / "y.wav")
    expected = (1 - strength) * samples(path)
    np.testing.assert_allclose(samples(tmp_path / "y.wav"), expected, atol=1e-4)


@pytest.mark.parametrize("kind", ["square", "impulse"])
def test_hard_signals(
    identity: Denoiser, audio_file: Callable[..., Path], tmp_path: Path, kind: str
) -> None:
    sound = {
        "square": np.sign(np.sin(2 * np.pi * 100 * np.arange(20_000) / 44100) + 1e-9),
        "impulse": np.eye(1, 20_000, 9999)[0],
    }[kind]
    path = audio_file("x.wav", sound, 44100)
    identity.clean_file(path, tmp_path / "y.wav")
    np.testing.assert_allclose(samples(tmp_path / "y.wav"), samples(path), atol=1e-4)


@pytest.fixture(scope="module")
def keeper(tmp_path_factory: pytest.TempPathFactory) -> Denoiser:
    """A denoiser whose network changes nothing."""
    import onnx

    folder = tmp_path_factory.mktemp("keeper")
    level = [{"filters": 1}]
    spec = {"name": "keeper", "downsampling": level, "upsampling": level}
    (folder / "spec.json").write_text(json.dumps(spec))
    opsets = [onnx.helper.make_opsetid("", 17)]
    model = onnx.helper.make_model(constant_mask(1), opset_imports=opsets, ir_version=8)
    onnx.save(model, folder / "model.onnx")
    return Denoiser(folder)


LOSSLESS = [
    (".wav", "PCM_U8"),
    (".wav", "PCM_16"),
    (".wav", "PCM_24"),
    (".wav", "FLOAT"),
    (".wav", "DOUBLE"),
    (".flac", "PCM_16"),
    (".flac", "PCM_24"),
    (".aiff", "PCM_16"),
    (".w64", "PCM_32"),
]


@settings(max_examples=30, deadline=None)
@given(
    sample_rate=st.one_of(st.integers(4000, 192_000), st.sampled_from([8000, 16000, 44100, 48000])),
    channels=st.integers(1, 8),
    timesteps=st.one_of(st.integers(1, 300), st.integers(1, 6000)),
    stored=st.sampled_from(LOSSLESS),
    silent=st.booleans(),
)
def test_nothing_that_was_there_is_lost(
    keeper: Denoiser,
    sample_rate: int,
    channels: int,
    timesteps: int,
    stored: tuple[str, str],
    silent: bool,
) -> None:
    suffix, subtype = stored
    if suffix == ".flac" and sample_rate > 65535:
        sample_rate -= sample_rate % 10  # it has no way to store the others
    rng = np.random.default_rng(timesteps)
    sound = np.stack([pink_noise(timesteps / sample_rate, sample_rate, rng)] * channels)
    sound *= 0 if silent else np.linspace(0.1, 1, channels)[:, None]
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, f"x{suffix}"), Path(folder, f"y{suffix}")
        soundfile.write(source, sound.T, sample_rate, subtype)
        keeper.clean_file(source, target)
        before, after = soundfile.info(source), soundfile.info(target)
        for name in ("samplerate", "channels", "frames", "format", "subtype"):
            assert getattr(before, name) == getattr(after, name)
        step = {"PCM_U8": 2**-7, "PCM_16": 2**-15}.get(subtype, 0)
        np.testing.assert_allclose(samples(target), samples(source), atol=2e-5 + step)
        if silent:
            assert not (samples(target) - samples(source)).any()


def test_a_broken_hard_link_is_named(audio_file, speech, model_folder):
    denoiser = Denoiser(model_folder(constant_mask(0.5)))
    path = audio_file("x.wav", speech(0.3, 16000))
    path.with_name("y.wav").hardlink_to(path)
    (warning,) = denoiser.clean_file(path, path, overwrite=True).warnings
    assert warning == f"{path} had other hard links, which keep the old sound"
    assert denoiser.clean_file(path, path, overwrite=True).warnings == ()


def test_a_lossy_codec_for_lossless_sound_is_named(tmp_path, speech, model_folder):
    av = pytest.importorskip("av")
    denoiser = Denoiser(model_folder(constant_mask(0.5)))
    with av.open(str(tmp_path / "x.ogg"), "w") as container:
        track = container.add_stream("flac", rate=16000, layout="mono")
        frame = av.AudioFrame.from_ndarray(speech(0.3, 16000)[None], "flt", "mono")
        frame.sample_rate, frame.pts = 16000, 0
        for part in (frame, None):
            container.mux(track.encode(part))
    (warning,) = denoiser.clean_file(tmp_path / "x.ogg", tmp_path / "y.ogg").warnings
    assert "was stored with the lossy codec VORBIS" in warning
    assert denoiser.clean_file(tmp_path / "x.ogg", tmp_path / "y.flac").warnings == ()


@pytest.mark.parametrize("behind", [False, True])
def test_chunks_of_a_wav_in_a_pipe_are_kept_or_named(tmp_path, speech, model_folder, behind):
    denoiser = Denoiser(model_folder(constant_mask(0.5)))
    soundfile.write(tmp_path / "x.wav", speech(0.3, 16000), 16000)
    content = (tmp_path / "x.wav").read_bytes()
    chunk = b"iXML\x08\0\0\0<BWFXML>"
    content = content + chunk if behind else content[:12] + chunk + content[12:]
    result = denoiser.clean_file(io.BytesIO(content), tmp_path / "y.wav")
    assert (b"<BWFXML>" in (tmp_path / "y.wav").read_bytes()) != behind
    named = ("not kept, because they follow the sound in a pipe: iXML",)
    assert result.warnings == (named if behind else ())
