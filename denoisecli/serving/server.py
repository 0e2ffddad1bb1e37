"""The server: binds its port, opens the page, and runs until a signal ends it."""

import socket
import threading
import time
import webbrowser
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn

from denoisecli.errors import UsageError
from denoisecli.serving.app import App, Settings
from denoisecli.system.atomic_files import temporary_folder
from denoisecli.system.interrupts import stopped_by_hangup

PORT = 8765
"""Port that is used if it is free and no other is asked for."""

_GRACE_SECONDS = 2
_MAX_CONNECTIONS = 1000
_BACKLOG = 2048


@contextmanager
def listening(host: str, port: int | None) -> Iterator[socket.socket]:
    """Listen at a port, and stop in the end.

    Args:
        host: Name or address.
        port: Port; None takes `PORT`, or any other if it is in use.

    Raises:
        UsageError: The port is in use or may not be used, or there is no such address here.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        try:
            bound = socket.create_server((host, port or PORT), family=family, backlog=_BACKLOG)
        except OSError:
            if port is not None:
                raise
            bound = socket.create_server((host, 0), family=family, backlog=_BACKLOG)
    except OSError as error:
        raise UsageError(
            f"cannot listen at {host}, port {port or PORT}: {error.strerror}; --host and --port "
            "choose others"
        ) from error
    with bound:
        yield bound


def address_of(bound: socket.socket, host: str) -> str:
    """Return the address of the page."""
    port = bound.getsockname()[1]
    if host in ("0.0.0.0", "::"):
        host = socket.gethostname()
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/"


def serve(
    settings: Settings,
    bound: socket.socket,
    *,
    page: str | None = None,
    on_error: Callable[[str], None] = print,
) -> None:
    """Serve until a signal, which raises KeyboardInterrupt once all files are removed.

    Args:
        settings: Settings and limits of the application.
        bound: Socket that listens.
        page: Address to open in a browser.
        on_error: Called with the traceback of an error that should not happen.
    """
    with temporary_folder(prefix="denoise-serve-") as folder:
        app = App(settings, folder, on_error=on_error)
        server = uvicorn.Server(
            uvicorn.Config(
                app,
                log_level="critical",  # the application reports its errors itself
                access_log=False,
                server_header=False,
                proxy_headers=False,
                ws="none",
                lifespan="on",
                limit_concurrency=_MAX_CONNECTIONS,
                timeout_graceful_shutdown=_GRACE_SECONDS,
            )
        )
        if page is not None:
            threading.Thread(target=_open, args=(server, page), daemon=True).start()
        with stopped_by_hangup(lambda: setattr(server, "should_exit", True)):
            server.run(sockets=[bound])


def _open(server: uvicorn.Server, page: str) -> None:
    while not server.started:
        time.sleep(0.05)
    webbrowser.open(page)
