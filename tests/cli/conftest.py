"""A controller that is none: a control socket, a registered device, and the program run as people run it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from pydbt.cli import overview
from pydbt.controller import pinned, registry
from pydbt.controller.control import ClientGone, ControlServer
from pydbt.core.errors import UsageError
from pydbt.core.units import MIB
from pydbt.device.sysfs import BlockDevice
from tests.lab.disks import image, loop_over

STATUS = {
    "role": "primary",
    "mode": "normal",
    "replica_state": "up-to-date",
    "tainted": False,
    "sequence": {"submitted": 12345, "acknowledged": 12340},
    "out_of_sync_bytes": 0,
    "lag_bytes": 20480,
    "lag_seconds": 0.25,
    "last_in_sync": "2026-01-02T03:04:05Z",
    "sent_bytes": 5 * MIB,
    "written_bytes": 7 * MIB,
    "log": {"size": 1 << 20, "used": 640, "start": 10, "end": 20, "active_transactions": 5},
    "lost_records": 0,
    "progress": None,
}


@dataclass
class FakeController:
    """Answers like a controller, and remembers what it was asked."""

    state_dir: Path
    asked: list[dict[str, Any]] = field(default_factory=list)
    status: dict[str, Any] = field(default_factory=lambda: dict(STATUS))
    on_command: dict[str, Callable[[], dict[str, Any]]] = field(default_factory=dict)
    end: Callable[[], None] = lambda: None

    def answer(self, request: dict[str, Any], gone: ClientGone) -> dict[str, Any]:
        self.asked.append(request)
        if request["command"] in self.on_command:
            return self.on_command[request["command"]]()
        match request["command"]:
            case "status":
                return self.status
            case "wait" | "pause" | "resume" | "down":
                return {}
            case other:
                raise UsageError(f"no such command: {other}")

    def ends_when_asked(self) -> None:
        """``down`` is the end of it, as of a real one, behind the answer."""

        def down() -> dict[str, Any]:
            threading.Thread(target=self.end).start()
            return {}

        self.on_command["down"] = down


REPLICA = {"role": "secondary", "mode": "streaming", "replica_state": "consistent", "connected": True}


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without other controllers."""
    monkeypatch.setattr(registry, "RUN_DIR", tmp_path / "run")
    monkeypatch.setattr(overview, "STATE_ROOT", tmp_path / "lib")
    monkeypatch.setattr(pinned, "PINS", tmp_path / "pins")
    return tmp_path


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[str]:
    with loop_over(image(tmp_path / "disk.img", 16 * MIB)) as device:
        yield str(device)
        registry.forget(BlockDevice.identify(device))


@pytest.fixture
def controller(tmp_path: Path, disk: str) -> Iterator[FakeController]:
    state_dir = tmp_path / "state"
    state_dir.mkdir()
    fake = FakeController(state_dir)
    with ExitStack() as held:
        held.enter_context(registry.registered_primary(BlockDevice.identify(disk), state_dir))
        held.enter_context(ControlServer(state_dir, fake.answer))
        fake.end = held.close
        yield fake
