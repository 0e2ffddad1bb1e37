"""Every command as a user calls it: results, messages and exit codes."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from helpers import constant_mask, denoise, fails
from typer.main import get_command

from denoisecli import Denoiser
from denoisecli.cli import console
from denoisecli.cli.app import app
from denoisecli.models.catalogue import model_names, spec_names


@pytest.fixture
def halving(model_folder: Callable[..., Path]) -> Path:
    return model_folder(constant_mask(0.5))


COMMANDS = {
    "Clean and look": ["clean", "spectrogram", "plot"],
    "Datasets": ["mix", "build-dataset", "dataset"],
    "Training": ["spec", "train", "tune", "runs"],
    "Models and measuring": ["models", "evaluate", "export"],
}
NAMES = [name for names in COMMANDS.values() for name in names]


class TestHelp:
    @pytest.mark.parametrize("option", ["-h", "--help"])
    def test_lists_the_commands_in_groups(self, option: str) -> None:
        shown = denoise(option)
        assert shown.exit_code == 0
        assert (
            re.findall(r"^│ ([a-z-]+) ", shown.output.partition("Clean and look")[2], re.M) == NAMES
        )
        places = [shown.output.index(f" {panel} ") for panel in COMMANDS]
        assert places == sorted(places)

    @pytest.mark.parametrize("command", NAMES)
    def test_of_every_command_has_an_example(self, command: str) -> None:
        assert f"denoise {command}" in denoise(command, "-h").output.split("Example", 1)[1]

    @pytest.mark.parametrize("columns", ["50", "80", "120"])
    @pytest.mark.parametrize("command", ["", *NAMES])
    def test_shows_every_name_whole(
        self, command: str, columns: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("COLUMNS", columns)
        shown = denoise(*command.split(), "-h").output
        assert max(map(len, shown.splitlines())) <= int(columns)
        program = get_command(app)
        own = program.commands[command] if command else program  # type: ignore[attr-defined]
        names = [name for option in own.params for name in option.opts if name.startswith("-")]
        assert {"--quiet", "-q", "--verbose", "-v", "--debug"} < set(names)
        for name in [*names, *(() if command else NAMES)]:
            assert re.search(rf"(?<![\w-]){name}(?![\w-])", shown), name


class TestSharedOptions:
    """--quiet, --verbose and --debug, which every command has."""

    @pytest.fixture
    def mixed(self, audio_file: Callable[..., Path], rng: np.random.Generator) -> list[object]:
        """Return arguments of a command that reports what it wrote."""
        source = audio_file("in.wav", 0.1 * rng.standard_normal(800))
        target = source.with_name("out.wav")
        return ["mix", source, source, "--snr", 3, "-o", target, "--overwrite"]

    @pytest.mark.parametrize("option", ["--quiet", "-q"])
    def test_quiet_stands_before_or_behind_the_command(
        self, option: str, mixed: list[object]
    ) -> None:
        for arguments in ([option, *mixed], [*mixed, option]):
            shown = denoise(*arguments)
            assert (shown.exit_code, shown.output) == (0, "")
            assert "wrote" in denoise(*mixed).stderr  # the next call is not quiet any more

    @pytest.mark.parametrize("option", ["--debug"])
    def test_debug_shows_the_traceback(self, option: str) -> None:
        wrong = ["mix", "a.wav", "b.wav", "-o", "c.wav"]
        for arguments in ([option, *wrong], [*wrong, option]):
            shown = denoise(*arguments)
            assert shown.exit_code == 2
            assert "Traceback" in shown.stderr
        fails(denoise(*wrong), 2, "--ratio")

    def test_verbose_shows_details(self, capsys: pytest.CaptureFixture[str]) -> None:
        for arguments, shown in (((), ""), (("-v",), "a detail\n"), (("--debug",), "a detail\n")):
            denoise(*arguments, "models", "--json")
            console.detail("a detail")
            assert capsys.readouterr().err == shown

    def test_quiet_and_verbose_exclude_each_other(self, mixed: list[object]) -> None:
        for arguments in (["-q", *mixed, "-v"], ["-qv", *mixed], [*mixed, "-qv"]):
            fails(denoise(*arguments), 2, "--quiet and --verbose exclude each other")

    def test_the_value_of_an_option_may_look_like_one(self, mixed: list[object]) -> None:
        mixed[mixed.index("--snr") + 1] = "--quiet"
        fails(denoise(*mixed), 2, "'--snr': must be a valid number", "found '--quiet'")

    def test_behind_a_double_dash_it_is_a_file(self) -> None:
        fails(denoise("clean", "-o", "out.wav", "--", "--quiet"), 2, "--quiet does not exist")
        fails(denoise("clean", "-o", "out.wav", "--", "-v"), 2, "-v does not exist")


def test_version() -> None:
    assert denoise("--version").output.startswith("denoise 0.")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("mix", "a", "b", "-o", "c", "--snr", "loud"), "must be a valid number, found 'loud'"),
        (("mix", "a", "b", "-o", "c", "--seed", "1.5"), "must be a valid integer, found '1.5'"),
        (("train", "tiny", "--processes", "0"), "must be greater than or equal to 1, found '0'"),
        (("train", "tiny", "--device", "tpu"), "'tpu' is not one of 'auto', 'cpu', 'gpu'"),
    ],
)
def test_a_wrong_value_is_named(arguments: tuple[str, ...], message: str) -> None:
    shown = denoise(*arguments)
    assert shown.exit_code == 2
    assert message in " ".join(shown.stderr.replace("│", " ").split())


def test_unknown_command_is_wrong_use() -> None:
    fails(denoise("cleen"), 2, "Did you mean 'clean'?")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["clean", "in.wav", "-o", "out.wav", "--model", "MODEL"],
        ["spectrogram", "in.wav", "-o", "out.npz"],
        ["plot", "in.wav", "-o", "out.png"],
        ["mix", "in.wav", "in.wav", "--snr", "3", "-o", "out.wav"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_commands_that_do_not_train_never_load_tensorflow(
    arguments: list[str], tmp_path: Path, speech: Callable[..., np.ndarray], halving: Path
) -> None:
    soundfile.write(tmp_path / "in.wav", speech(0.5, 16000), 16000)
    code = (
        "import sys; from denoisecli.cli.app import app\n"
        "try: app(sys.argv[1:])\n"
        "except SystemExit as end: code = end.code\n"
        "loaded = {'tensorflow', 'keras'} & set(sys.modules)\n"
        "sys.exit(f'loaded {loaded}' if loaded else code)"
    )
    command = [argument.replace("MODEL", str(halving)) for argument in arguments]
    done = subprocess.run(
        [sys.executable, "-c", code, *command], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("arguments", ["clean --help", "models", "spec --schema"])
def test_a_reader_that_stops_reading_is_no_error(arguments: str, tmp_path: Path) -> None:
    code = "from denoisecli.cli.app import main; import sys; sys.argv[0] = 'denoise'; main()"
    with subprocess.Popen(
        [sys.executable, "-c", code, *arguments.split()],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode in (1, 141)  # Rich ends with 1 by itself


class TestClean:
    def test_writes_what_the_model_makes(
        self, audio_file: Callable[..., Path], speech: Callable[..., np.ndarray], halving: Path
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

    def test_quiet_says_nothing(
        self, audio_file: Callable[..., Path], speech: Callable[..., np.ndarray], halving: Path
    ) -> None:
        source = audio_file("in.wav", speech(0.3, 16000))
        target = source.with_name("out.wav")
        result = denoise("clean", source, "-o", target, "--model", halving, "--quiet")
        assert result.exit_code == 0
        assert result.output == ""

    def test_dry_run_says_what_would_be(
        self, audio_file: Callable[..., Path], halving: Path, tmp_path: Path
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
        self, audio_file: Callable[..., Path], halving: Path
    ) -> None:
        source = audio_file("in.wav", np.zeros(100))
        target = source.with_name("out.wav")
        for options, message in (
            (("--plot", "x.jpg"), "x.jpg: a picture is written to a .png, .svg or .pdf file"),
            (("--skip-existing", "--overwrite"), "exclude one another"),
        ):
            result = denoise("clean", source, "-o", target, "--model", halving, *options)
            fails(result, 2, message)
            assert not target.exists()

    def test_batch_ends_with_a_table(
        self,
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

    def test_ctrl_c_tells_what_was_done(
        self,
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

    def test_names_are_told_as_they_are(self, audio_file: Callable[..., Path]) -> None:
        source = audio_file("side:a:take:100:.wav", np.zeros(100))
        shown = denoise("clean", source, "-o", source.parent / "out", "--dry-run", "--json")
        assert json.loads(shown.stdout)["source"] == str(source)

    def test_missing_file(self, tmp_path: Path, halving: Path) -> None:
        result = denoise("clean", tmp_path / "no.wav", "-o", tmp_path / "o.wav", "--model", halving)
        fails(result, 2, "no.wav")
        assert not (tmp_path / "o.wav").exists()

    def test_empty_file(self, tmp_path: Path, halving: Path) -> None:
        (tmp_path / "x.wav").touch()
        result = denoise("clean", tmp_path / "x.wav", "-o", tmp_path / "y.wav", "--model", halving)
        fails(result, 1, "x.wav is empty")

    def test_text_named_wav(self, tmp_path: Path, halving: Path) -> None:
        source = tmp_path / "text.wav"
        source.write_text("this is no sound")
        fails(denoise("clean", source, "-o", tmp_path / "o.wav", "--model", halving), 1, "text.wav")

    def test_existing_output_is_kept_unless_overwrite(
        self, audio_file: Callable[..., Path], speech: Callable[..., np.ndarray], halving: Path
    ) -> None:
        source = audio_file("in.wav", speech(0.3, 16000))
        target = source.with_name("out.wav")
        target.write_text("precious")
        arguments = ("clean", source, "-o", target, "--model", halving)
        fails(denoise(*arguments), 2, "out.wav", "--overwrite")
        assert target.read_text() == "precious"
        assert denoise(*arguments, "--overwrite").exit_code == 0
        assert soundfile.info(target).frames == 4800

    def test_not_a_number(self, audio_file: Callable[..., Path], halving: Path) -> None:
        audio = np.zeros(16000, np.float32)
        audio[8000] = np.nan
        source = audio_file("nan.wav", audio, 16000, "FLOAT")
        result = denoise("clean", source, "-o", source.with_name("o.wav"), "--model", halving)
        fails(result, 1, "nan.wav", "0.5")
        assert not source.with_name("o.wav").exists()

    def test_no_samples(self, audio_file: Callable[..., Path], halving: Path) -> None:
        source = audio_file("empty.wav", np.zeros(0, np.float32))
        result = denoise("clean", source, "-o", source.with_name("o.wav"), "--model", halving)
        fails(result, 1, "empty.wav")

    def test_unknown_model_lists_the_bundled_ones(self, audio_file: Callable[..., Path]) -> None:
        source = audio_file("in.wav", np.zeros(100, np.float32))
        result = denoise("clean", source, "-o", source.with_name("o.wav"), "--model", "speach")
        fails(result, 2, "speach", *model_names())
        several = denoise("clean", source, source.parent, "-o", "cleaned", "--model", "speach")
        fails(several, 2, "speach")

    def test_debug_shows_the_traceback(self, tmp_path: Path, halving: Path) -> None:
        result = denoise(
            "clean", tmp_path / "no.wav", "-o", tmp_path / "o.wav", "--model", halving, "--debug"
        )
        assert result.exit_code == 2
        assert "Traceback" in result.stderr


@pytest.mark.parametrize("name", model_names())
def test_bundled_models_take_noise_out(
    name: str,
    audio_file: Callable[..., Path],
    rng: np.random.Generator,
) -> None:
    """Hiss alone falls by 20 dB at least; silence stays silence."""
    sound = (0.05 * rng.standard_normal(48000)).astype(np.float32)
    source = audio_file("noise.wav", sound)
    target = source.with_name("out.wav")
    assert denoise("clean", source, "-o", target, "--model", name).exit_code == 0
    cleaned, _ = soundfile.read(target)
    assert np.std(cleaned) < 0.1 * np.std(sound)

    silent = audio_file("silent.wav", np.zeros(32000, np.float32))
    assert denoise("clean", silent, "-o", target, "--model", name, "--overwrite").exit_code == 0
    assert not soundfile.read(target)[0].any()


class TestBuildDataset:
    def test_builds_and_says_what(
        self,
        audio_file: Callable[..., Path],
        speech: Callable[..., np.ndarray],
        noise: Callable[..., np.ndarray],
        tmp_path: Path,
    ) -> None:
        for index in range(4):
            audio_file(f"clean/{index}.wav", speech(0.5 + 0.1 * index, 16000))
            audio_file(f"noise/{index}.wav", noise(0.7, 16000))
        (tmp_path / "clean" / "broken.wav").write_text("no sound")
        data = tmp_path / "data"
        result = denoise(
            "build-dataset", tmp_path / "clean", tmp_path / "noise", "--snr=-5:5", "-o", data
        )
        assert result.exit_code == 0, result.output
        assert "train: 3 mixtures" in result.stderr
        assert "test: 1 mixtures" in result.stderr
        assert "broken.wav" in result.stderr
        assert {path.name for path in data.iterdir()} == {"train", "test", "dataset.json"}

    def test_folders_that_cannot_be_used(
        self, audio_file: Callable[..., Path], tmp_path: Path
    ) -> None:
        file = audio_file("noise/one.wav", np.ones(8000, np.float32) / 2)
        (tmp_path / "empty").mkdir()
        common = ("--ratio", "0.2", "-o", tmp_path / "data")
        fails(denoise("build-dataset", tmp_path / "none", file.parent, *common), 2, "none")
        fails(denoise("build-dataset", tmp_path / "empty", file.parent, *common), 2, "empty")
        fails(denoise("build-dataset", file, file.parent, *common), 2, "one.wav", "folder")
        assert not (tmp_path / "data").exists()

    def test_wants_an_amount_of_noise(self, tmp_path: Path) -> None:
        fails(denoise("build-dataset", tmp_path, tmp_path), 2, "ratio", "SNR")
        fails(denoise("build-dataset", tmp_path, tmp_path, "--snr", "3:loud"), 2, "3:loud")


class TestTrain:
    def test_misspelt_key(self, tmp_path: Path) -> None:
        spec = tmp_path / "spec.json"
        level = [{"filters": 8}]
        document = {"name": "x", "downsampling": level, "upsampling": level, "valey": []}
        spec.write_text(json.dumps(document))
        fails(denoise("train", spec), 2, "valey", "did you mean 'valley'")

    def test_no_dataset(self, tmp_path: Path) -> None:
        result = denoise("train", "tiny", "--data", tmp_path, "--run", tmp_path / "run")
        fails(result, 1, str(tmp_path))

    def test_unknown_spec_lists_the_bundled_ones(self) -> None:
        fails(denoise("train", "tinny"), 2, *spec_names())
