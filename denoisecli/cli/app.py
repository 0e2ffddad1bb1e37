"""The program: its commands, the options that all of them share, and how errors end it."""

import inspect
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import wraps
from importlib import import_module
from importlib.metadata import version
from shutil import get_terminal_size
from typing import Annotated, Any, Literal

import typer
from pydantic import ValidationError
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.text import Text
from typer.core import TyperCommand, TyperGroup

from denoisecli.cli import console
from denoisecli.cli.options import Debug, Quiet, Verbose
from denoisecli.errors import DenoiseError, ReaderGone, UsageError
from denoisecli.system.caches import prepare_caches
from denoisecli.system.early_exit import exit_on_signals
from denoisecli.system.interrupts import exit_code_of, raise_pending, signals_raised

_COMMANDS = {
    "Clean and look": {
        "clean": "clean",
        "live": "live",
        "serve": "serving",
        "spectrogram": "sound",
        "plot": "sound",
    },
    "Datasets": {"mix": "sound", "build-dataset": "datasets", "dataset": "datasets"},
    "Training": {
        "adapt": "adapting",
        "spec": "models",
        "train": "training",
        "tune": "tuning",
        "runs": "training",
    },
    "Models and measuring": {"models": "models", "evaluate": "measuring", "export": "models"},
}
"""The module of every command, by its name and the heading above it in the help of the program."""

_MARKUP: Literal["markdown"] = "markdown"

_NARROW = 80
"""Width of the terminal in columns below which Rich would truncate the names of options."""


class HelpForNarrowTerminals:
    """Mixin for Typer commands: options stand above their descriptions if space is short."""

    def get_params(self, ctx: Any) -> Any:
        """Return the parameters; flags without the type that Typer shows for them."""
        params = super().get_params(ctx)  # type: ignore[misc]
        for param in params:
            if getattr(param, "is_flag", False):
                param.metavar = ""
        return params

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Print the help."""
        width = get_terminal_size().columns
        if width >= _NARROW:
            super().format_help(ctx, formatter)  # type: ignore[misc]
            return
        from rich.markdown import Markdown

        command = ctx.command
        entries = [param.get_help_record(ctx) for param in self.get_params(ctx)]
        if isinstance(command, TyperGroup):
            commands = [command.get_command(ctx, name) for name in command.list_commands(ctx)]
            entries += [(each.name, each.get_short_help_str(300)) for each in commands if each]
        usage = Text(command.get_usage(ctx), "bold")
        parts: list[RenderableType] = [usage, Text(), Markdown(command.help), Text()]
        for name, text in filter(None, entries):
            parts += [Text(name.strip(), "bold cyan"), Padding(Markdown(text), (0, 0, 0, 4))]
        console.out.print(Group(*parts), width=width, soft_wrap=False)


class Program(HelpForNarrowTerminals, TyperGroup):
    """The group of all commands, which turns exceptions into a message and an exit code."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.commands = _Commands()  # type: ignore[assignment]

    def invoke(self, ctx: Any) -> Any:
        """Run a command."""
        try:
            with signals_raised():
                try:
                    return super().invoke(ctx)
                except (DenoiseError, typer.Exit):
                    raise
                except Exception:
                    raise_pending()  # the import of an extension that it stops is an ImportError
                    raise
        except DenoiseError as error:
            console.error(error)
            raise typer.Exit(error.exit_code) from error
        except KeyboardInterrupt as error:
            console.error(DenoiseError("stopped"))
            raise typer.Exit(exit_code_of(error)) from error
        except BrokenPipeError as error:  # the reader of our results, such as head, has gone
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(ReaderGone.exit_code) from error
        except (OSError, MemoryError) as error:
            console.error(error)
            raise typer.Exit(1) from error


class Command(HelpForNarrowTerminals, TyperCommand):
    """A command whose errors name the wrong value of an option."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the arguments."""
        try:
            return super().parse_args(ctx, args)
        except typer.BadParameter as error:
            if isinstance(error.__cause__, ValidationError):  # Typer's message is pydantic's
                wrong = error.__cause__.errors()[0]
                message = wrong["msg"].removeprefix("Value error, ").removesuffix(".")
                rule, _, _ = message.partition(", unable to parse")
                error.message = rule.replace("Input should be", "must be")
                if wrong["type"] != "value_error":
                    error.message += f", found {wrong['input']!r}"
            raise


app = typer.Typer(
    cls=Program,
    context_settings={"help_option_names": ["-h", "--help"]},
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
    rich_markup_mode=_MARKUP,
)


def main() -> None:
    """Run the program; `denoisecli.cli.main` imports it first."""
    exit_on_signals()
    prepare_caches()
    console.separate_stderr()
    console.allow_all_characters()
    # On Windows, patterns are expanded here; `clean` does it itself, and keeps the folders.
    command = next((word for word in sys.argv[1:] if not word.startswith("-")), "")
    app(windows_expand_args=command != "clean")


def _print_version(wanted: bool) -> bool:
    if wanted:
        console.result(f"denoise {version('denoisecli')}")
        raise typer.Exit
    return wanted


@app.callback()
def _options(
    show_version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    debug: Debug = False,
) -> None:
    """Remove noise from recordings, and train the networks that do it."""
    console.set_verbosity(console.Verbosity(quiet, verbose, debug))


def _shared_options(quiet: Quiet = False, verbose: Verbose = False, debug: Debug = False) -> None:
    """Add the options behind a command to those before it, which `_options` has set."""
    before = console.get_verbosity()
    verbosity = console.Verbosity(
        quiet or before.quiet, verbose or before.verbose, debug or before.debug
    )
    console.set_verbosity(verbosity)
    if verbosity.quiet and verbosity.verbose:
        raise UsageError("--quiet and --verbose cannot be combined")


def _with_shared_options(function: Callable[..., None]) -> Callable[..., None]:
    """Return a command with the shared options behind its own."""
    shared = inspect.signature(_shared_options).parameters

    @wraps(function)
    def run(**values: Any) -> None:
        _shared_options(**{name: values.pop(name) for name in shared})
        function(**values)

    signature = inspect.signature(function)
    parameters = [*signature.parameters.values(), *shared.values()]
    run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


def _command(name: str) -> Any:
    """Import a command, and return it.

    Raises:
        KeyError: There is no such command.
    """
    panel = next((panel for panel, modules in _COMMANDS.items() if name in modules), "")
    module = import_module(f"denoisecli.cli.{_COMMANDS[panel][name]}")
    function = getattr(module, name.replace("-", "_"))
    alone = typer.Typer(add_completion=False, rich_markup_mode=_MARKUP)
    register = alone.command(name, cls=Command, rich_help_panel=panel)
    register(_with_shared_options(function))
    return typer.main.get_command(alone)


class _Commands(Mapping[str, Any]):
    """The commands by name, each imported when it is first used."""

    def __init__(self) -> None:
        self._used: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._used:
            self._used[name] = _command(name)
        return self._used[name]

    def __iter__(self) -> Iterator[str]:
        return (name for modules in _COMMANDS.values() for name in modules)

    def __len__(self) -> int:
        return sum(map(len, _COMMANDS.values()))
