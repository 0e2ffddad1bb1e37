"""The command line: errors become one sentence and an exit code; commands are put together."""

import os
import sys
from importlib.metadata import version
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from denoisecli.cli import clean as cli_clean
from denoisecli.cli import console
from denoisecli.cli import datasets as cli_datasets
from denoisecli.cli import measuring as cli_measuring
from denoisecli.cli import models as cli_models
from denoisecli.cli import sound as cli_sound
from denoisecli.cli import training as cli_training
from denoisecli.cli import tuning as cli_tuning
from denoisecli.errors import DenoiseError


class Commands(TyperGroup):
    """Turns expected failures into one sentence and an honest exit code."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Take --debug and --quiet wherever they stand."""
        own = args[: args.index("--")] if "--" in args else args
        console.Settings.debug = "--debug" in own
        console.Settings.quiet = "--quiet" in own
        rest = [arg for arg in own if arg not in ("--debug", "--quiet")] + args[len(own) :]
        return super().parse_args(ctx, rest)

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except DenoiseError as error:
            console.fail(error)
            raise typer.Exit(error.exit_code) from error
        except KeyboardInterrupt as error:
            console.fail(DenoiseError("stopped"))
            raise typer.Exit(130) from error
        except BrokenPipeError as error:  # who reads our results has read enough: head, less
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(141) from error  # as a shell calls SIGPIPE
        except (OSError, MemoryError) as error:
            console.fail(error)
            raise typer.Exit(1) from error


app = typer.Typer(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"]},
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
    rich_markup_mode="markdown",
)
app.command()(cli_clean.clean)
app.command()(cli_sound.spectrogram)
app.command()(cli_sound.plot)
app.command()(cli_sound.mix)
app.command("build-dataset")(cli_datasets.build_dataset)
app.command()(cli_datasets.dataset)
app.command()(cli_training.train)
app.command()(cli_training.runs)
app.command()(cli_tuning.tune)
app.command()(cli_training.spec)
app.command()(cli_measuring.evaluate)
app.command()(cli_models.models)
app.command()(cli_models.export)


def main() -> None:
    """Entry point of the `denoise` script."""
    app()


def _version(wanted: bool) -> bool:
    if wanted:
        typer.echo(f"denoise {version('denoisecli')}")
        raise typer.Exit
    return wanted


@app.callback()
def options(
    show_version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks of errors.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Show errors and warnings only.")] = False,
) -> None:
    """Teach a U-Net to remove noise from sound, and remove it."""
