"""The files of the page: each with its type and a tag, packed for who takes that, and nothing else of the disk."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.served_dashboard import Dashboard, Machine, serving

SCRIPT = b"export const a = 1;\n" * 100


@pytest.fixture(scope="module")
def dashboard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dashboard]:
    folder = tmp_path_factory.mktemp("static")
    (folder / "lib").mkdir()
    (folder / "index.html").write_text("<!doctype html><title>x</title>")
    (folder / "lib/a.js").write_bytes(SCRIPT)
    for name in ("style.css", "mark.svg", "LICENSE", "dot.png"):
        (folder / name).write_bytes(b"content of " + name.encode())
    (folder / "link.js").symlink_to("/etc/hostname")
    (folder.parent / "static-secret").mkdir(exist_ok=True)
    (folder.parent / "secret.js").write_text("secret")
    with serving(Machine(tmp_path_factory.mktemp("m")), settings={"service.STATIC_FOLDER": str(folder)}) as running:
        yield running


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "text/html; charset=utf-8"),
        ("/static/lib/a.js", "text/javascript; charset=utf-8"),
        ("/static/style.css", "text/css; charset=utf-8"),
        ("/static/mark.svg", "image/svg+xml"),
        ("/static/dot.png", "image/png"),
        ("/static/LICENSE", "text/plain; charset=utf-8"),
    ],
)
def test_a_file_has_its_type_and_is_asked_for_again_by_its_tag(dashboard: Dashboard, path: str, kind: str) -> None:
    answer = dashboard.get(path)
    assert answer.status == 200 and answer.headers["content-type"] == kind
    assert answer.headers["cache-control"] == "no-cache", "after an upgrade the page is the new one"
    again = dashboard.get(path, if_none_match=f'"other", W/{answer.headers["etag"]}')
    assert again.status == 304 and again.body == b"" and again.headers["etag"] == answer.headers["etag"]
    assert dashboard.get(path, if_none_match='"other"').body == answer.body
    assert len(dashboard.get(path, method="HEAD").body) == 0


def test_a_file_is_packed_for_a_browser_that_takes_that(dashboard: Dashboard) -> None:
    plain, packed = dashboard.get("/static/lib/a.js"), dashboard.get("/static/lib/a.js", accept_encoding="br, gzip")
    assert plain.body == SCRIPT and "content-encoding" not in plain.headers
    assert packed.headers["content-encoding"] == "gzip" and gzip.decompress(packed.body) == SCRIPT
    assert len(packed.body) < len(SCRIPT) and packed.headers["vary"] == "accept-encoding"


@pytest.mark.parametrize(
    "path",
    ["/static/", "/static/lib", "/static/lib/", "/static/link.js", "/static/../secret.js", "/static/%2e%2e/secret.js",
     "/static/..%2fsecret.js", "/static//etc/hostname", "/static/lib/a.js%00", "/static/lib\\a.js", "/static/index.html/.."],
)  # fmt: skip
def test_nothing_else_of_the_disk_is_served(dashboard: Dashboard, path: str) -> None:
    answer = dashboard.get(path)
    assert answer.status == 404 and b"secret" not in answer.body


def test_with_metrics_only_there_is_no_page(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "m")
    machine.add("data")
    with serving(machine, "--metrics-only") as running:
        for path in ("/", "/static/main.js", "/api/overview", "/api/stream"):
            assert running.get(path).status == 404
        assert running.get("/metrics", token="", authorization="").status == 401
        assert running.get("/metrics").status in (200, 501)
    machine.end()
