"""The command that serves the page and the HTTP API: serve."""

import os
import secrets
import sys
from functools import partial
from pathlib import Path
from typing import Annotated
from urllib.parse import quote

import typer

from denoisecli.cli import console
from denoisecli.cli.options import refuse_empty
from denoisecli.errors import UsageError
from denoisecli.system.extras import require

_network = partial(typer.Option, rich_help_panel="Network")
_limits = partial(typer.Option, rich_help_panel="Limits")
_SHORTEST_TOKEN = 12

Model = Annotated[str, typer.Option(help="Name or folder of the model that is selected initially.")]
Models = Annotated[
    Path, typer.Option(help="Folder of further models to choose from, such as adapted ones.")
]
Jobs = Annotated[int, typer.Option(min=1, help="Number of recordings cleaned at the same time.")]
Browser = Annotated[bool, typer.Option(help="Open the page in the browser.")]
Host = Annotated[
    str,
    _network(help="Address to listen on; 0.0.0.0 makes the server reachable from other machines."),
]
Port = Annotated[
    int | None,
    _network(
        min=1, max=65535, help="Port to listen on (default: 8765, or another if it is in use)."
    ),
]
Token = Annotated[
    str | None,
    _network(
        envvar="DENOISE_TOKEN",
        help="Password that every request needs (default: none at 127.0.0.1 without --allow-host, "
        "otherwise a random one).",
    ),
]
AllowHost = Annotated[
    list[str] | None,
    _network(
        help="Additional host name of the server, such as that of a reverse proxy; repeatable."
    ),
]
MaxSize = Annotated[
    float, _limits(min=0.001, max=2**30, help="Maximum size of a recording in MiB.")
]
MaxWaiting = Annotated[int, _limits(min=1, help="Maximum number of waiting recordings.")]
Keep = Annotated[
    float,
    _limits(
        min=0.1, max=2**20, help="Minutes after which a recording that no page has open is removed."
    ),
]


def serve(
    model: Model = "speech",
    models: Models = Path("runs"),
    jobs: Jobs = 1,
    browser: Browser = True,
    host: Host = "127.0.0.1",
    port: Port = None,
    token: Token = None,
    allow_host: AllowHost = None,
    max_size: MaxSize = 4096.0,
    max_waiting: MaxWaiting = 100,
    keep: Keep = 60.0,
) -> None:
    """Clean recordings on a page in the browser, or through an HTTP API.

    Recordings stay on this machine, and are removed when the server stops. Other machines cannot
    reach the page unless `--host` allows it.

    Example: `denoise serve`,
    for a team: `denoise serve --host 0.0.0.0 --no-browser`
    """
    require(
        "serve", "starlette", "uvicorn", "python_multipart", purpose="denoise serve"
    )  # before the modules that import them
    from denoisecli.models.catalogue import find_model
    from denoisecli.serving.app import Settings
    from denoisecli.serving.guard import is_loopback, own_names
    from denoisecli.serving.server import address_of, listening
    from denoisecli.serving.server import serve as run
    from denoisecli.system.pools import cpu_cores

    refuse_empty({"--host": host, "--model": model})
    find_model(model)
    if token is not None and len(token) < _SHORTEST_TOKEN:
        raise UsageError(f"the token must have at least {_SHORTEST_TOKEN} characters")
    if token is not None and not (token.isascii() and token.isprintable()):
        raise UsageError("the token may hold printable ASCII characters only")
    local = is_loopback(host)
    beyond = not local or bool(allow_host)  # a proxy passes on what others send
    if beyond and token is None:
        token = secrets.token_urlsafe(18)
    settings = Settings(
        model=model,
        models_folder=models,
        workers=jobs,
        threads=max(1, cpu_cores() // jobs),
        max_bytes=round(max_size * 2**20),
        max_waiting=max_waiting,
        keep_seconds=60 * keep,
        token=token,
        names=own_names(host, allow_host or ()),
        beyond_loopback=beyond,
    )
    with listening(host, port) as bound:
        page = address_of(bound, host) + (f"?token={quote(token, safe='')}" if token else "")
        console.result(f"{page}  (Ctrl-C stops the server)")
        if not local:
            console.info("the connection is not encrypted; put a proxy with TLS in front of it")
        run(
            settings,
            bound,
            page=page if browser and _has_display() else None,
            on_error=lambda text: console.warn(text.strip()),
        )


def _has_display() -> bool:
    """Return whether a browser can open a window, and not only draw in the terminal."""
    return sys.platform in ("win32", "darwin") or bool(
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    )
