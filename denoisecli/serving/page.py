"""The files of the page, read once: nothing else of this machine is ever sent as a file."""

from pathlib import Path

from denoisecli import evaluation

_FOLDER = Path(__file__).parent / "page"
_THEME = Path(evaluation.__file__).with_name("theme.css")  # the colours of the report
_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}

ASSETS = {
    path.name: (path.read_bytes(), _TYPES[path.suffix])
    for path in (_THEME, *sorted(_FOLDER.iterdir()))
    if path.suffix in _TYPES
}
"""Content and media type of the scripts, styles, pictures and the two pages, by name.

The pages are ``index.html``, and ``login.html``, the form that asks for the token.
"""
