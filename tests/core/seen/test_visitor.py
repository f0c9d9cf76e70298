"""Visitors: other sites, other names, and other methods than reading are turned away before anything is looked up."""

from __future__ import annotations

import pytest

from pydbt.core.seen.visitor import (
    Visit,
    bearer_token,
    cookie_value,
    host_name_of,
    is_own_host,
    objection_to_visit,
)

NAMES = frozenset({"dashboard.example"})


def refused(
    names: frozenset[str] | None = NAMES, path: str = "/api/overview", method: str = "GET", **headers: str
) -> int:
    told = {name.replace("_", "-"): value for name, value in {"host": "127.0.0.1:7780", **headers}.items()}
    found = objection_to_visit(Visit(method, path, told), names)
    return 0 if found is None else found.status


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "get", "ODD"])
def test_nothing_but_reading_is_answered(method: str) -> None:
    assert refused(method=method) == 405
    assert refused() == refused(method="HEAD") == 0


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1:7780",
        "localhost:9000",
        "[::1]:7780",
        "[::1]",
        "192.0.2.7",
        "dashboard.example:7780",
        "DASHBOARD.example.",
    ],
)
def test_addresses_loopback_and_own_names_are_this_server(host: str) -> None:
    assert is_own_host(host, NAMES) and refused(host=host) == 0


@pytest.mark.parametrize(
    "host",
    ["", "evil.example", "evil.example:7780", "localhost.evil.example", "127.0.0.1.evil.example", "[::1", "::1", "a:b", "x:",
     "127.0.0.1:7780@evil.example", "127.0.0.1:²", "[]"],
)  # fmt: skip
def test_a_name_that_somebody_else_points_here_is_refused(host: str) -> None:
    assert refused(host=host) == 403


def test_behind_a_proxy_any_name_is_good() -> None:
    assert refused(None, host="anything.example") == 0


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:9999", "", "http://127.0.0.1"])
def test_a_page_of_another_origin_reads_nothing(origin: str) -> None:
    assert refused(origin=origin) == 403
    assert refused(None, origin=origin) == 403


def test_the_own_page_may_read() -> None:
    assert refused(origin="http://127.0.0.1:7780", sec_fetch_site="same-origin") == 0
    assert refused(sec_fetch_site="none") == 0


@pytest.mark.parametrize("site", ["cross-site", "same-site", "odd"])
def test_a_request_that_another_site_begins_is_refused_except_a_link_to_the_page_itself(site: str) -> None:
    opened = {"sec_fetch_mode": "navigate", "sec_fetch_dest": "document", "sec_fetch_site": site}
    assert refused(sec_fetch_site=site) == 403
    assert refused(path="/", **opened) == 0
    assert refused(path="/api/overview", **opened) == 403, "an answer of the interface is no page"
    assert refused(path="/", **{**opened, "sec_fetch_dest": "iframe"}) == 403


def test_the_name_of_a_host_is_without_port_brackets_and_case() -> None:
    assert [host_name_of(text) for text in ("A.b:1", "[FE80::1]:2", "a.", "[x]:1")] == ["a.b", "fe80::1", "a", None]


def test_a_token_comes_as_bearer_or_as_cookie_of_its_name() -> None:
    assert [bearer_token(text) for text in ("Bearer abc", "bearer  abc ", "Basic abc", "", "abc")] == [
        "abc",
        "abc",
        "",
        "",
        "",
    ]
    assert cookie_value("a=1; pydbt=x=y; b=2", "pydbt") == "x=y"
    assert cookie_value("a=1; notpydbt=2", "pydbt") == ""
