"""All that is shown: progress, tables, errors, JSON. The only module that prints."""

import json
import math
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

if TYPE_CHECKING:
    from denoisecli.building import Progress as BuildProgress
    from denoisecli.trials import TrialResult

out = Console(highlight=False, soft_wrap=True, emoji=False)
err = Console(stderr=True, highlight=False, soft_wrap=True, emoji=False)
for _console in (out, err):
    if not _console.is_terminal:
        _console.width = 120  # tables in pipes and files are not squeezed into 80 columns


class Settings:
    """What --quiet and --debug set."""

    quiet = False
    debug = False


def say(text: str) -> None:
    """A line about what was done, to stderr so that stdout stays for results."""
    if not Settings.quiet:
        err.print(escape(text))


def result(text: str) -> None:
    """A line of results on stdout."""
    out.print(escape(text))


def warn(text: str) -> None:
    """A line that --quiet does not hide."""
    err.print(f"[yellow]warning:[/] {escape(text)}")


def fail(error: BaseException) -> None:
    """One clear sentence on stderr; with --debug the traceback before it."""
    if Settings.debug:
        err.print(escape("".join(traceback.format_exception(error))))
    err.print(f"[bold red]error:[/] {escape(str(error) or type(error).__name__)}")


@contextmanager
def native_chatter_muted() -> Iterator[None]:
    """Keep what TensorFlow's libraries write on loading off stderr, unless --debug."""
    if Settings.debug:
        yield
        return
    sys.stderr.flush()
    kept = os.dup(2)
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nothing)


def print_json(value: Any, *, indent: int | None = None) -> None:
    """One JSON document on stdout, on one line by default; infinity and NaN become null."""
    out.print(json.dumps(_finite(value), allow_nan=False, default=str, indent=indent), markup=False)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def print_table(
    columns: list[str], rows: list[list[str]], *, texts: int = 1, console: Console = out
) -> None:
    """A table, on stdout; the first columns are text, the others are numbers.

    Where there is room, only long texts are broken: half a number would be misread.
    """
    table = Table(box=None, pad_edge=False, header_style="bold")
    widths = []
    for index, column in enumerate(columns):
        words = [word for text in (column, *(row[index] for row in rows)) for word in text.split()]
        longest = max(map(len, words), default=0)
        widths.append(min(longest, 8) if index < texts else longest)
    fits = sum(widths) + 2 * len(widths) - 2 <= console.width
    for index, column in enumerate(columns):
        table.add_column(
            column,
            justify="left" if index < texts else "right",
            overflow="fold",
            min_width=widths[index] if fits else None,
        )
    for row in rows:
        table.add_row(*(escape(cell) for cell in row))
    console.print(table, soft_wrap=False)


def say_table(columns: list[str], rows: list[list[str]], *, texts: int = 1) -> None:
    """A table on stderr, about what was done."""
    if not Settings.quiet:
        print_table(columns, rows, texts=texts, console=err)


@contextmanager
def progress(label: str, *, unit: str | None = None) -> Iterator[Callable[[float, float], None]]:
    """A progress bar on stderr; gives a function that takes what is done and what there is.

    Args:
        label: what is being done.
        unit: name of what is counted, or None to show a percentage.
    """
    count = MofNCompleteColumn() if unit else TaskProgressColumn()
    columns = (
        TextColumn(escape(label)),
        BarColumn(),
        count,
        TextColumn(unit or ""),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(
        *columns, console=err, transient=True, disable=Settings.quiet or not err.is_terminal
    ) as bar:
        task = bar.add_task("", total=None)

        def tell(done: int | float, total: int | float) -> None:
            bar.update(task, completed=done, total=total)

        yield tell


class CleaningDisplay:
    """Shows a batch: a bar for all files, one for each in work, time left and speed."""

    def __init__(self, files: int) -> None:
        self.started = time.monotonic()
        self.bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[speed]}"),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=err,
            transient=True,
            disable=Settings.quiet or not err.is_terminal,
        )
        self.whole = self.bars.add_task(f"{files} files", total=files, speed="", visible=files > 1)
        self.tasks: dict[Any, TaskID] = {}
        self.seconds: dict[Any, float] = {}

    def __enter__(self) -> "CleaningDisplay":
        self.bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bars.stop()

    def start(self, job: Any, name: str) -> None:
        """A file is in work."""
        self.tasks[job] = self.bars.add_task(escape(name), total=None, speed="")

    def advance(self, job: Any, seconds: int | float, total: int | float) -> None:
        """So many seconds of a file are done; a total of 0 is not known."""
        self.seconds[job] = seconds
        self._show_speed()
        if job in self.tasks:
            self.bars.update(self.tasks[job], completed=seconds, total=total or None)

    def end(self, job: Any, seconds: int | float) -> None:
        """A file is done, skipped or failed."""
        self.seconds[job] = seconds
        self._show_speed()
        if job in self.tasks:
            self.bars.remove_task(self.tasks.pop(job))
        self.bars.advance(self.whole)

    def _show_speed(self) -> None:
        elapsed = max(time.monotonic() - self.started, 1e-3)
        speed = f"{sum(self.seconds.values()) / elapsed:.0f}x real time"
        self.bars.update(self.whole, speed=speed)
        for task in self.tasks.values():
            self.bars.update(task, speed=speed if len(self.tasks) == 1 else "")


class BuildDisplay:
    """Shows the making of a dataset: a bar for the files read, then one for the mixes made."""

    def __init__(self) -> None:
        self.bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[unit]}, {task.fields[hours]:.2f} h"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=err,
            transient=True,
            disable=Settings.quiet or not err.is_terminal,
        )
        self.tasks: dict[str, TaskID] = {}

    def __enter__(self) -> "BuildDisplay":
        self.bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bars.stop()

    def show(self, progress: "BuildProgress") -> None:
        """So many files are read, or mixes made."""
        stage = progress.stage
        if stage not in self.tasks:
            unit = "files" if stage == "reading" else "mixes"
            self.tasks[stage] = self.bars.add_task(stage, unit=unit, hours=0.0)
        self.bars.update(
            self.tasks[stage],
            completed=progress.done,
            total=progress.total,
            hours=progress.hours,
        )


class TrainingDisplay:
    """Shows a training run: one line per epoch, a bar for the epoch, a bar for the whole."""

    def __init__(self) -> None:
        self.bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            TextColumn("left"),
            TimeRemainingColumn(elapsed_when_finished=True),
            console=err,
        )
        self.live = Live(Group(self.bars), console=err, transient=True)
        self.steps = 0

    def __enter__(self) -> "TrainingDisplay":
        if err.is_terminal and not Settings.quiet:
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.live.stop()

    def note(self, text: str) -> None:
        """Something worth a line."""
        say(text)

    def start(self, epochs: int, steps: int, epoch: int) -> None:
        """Training begins, or goes on, at this epoch (from 0)."""
        self.steps = steps
        self.whole = self.bars.add_task("all epochs", total=epochs * steps, figures="")
        self.part = self.bars.add_task("epoch", total=steps, figures="")
        self.bars.update(self.whole, completed=epoch * steps)
        say(
            f"{'epoch':>5} {'loss':>8} {'val loss':>9} {'SI-SDR gain':>12} {'val':>7}  "
            f"{'minutes':>8} {'hours of audio':>15}"
        )

    def step(self, epoch: int, step: int, logs: dict[str, float]) -> None:
        """A batch is done."""
        figures = f"loss {logs.get('loss', 0):.4f}"
        self.bars.update(self.whole, completed=epoch * self.steps + step)
        self.bars.update(
            self.part, completed=step, description=f"epoch {epoch + 1}", figures=figures
        )

    def epoch(self, row: dict[str, Any], *, best: bool) -> None:
        """An epoch is done."""
        say(
            f"{row['epoch']:>5} {row.get('loss', float('nan')):>8.4f} {row['val_loss']:>9.4f} "
            f"{row.get('si_sdr_improvement', float('nan')):>9.2f} dB "
            f"{row['val_si_sdr_improvement']:>4.2f} dB {row['minutes']:>8.1f} "
            f"{row['audio_hours']:>15.1f}{'  best' if best else ''}"
        )


class SearchDisplay:
    """Shows a search: a live table of trials on a terminal, else a line for each that has ended."""

    def __init__(self) -> None:
        self.results: Sequence[TrialResult] = ()
        self.running = ""
        self.ended: set[str] = set()
        self.live = Live(get_renderable=self._table, console=err, transient=True)

    def __enter__(self) -> "SearchDisplay":
        if err.is_terminal and not Settings.quiet:
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.live.stop()

    def note(self, text: str) -> None:
        """Something worth a line."""
        say(text)

    def progress(self, trial: str, text: str) -> None:
        """How far a trial in this process is."""
        self.running = f"trial {trial}: {text}"

    def trials(self, results: "Sequence[TrialResult]") -> None:
        """A trial has begun or ended."""
        from denoisecli.trials import summary

        self.results = results
        for result in results:
            if result.name not in self.ended and result.status not in ("running", "waiting"):
                self.ended.add(result.name)
                self.running = ""
                if not err.is_terminal:
                    say(summary(result))

    def _table(self) -> Group:
        from denoisecli.trials import COLUMNS, short_names, table_row

        table = Table(box=None, pad_edge=False, header_style="bold")
        names = short_names(list(self.results[0].values)) if self.results else []
        for index, column in enumerate([*COLUMNS, *names]):
            table.add_column(escape(column), justify="left" if index < 2 else "right")
        for result in self.results[-max(3, err.height - 4) :]:
            table.add_row(*map(escape, table_row(result)), style=_STYLES.get(result.status))
        return Group(table, escape(self.running))


_STYLES = {"running": "bold", "failed": "red", "infeasible": "dim"}
