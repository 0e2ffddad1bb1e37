from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest
from starlette.testclient import TestClient

from denoisecli.serving.guard import is_loopback, own_names

TOKEN = "a long enough token"


def refused(answer: Any, status: int) -> str:
    assert answer.status_code == status, answer.text
    return answer.json()["error"]


@pytest.mark.parametrize(
    "host",
    ["localhost:8765", "127.0.0.1", "127.0.0.1:1", "[::1]:8765", "LOCALHOST", "localhost.:80"],
)
def test_the_names_of_this_machine_are_served(client: TestClient, host: str) -> None:
    assert client.get("/", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        *("evil.example", "localhost.evil.example", "192.168.0.7:8765", "127.0.0.1.evil.example"),
        *("", "[", "[::1", "]", "[x]:80"),
    ],
)
def test_other_names_are_refused_against_dns_rebinding(client: TestClient, host: str) -> None:
    assert "does not answer to the name" in refused(client.get("/", headers={"Host": host}), 403)


def test_a_server_for_others_answers_to_addresses_and_its_own_names(
    start: Callable[..., TestClient],
) -> None:
    client = start(beyond_loopback=True, names=own_names("0.0.0.0", ["Proxy.Example"]))
    for host in ("192.168.0.7:8765", "[fe80::1]", "proxy.example"):
        assert client.get("/", headers={"Host": host}).status_code == 200
    refused(client.get("/", headers={"Host": "evil.example"}), 403)


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "http://localhost:9999"},
        {"Origin": "null"},
        {"Origin": "http://["},
        {"Origin": ""},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_pages_of_other_sites_are_refused(client: TestClient, headers: dict[str, str]) -> None:
    for method, path in (("POST", "/api/clean"), ("POST", "/api/zip"), ("DELETE", "/api/jobs/x")):
        assert "another site" in refused(client.request(method, path, headers=headers), 403)


def test_the_page_itself_and_programs_are_no_other_site(client: TestClient) -> None:
    same = {"Origin": "http://localhost:8765", "Sec-Fetch-Site": "same-origin"}
    for headers in (same, {}):
        assert client.post("/api/zip", headers=headers).status_code == 400
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    assert client.get("/", headers=link).status_code == 200


def test_a_token_is_asked_for(start: Callable[..., TestClient]) -> None:
    client = start(token=TOKEN)
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Cookie": "denoise_token=wrong"}):
        answer = client.get("/api/models", headers=headers)
        assert "needs its token" in refused(answer, 401)
        assert answer.headers["www-authenticate"] == "Bearer"
    page = client.get("/")
    assert page.status_code == 401
    assert 'name="token"' in page.text
    assert "This token is wrong" not in page.text
    page = client.get("/?token=wrong")
    assert page.status_code == 401
    assert '<p class="worse" role="alert">This token is wrong.</p>' in page.text
    assert client.get("/static/page.css").status_code == 200  # of the form
    assert client.get("/static/page.js").status_code == 401
    answer = client.get("/api/models", headers={"Authorization": f"Bearer {TOKEN}"})
    assert answer.status_code == 200


def test_the_form_keeps_the_rest_of_the_address(start: Callable[..., TestClient]) -> None:
    page = start(token=TOKEN).get("/?job=a%22b&job=c&token=other").text
    assert '<input type="hidden" name="job" value="a&quot;b">' in page
    assert '<input type="hidden" name="job" value="c">' in page
    assert "other" not in page


def test_the_address_with_the_token_gives_the_browser_a_cookie(
    start: Callable[..., TestClient],
) -> None:
    client = start(token=TOKEN)
    answer = client.get("/", params={"token": TOKEN}, follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert client.get("/api/models").status_code == 200
    assert "Keyboard" in client.get("/").text


@pytest.mark.parametrize("others", ['prefs={"a":1}; ', "a=b c; ", "[1]=2; ", "; ;", "é=ü; "])
def test_cookies_of_other_programs_hide_no_token(
    start: Callable[..., TestClient], others: str
) -> None:
    client = start(token="abcdefghijkl")
    for cookie in (f"{others}denoise_token=abcdefghijkl", "denoise_token=abcdefghijkl; z={}"):
        headers = {"Cookie": cookie.encode("latin-1")}
        assert client.get("/api/server", headers=headers).status_code == 200


@pytest.mark.parametrize("token", ["abc+def/12&x345", 'a;b,c"d\\e=f%g#h', "a long enough token"])
def test_any_token_fits_the_address_and_the_cookie(
    start: Callable[..., TestClient], token: str
) -> None:
    client = start(token=token)
    assert client.get(f"/?token={quote(token, safe='')}").status_code == 200
    assert client.get("/api/server").status_code == 200


def test_every_answer_has_the_security_headers(client: TestClient) -> None:
    for path in ("/", "/static/page.js", "/api/models", "/nothing"):
        headers = client.get(path).headers
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        *((host, True) for host in ("127.0.0.1", "127.9.9.9", "::1", "localhost")),
        *((host, False) for host in ("0.0.0.0", "::", "192.168.0.7", "example.org")),
    ],
)
def test_loopback(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected
