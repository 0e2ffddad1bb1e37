"""Options that several commands share, and the reading of their values."""

import os
from collections.abc import Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, TypeVar, overload

import typer

from denoisecli.cli import console, displays
from denoisecli.errors import UsageError
from denoisecli.system.extras import require

Number = TypeVar("Number", int, float)
_NAMES: dict[type, str] = {int: "a whole number", float: "a number"}

_code = partial(typer.Option, rich_help_panel="User-defined code")
_messages = partial(typer.Option, rich_help_panel="Messages")

Output = Annotated[Path, typer.Option("--output", "-o", help="File to write.")]

Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an existing output.")]

Json = Annotated[bool, typer.Option("--json", help="Print the results as JSON.")]

ModelClass = Annotated[
    str | None,
    _code(
        metavar="MODULE:CLASS",
        help="User-defined class of the network, such as mine:Small; its code is run "
        "(docs/new-model.md).",
    ),
]

Losses = Annotated[
    list[str] | None,
    _code(
        "--loss",
        metavar="MODULE:FUNCTION",
        help="User-defined loss that the spec names, such as mine:hiss; its code is run.",
    ),
]

Seed = Annotated[int, typer.Option(min=0, help="Seed of all random numbers.")]

NoMatchLevel = Annotated[
    bool,
    typer.Option(
        "--no-match-level", help="Do not scale the noise to the level of the clean recording."
    ),
]

Quiet = Annotated[bool, _messages("--quiet", "-q", help="Print warnings and errors only.")]

Verbose = Annotated[
    bool, _messages("--verbose", "-v", help="Print details and the messages of libraries too.")
]

Debug = Annotated[bool, _messages("--debug", help="Print the tracebacks of errors.")]


def refuse_given(options: Mapping[str, object], reason: str) -> None:
    """Raise UsageError if an option was given that would have no effect.

    Args:
        options: Values of such options by their names; None if one was not given.
        reason: End of the sentence, such as "does not apply to --invert".
    """
    for name, value in options.items():
        if value is not None:
            raise UsageError(f"{name} {reason}")


@overload
def number_or_range(text: None, option: str, kind: type[Number]) -> None: ...


@overload
def number_or_range(
    text: str, option: str, kind: type[Number]
) -> Number | tuple[Number, Number]: ...


def number_or_range(
    text: str | None, option: str, kind: type[Number]
) -> Number | tuple[Number, Number] | None:
    """Return the number or the range LOW:HIGH that an option was given.

    Args:
        text: Value of the option; None if it was not given.
        option: Name of the option, for the error message.
        kind: Type of the numbers.

    Raises:
        UsageError: The value is neither a number nor a range.
    """
    if text is None:
        return None
    low, colon, high = text.partition(":")
    try:
        return (kind(low), kind(high)) if colon else kind(low)
    except ValueError as error:
        raise UsageError(
            f"{option} takes {_NAMES[kind]} or a range LOW:HIGH, but was given {text!r}"
        ) from error


def parse_weights(
    texts: Sequence[str] | None, option: str, kind: type[Number]
) -> dict[str, Number]:
    """Return the weights that options such as FOLDER=3 give, by folder.

    Args:
        texts: Values of the option; None if it was not given.
        option: Name of the option, for the error message.
        kind: Type of the numbers.

    Raises:
        UsageError: A value has another form.
    """
    weights = {}
    for text in texts or ():
        name, _, number = text.rpartition("=")
        try:
            weights[name] = kind(number)
        except ValueError:
            name = ""
        if not name:
            raise UsageError(
                f"{option} takes FOLDER=NUMBER, {_NAMES[kind]}, but was given {text!r}"
            )
    return weights


def host_and_port(text: str) -> str:
    """Return a network address as it is if it has the form HOST:PORT; a parser for options.

    Raises:
        typer.BadParameter: The address has another form.
    """
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
        raise typer.BadParameter(f"expected HOST:PORT, such as localhost:8000, found {text!r}")
    return text


def allow_code(model_class: str | None, losses: Sequence[str] | None = None) -> None:
    """Run the code that the options `--model-class` and `--loss` name, after `load_keras`.

    Raises:
        UsageError: There is no such class or function.
    """
    from denoisecli.models.registry import allow_class

    if model_class is not None:
        allow_class(model_class)
    if losses:
        from denoisecli.training.losses.own import allow_loss

        for reference in losses:
            allow_loss(reference)


def load_keras(purpose: str) -> None:
    """Choose the backend of Keras, and load TensorFlow if that is it.

    The environment variable KERAS_BACKEND names the backend. Without it, that is TensorFlow, or JAX
    where only that is installed.

    Args:
        purpose: Subject of the error message, such as ``"training"``.

    Raises:
        UsageError: The packages of the backend are not installed.
    """
    backend = os.environ.get("KERAS_BACKEND", "tensorflow")
    if (
        "KERAS_BACKEND" not in os.environ
        and find_spec("tensorflow") is None
        and find_spec("jax") is not None
    ):
        os.environ["KERAS_BACKEND"] = backend = "jax"
    if backend == "tensorflow":
        load_tensorflow(purpose)
    else:
        require("jax" if backend == "jax" else "train", backend, "keras", "onnx", purpose=purpose)


def load_tensorflow(purpose: str) -> None:
    """Import TensorFlow and look for GPUs, without the messages of its native libraries.

    Args:
        purpose: Subject of the error message, such as ``"training"``.

    Raises:
        UsageError: The extra ``train`` is not installed.
    """
    require("train", "tensorflow", "keras", "onnx", purpose=purpose)
    if not console.get_verbosity().detailed:  # errors are raised; what is printed breaks tables
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with console.native_stderr_muted(), displays.status("loading TensorFlow"):
        import tensorflow

        devices = tensorflow.config.list_physical_devices()
    console.detail(f"TensorFlow {tensorflow.__version__} on {len(devices)} devices")


def refuse_empty(names: Mapping[str, str | Path | None]) -> None:
    """Raise UsageError if the value of an option is empty, which would be the current folder."""
    for option, name in names.items():
        if name in ("", Path()):
            raise UsageError(f"{option} is empty; is a variable not set?")
