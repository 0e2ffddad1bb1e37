from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import constant_mask, worker_thread
from starlette.testclient import TestClient

from denoisecli.serving.app import App, Settings

ADDRESS = "http://localhost:8765"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return the folder of the server for its files."""
    (tmp_path / "root").mkdir()
    return tmp_path / "root"


@pytest.fixture
def start(
    tmp_path: Path,
    root: Path,
    model_folder: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Callable[..., TestClient]]:
    """Return ``start(**settings)``: a client of a server whose model leaves a quarter."""
    model = model_folder(constant_mask(0.25))
    monkeypatch.setattr("denoisecli.serving.guard._WRONG_TOKEN_SECONDS", 0)
    clients: list[TestClient] = []
    errors: list[str] = []

    def start(**settings: Any) -> TestClient:
        values = {"model": str(model), "models_folder": tmp_path / "runs", **settings}
        app = App(Settings(**values), root, start_worker=worker_thread, on_error=errors.append)
        client = TestClient(app, ADDRESS)
        clients.append(client)
        return client.__enter__()

    yield start
    for client in clients:
        client.__exit__(None, None, None)
    assert errors == []
    assert list(root.iterdir()) == []  # nothing is left when a server ends


@pytest.fixture
def client(start: Callable[..., TestClient]) -> TestClient:
    return start()
