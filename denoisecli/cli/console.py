"""Output of the commands: messages, results, tables, JSON and errors.

Results go to stdout, everything else to stderr. Only this module and ``displays`` print.
"""

import io
import json
import os
import re
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from pydantic_core import to_jsonable_python
from rich.console import Console
from rich.markup import escape as escape_markup
from rich.table import Table


class _Console(Console):
    def on_broken_pipe(self) -> None:
        raise  # the BrokenPipeError, for which Rich would end the program with exit code 1


out = _Console(highlight=False, soft_wrap=True, emoji=False)
err = Console(stderr=True, highlight=False, soft_wrap=True, emoji=False)
for _console in (out, err):
    if not _console.is_terminal:
        _console.width = 120  # in pipes and files nobody needs tables of 80 columns

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # all but the tab and the line feed
_NARROWEST_TEXT = 16  # characters that names in a table are folded to where space is short


@dataclass(frozen=True)
class Verbosity:
    """Amount of output on stderr.

    Attributes:
        quiet: Print warnings and errors only, and no progress.
        verbose: Print details too, and what native libraries print.
        debug: Print the traceback of an error, and all that ``verbose`` prints.
    """

    quiet: bool = False
    verbose: bool = False
    debug: bool = False

    @property
    def detailed(self) -> bool:
        """Whether details and the messages of native libraries are printed."""
        return self.verbose or self.debug


_verbosity = Verbosity()


def escape(text: str) -> str:
    """Return a text that Rich prints as it is; control characters become visible.

    File names can hold such characters, which would move the cursor or change the terminal.
    """
    return escape_markup(_visible(text))


def _visible(text: str) -> str:
    return _CONTROL.sub(lambda match: f"\\x{ord(match[0]):02x}", text)


def get_verbosity() -> Verbosity:
    """Return how much is printed."""
    return _verbosity


def set_verbosity(verbosity: Verbosity) -> None:
    """Set how much is printed."""
    global _verbosity
    _verbosity = verbosity


def is_interactive() -> bool:
    """Return whether progress displays are drawn: stderr is a terminal, without ``--quiet``."""
    return err.is_terminal and not _verbosity.quiet


def info(text: str) -> None:
    """Print a line about what was done on stderr, unless ``--quiet`` is given."""
    if not _verbosity.quiet:
        err.print(escape(text))


def detail(text: str) -> None:
    """Print a line on stderr if ``--verbose`` or ``--debug`` is given."""
    if _verbosity.detailed:
        err.print(f"[dim]{escape(text)}[/]")


def result(text: str) -> None:
    """Print a line of results on stdout."""
    out.print(escape(text))


def warn(text: str) -> None:
    """Print a warning on stderr, even if ``--quiet`` is given."""
    err.print(f"[yellow]warning:[/] {escape(text)}")


def error(exception: BaseException) -> None:
    """Print the message of an exception on stderr; with ``--debug``, its traceback before it."""
    if _verbosity.debug:
        err.print(escape("".join(traceback.format_exception(exception))))
    err.print(f"[bold red]error:[/] {escape(str(exception) or type(exception).__name__)}")


def separate_stderr() -> None:
    """Move ``sys.stderr`` to a descriptor of its own, apart from what native libraries print.

    They print to descriptor 2, which `native_stderr_muted` can then silence while a progress bar
    is drawn.
    """
    if sys.stderr is not None:
        sys.stderr = os.fdopen(
            os.dup(sys.stderr.fileno()),
            "w",
            buffering=1,
            encoding=sys.stderr.encoding,
            errors=sys.stderr.errors,
        )


def allow_all_characters() -> None:
    """Let stdout print characters that its encoding lacks as escape sequences."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


@contextmanager
def native_stderr_muted() -> Iterator[None]:
    """Silence what native libraries print on descriptor 2, unless ``--verbose`` is given.

    TensorFlow prints notes on its build, libmpg123 on every damaged MP3 frame.
    """
    if _verbosity.detailed or sys.stderr is None:  # descriptor 2 is closed then
        yield
        return
    sys.stderr.flush()
    kept = os.dup(2)
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    os.close(null)
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(kept, 2)
        os.close(kept)


def print_json(value: object, *, indent: int | None = None) -> None:
    """Print one JSON document on stdout, by default on one line; infinity and NaN become null."""
    document = to_jsonable_python(value, inf_nan_mode="null", fallback=str)
    out.print(json.dumps(document, allow_nan=False, indent=indent), markup=False)


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, texts: int = 1) -> None:
    """Print a table of results on stdout.

    Args:
        columns: Headings.
        rows: Cells of each row, as many as there are headings.
        texts: Number of columns of text, which come first; the others are numbers. A table that is
            too wide is continued below itself, and the columns of text are repeated.
    """
    _print_tables(out, columns, rows, texts)


def info_table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, texts: int = 1) -> None:
    """Print a table as `print_table` does, but on stderr, unless ``--quiet`` is given."""
    if not _verbosity.quiet:
        _print_tables(err, columns, rows, texts)


def _print_tables(
    console: Console, columns: Sequence[str], rows: Sequence[Sequence[str]], texts: int
) -> None:
    for index, table in enumerate(tables(columns, rows, texts=texts, width=console.width)):
        if index:
            console.print()
        console.print(table, soft_wrap=False)


def tables(
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    texts: int,
    width: int,
    styles: Sequence[str | None] = (),
) -> list[Table]:
    """Return tables that show the given columns, each no wider than ``width`` where possible.

    Headings are broken between words and texts anywhere, but no number is.

    Args:
        columns: Headings.
        rows: Cells of each row.
        texts: Number of leading columns of text, which are repeated in every table.
        width: Columns of the terminal.
        styles: A Rich style for each row, or nothing.
    """
    rows = [[_visible(cell) for cell in row] for row in rows]
    words = [max(map(len, column.split()), default=0) for column in columns]
    cells = [max((len(row[index]) for row in rows), default=0) for index in range(len(columns))]
    unfolded = list(map(max, words, cells))
    gap = 2 if sum(unfolded) + 2 * len(columns) - 2 <= width else 1
    folded = [min(cell, _NARROWEST_TEXT) for cell in cells[:texts]]
    shortest = list(map(max, words, folded + cells[texts:]))
    blocks = [list(range(texts))]
    for index in range(texts, len(columns)):
        if sum(shortest[other] + gap for other in blocks[-1]) + shortest[index] > width:
            blocks.append(list(range(texts)))
        blocks[-1].append(index)
    result = []
    for block in blocks:
        table = Table(box=None, padding=0, header_style="bold")
        room = width - sum(shortest[index] + gap for index in block) + gap
        for index in block:
            more = min(max(room, 0), max(cells[index], len(columns[index])) - shortest[index])
            room -= more
            if table.columns:  # since Rich counts a padding after the last one, too
                table.add_column(width=gap)
            table.add_column(
                escape(columns[index]),
                justify="left" if index < texts else "right",
                overflow="fold",
                width=shortest[index] + more,
            )
        for row, style in zip(rows, styles or [None] * len(rows), strict=True):
            parts = [part for index in block for part in ("", escape(row[index]))]
            table.add_row(*parts[1:], style=style)
        result.append(table)
    return result
