"""What the commands print: messages, results, tables, JSON and errors.

Results go to stdout, everything else to stderr. Only this module and ``displays`` print.
"""

import json
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from pydantic_core import to_jsonable_python
from rich.console import Console
from rich.markup import escape
from rich.table import Table

out = Console(highlight=False, soft_wrap=True, emoji=False)
err = Console(stderr=True, highlight=False, soft_wrap=True, emoji=False)
for _console in (out, err):
    if not _console.is_terminal:
        _console.width = 120  # in pipes and files nobody needs tables of 80 columns

_COLUMN_GAP = 2
_NARROWEST_TEXT = 16  # columns of a table that file names are folded to, if space is short


@dataclass(frozen=True)
class Verbosity:
    """How much is printed on stderr.

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


@contextmanager
def native_stderr_muted() -> Iterator[None]:
    """Silence what native libraries print on descriptor 2, unless ``--verbose`` is given.

    TensorFlow prints notes on its build, libmpg123 on every damaged MP3 frame.
    """
    if _verbosity.detailed:
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
    for table in tables(columns, rows, texts=texts, width=out.width):
        out.print(table, soft_wrap=False)


def info_table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, texts: int = 1) -> None:
    """Print a table as `print_table` does, but on stderr, unless ``--quiet`` is given."""
    if not _verbosity.quiet:
        for table in tables(columns, rows, texts=texts, width=err.width):
            err.print(table, soft_wrap=False)


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
    lengths = []
    for index, column in enumerate(columns):
        longest_cell = max((len(row[index]) for row in rows), default=0)
        if index < texts:
            longest_cell = min(longest_cell, _NARROWEST_TEXT)
        lengths.append(max([longest_cell, *map(len, column.split())]))
    blocks: list[list[int]] = [[]]
    used = texts_width = sum(length + _COLUMN_GAP for length in lengths[:texts])
    for index in range(texts, len(columns)):
        if blocks[-1] and used + lengths[index] > width:
            blocks.append([])
            used = texts_width
        blocks[-1].append(index)
        used += lengths[index] + _COLUMN_GAP
    return [
        _table(columns, rows, texts, [*range(texts), *block], lengths, styles) for block in blocks
    ]


def _table(
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    texts: int,
    chosen: list[int],
    lengths: list[int],
    styles: Sequence[str | None],
) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, _COLUMN_GAP, 0, 0), header_style="bold")
    for index in chosen:
        table.add_column(
            escape(columns[index]),
            justify="left" if index < texts else "right",
            overflow="fold",
            min_width=lengths[index],
        )
    for row, style in zip(rows, styles or [None] * len(rows), strict=True):
        table.add_row(*(escape(row[index]) for index in chosen), style=style)
    return table
