import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from rich.console import Console

from denoisecli.cli import console


@pytest.fixture(autouse=True)
def verbosity() -> Iterator[None]:
    before = console.get_verbosity()
    yield
    console.set_verbosity(before)


class TestJson:
    def printed(self, value: object, capsys: pytest.CaptureFixture[str]) -> object:
        console.print_json(value)
        text = capsys.readouterr().out
        assert text.count("\n") == 1
        return json.loads(text, parse_constant=pytest.fail)

    def test_infinity_and_nan_become_null(self, capsys: pytest.CaptureFixture[str]) -> None:
        value = {"a": math.nan, "b": [math.inf, (1, -math.inf)], "c": 0.5}
        assert self.printed(value, capsys) == {"a": None, "b": [None, [1, None]], "c": 0.5}

    def test_paths_and_dataclasses_can_be_printed(self, capsys: pytest.CaptureFixture[str]) -> None:
        @dataclass
        class Result:
            path: Path
            value: float

        expected = {"path": "a/b.wav", "value": None}
        assert self.printed(Result(Path("a/b.wav"), math.nan), capsys) == expected

    def test_names_of_files_that_are_no_unicode(self, capsys: pytest.CaptureFixture[str]) -> None:
        name = os.fsdecode(b"a\xff [b] :c:.wav")
        assert self.printed([name, Path(name)], capsys) == [name, name]


class TestTables:
    COLUMNS = ("file", "SI-SDR gain", "PESQ", "parameters")
    ROWS = (("a.wav", "-1.25 dB", "2.123", "1,234,567"), ("[b].wav", "10.50 dB", "-", "12"))

    def lines(self, width: int, **options: object) -> list[str]:
        shown = Console(width=width, soft_wrap=True)
        with shown.capture() as capture:
            for table in console.tables(self.COLUMNS, self.ROWS, texts=1, width=width, **options):
                shown.print(table, soft_wrap=False)
        return [line.rstrip() for line in capture.get().splitlines()]

    def test_wide_enough(self) -> None:
        assert self.lines(80) == [
            "file     SI-SDR gain   PESQ  parameters",
            "a.wav       -1.25 dB  2.123   1,234,567",
            "[b].wav     10.50 dB      -          12",
        ]

    def test_headings_are_broken_between_words(self) -> None:
        assert self.lines(36) == [
            "           SI-SDR",
            "file         gain   PESQ  parameters",
            "a.wav    -1.25 dB  2.123   1,234,567",
            "[b].wav  10.50 dB      -          12",
        ]

    def test_columns_move_together(self) -> None:
        assert self.lines(33) == [
            "          SI-SDR",
            "file        gain  PESQ parameters",
            "a.wav   -1.25 dB 2.123  1,234,567",
            "[b].wav 10.50 dB     -         12",
        ]

    def test_too_wide_is_continued_below_and_no_number_is_broken(self) -> None:
        assert self.lines(22) == [
            "          SI-SDR",
            "file        gain  PESQ",
            "a.wav   -1.25 dB 2.123",
            "[b].wav 10.50 dB     -",
            "file    parameters",
            "a.wav    1,234,567",
            "[b].wav         12",
        ]

    def test_long_texts_are_folded(self) -> None:
        text = "a long name of a recording.wav"
        with console.out.capture() as capture:
            for table in console.tables(["file", "gain"], [[text, "1.5"]], texts=1, width=30):
                console.out.print(table, width=30, soft_wrap=False)
        lines = capture.get().splitlines()
        assert len(lines) == 3
        assert lines[1].endswith(" 1.5")

    def test_quiet_hides_tables_about_what_was_done(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        for quiet in (True, False):
            console.set_verbosity(console.Verbosity(quiet=quiet))
            console.info_table(self.COLUMNS, self.ROWS)
            out, err = capsys.readouterr()
            assert (out, "1,234,567" in err) == ("", not quiet)


def stderr_of(code: str) -> str:
    """Return what a program prints on stderr."""
    program = (
        "import os; from denoisecli.cli import console; console.separate_stderr()\n"
        "def native(text): os.write(2, f'native {text}\\n'.encode())\n" + code
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stderr


class TestNativeStderr:
    CODE = """
native('before')
with console.native_stderr_muted():
    native('meanwhile')
    console.warn('ours')
    os.system('echo child >&2')
native('after')
"""

    def test_is_muted_but_ours_is_not(self) -> None:
        assert stderr_of(self.CODE) == "native before\nwarning: ours\nnative after\n"

    def test_is_shown_with_verbose(self) -> None:
        code = "console.set_verbosity(console.Verbosity(verbose=True))" + self.CODE
        expected = "native before\nnative meanwhile\nwarning: ours\nchild\nnative after\n"
        assert stderr_of(code) == expected


@pytest.mark.skipif(sys.platform == "win32", reason="no shell that closes stderr")
def test_closed_stderr() -> None:
    program = """
import sys
from denoisecli.cli import console
assert sys.stderr is None
console.separate_stderr()
for options in ({}, {"quiet": True}, {"verbose": True}, {"debug": True}):
    console.set_verbosity(console.Verbosity(**options))
    with console.native_stderr_muted():
        for show in (console.info, console.detail, console.warn):
            show("text")
        console.info_table(["file"], [["a.wav"]])
        console.error(ValueError("wrong"))
    console.is_interactive()
console.result("done")
"""
    done = subprocess.run(
        ["sh", "-c", '"$0" -c "$1" 2>&-', sys.executable, program], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, "done\n")


def test_control_characters_do_not_reach_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    name = "\x1b[2J\x07\r[c]"
    for show in (console.info, console.warn, console.result):
        show(name)
    console.info_table(["file"], [[name]])
    console.error(ValueError(name))
    captured = capsys.readouterr()
    shown = captured.out + captured.err
    assert shown.count("\\x1b[2J\\x07\\x0d") == 5
    assert not set(shown) & {"\x1b", "\x07", "\r"}


def test_characters_that_stdout_lacks_are_escaped(tmp_path: Path) -> None:
    (tmp_path / "naïve 名.wav").write_bytes(b"RIFF")
    code = "from denoisecli.cli.app import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "clean", tmp_path, "--dry-run"],
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        check=True,
    )
    assert b"\\u540d.wav" in done.stdout
    assert not done.stderr
