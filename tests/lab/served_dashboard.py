"""A dashboard that really runs, over controllers that are none: control sockets that answer as a test wants."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydbt.controller.control import ClientGone, ControlServer
from pydbt.core.errors import UsageError
from tests.lab.patience import until
from tests.lab.programs import ROOT

STATUS: dict[str, Any] = {
    "role": "primary", "source": "/dev/vdz", "mode": "normal", "mode_since": "2026-01-02T03:04:05Z",
    "replica_state": "up-to-date", "connected": True, "tainted": False, "out_of_sync_bytes": 0, "lag_bytes": 0,
    "lag_seconds": 0.1, "write_rate_bytes": 0, "sent_bytes": 0, "log": {"size": 100, "used": 1},
    "queue": {"size": 100, "used": 1}, "secondaries": [], "last_in_sync": "2026-01-02T03:04:05Z",
}  # fmt: skip
# The program itself, on a machine that has nothing but what is in a folder.
_PROGRAM = """
import importlib, json, os, sys
from pathlib import Path
from pydbt.cli import finders, overview
from pydbt.controller import pinned, registry
folder = Path(sys.argv[1])
registry.RUN_DIR, pinned.PINS = folder / "run", folder / "pins"
overview.STATE_ROOT = finders.STATE_ROOT = folder / "lib"
for name, value in json.loads(os.environ.get("TEST_SETTINGS", "{}")).items():
    module, _, constant = name.rpartition(".")
    setattr(importlib.import_module(f"pydbt.dashboard.{module}"), constant, value)
sys.argv[1:2] = ["dashboard"]
from pydbt.cli.main import main
main()
"""


@dataclass
class Controller:
    """One volume's. ``asked``: the commands that came."""

    state_dir: Path
    status: dict[str, Any]
    asked: list[dict[str, Any]] = field(default_factory=list)
    answers: dict[str, Any] = field(default_factory=dict)
    server: ControlServer | None = None
    delay_s: float = 0.0

    def start(self) -> None:
        self.server = ControlServer(self.state_dir, self.answer)
        self.server.start()

    def stop(self) -> None:
        if self.server is not None:
            self.server.stop()
        self.server = None

    def answer(self, request: dict[str, Any], gone: ClientGone) -> dict[str, Any]:
        self.asked.append(request)
        time.sleep(self.delay_s)
        if request["command"] == "status":
            return self.status
        if request["command"] not in self.answers:
            raise UsageError(f"no such command: {request['command']}")
        return dict(self.answers[request["command"]])


class Machine:
    """A machine with volumes in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.controllers: dict[str, Controller] = {}
        (folder / "run").mkdir(parents=True)

    def add(self, name: str, **status: Any) -> Controller:
        """A volume whose controller runs."""
        place = self.folder / "lib" / name
        place.mkdir(parents=True)
        (place / "volume.json").touch()
        made = Controller(place, {**STATUS, "source": f"/dev/{name}", **status})
        made.start()
        self.controllers[name] = made
        return made

    def silent(self, name: str) -> socket.socket:
        """A volume whose controller listens and says nothing."""
        place = self.folder / "lib" / name
        place.mkdir(parents=True)
        (place / "volume.json").touch()
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(str(place / "control.sock"))
        listener.listen(16)
        return listener

    def end(self) -> None:
        for controller in self.controllers.values():
            controller.stop()


@dataclass
class Answer:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Dashboard:
    """One that runs. ``link``: what it has printed. ``process``: None where it was started elsewhere, which ends it as well."""

    process: subprocess.Popen[bytes] | None
    link: str
    log: Path
    tls: ssl.SSLContext | None = None
    named_token: str = ""

    @property
    def token(self) -> str:
        return self.named_token or self.link.partition("?token=")[2]

    @property
    def address(self) -> tuple[str, int]:
        port = self.link.partition("//")[2].partition("/")[0].rpartition(":")[2]
        return "127.0.0.1", int(port)

    def wire(self) -> socket.socket:
        sock = socket.create_connection(self.address, 20)
        return self.tls.wrap_socket(sock) if self.tls is not None else sock

    def get(self, path: str, *, method: str = "GET", token: str | None = None, **headers: str) -> Answer:
        """By default with the token. Underscores in names of headers are dashes."""
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        if token is None and "cookie" not in given:
            given.setdefault("authorization", f"Bearer {self.token}")
        elif token:
            given["authorization"] = f"Bearer {token}"
        connection = http.client.HTTPConnection(*self.address, timeout=20)
        connection.sock = self.wire()
        with contextlib.closing(connection):
            connection.request(method, path, headers=given)
            answer = connection.getresponse()
            return Answer(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())

    def machines(self) -> list[dict[str, Any]]:
        told: list[dict[str, Any]] = self.get("/api/overview").json["machines"]
        return told

    def volume(self, name: str) -> dict[str, Any] | None:
        return next((one for machine in self.machines() for one in machine["volumes"] if one["name"] == name), None)

    def raw(self, request: bytes) -> bytes:
        """Everything that comes back for these bytes."""
        with self.wire() as sock:
            sock.sendall(request)
            received = b""
            while piece := sock.recv(65536):
                received += piece
            return received

    def stop(self) -> int:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(20)


@contextlib.contextmanager
def serving(
    machine: Machine,
    *words: object,
    tls: ssl.SSLContext | None = None,
    settings: Mapping[str, float | str] | None = None,
    user: int | None = None,
) -> Iterator[Dashboard]:
    """The real program. By default on loopback, at a port of its own. ``settings``: constants of its modules."""
    given = [str(word) for word in words]
    if "--listen" not in given:
        given += ["--listen", "127.0.0.1:0"]
    if "--peers" not in given:
        given += ["--peers", str(machine.folder / "peers")]
    process, log = started(machine, given, settings, user)
    try:
        until(lambda: b"\n" in (log.with_suffix(".out")).read_bytes() or process.poll() is not None, "it serves")
        assert process.poll() is None, log.read_text()
        yield Dashboard(process, log.with_suffix(".out").read_text().splitlines()[0], log, tls)
    finally:
        process.kill()
        process.wait()


def started(
    machine: Machine, words: list[str], settings: Mapping[str, float | str] | None = None, user: int | None = None
) -> tuple[subprocess.Popen[bytes], Path]:
    log = machine.folder / f"log-{time.monotonic_ns()}"
    with log.open("wb") as errors, log.with_suffix(".out").open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, str(machine.folder), *words],
            cwd=ROOT, env={**os.environ, "TEST_SETTINGS": json.dumps(settings or {})},
            stdin=subprocess.DEVNULL, stdout=output, stderr=errors, user=user, group=user,
            extra_groups=None if user is None else [],
        )  # fmt: skip
    return process, log
