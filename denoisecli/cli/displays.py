"""Progress displays of long commands: cleaning, training, a search."""

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Group
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
    from denoisecli.datasets.building import Progress as BuildProgress
    from denoisecli.tuning.trials import TrialResult


from denoisecli.cli import console
from denoisecli.cli.console import Settings, say


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
            console=console.err,
            transient=True,
            disable=Settings.quiet or not console.err.is_terminal,
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
            console=console.err,
            transient=True,
            disable=Settings.quiet or not console.err.is_terminal,
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
            console=console.err,
        )
        self.live = Live(Group(self.bars), console=console.err, transient=True)
        self.steps = 0

    def __enter__(self) -> "TrainingDisplay":
        if console.err.is_terminal and not Settings.quiet:
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.live.stop()

    def on_message(self, text: str) -> None:
        """Something worth a line."""
        say(text)

    def on_train_begin(self, epochs: int, steps: int, epoch: int) -> None:
        """Training begins, or goes on, at this epoch (from 0)."""
        self.steps = steps
        self.whole = self.bars.add_task("all epochs", total=epochs * steps, figures="")
        self.part = self.bars.add_task("epoch", total=steps, figures="")
        self.bars.update(self.whole, completed=epoch * steps)
        say(
            f"{'epoch':>5} {'loss':>8} {'val loss':>9} {'SI-SDR gain':>12} {'val':>7}  "
            f"{'minutes':>8} {'hours of audio':>15}"
        )

    def on_batch_end(self, epoch: int, step: int, logs: dict[str, float]) -> None:
        """A batch is done."""
        figures = f"loss {logs.get('loss', 0):.4f}"
        self.bars.update(self.whole, completed=epoch * self.steps + step)
        self.bars.update(
            self.part, completed=step, description=f"epoch {epoch + 1}", figures=figures
        )

    def on_epoch_end(self, row: dict[str, Any], *, best: bool) -> None:
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
        self.live = Live(get_renderable=self._table, console=console.err, transient=True)

    def __enter__(self) -> "SearchDisplay":
        if console.err.is_terminal and not Settings.quiet:
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.live.stop()

    def on_message(self, text: str) -> None:
        """Something worth a line."""
        say(text)

    def progress(self, trial: str, text: str) -> None:
        """How far a trial in this process is."""
        self.running = f"trial {trial}: {text}"

    def trials(self, results: "Sequence[TrialResult]") -> None:
        """A trial has begun or ended."""
        from denoisecli.tuning.trials import summary

        self.results = results
        for result in results:
            if result.name not in self.ended and result.status not in ("running", "waiting"):
                self.ended.add(result.name)
                self.running = ""
                if not console.err.is_terminal:
                    say(summary(result))

    def _table(self) -> Group:
        from denoisecli.tuning.trials import COLUMNS, short_names, table_row

        table = Table(box=None, pad_edge=False, header_style="bold")
        names = short_names(list(self.results[0].values)) if self.results else []
        for index, column in enumerate([*COLUMNS, *names]):
            table.add_column(escape(column), justify="left" if index < 2 else "right")
        for result in self.results[-max(3, console.err.height - 4) :]:
            table.add_row(*map(escape, table_row(result)), style=_STYLES.get(result.status))
        return Group(table, escape(self.running))


_STYLES = {"running": "bold", "failed": "red", "infeasible": "dim"}
