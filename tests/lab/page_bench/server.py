"""The bench's server: the real pages under the real server's rules, over answers that a test can change."""

from __future__ import annotations

import json
import mimetypes
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.lab.page_bench.answers import Answers
from tests.lab.page_bench.world import Made, overview, volumes
from tests.lab.programs import ROOT

STATIC = ROOT / "pydbt/dashboard/static"
# No inline script or style, no other origin, no frame: as strict as the real server is.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_PACE_S = 0.5


class PageBench:
    """Serves on a port of its own while it is entered. A test changes ``made``, ``answers`` and ``silent`` as it likes."""

    def __init__(self, made: list[Made] | None = None, port: int = 0, clock: Callable[[], float] = time.time) -> None:
        self.made = volumes() if made is None else made
        self.clock = clock
        self.began = clock()
        self.answers = Answers(self)
        self.slow_s = 0.0  # until a link is answered at all
        self.silent = False  # links stay open, and nothing comes any more
        self.kind = "text/event-stream"  # of a link's answer
        self.garbage = ""  # comes on links in the place of events
        self.allowed = True
        self.file: str | None = None  # the name of every file; None: made-up ones
        self.names: tuple[str, ...] = ()  # of further processes, groups, files and events
        self.asked: list[str] = []
        self.ended = threading.Event()
        self.generation = 0
        self._server = _Server(("127.0.0.1", port), type("Handler", (_Handler,), {"bench": self}))
        self.address = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> PageBench:
        threading.Thread(target=self._server.serve_forever, args=(0.1,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Ends every link, as a server does that is stopped."""
        self.ended.set()
        self._server.shutdown()
        self._server.server_close()

    def drop_links(self) -> None:
        """Ends the links that are open now; a page makes them anew."""
        self.generation += 1

    def overview(self) -> dict[str, Any]:
        return overview(self.made, self.clock(), self.began)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128  # a browser asks for all files of the page at once


class _Handler(BaseHTTPRequestHandler):
    bench: PageBench
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *words: object) -> None:
        pass

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        self.bench.asked.append(self.path)
        try:
            if parts.path in ("/", "/index.html"):
                self._file(STATIC / "index.html")
            elif parts.path.startswith("/static/"):
                self._file(STATIC / parts.path.removeprefix("/static/"))
            elif not self.bench.allowed:
                self._json(401, {"problem": "This needs the link that controller dashboard prints."})
            elif parts.path == "/api/stream":
                self._stream()
            elif parts.path == "/api/overview":
                self._json(200, self.bench.overview())
            else:
                self._json(*self.bench.answers.of(parts.path, parse_qs(parts.query)))
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def _head(self, status: int, kind: str, length: int | None) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Security-Policy", POLICY)
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Cache-Control", "no-store")
        if length is None:
            self.send_header("Connection", "close")
        else:
            self.send_header("Content-Length", str(length))
        self.end_headers()

    def _file(self, path: Path) -> None:
        if not path.resolve().is_relative_to(STATIC) or not path.is_file():
            self._json(404, {"problem": "no such file"})
            return
        content = path.read_bytes()
        kind = "text/javascript" if path.suffix == ".js" else mimetypes.guess_type(path.name)[0] or "text/plain"
        self._head(200, f"{kind}; charset=utf-8", len(content))
        self.wfile.write(content)

    def _json(self, status: int, answer: object) -> None:
        content = json.dumps(answer).encode()
        self._head(status, "application/json", len(content))
        self.wfile.write(content)

    def _stream(self) -> None:
        self.bench.ended.wait(self.bench.slow_s)
        self._head(200, self.bench.kind, None)
        self.close_connection = True
        turn, generation = 0, self.bench.generation
        while not self.bench.ended.wait(_PACE_S) and generation == self.bench.generation:
            if self.bench.silent:
                continue
            turn += 1
            event = (
                f"event: overview\ndata: {json.dumps(self.bench.overview())}\n\n" if turn % 2 else ": still here\n\n"
            )
            self.wfile.write((self.bench.garbage or event).encode())
            self.wfile.flush()
