"""Progress displays of long commands: cleaning, building a dataset, training, tuning."""

import math
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, TypeVar

from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column

from denoisecli.cli import console
from denoisecli.cli.console import escape

if TYPE_CHECKING:
    from denoisecli.datasets.building import BuildProgress
    from denoisecli.tuning.trials import TrialResult

Display = TypeVar("Display", bound="LiveDisplay")


class LiveDisplay:
    """A part of the terminal that is redrawn while the display is entered.

    Nothing is drawn where stderr is not a terminal or ``--quiet`` is given. While it is drawn, what
    native libraries print is silenced, because it would leave dead bars behind.
    """

    def __init__(self) -> None:
        self._exits = ExitStack()

    def __enter__(self: Display) -> Display:
        if console.is_interactive():
            live = Live(get_renderable=self.render, console=console.err, transient=True)
            self._exits.enter_context(console.native_stderr_muted())
            self._exits.enter_context(live)
        return self

    def __exit__(self, *_: object) -> None:
        self._exits.close()

    def render(self) -> RenderableType:
        """Return what is drawn."""
        raise NotImplementedError


class BarDisplay(LiveDisplay):
    """Progress bars, one below the other, each with its description and the time left.

    Args:
        columns: Rich columns, or format strings, between the bar and the time left.
    """

    def __init__(self, *columns: ProgressColumn | str) -> None:
        super().__init__()
        longest = max(8, console.err.width // 3 - 6)
        description = Column(no_wrap=True, overflow="ellipsis", max_width=longest)
        self.bars = Progress(
            TextColumn("{task.description}", table_column=description),
            BarColumn(bar_width=None),
            *columns,
            "left",
            TimeRemainingColumn(elapsed_when_finished=True),
            console=console.err,
        )

    def render(self) -> RenderableType:
        """Return the bars."""
        return self.bars


@contextmanager
def status(text: str) -> Iterator[None]:
    """Show a text with a spinner, for work whose progress is not known."""
    with console.err.status(escape(text)) if console.is_interactive() else nullcontext():
        yield


@contextmanager
def progress(
    label: str, *, unit: str | None = None
) -> Iterator[Callable[[int | float, int | float], None]]:
    """Show one progress bar.

    Args:
        label: Name of the work, such as ``"verifying"``.
        unit: Plural noun for the counted items, such as ``"pairs"``; None shows a percentage.

    Yields:
        A function that takes the number of finished items and their total.
    """
    count = MofNCompleteColumn() if unit else TaskProgressColumn()
    with BarDisplay(count, unit or "", TimeElapsedColumn()) as display:
        task = display.bars.add_task(escape(label), total=None)

        def update(done: int | float, total: int | float) -> None:
            display.bars.update(task, completed=done, total=total)

        yield update


class CleaningDisplay(BarDisplay):
    """Bars for all files and for each file in work, with the speed.

    Args:
        files: Number of files.
    """

    def __init__(self, files: int) -> None:
        super().__init__(TaskProgressColumn(), "{task.fields[speed]}")
        self.started = time.monotonic()
        self.whole = self.bars.add_task(f"{files} files", total=files, speed="", visible=files > 1)
        self.tasks: dict[Hashable, TaskID] = {}
        self.seconds: dict[Hashable, float] = {}
        self.done = 0.0  # seconds of all files together

    def start(self, job: Hashable, name: str) -> None:
        """Add a bar for a file."""
        self.tasks[job] = self.bars.add_task(escape(name), total=None, speed="")

    def advance(self, job: Hashable, seconds: int | float, total: int | float) -> None:
        """Show how many seconds of a file are done, of a total in seconds or of 0 if unknown."""
        self._show_speed(job, seconds)
        if job in self.tasks:
            self.bars.update(self.tasks[job], completed=seconds, total=total or None)

    def end(self, job: Hashable, seconds: int | float) -> None:
        """Remove the bar of a file that was cleaned, skipped or given up."""
        self._show_speed(job, seconds)
        if job in self.tasks:
            self.bars.remove_task(self.tasks.pop(job))
        self.bars.advance(self.whole)

    def _show_speed(self, job: Hashable, seconds: int | float) -> None:
        """Show the speed of all files together, beside their bar and that of a single file."""
        self.done += seconds - self.seconds.get(job, 0.0)
        self.seconds[job] = seconds
        speed = f"{self.done / max(time.monotonic() - self.started, 1e-3):.0f}x real time"
        self.bars.update(self.whole, speed=speed)
        if job in self.tasks:
            self.bars.update(self.tasks[job], speed=speed if len(self.tasks) == 1 else "")


class BuildDisplay(BarDisplay):
    """A bar for the recordings that were read, and one for the mixtures that were made."""

    def __init__(self) -> None:
        super().__init__(
            MofNCompleteColumn(),
            "{task.fields[unit]}, {task.fields[hours]:.2f} h",
            TimeElapsedColumn(),
        )
        self.tasks: dict[str, TaskID] = {}

    def show(self, progress: "BuildProgress") -> None:
        """Show how far a stage of the build is."""
        stage = progress.stage
        if stage not in self.tasks:
            unit = "files" if stage == "reading" else "mixtures"
            self.tasks[stage] = self.bars.add_task(stage, unit=unit, hours=0.0)
        self.bars.update(
            self.tasks[stage],
            completed=progress.done,
            total=progress.total,
            hours=progress.hours,
        )


_HEADINGS = {
    "epoch": 5,
    "loss": 8,
    "val loss": 9,
    "SI-SDR gain": 11,
    "val gain": 9,
    "minutes": 8,
    "audio hours": 11,
}
"""Headings of the training and the widths of their columns."""

_BEST = "  best"


class TrainingDisplay(BarDisplay):
    """A line per epoch, a bar for the epoch and a bar for the whole run."""

    def __init__(self) -> None:
        super().__init__(MofNCompleteColumn(), "{task.fields[figures]}")
        self.steps = 0

    def on_message(self, text: str) -> None:
        """Print a message of the training."""
        console.info(text)

    def on_train_begin(self, epochs: int, steps: int, epoch: int) -> None:
        """Print the headings; training starts or continues at ``epoch``, counted from 0.

        If the number of epochs is not known, it is 0.
        """
        self.steps = steps
        self.whole = self.bars.add_task("all epochs", total=epochs * steps or None, figures="")
        self.part = self.bars.add_task("epoch", total=steps, figures="")
        self.bars.update(self.whole, completed=epoch * steps)
        self._print_row({heading: heading for heading in _HEADINGS})

    def on_batch_end(self, epoch: int, step: int, logs: dict[str, float]) -> None:
        """Show the step and the mean loss of the epoch so far."""
        self.bars.update(self.whole, completed=epoch * self.steps + step)
        self.bars.update(
            self.part,
            completed=step,
            description=f"epoch {epoch + 1}",
            figures=f"loss {logs.get('loss', 0):.4f}",
        )

    def on_epoch_end(self, row: dict[str, Any], *, best: bool) -> None:
        """Print the figures of an epoch."""
        cells = {
            "epoch": str(row["epoch"]),
            "loss": f"{row.get('loss', math.nan):.4f}",
            "val loss": f"{row['val_loss']:.4f}",
            "SI-SDR gain": f"{row.get('si_sdr_improvement', math.nan):.2f} dB",
            "val gain": f"{row['val_si_sdr_improvement']:.2f} dB",
            "minutes": f"{row['minutes']:.1f}",
            "audio hours": f"{row['audio_hours']:.1f}",
        }
        self._print_row(cells, _BEST if best else "")

    def _print_row(self, cells: dict[str, str], mark: str = "") -> None:
        """Print the cells of a row by their headings, as many as the terminal has room for."""
        shown = dict(_HEADINGS)
        for heading in ("audio hours", "minutes", "SI-SDR gain"):
            if sum(shown.values()) + len(shown) - 1 + len(_BEST) > console.err.width:
                del shown[heading]
        texts = (f"{cells[heading]:>{width}}" for heading, width in shown.items())
        console.info(" ".join(texts) + mark)


class SearchDisplay(LiveDisplay):
    """A table of trials; without a terminal, a line for each trial that has ended."""

    def __init__(self) -> None:
        super().__init__()
        self.results: Sequence[TrialResult] = ()
        self.running = ""
        self.ended: set[str] = set()

    def on_message(self, text: str) -> None:
        """Print a message of the search."""
        console.info(text)

    def on_progress(self, trial: str, text: str) -> None:
        """Show the progress of a trial that this process trains."""
        self.running = f"trial {trial}: {text}"

    def on_results(self, results: "Sequence[TrialResult]") -> None:
        """Show all trials, after one of them has started or ended."""
        from denoisecli.tuning.trials import summary

        self.results = results
        for result in results:
            if result.is_finished and result.name not in self.ended:
                self.ended.add(result.name)
                self.running = ""
                if not console.err.is_terminal:
                    console.info(summary(result))

    def render(self) -> RenderableType:
        """Return the last trials, as many as the terminal has lines for."""
        from denoisecli.tuning.trials import trial_table

        if not self.results:
            return self.running
        shown = self.results[-max(3, console.err.height - 4) :]
        columns, rows = trial_table(shown)
        styles = [_STYLES.get(result.status) for result in shown]
        table, *_ = console.tables(columns, rows, texts=2, width=console.err.width, styles=styles)
        return Group(table, escape(self.running))


_STYLES = {"running": "bold", "failed": "red", "infeasible": "dim"}
