"""Who may read a dashboard: who has the token, from its own page or a program of their own; nobody and nothing else."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.served_dashboard import Dashboard, Machine, serving

ROUTES = (
    "/",
    "/static/main.js",
    "/api/overview",
    "/api/stream",
    "/api/volumes/0123456789abcdef/map?end=4096",
    "/metrics",
    "/x",
)


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    made = Machine(tmp_path_factory.mktemp("machine"))
    made.add("data")
    yield made
    made.end()


@pytest.fixture(scope="module")
def dashboard(machine: Machine) -> Iterator[Dashboard]:
    with serving(machine) as running:
        yield running


def cookie_of(dashboard: Dashboard) -> str:
    answer = dashboard.get(f"/?token={dashboard.token}", token="")
    assert answer.status == 303
    return answer.headers["set-cookie"].partition(";")[0]


@pytest.mark.parametrize("route", ROUTES)
def test_without_the_token_nothing_is_told(dashboard: Dashboard, route: str) -> None:
    for token in ("", "x" * 43, dashboard.token[:-1], dashboard.token + "x"):
        answer = dashboard.get(route, token=token, **({} if token else {"authorization": ""}))
        assert answer.status == 401, route
        assert b"data" not in answer.body and b"vd" not in answer.body and dashboard.token.encode() not in answer.body


def test_the_link_gives_a_cookie_for_this_server_alone_and_goes_on_without_the_token(dashboard: Dashboard) -> None:
    answer = dashboard.get(f"/?token={dashboard.token}", token="")
    given = answer.headers["set-cookie"].lower()
    assert answer.status == 303 and answer.headers["location"] == "./"
    assert "httponly" in given and "samesite=strict" in given and "domain" not in given
    assert dashboard.token.lower() not in given, "another server of this host gets the cookie too"
    assert dashboard.get("/api/overview", cookie=cookie_of(dashboard)).status == 200
    assert dashboard.get("/?token=wrong", token="").status == 401
    assert dashboard.get("/?1&2&3&4&5&6&7&8&9", token="").status == 401, "more than a link has is no link"
    assert dashboard.get("/api/overview?token=" + dashboard.token, token="").status == 401, (
        "the link opens the page alone"
    )


def test_a_link_in_another_page_opens_the_dashboard(dashboard: Dashboard) -> None:
    opened = {"sec_fetch_site": "cross-site", "sec_fetch_mode": "navigate", "sec_fetch_dest": "document"}
    answer = dashboard.get(f"/?token={dashboard.token}", token="", **opened)
    assert answer.status == 200 and answer.headers["refresh"] == "0; url=./" and "set-cookie" in answer.headers


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:1"},
        {"sec_fetch_site": "cross-site"},
        {"sec_fetch_site": "same-site"},
        {"host": "evil.example"},
        {"host": "evil.example:7780"},
    ],
)
def test_a_page_of_another_origin_and_a_name_that_points_here_read_nothing(
    dashboard: Dashboard, headers: dict[str, str]
) -> None:
    cookie = cookie_of(dashboard)
    for route in ("/api/overview", "/api/stream", "/metrics", "/static/main.js"):
        answer = dashboard.get(route, cookie=cookie, **headers)
        assert answer.status == 403 and b"data" not in answer.body
        assert not {name for name in answer.headers if name.startswith("access-control")}


def test_the_own_page_reads(dashboard: Dashboard) -> None:
    host = "{}:{}".format(*dashboard.address)
    answer = dashboard.get(
        "/api/overview", cookie=cookie_of(dashboard), origin=f"http://{host}", sec_fetch_site="same-origin"
    )
    assert answer.status == 200 and answer.json["machines"][0]["volumes"][0]["name"] == "data"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_it_can_change_nothing(dashboard: Dashboard, machine: Machine, method: str) -> None:
    for route in ROUTES:
        answer = dashboard.get(route, method=method)
        assert answer.status == 405 and answer.headers["allow"] == "GET, HEAD"
    assert {request["command"] for request in machine.controllers["data"].asked} <= {"status"}


@pytest.mark.parametrize("route", ROUTES)
def test_head_has_the_headers_of_get_and_no_body(dashboard: Dashboard, route: str) -> None:
    answer = dashboard.get(route, method="HEAD")
    assert answer.body == b"" and answer.status in (200, 404, 501)
    if route == "/api/stream":
        assert answer.headers["content-type"].startswith("text/event-stream")


@pytest.mark.parametrize("token", [None, ""])
@pytest.mark.parametrize("route", [route for route in ROUTES if route != "/api/stream"])
def test_every_answer_has_the_headers_that_keep_other_pages_out(
    dashboard: Dashboard, route: str, token: str | None
) -> None:
    headers = dashboard.get(route, token=token).headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy and "unsafe" not in policy
    assert not re.search(r"https?:|\*|data:", policy), "no other origin"
    assert headers["x-content-type-options"] == "nosniff" and headers["referrer-policy"] == "no-referrer"
    assert headers["cross-origin-resource-policy"] == "same-origin" and "server" not in headers


def test_what_a_local_user_s_scan_finds_is_one_sentence_and_no_name_of_a_volume(dashboard: Dashboard) -> None:
    probes = [
        b"GET / HTTP/1.0\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n",
        b"GET http://169.254.169.254/ HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n",
        b"GET /../../etc/passwd HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n",
        b"GET /static/%2e%2e/%2e%2e/tokens.py HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64) + b"\r\n\r\n",
        b"SSH-2.0-scan\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nOrigin: http://a\r\nOrigin: http://127.0.0.1\r\nConnection: close\r\n\r\n",
    ]
    for probe in probes:
        with dashboard.wire() as sock:
            sock.sendall(probe)
            sock.shutdown(socket.SHUT_WR)
            received = b""
            while piece := sock.recv(65536):
                received += piece
        assert b"data" not in received.lower() and b"uvicorn" not in received.lower() and b"pydbt/" not in received, (
            probe
        )
        assert not received.startswith(b"HTTP/1.1 2"), probe
    assert dashboard.get("/api/overview").status == 200
    assert b"bug" not in dashboard.log.read_bytes() and dashboard.log.read_bytes().count(b"\n") < 3, (
        "a scan fills no log"
    )


def test_a_websocket_is_refused(dashboard: Dashboard) -> None:
    answer = dashboard.raw(
        b"GET /api/stream HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    assert answer.startswith((b"HTTP/1.1 400", b"HTTP/1.1 401"))


def test_each_start_has_another_token(machine: Machine, dashboard: Dashboard) -> None:
    with serving(machine) as other:
        assert other.token != dashboard.token
        assert dashboard.get("/api/overview", token=other.token).status == 401


def test_two_dashboards_of_one_host_have_cookies_of_their_own(machine: Machine, dashboard: Dashboard) -> None:
    with serving(machine) as other:
        both = f"{cookie_of(dashboard)}; {cookie_of(other)}"
        assert (
            dashboard.get("/api/overview", cookie=both).status == other.get("/api/overview", cookie=both).status == 200
        )


def test_the_token_stays_the_same_with_a_file(machine: Machine, tmp_path: Path) -> None:
    file = tmp_path / "token"
    for _ in range(2):
        with serving(machine, "--token-file", file) as running:
            running.named_token = file.read_text().strip()
            assert running.get("/api/overview").status == 200
            assert running.named_token not in running.link, "the journal of a service is read by others too"
    assert file.stat().st_mode & 0o777 == 0o600
