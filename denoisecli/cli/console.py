"""All that is shown: progress, tables, errors, JSON. The only module that prints."""

import json
import math
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

if TYPE_CHECKING:
    pass

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
