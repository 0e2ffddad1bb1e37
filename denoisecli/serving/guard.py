"""The gate before the application: Host, Origin and token of a request, and security headers."""

import asyncio
import hmac
import ipaddress
import socket
from collections.abc import Collection
from html import escape
from urllib.parse import parse_qs, urlencode, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from denoisecli.serving.answers import Refused, error_answer
from denoisecli.serving.page import ASSETS

LOOPBACK = ("localhost", "127.0.0.1", "::1")
"""Names of this machine that no other machine can have."""

COOKIE = "denoise_token"
"""Cookie that the page sends its token in, since links and players cannot set a header."""

_LOGIN_PATHS = ("/static/theme.css", "/static/page.css", "/static/icon.svg")  # without the token
_SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
_WRONG_TOKEN_SECONDS = 0.5

_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "media-src 'self' blob:",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)

SECURITY_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "microphone=(self), camera=(), geolocation=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
"""Headers of every answer; the first one keeps the page from loading anything from elsewhere."""


def host_name(host: str) -> str:
    """Return the name in a Host header in lower case, without port and brackets; "" if invalid."""
    try:
        return (urlsplit(f"//{host}").hostname or "").rstrip(".")
    except ValueError:
        return ""


def is_loopback(host: str) -> bool:
    """Return whether a host name or address stands for this machine only."""
    try:
        return host in LOOPBACK or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def own_names(host: str, more: Collection[str] = ()) -> frozenset[str]:
    """Return the host names under which a server that listens at a host may be addressed.

    Args:
        host: Name or address that it listens at.
        more: Further names, such as that of a reverse proxy.
    """
    names = {*LOOPBACK, host.lower(), *(name.lower() for name in more)}
    if not is_loopback(host):
        names |= {socket.gethostname().lower(), f"{socket.gethostname().lower()}.local"}
    return frozenset(names)


class Guard:
    """Middleware that answers a request only if its sender may send it.

    A page of another site that makes a browser here send a request is refused by its Origin. One
    that lets its own name point to this machine (DNS rebinding) is refused by the Host. IP
    addresses need no name server, and are accepted if the server listens beyond loopback.

    Args:
        app: The application.
        names: Host names under which the server may be addressed.
        beyond_loopback: The server can be reached from other machines.
        token: Token that every request must carry, as ``Authorization: Bearer TOKEN`` or in the
            cookie that the address of the page, ``/?token=TOKEN``, sets; None requires none.
    """

    def __init__(
        self,
        app: ASGIApp,
        names: Collection[str],
        *,
        beyond_loopback: bool = False,
        token: str | None = None,
    ) -> None:
        self._app = app
        self._names = names
        self._beyond_loopback = beyond_loopback
        self._token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_secured(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers[name] = value
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        try:
            answer = await self._check(scope)
        except Refused as error:
            answer = error_answer(error)
        await (answer or self._app)(scope, receive, send_secured)

    async def _check(self, scope: Scope) -> Response | None:
        """Return an answer instead of that of the application, or None."""
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if not self._is_own(host_name(host)):
            raise Refused(
                403,
                f"this server does not answer to the name {host_name(host)!r}; "
                "denoise serve --allow-host adds a name",
            )
        self._check_origin(scope["method"], headers, host)
        return await self._check_token(scope, headers) if self._token else None

    def _is_own(self, name: str) -> bool:
        if name in self._names:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return self._beyond_loopback

    def _check_origin(self, method: str, headers: Headers, host: str) -> None:
        origin = headers.get("origin")
        foreign = origin is not None and _place(origin) != host.lower()
        site = headers.get("sec-fetch-site", "none")
        if method not in _SAFE_METHODS:
            foreign = foreign or site not in ("none", "same-origin")
        if foreign:
            raise Refused(403, "a page of another site may not use this server")

    async def _check_token(self, scope: Scope, headers: Headers) -> Response | None:
        assert self._token is not None
        at_page = scope["path"] == "/" and scope["method"] in _SAFE_METHODS
        query = parse_qs(scope["query_string"].decode("latin-1"))
        given = query.get("token") if at_page else None
        if given is not None and self._matches(given[0]):
            rest = {name: values for name, values in query.items() if name != "token"}
            answer = RedirectResponse("/" + ("?" + urlencode(rest, True) if rest else ""), 303)
            answer.set_cookie(COOKIE, self._token, httponly=True, samesite="strict")
            return answer
        kind, _, value = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer" and self._matches(value.strip()):
            return None
        if self._matches(cookie_parser(headers.get("cookie", "")).get(COOKIE, "")):
            return None
        if given or value or scope["path"] not in ("/", *_LOGIN_PATHS):
            await asyncio.sleep(_WRONG_TOKEN_SECONDS)
        if at_page:
            fields = "".join(
                f'<input type="hidden" name="{escape(name)}" value="{escape(text)}">'
                for name, values in query.items()
                for text in values
                if name != "token"
            )
            message = '<p class="worse" role="alert">This token is wrong.</p>' if given else ""
            page = ASSETS["login.html"][0].replace(b"<!-- fields -->", fields.encode())
            page = page.replace(b"<!-- message -->", message.encode())
            return HTMLResponse(page, 401)
        if scope["path"] in _LOGIN_PATHS:
            return None
        raise Refused(
            401,
            "this server needs its token, in the header Authorization: Bearer TOKEN",
            {"WWW-Authenticate": "Bearer"},
        )

    def _matches(self, value: str) -> bool:
        assert self._token is not None
        return hmac.compare_digest(value.encode(), self._token.encode())


def _place(origin: str) -> str | None:
    """Return the host and port of an Origin header in lower case, None if it is invalid."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return None
