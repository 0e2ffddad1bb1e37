import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
from helpers import constant_mask

from denoisecli.errors import AudioError, DenoiseError, UsageError
from denoisecli.evaluation import estimators
from denoisecli.evaluation.estimators import (
    BASELINES,
    Command,
    Folder,
    Model,
    SpectralGating,
    Unchanged,
    Wiener,
)
from denoisecli.evaluation.wiener import wiener

COPY = "import shutil, sys; shutil.copyfile(sys.argv[1], sys.argv[2])"


@pytest.fixture
def noisy(audio_file, speech, noise) -> Path:
    return audio_file("noisy/one.flac", speech(0.5, 16000) + noise(0.5, 16000))


def python(program: str) -> str:
    return f'"{sys.executable}" -c "{program}" {{input}} {{output}}'


def test_unchanged_is_the_file_itself(noisy, tmp_path):
    assert Unchanged().clean("one", noisy, tmp_path / "out.wav") == noisy
    assert not (tmp_path / "out.wav").exists()


def test_model(model_folder, noisy, tmp_path):
    model = Model(model_folder(constant_mask(0.5)))
    model.check(["one"])
    model.load()
    cleaned, _ = soundfile.read(model.clean("one", noisy, tmp_path / "out.wav"))
    np.testing.assert_allclose(cleaned, 0.5 * soundfile.read(noisy)[0], atol=1e-4)


def test_no_such_model(tmp_path):
    with pytest.raises(UsageError, match="no model 'nosuch'"):
        Model("nosuch").check([])
    with pytest.raises(UsageError, match="not a model folder"):
        Model(tmp_path).check([])


def test_folder_matches_names_whatever_the_suffix(audio_file, speech, noisy, tmp_path):
    cleaned = audio_file("cleaned/deep/one.two.wav", speech(0.5, 16000))
    folder = Folder(tmp_path / "cleaned")
    folder.check(["deep/one.two"])
    folder.load()
    assert folder.clean("deep/one.two", noisy, tmp_path / "out.wav") == cleaned
    with pytest.raises(UsageError, match=r"cleaned has no cleaned file for deep/four, three"):
        folder.check(["three", "deep/one.two", "deep/four"])
    with pytest.raises(UsageError, match="does not exist"):
        Folder(tmp_path / "nosuch").check(["a"])


def test_command_gets_paths_with_spaces_and_a_wav(audio_file, speech, tmp_path):
    noisy = audio_file("a folder/no 'isy'.flac", speech(0.1, 8000), 8000)
    command = Command(python(COPY))
    command.check(["one"])
    output = command.clean("one", noisy, tmp_path / "some where" / "o ut.wav")
    assert soundfile.info(output).format == "WAV"
    np.testing.assert_array_equal(soundfile.read(output)[0], soundfile.read(noisy)[0])
    assert [path.name for path in output.parent.iterdir()] == ["o ut.wav"]


def test_command_gets_a_wav_unchanged(audio_file, speech, tmp_path):
    noisy = audio_file("noisy.wav", speech(0.1, 8000), 8000, "PCM_24")
    output = Command(python(COPY)).clean("one", noisy, tmp_path / "out.wav")
    assert output.read_bytes() == noisy.read_bytes()


def test_command_gets_a_wav_of_integers(audio_file, speech, tmp_path):
    """Many programs do not read others."""
    noisy = audio_file("noisy.wav", speech(0.1, 8000), 8000, "FLOAT")
    output = Command(python(COPY)).clean("one", noisy, tmp_path / "out.wav")
    assert soundfile.info(output).subtype == "PCM_16"
    np.testing.assert_allclose(soundfile.read(output)[0], soundfile.read(noisy)[0], atol=2**-15)


def test_command_runs_without_a_shell(noisy, tmp_path):
    log = tmp_path / "log.txt"
    program = f"import sys; open({str(log)!r}, 'w').write(repr(sys.argv[3:])); " + COPY
    tricks = "; touch hacked $HOME `id` > file | cat {other} \\{input"
    Command(f"{python(program)} {tricks}").clean("one", noisy, tmp_path / "out.wav")
    words = [";", "touch", "hacked", "$HOME", "`id`", ">", "file", "|", "cat", "{other}", "{input"]
    assert log.read_text() == repr(words)


def test_command_that_fails(noisy, tmp_path):
    output = tmp_path / "out.wav"
    for program, message in (
        (
            "import sys; print('one'); sys.exit('no such weights')",
            "exit code 1 and printed: no such",
        ),
        ("raise SystemExit(3)", r"exit code 3 and printed: no output"),
        ("pass", "succeeded but wrote no output for one"),
    ):
        with pytest.raises(DenoiseError, match=message):
            Command(python(program)).clean("one", noisy, output)
    with pytest.raises(DenoiseError, match=r"took more than 0.2 s"):
        Command(python("import time; time.sleep(60)"), timeout=0.2).clean("one", noisy, output)
    assert [path.name for path in tmp_path.iterdir()] == ["noisy"]


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("denoiser {input}", r"lacks \{output\}"),
        ("denoiser {output} input", r"lacks \{input\}"),
        ("", r"lacks \{input\}"),
        ("denoiser '{input} {output}", "cannot be parsed: No closing quotation"),
    ],
)
def test_invalid_command_template(template, message):
    with pytest.raises(UsageError, match=message):
        Command(template)


def test_backslashes_separate_the_folders_of_windows(monkeypatch):
    monkeypatch.setattr(estimators, "_HAS_BACKSLASHES", True)
    command = Command(r'"C:\my tools\d.exe" -x C:\a.cfg {input} {output}')
    assert command._words == [r"C:\my tools\d.exe", "-x", r"C:\a.cfg", "{input}", "{output}"]


def test_missing_program():
    with pytest.raises(UsageError, match="no program 'nosuchdenoiser'"):
        Command("nosuchdenoiser {input} {output}").check(["one"])


def fake_noisereduce(monkeypatch, reduce_noise):
    monkeypatch.setitem(sys.modules, "noisereduce", SimpleNamespace(reduce_noise=reduce_noise))
    gating = SpectralGating()
    gating.load()
    return gating


def test_spectral_gating(audio_file, speech, tmp_path, monkeypatch):
    noisy = audio_file("a.wav", np.stack([speech(0.2, 8000), 2 * speech(0.2, 8000)]), 8000)
    arguments = {}

    def half(y, sr):
        arguments.update(shape=y.shape, sr=sr)
        return y.astype(np.float64) / 2

    output = fake_noisereduce(monkeypatch, half).clean("a", noisy, tmp_path / "out.wav")
    assert arguments == {"shape": (2, 1600), "sr": 8000}
    np.testing.assert_allclose(soundfile.read(output)[0], soundfile.read(noisy)[0] / 2, atol=2**-15)


def test_spectral_gating_that_fails(noisy, tmp_path, monkeypatch):
    def fail(y, sr):
        raise ValueError("too short")

    with pytest.raises(DenoiseError, match=r"noisereduce failed on .*one.flac: too short"):
        fake_noisereduce(monkeypatch, fail).clean("one", noisy, tmp_path / "out.wav")


def test_spectral_gating_without_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "noisereduce", None)
    with pytest.raises(UsageError, match=r"noisereduce.*: pip install \"denoisecli\[baselines\]\""):
        SpectralGating().check(["one"])


def test_wiener_cleans_each_channel(audio_file, speech, noise, tmp_path):
    noisy = np.stack([speech(1.0, 8000) + noise(1.0, 8000), noise(1.0, 8000)])
    estimator = Wiener()
    estimator.load()
    path = audio_file("noisy.wav", noisy, 8000)
    cleaned, rate = soundfile.read(estimator.clean("noisy", path, tmp_path / "out.wav"))
    assert (rate, cleaned.shape) == (8000, (8000, 2))
    for channel in range(2):
        np.testing.assert_allclose(cleaned[:, channel], wiener(noisy[channel], 8000), atol=1e-3)


def test_baselines_need_no_arguments():
    for name, kind in BASELINES.items():
        assert kind().timed, name


def test_a_text_file_named_flac(tmp_path):
    path = tmp_path / "noisy.flac"
    path.write_text("hello")
    with pytest.raises(AudioError, match=r"noisy\.flac"):
        Command(python(COPY)).clean("noisy", path, tmp_path / "out.wav")
    assert [p.name for p in tmp_path.iterdir()] == ["noisy.flac"]
