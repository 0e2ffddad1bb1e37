from collections.abc import Iterator
from typing import Any

import pytest
from helpers import denoise, fails

from denoisecli.serving.app import Settings


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[Settings, str | None]]]:
    """Return the settings and the page of every server that is started, which ends at once."""
    calls: list[tuple[Settings, str | None]] = []

    def serve(settings: Settings, bound: Any, *, page: str | None, on_error: Any) -> None:
        calls.append((settings, page))

    monkeypatch.setattr("denoisecli.serving.server.serve", serve)
    monkeypatch.setattr("denoisecli.cli.serving._has_display", lambda: True)
    monkeypatch.delenv("DENOISE_TOKEN", raising=False)
    yield calls


def test_serves_this_machine_only_without_a_token(
    served: list[tuple[Settings, str | None]],
) -> None:
    result = denoise("serve", "--max-size", "10", "--keep", "2")
    assert result.exit_code == 0, result.output
    ((settings, page),) = served
    assert page is not None
    assert result.stdout.startswith(page)
    assert page.startswith("http://127.0.0.1:")
    assert (settings.token, settings.beyond_loopback) == (None, False)
    assert (settings.max_bytes, settings.keep_seconds) == (10 * 2**20, 120)


def test_endless_recordings_are_refused(served: list[tuple[Settings, str | None]]) -> None:
    fails(denoise("serve", "--max-size", "inf"), 2, "--max-size")
    fails(denoise("serve", "--keep", "inf"), 2, "--keep")
    fails(denoise("serve", "--host", ""), 2, "--host is empty; is a variable not set?")
    assert not served


def test_beyond_this_machine_a_token_is_made(served: list[tuple[Settings, str | None]]) -> None:
    result = denoise("serve", "--host", "0.0.0.0", "--no-browser", "--allow-host", "example.org")
    ((settings, page),) = served
    assert page is None
    assert settings.token is not None
    assert f"?token={settings.token}" in result.stdout
    assert "not encrypted" in result.stderr
    assert settings.beyond_loopback
    assert "example.org" in settings.names


def test_a_token_from_the_environment(
    served: list[tuple[Settings, str | None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DENOISE_TOKEN", "a long enough token")
    denoise("serve")
    assert served[0][0].token == "a long enough token"


def test_behind_a_proxy_a_token_is_made(served: list[tuple[Settings, str | None]]) -> None:
    result = denoise("serve", "--allow-host", "denoise.example.org")
    ((settings, page),) = served
    assert settings.token is not None
    assert settings.token in result.stdout
    assert settings.beyond_loopback  # so that the page does not say that nothing is sent
    assert page is not None
    assert page.startswith("http://127.0.0.1:")
    assert "not encrypted" not in result.stderr


def test_a_token_is_quoted_in_the_address(served: list[tuple[Settings, str | None]]) -> None:
    denoise("serve", "--token", "abc+def/12&x345")
    ((settings, page),) = served
    assert settings.token == "abc+def/12&x345"
    assert page is not None
    assert page.endswith("?token=abc%2Bdef%2F12%26x345")


def test_wrong_use(served: list[tuple[Settings, str | None]]) -> None:
    fails(denoise("serve", "--token", "short"), 2, "at least 12 characters")
    for token in ("a long enough tökèn", "a long enough\ntoken"):
        fails(denoise("serve", "--token", token), 2, "printable ASCII")
    fails(denoise("serve", "--model", "nothing"), 2, "no model 'nothing'")
    fails(denoise("serve", "--host", "192.0.2.1"), 2, "cannot listen at 192.0.2.1")
    assert served == []
