import io
import os
import re
from collections.abc import Callable

import pytest
from rich.console import Console

from denoisecli.cli import console, displays


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Callable[[], str]:
    """Stand a terminal of 80 columns in for stderr; return a function for what it was sent."""
    stream = io.StringIO()
    shown = Console(file=stream, force_terminal=True, width=80, height=12, color_system=None)
    monkeypatch.setattr(console, "err", shown)
    monkeypatch.setattr(console, "_verbosity", console.Verbosity())
    return stream.getvalue


def drawn(display: displays.LiveDisplay) -> str:
    """Return the lines that a display would draw at this moment."""
    with console.err.capture() as capture:
        console.err.print(display.render())
    return capture.get()


def test_nothing_is_drawn_without_a_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    with displays.progress("verifying", unit="pairs") as update:
        update(1, 2)
        os.write(2, b"of a library\n")
    assert capfd.readouterr() == ("", "of a library\n")


def test_quiet_draws_nothing(terminal: Callable[[], str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "_verbosity", console.Verbosity(quiet=True))
    with displays.progress("verifying") as update:
        update(1, 2)
    assert terminal() == ""


def test_libraries_are_silent_while_a_bar_is_drawn(
    terminal: Callable[[], str], capfd: pytest.CaptureFixture[str]
) -> None:
    with displays.progress("verifying", unit="pairs") as update:
        update(1, 2)
        os.write(2, b"of a library\n")
    os.write(2, b"and after\n")
    assert capfd.readouterr().err == "and after\n"
    assert "verifying" in terminal()
    assert "1/2 pairs" in terminal()


def test_cleaning(terminal: Callable[[], str]) -> None:
    display = displays.CleaningDisplay(2)
    display.start("a", "[a].wav")
    display.advance("a", 2.0, 8.0)
    whole, part = drawn(display).splitlines()
    assert whole.startswith("2 files ") and " 0% " in whole and "x real time" in whole
    assert part.startswith("[a].wav ") and " 25% " in part and "x real time" in part
    display.start("b", "b.wav")
    display.advance("b", 1.0, 0)  # of unknown length
    display.end("a", 8.0)
    whole, part = drawn(display).splitlines()
    assert " 50% " in whole
    assert part.startswith("b.wav ")


@pytest.mark.parametrize("width", [50, 80, 120])
def test_bars_fit_the_terminal(terminal: Callable[[], str], width: int) -> None:
    console.err.width = width
    display = displays.CleaningDisplay(2)
    display.started -= 60
    display.start("a", f"{'a long name ' * 10}.wav")
    display.advance("a", 2000.0, 8000.0)
    lines = drawn(display).splitlines()
    assert len(lines) == 2
    assert max(map(len, lines)) <= width
    for line in lines:
        assert re.search(r"x real time left [-:\d]+$", line), line


@pytest.mark.parametrize(("width", "columns"), [(50, 4), (60, 5), (72, 6), (80, 7)])
def test_training_fits_the_terminal(terminal: Callable[[], str], width: int, columns: int) -> None:
    console.err.width = width
    display = displays.TrainingDisplay()
    display.on_train_begin(0, 10, 1)  # of unknown length
    assert drawn(display)
    figures = ("loss", "val_loss", "si_sdr_improvement", "val_si_sdr_improvement", "minutes")
    row = {"epoch": 2, "audio_hours": 123.45} | dict.fromkeys(figures, -12.34)
    display.on_epoch_end(row, best=True)
    lines = terminal().splitlines()
    assert len(lines) == 2
    assert max(map(len, lines)) <= width
    assert len(lines[1].replace(" dB", "").removesuffix("  best").split()) == columns


def test_training(terminal: Callable[[], str]) -> None:
    display = displays.TrainingDisplay()
    display.on_train_begin(3, 10, 1)
    display.on_batch_end(1, 4, {"loss": 0.5})
    row = {
        "epoch": 2,
        "loss": 0.12345,
        "val_loss": 0.2,
        "si_sdr_improvement": 12.346,
        "val_si_sdr_improvement": -1.5,
        "minutes": 12.25,
        "audio_hours": 123.45,
    }
    display.on_epoch_end(row, best=True)
    heading, line = terminal().splitlines()
    assert heading.split("  ")[0] == "epoch"
    assert line.split() == [
        "2",
        "0.1235",
        "0.2000",
        "12.35",
        "dB",
        "-1.50",
        "dB",
        "12.2",
        "123.5",
        "best",
    ]
    assert heading.index("minutes") + len("minutes") == line.index("12.2") + len("12.2")
    assert len(line) <= 80
    whole, part = drawn(display).splitlines()
    assert "14/30" in whole
    assert part.startswith("epoch 2 ") and "4/10" in part and "loss 0.5000" in part
