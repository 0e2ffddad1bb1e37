"""The files of the page, read once: nothing else of this machine is ever sent as a file."""

from dataclasses import dataclass
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


@dataclass(frozen=True)
class Asset:
    """A file of the page: its content and media type."""

    content: bytes
    media_type: str


class Page:
    """The page and the form that asks for the token."""

    def __init__(self) -> None:
        self.assets = {
            path.name: Asset(path.read_bytes(), _TYPES[path.suffix])
            for path in (_THEME, *sorted(_FOLDER.iterdir()))
            if path.suffix in _TYPES
        }
        """Scripts, styles, pictures and the pages ``index.html`` and ``login.html`` by name."""
        self.open_paths = ("/static/theme.css", "/static/page.css", "/static/icon.svg")
        """Paths that the form needs before the token has been given."""

    @property
    def index(self) -> str:
        """The page."""
        return self.assets["index.html"].content.decode()

    @property
    def login(self) -> str:
        """The form that asks for the token."""
        return self.assets["login.html"].content.decode()


PAGE = Page()
