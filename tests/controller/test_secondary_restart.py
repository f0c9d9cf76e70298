"""A secondary that cannot write its state names the reason while it starts again and again, and lets no primary wait for it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest

from pydbt.controller.options import SecondaryOptions
from pydbt.controller.secondary import service as module
from pydbt.controller.secondary.service import SecondaryService
from pydbt.core.errors import StateError
from pydbt.core.protocol.frames import Frame, Hello, Refuse
from pydbt.core.secondary import events as e
from pydbt.core.seen.headline import headline
from pydbt.core.seen.sight import Level, level_of
from pydbt.core.seen.view import View

FULL = "the state file cannot be written: No space left on device"


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SecondaryService]:
    monkeypatch.setattr(module, "REBUILD_S", 0.01)
    made = SecondaryService(
        SecondaryOptions(tmp_path / "image", "127.0.0.1", 0, tmp_path / "state", insecure=True, create_bytes=1 << 20)
    )
    made._engine.start(None)
    yield made
    made.close()


def test_while_it_starts_again_the_status_is_not_that_of_before_and_a_primary_is_told(
    service: SecondaryService, monkeypatch: pytest.MonkeyPatch
) -> None:
    right, told, sent = module.Engine, [], []
    hello = Hello("00" * 16, 1 << 20, 4096, 1)

    def send(identifier: int, frame: Frame) -> None:
        sent.append((identifier, frame))

    def engine(*words: object) -> object:
        told.append({**service.report().to_json(), "running": True})
        if len(told) == 1:
            service._inbox.put((None, e.Connected(7, hello, bytes(32), True, None)))
        if len(told) < 3:
            raise StateError(FULL)
        return right(*words)

    service._connections = SimpleNamespace(
        send=send, close=lambda *_: None, close_all=lambda: None, received_bytes=0, stop=lambda: None
    )
    monkeypatch.setattr(module, "Engine", engine)
    service._rebuild("the first reason", None)
    assert [one["problem"] for one in told] == ["the first reason", FULL, FULL]
    for one in told:
        assert one["mode"] == "restarting" and one["connected"] is False
        assert level_of(View({**one, "running": True}), stale=False) is Level.BAD
    ((identifier, refuse),) = sent
    assert identifier == 7 and isinstance(refuse, Refuse) and refuse.code == "restarting" and FULL in refuse.message
    after = service.report().to_json()
    assert after["problem"] == "" and after["mode"] == "offline"


def test_the_first_line_of_the_status_has_the_reason() -> None:
    report = {"role": "secondary", "mode": "restarting", "replica_state": "consistent", "problem": FULL}
    assert FULL in headline(View(report), datetime.now(UTC))
