"""Every command as a user calls it: results, messages and exit codes."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from helpers import constant_mask, denoise, fails
from typer.main import get_command

from denoisecli.cli import app as module
from denoisecli.cli import console
from denoisecli.cli.app import app


@pytest.fixture
def halving(model_folder: Callable[..., Path]) -> Path:
    return model_folder(constant_mask(0.5))


COMMANDS = {
    "Clean and look": ["clean", "live", "serve", "spectrogram", "plot"],
    "Datasets": ["mix", "build-dataset", "dataset"],
    "Training": ["adapt", "spec", "train", "tune", "runs"],
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

    @pytest.mark.parametrize("columns", ["50", "80"])
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
        if command:  # every one has an example
            assert f"denoise {command}" in " ".join(shown.partition("Example")[2].split())


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
            fails(denoise(*arguments), 2, "--quiet and --verbose cannot be combined")

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


def test_a_command_loads_no_other_command() -> None:
    code = """
import sys
from denoisecli.cli.app import app

before = set(sys.modules)
try:
    app(["runs", "-h"])
except SystemExit:
    print(*(name for name in set(sys.modules) - before if name.startswith("denoisecli.cli.")))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "denoisecli.cli.training"


@pytest.mark.slow
def test_commands_that_do_not_train_never_load_tensorflow(
    tmp_path: Path, speech: Callable[..., np.ndarray], halving: Path, tiny_dataset: Path
) -> None:
    soundfile.write(tmp_path / "in.wav", speech(0.5, 16000), 16000)
    code = f"""
import sys
from denoisecli.cli.app import app

for command in (
    "--help",
    "models {halving.parent}",
    "dataset {tiny_dataset}",
    "clean in.wav -o out.wav --model {halving}",
    "spectrogram in.wav -o out.npz",
    "plot in.wav -o out.png",
    "mix in.wav in.wav --snr 3 -o out2.wav",
):
    try:
        app(command.split())
    except SystemExit as end:
        loaded = {{"tensorflow", "keras"}} & set(sys.modules)
        if end.code or loaded:
            sys.exit(f"{{command}}: exit code {{end.code}}, loaded {{loaded}}")
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert {path.name for path in tmp_path.glob("out*")} == {
        *("out.wav", "out.npz", "out.png", "out2.wav")
    }


@pytest.mark.parametrize(
    ("arguments", "exit_code"),
    [
        ("clean --help", 1),  # Typer prints it, and Rich ends with this code
        ("spec --schema", 141),
        ("models", 141),
    ],
)
def test_a_reader_that_stops_reading_is_no_error(
    arguments: str, exit_code: int, tmp_path: Path
) -> None:
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
    assert process.returncode == exit_code


@pytest.mark.parametrize(
    ("arguments", "expands"),
    [(["clean", "a/*.wav"], False), (["-q", "clean", "a/*.wav"], False), (["plot", "*.wav"], True)],
)
def test_windows_expands_the_patterns_of_all_commands_but_clean(
    arguments: list[str], expands: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`clean` keeps the folders of a pattern, and leaves out what is no recording."""
    options: list[dict[str, bool]] = []
    for name in ("exit_on_signals", "prepare_caches"):
        monkeypatch.setattr(module, name, lambda: None)
    for name in ("separate_stderr", "allow_all_characters"):
        monkeypatch.setattr(console, name, lambda: None)
    monkeypatch.setattr(module, "app", lambda **given: options.append(given))
    monkeypatch.setattr(sys, "argv", ["denoise", *arguments])
    module.main()
    assert options == [{"windows_expand_args": expands}]
