import contextlib
import fcntl
import io
import json
import os
import pty
import re
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from helpers import constant_mask, denoise, fails, smoothed_power_mask

from denoisecli import Denoiser
from denoisecli.audio.reading import reader
from denoisecli.models.catalogue import model_names


@pytest.fixture
def halving(model_folder: Callable[..., Path]) -> Path:
    """Return a model that halves its input."""
    return model_folder(constant_mask(0.5))


def test_writes_the_output_of_the_model(
    audio_file: Callable[..., Path], speech: Callable[..., np.ndarray], halving: Path
) -> None:
    audio = speech(1.0, 16000)
    source = audio_file("in.wav", audio)
    target = source.with_name("out.wav")
    result = denoise("clean", source, "-o", target, "--model", halving, "--json")
    assert result.exit_code == 0, result.output
    cleaned, rate = soundfile.read(target)
    assert rate == 16000
    np.testing.assert_allclose(cleaned, audio / 2, atol=1e-3)
    record = json.loads(result.stdout)
    assert record["source"] == str(source)
    assert record["seconds"] == pytest.approx(1.0)
    assert "real time" in result.stderr


def test_linked_channels_keep_their_levels(
    audio_file: Callable[..., Path],
    speech: Callable[..., np.ndarray],
    model_folder: Callable[..., Path],
) -> None:
    model = model_folder(smoothed_power_mask(), output={"mask": "magnitude"})
    sound = speech(1.0, 16000)
    source = audio_file("in.wav", np.stack([sound, 0.1 * sound]), subtype="FLOAT")
    target = source.with_name("out.wav")
    levels = []
    for options in ((), ("--link-channels",)):
        result = denoise("clean", source, "-o", target, "--model", model, "--overwrite", *options)
        assert result.exit_code == 0, result.output
        left, right = soundfile.read(target)[0].T
        levels.append(np.std(left) / np.std(right))
    assert levels[0] > 11
    assert levels[1] == pytest.approx(10, rel=0.01)


def test_quiet_prints_nothing(
    audio_file: Callable[..., Path], speech: Callable[..., np.ndarray], halving: Path
) -> None:
    source = audio_file("in.wav", speech(0.3, 16000))
    target = source.with_name("out.wav")
    result = denoise("clean", source, "-o", target, "--model", halving, "--quiet")
    assert result.exit_code == 0
    assert result.output == ""


def test_a_warning_names_the_recording_once(
    audio_file: Callable[..., Path], speech: Callable[..., np.ndarray], halving: Path
) -> None:
    source = audio_file("in.wav", speech(1.0, 16000))
    source.write_bytes(source.read_bytes()[:16044])
    result = denoise("clean", source, "--model", halving, "--keep-readable")
    assert result.exit_code == 0
    assert f"warning: {source} is cut off: 0.5 s" in result.stderr


def test_dry_run_reports_what_would_be_done(
    audio_file: Callable[..., Path], halving: Path, tmp_path: Path
) -> None:
    for name in ("in/a.wav", "in/b.wav", "out/b.wav"):
        audio_file(name, np.zeros(100))

    def status(*options: str) -> list[str]:
        arguments = ("clean", tmp_path / "in", "-o", tmp_path / "out", "--model", halving)
        result = denoise(*arguments, "--dry-run", "--json", *options)
        assert result.exit_code == 0, result.output
        return [json.loads(line)["status"] for line in result.stdout.splitlines()]

    assert status() == ["planned", "failed"]
    assert status("--skip-existing") == ["planned", "skipped"]
    assert status("--overwrite") == ["planned", "planned"]
    shown = denoise("clean", tmp_path / "in", "-o", tmp_path / "out", "--dry-run").stdout
    assert shown.splitlines()[1].endswith("b.wav (exists: would fail)")
    assert not (tmp_path / "out" / "a.wav").exists()


def test_options_are_checked_before_the_work(
    audio_file: Callable[..., Path], halving: Path
) -> None:
    source = audio_file("in.wav", np.zeros(100))
    target = source.with_name("out.wav")
    for options, message in (
        (("--plot", "x.jpg"), "x.jpg: a picture is written to a .png, .svg or .pdf file"),
        (("--skip-existing", "--overwrite"), "cannot be combined"),
    ):
        result = denoise("clean", source, "-o", target, "--model", halving, *options)
        fails(result, 2, message)
        assert not target.exists()


@pytest.mark.parametrize("option", ["--output", "--keep-noise", "--plot", "--report", "--model"])
def test_an_empty_name_is_refused(
    audio_file: Callable[..., Path], halving: Path, option: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = audio_file("in.wav", np.zeros(100))
    monkeypatch.chdir(source.parent)
    content = source.read_bytes()
    model = () if option == "--model" else ("--model", halving)
    result = denoise("clean", source, *model, option, "", "--overwrite")
    fails(result, 2, f"{option} is empty")
    assert [path.name for path in source.parent.glob("*.wav")] == ["in.wav"]
    assert source.read_bytes() == content


def test_batch_ends_with_a_table(
    audio_file: Callable[..., Path],
    speech: Callable[..., np.ndarray],
    halving: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("in/a.wav", "in/b.wav", "out/b.wav"):
        audio_file(name, speech(0.3, 16000))
    (tmp_path / "in" / "broken.wav").write_text("no sound")
    monkeypatch.chdir(tmp_path)
    result = denoise("clean", "in", "-o", "out", "--model", halving, "--skip-existing")
    fails(result, 1, "1 of 3 files failed")
    lines = [" ".join(line.split()) for line in result.stderr.splitlines()]
    assert any(line.startswith("in/a.wav done level -") for line in lines)
    assert "in/b.wav skipped" in lines
    assert any(line.startswith("in/broken.wav failed is damaged") for line in lines)
    assert "1 done, 1 skipped, 1 failed; 0.0 min of audio" in lines


def test_quiet_still_reports_which_files_failed(
    audio_file: Callable[..., Path], speech: Callable[..., np.ndarray], halving: Path
) -> None:
    folder = audio_file("in/a.wav", speech(0.3, 16000)).parent
    (folder / "broken.wav").write_text("no sound")
    result = denoise("clean", folder, "--model", halving, "--quiet")
    fails(result, 1, "warning: ", "broken.wav is damaged", "1 of 2 files failed")
    assert "a.wav" not in result.stderr


@pytest.mark.parametrize("option", [("--raw-channels", "2"), ("--raw-subtype", "FLOAT")])
def test_a_format_of_headerless_sound_needs_its_rate(halving: Path, option: Any) -> None:
    fails(denoise("clean", "-", "--model", halving, *option), 2, f"{option[0]} needs --raw-rate")


def test_raw_rate_is_for_stdin(audio_file: Callable[..., Path], halving: Path) -> None:
    source = audio_file("in.wav", np.zeros(100))
    for target in ("out.wav", "-"):
        result = denoise("clean", source, "-o", target, "--model", halving, "--raw-rate", "8000")
        fails(result, 2, "--raw-rate is for stdin")


def test_ctrl_c_reports_what_was_done(
    audio_file: Callable[..., Path],
    speech: Callable[..., np.ndarray],
    halving: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = audio_file("in/a.wav", speech(0.3, 16000)).parent
    audio_file("in/b.wav", speech(0.3, 16000))
    clean_file = Denoiser.clean_file

    def interrupted(self: Denoiser, source: Path, *arguments: Any, **options: Any) -> Any:
        if source.name == "b.wav":
            raise KeyboardInterrupt
        return clean_file(self, source, *arguments, **options)

    monkeypatch.setattr(Denoiser, "clean_file", interrupted)
    result = denoise("clean", folder, "-o", folder.with_name("out"), "--model", halving)
    fails(result, 130, "1 done, 0 skipped, 0 failed, 1 left", "stopped")
    assert [path.name for path in folder.with_name("out").iterdir()] == ["a.wav"]


def test_names_are_printed_unchanged(audio_file: Callable[..., Path]) -> None:
    source = audio_file("side:a:take:100:.wav", np.zeros(100))
    shown = denoise("clean", source, "-o", source.parent / "out", "--dry-run", "--json")
    assert json.loads(shown.stdout)["source"] == str(source)


def test_missing_file(tmp_path: Path, halving: Path) -> None:
    result = denoise("clean", tmp_path / "no.wav", "-o", tmp_path / "o.wav", "--model", halving)
    fails(result, 2, "no.wav")
    assert not (tmp_path / "o.wav").exists()


def test_empty_file(tmp_path: Path, halving: Path) -> None:
    (tmp_path / "x.wav").touch()
    result = denoise("clean", tmp_path / "x.wav", "-o", tmp_path / "y.wav", "--model", halving)
    fails(result, 1, "x.wav is empty")


def test_text_named_wav(tmp_path: Path, halving: Path) -> None:
    source = tmp_path / "text.wav"
    source.write_text("this is no sound")
    fails(denoise("clean", source, "-o", tmp_path / "o.wav", "--model", halving), 1, "text.wav")


def test_existing_output_is_kept_unless_overwrite(
    audio_file: Callable[..., Path], speech: Callable[..., np.ndarray], halving: Path
) -> None:
    source = audio_file("in.wav", speech(0.3, 16000))
    target = source.with_name("out.wav")
    target.write_text("precious")
    arguments = ("clean", source, "-o", target, "--model", halving)
    fails(denoise(*arguments), 2, "out.wav", "--overwrite")
    assert target.read_text() == "precious"
    assert denoise(*arguments, "--overwrite").exit_code == 0
    assert soundfile.info(target).frames == 4800


def test_nan_is_reported_with_its_time(audio_file: Callable[..., Path], halving: Path) -> None:
    audio = np.zeros(16000, np.float32)
    audio[8000] = np.nan
    source = audio_file("nan.wav", audio, 16000, "FLOAT")
    result = denoise("clean", source, "-o", source.with_name("o.wav"), "--model", halving)
    fails(result, 1, "nan.wav", "0.5")
    assert not source.with_name("o.wav").exists()


def test_no_samples(audio_file: Callable[..., Path], halving: Path) -> None:
    source = audio_file("empty.wav", np.zeros(0, np.float32))
    result = denoise("clean", source, "-o", source.with_name("o.wav"), "--model", halving)
    fails(result, 1, "empty.wav")


def test_unknown_model_lists_the_bundled_ones(audio_file: Callable[..., Path]) -> None:
    source = audio_file("in.wav", np.zeros(100, np.float32))
    result = denoise("clean", source, "-o", source.with_name("o.wav"), "--model", "speach")
    fails(result, 2, "speach", *model_names())
    several = denoise("clean", source, source.parent, "-o", "cleaned", "--model", "speach")
    fails(several, 2, "speach")


@pytest.mark.parametrize("name", model_names())
def test_bundled_models_remove_noise(
    name: str,
    audio_file: Callable[..., Path],
    rng: np.random.Generator,
) -> None:
    """Noise alone falls by at least 20 dB, and silence stays silence."""
    sound = (0.05 * rng.standard_normal(48000)).astype(np.float32)
    source = audio_file("noise.wav", sound)
    target = source.with_name("out.wav")
    assert denoise("clean", source, "-o", target, "--model", name).exit_code == 0
    cleaned, _ = soundfile.read(target)
    assert np.std(cleaned) < 0.1 * np.std(sound)

    silent = audio_file("silent.wav", np.zeros(32000, np.float32))
    assert denoise("clean", silent, "-o", target, "--model", name, "--overwrite").exit_code == 0
    assert not soundfile.read(target)[0].any()


def test_without_an_output_files_and_folders_go_beside_the_input(
    audio_file: Callable[..., Path], halving: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = audio_file("in/a.wav", np.ones(800) / 2).parent
    monkeypatch.chdir(folder.parent)
    for source, target in (("in/a.wav", "in/a.clean.wav"), ("in", "in-clean/a.wav")):
        result = denoise("clean", source, "--model", halving)
        assert result.exit_code == 0
        assert f"{target}: 0.1 s" in result.stderr
        assert soundfile.info(target).frames == 800
        fails(denoise("clean", source, "--model", halving), 2, f"{target} already exists")


def test_files_that_are_left_out_are_named(audio_file: Callable[..., Path], tmp_path: Path) -> None:
    audio_file("in/a.wav", np.zeros(100))
    (tmp_path / "in" / "cover.jpg").touch()
    arguments = ("clean", tmp_path / "in", "-o", tmp_path / "out", "--dry-run")
    shown = denoise(*arguments)
    assert "since they do not have the suffix of a recording: " in shown.stderr
    assert "cover.jpg" in shown.stderr
    assert denoise(*arguments, "--quiet").stderr == ""


@pytest.mark.parametrize("options", [["--overwrite"], ["--overwrite", "--keep-readable"]])
def test_the_picture_shows_what_was_read(
    audio_file: Callable[..., Path],
    speech: Callable[..., np.ndarray],
    halving: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: list[str],
) -> None:
    """In place, and of a damaged file, the source cannot be read again afterwards."""
    sound = speech(1.0, 16000)
    source = audio_file("in.wav", sound)
    if "--keep-readable" in options:
        source.write_bytes(source.read_bytes()[:-10_000])
        sound = sound[:-5000]
    drawn: list[np.ndarray] = []

    def plot_files(files: list[Path], output: Path, titles: list[str], **_: Any) -> None:
        assert titles == ["in.wav before", "in.wav after"]
        drawn.extend(soundfile.read(file)[0] for file in files)

    monkeypatch.setattr("denoisecli.audio.plot.plot_files", plot_files)
    arguments = ("clean", source, "-o", source, "--model", halving, "--plot", "p.png")
    result = denoise(*arguments, *options)
    assert result.exit_code == 0, result.output
    np.testing.assert_allclose(drawn[0], sound, atol=1e-4)
    np.testing.assert_allclose(drawn[1], sound / 2, atol=1e-4)


def test_noise_is_not_written_to_a_pipe(
    audio_file: Callable[..., Path], halving: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    source = audio_file("in.wav", np.zeros(800))
    result = denoise("clean", source, "-o", "out.wav", "--keep-noise", "-", "--model", halving)
    fails(result, 2, "--keep-noise takes a file or a folder, not a pipe")
    result = denoise("clean", "-", "-o", "out.wav", "--keep-noise", "noise", "--model", halving)
    fails(result, 2, "with a pipe, --keep-noise takes a file such as noise.wav, not noise")
    assert not (tmp_path / "out.wav").exists()


def test_the_longest_names_of_files_can_be_drawn(
    audio_file: Callable[..., Path], halving: Path, tmp_path: Path
) -> None:
    source = audio_file(f"{'x' * 251}.wav", 0.1 * np.ones(8000))
    picture = tmp_path / "p.png"
    options = ("--model", halving, "--overwrite", "--plot", picture)
    result = denoise("clean", source, "-o", source, *options)
    assert result.exit_code == 0, result.output
    assert picture.is_file()


def test_sound_is_not_written_to_a_terminal(halving: Path) -> None:
    controller, terminal = pty.openpty()
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM, "clean", "-", "--model", halving],
        stdin=subprocess.DEVNULL,
        stdout=terminal,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(terminal)
    os.close(controller)
    assert result.returncode == 2
    assert "stdout is a terminal" in result.stderr
    assert "--output" in result.stderr


def test_six_channels_do_not_fit_into_an_mp3(
    audio_file: Callable[..., Path], halving: Path
) -> None:
    source = audio_file("in.wav", np.zeros((6, 800)))
    target = source.with_name("out.mp3")
    arguments = ("clean", source, "-o", target, "--model", halving)
    fails(denoise(*arguments), 2, "MP3 holds at most 2 channels", "--mono")
    assert denoise(*arguments, "--mono").exit_code == 0
    assert soundfile.info(target).channels == 1


PROGRAM = "from denoisecli.cli.app import main; main()"


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
@pytest.mark.parametrize("jobs", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_signal_ends_a_batch_and_leaves_nothing_behind(
    audio_file: Callable[..., Path],
    halving: Path,
    tmp_path: Path,
    number: int,
    code: int,
    jobs: int,
) -> None:
    for name in ("a", "b", "c"):
        audio_file(f"in/{name}.wav", np.zeros((2, 48000 * 120)), 48000)
    out = tmp_path / "out"
    command = [sys.executable, "-c", PROGRAM, "clean", str(tmp_path / "in"), "-o", str(out)]
    with subprocess.Popen(
        [*command, "--jobs", str(jobs), "--model", str(halving)],
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        while process.poll() is None and not list(out.glob(".*")):
            time.sleep(0.01)
        process.send_signal(number)  # to the parent alone, as `kill` does
        _, errors = process.communicate(timeout=60)
    assert process.returncode == code, errors
    assert b"Traceback" not in errors
    assert all(soundfile.info(path).duration == 120 for path in out.glob("*"))
    assert not list(out.glob(".*"))
    with pytest.raises(ProcessLookupError):  # no process of the session is left
        for _ in range(100):
            os.killpg(process.pid, 0)
            time.sleep(0.05)


@pytest.mark.parametrize("jobs", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_batch_in_a_terminal_that_is_closed_leaves_nothing_behind(
    audio_file: Callable[..., Path], halving: Path, tmp_path: Path, jobs: int
) -> None:
    """A terminal sends SIGHUP to its processes, and whoever prints to it gets an error."""
    for name in ("a", "b"):
        audio_file(f"in/{name}.wav", np.zeros((2, 48000 * 120)), 48000)
    out = tmp_path / "out"
    command = [sys.executable, "-c", PROGRAM, "clean", str(tmp_path / "in"), "-o", str(out)]
    terminal, end = os.openpty()
    with subprocess.Popen(
        [*command, "--jobs", str(jobs), "--model", str(halving)],
        stdin=end,
        stdout=end,
        stderr=end,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    ) as process:
        os.close(end)
        while process.poll() is None and not list(out.glob(".*")):
            time.sleep(0.01)
        os.close(terminal)
        assert process.wait(timeout=60) == 128 + signal.SIGHUP
    assert not list(out.glob(".*"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_signal_while_a_pipe_is_read_leaves_nothing_behind(
    halving: Path, tmp_path: Path, number: int, code: int
) -> None:
    content = io.BytesIO()
    soundfile.write(content, np.zeros(48000), 48000, format="WAV")
    command = [sys.executable, "-c", PROGRAM, "clean", "-", "-o", str(tmp_path / "out.wav")]
    with subprocess.Popen(
        [*command, "--model", str(halving)], stdin=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        process.stdin.write(content.getvalue()[:50_000])
        process.stdin.flush()
        while process.poll() is None and not list(tmp_path.glob(".out*")):
            time.sleep(0.01)
        time.sleep(0.5)
        process.send_signal(number)
        process.wait(timeout=60)
        assert process.stderr is not None
        errors = process.stderr.read()
    assert process.returncode == code, errors
    assert not list(tmp_path.glob("*out*"))


@pytest.mark.slow
@pytest.mark.parametrize("writer", ["goes on", "stands still"])
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_keep_readable_keeps_what_a_pipe_held_before_a_signal(
    halving: Path, tmp_path: Path, number: int, code: int, writer: str
) -> None:
    content = io.BytesIO()
    soundfile.write(content, np.full(48000, 0.1), 48000, format="WAV", subtype="PCM_16")
    wav = bytearray(content.getvalue())
    wav[40:44] = b"\xff" * 4
    target = tmp_path / "out.wav"
    command = [sys.executable, "-c", PROGRAM, "clean", "-", "-o", str(target), "--keep-readable"]
    with subprocess.Popen(
        [*command, "--model", str(halving)], stdin=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        process.stdin.write(wav[: 44 + 48000])
        process.stdin.flush()
        while process.poll() is None and not list(tmp_path.glob(".out*")):
            time.sleep(0.01)
        time.sleep(0.5)
        process.send_signal(number)
        time.sleep(0.2)
        if writer == "goes on":  # it notices later
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write(wav[44 + 48000 :])
        process.wait(timeout=60)  # while the pipe stays open
        errors = process.stderr.read()
    assert process.returncode == code, errors
    assert b"what was received until then" in errors
    assert soundfile.info(target).frames >= 24000


def test_a_report_on_cleaned_recordings(
    audio_file: Callable[..., Path],
    speech: Callable[..., np.ndarray],
    halving: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("denoisecli.audio.dnsmos.is_installed", lambda: False)
    for name in "ab":
        audio_file(f"in/{name}.wav", 0.5 * speech(1.0, 16000))
    page = tmp_path / "page.html"
    options = ["--model", halving, "--report", page]
    result = denoise("clean", tmp_path / "in", "-o", tmp_path / "out", *options)
    assert result.exit_code == 0, result.output
    assert "page.html" in result.stderr
    assert page.read_text().count("<audio") == 6
    fails(denoise("clean", tmp_path / "in", *options), 2, "already exists")
    again = denoise("clean", tmp_path / "in", "-o", tmp_path / "in", *options, "--overwrite")
    assert again.exit_code == 0, again.output  # in place: the noisy sounds are kept for the page
    assert len(set(re.findall(r"Speech \S+", page.read_text()))) >= 2
    fails(denoise("clean", "-", *options), 2, "--report")


@pytest.mark.parametrize("option", ["--overwrite", "--keep-readable"])
def test_a_report_on_a_folder_with_a_recording_that_cannot_be_read(
    audio_file: Callable[..., Path],
    speech: Callable[..., np.ndarray],
    halving: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    option: str,
) -> None:
    monkeypatch.setattr("denoisecli.audio.dnsmos.is_installed", lambda: False)
    sound = audio_file("in/a.wav", 0.5 * speech(0.5, 16000))
    (tmp_path / "in" / "b.wav").write_bytes(b"no sound")
    out = sound.parent if option == "--overwrite" else tmp_path / "out"
    page = tmp_path / "page.html"
    options = ["--model", halving, "--report", page, option]
    result = denoise("clean", sound.parent, "-o", out, *options)
    fails(result, 1, "1 of 2 files failed")
    assert soundfile.read(out / "a.wav")[0].std() < 0.1
    assert "a.wav" in page.read_text() and "b.wav" not in page.read_text()


def test_wrong_strengths_and_peaks(halving: Path, audio_file: Callable[..., Path]) -> None:
    path = audio_file("x.wav", np.zeros(1000))
    for text in ("2", "much", "nan"):
        result = denoise("clean", path, "--model", halving, "--strength", text)
        fails(result, 2, "0 to 1 or auto")
    result = denoise("clean", path, "--model", halving, "--true-peak", "-2")
    fails(result, 2, "--true-peak needs")


@pytest.mark.parametrize(
    ("arguments", "closed", "problem"),
    [
        ("clean - -o x.wav", "<&-", "stdin is closed; nothing can be read from it"),
        ("clean x.wav -o -", ">&-", "stdout is closed; write a file with --output"),
    ],
)
def test_closed_pipes(arguments: str, closed: str, problem: str) -> None:
    command = ["sh", "-c", f'exec "$0" -c "$1" {arguments} {closed}', sys.executable, PROGRAM]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (2, f"error: {problem}\n")


@pytest.mark.parametrize("suffix", ["wav", "mkv"])
def test_the_page_and_the_picture_of_another_track(
    halving: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    """Both show the second track before, and the only or the second one after."""
    av = pytest.importorskip("av")
    source, target = tmp_path / "two.mkv", tmp_path / f"clean.{suffix}"
    with av.open(str(source), "w") as container:
        tracks = [container.add_stream("pcm_s16le", rate=16000, layout="mono") for _ in "ab"]
        for track, level in zip(tracks, (0, 8000), strict=True):
            sound = level * np.sign(np.sin(np.arange(16000) / 9))
            frame = av.AudioFrame.from_ndarray(np.int16(sound)[None], format="s16", layout="mono")
            frame.sample_rate = 16000
            for part in (frame, None):
                container.mux(track.encode(part))
    levels: dict[str, list[float]] = {}

    def level_of(path: Path, track: int | None) -> float:
        with reader(path, track=track) as recording:
            return float(np.abs(np.concatenate(list(recording), axis=1)).max())

    def report(recordings: Any, output: Path, **options: Any) -> None:
        (one,) = recordings
        levels["page"] = [level_of(one.noisy, one.track), level_of(one.clean, one.clean_track)]
        output.touch()

    def plot(files: Any, output: Path, **options: Any) -> None:
        levels["picture"] = [level_of(path, None) for path in files]

    monkeypatch.setattr("denoisecli.evaluation.cleaned.write_cleaning_report", report)
    monkeypatch.setattr("denoisecli.audio.plot.plot_files", plot)
    result = denoise(
        *("clean", source, "-o", target, "--model", halving, "--track", "2"),
        *("--report", tmp_path / "x.html", "--plot", tmp_path / "x.png"),
    )
    assert result.exit_code == 0, result.stderr
    expected = pytest.approx([8000 / 32768, 4000 / 32768], rel=0.1)
    assert levels == {"page": expected, "picture": expected}
