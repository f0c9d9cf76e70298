"""A secondary that becomes the volume: the last words and the next role do not depend on a disk that is full."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pydbt.cli.commands import promote as promotion
from pydbt.controller.options import PrimaryOptions, SecondaryOptions
from pydbt.controller.primary import former_address
from pydbt.controller.secondary import engine as secondary_engine
from pydbt.controller.secondary import service as secondary_service
from pydbt.controller.secondary.engine import PersistFailed
from pydbt.controller.secondary.service import SecondaryService, run_secondary
from pydbt.core.errors import StateError
from pydbt.core.protocol.frames import Hello, Takeover
from pydbt.core.protocol.role import ASKS_ROLE, Role
from pydbt.core.secondary import events as e
from pydbt.core.secondary.journal import SEGMENT_BYTES
from pydbt.core.secondary.open_handover import HandoverStage, OpenHandover
from pydbt.core.secondary.replica import ReplicaRecord
from pydbt.device.target import Target
from pydbt.store.open_handover_file import load_open_handover
from pydbt.store.replica_state import load_record, save_record
from tests.lab.patience import until

SIZE = 1 << 20


class Network:
    """The connections of a secondary that has one, of a primary which hangs up as soon as it has its answer."""

    def __init__(self) -> None:
        self.sent: list[Any] = []
        self.received_bytes = 0

    def scope_of(self, connection: int) -> str:
        return ""

    def send(self, connection: int, frame: Any) -> None:
        self.sent.append(frame)

    def close(self, connection: int, reason: str = "") -> None: ...

    def close_all(self) -> None: ...

    def last_received(self, connection: int) -> float | None:
        return None


@pytest.fixture
def options(tmp_path: Path) -> SecondaryOptions:
    """Of a whole replica."""
    image, state_dir = tmp_path / "image", tmp_path / "state"
    image.write_bytes(bytes(SIZE))
    state_dir.mkdir(mode=0o700)
    target = Target(str(image))
    record = ReplicaRecord(
        replica="cd" * 16, target=target.identity, segment_bytes=SEGMENT_BYTES, volume="ab" * 16, size_bytes=SIZE,
        block_bytes=4096, consistent=True, epoch=7, sequence=10,
    )  # fmt: skip
    target.close()
    save_record(state_dir, record)
    return SecondaryOptions(target=image, listen_host="127.0.0.1", listen_port=0, state_dir=state_dir, insecure=True)


def full(*_: Any) -> None:
    raise StateError("status.json cannot be written: No space left on device")


def taken_over(options: SecondaryOptions, listen: str) -> tuple[PrimaryOptions | None, list[Any]]:
    """What the process is next, and what the old primary was told, when that named a place to listen in its last message."""
    service, network = SecondaryService(options), Network()
    service._connections = network  # type: ignore[assignment]
    service._engine.start(None)
    try:
        until(lambda: service._engine.brain.drained, "the journal is on the target")
        return service._take_over(e.TakeOver(1, listen)), network.sent
    finally:
        service.close()


def test_a_promotion_that_happened_is_no_error_on_a_full_disk(
    options: SecondaryOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(secondary_service, "write_saved_status", full)
    assert run_secondary(replace(options, replay_only=True, promote=True)) == 0
    record = load_record(options.state_dir)
    assert record is not None and record.promoted


def test_the_loss_of_a_promotion_is_printed_although_the_old_address_cannot_be_kept(
    options: SecondaryOptions, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(former_address, "keep_former_address", full)
    told = {"host": "alpha", "source": "/dev/x", "heard_seconds": 25.0, "ended": False, "told": "2026-01-02T03:04:05Z"}
    status = {"listen": "10.0.0.2:7790", "primary": told}
    promotion._tell(options.state_dir, status, promotion._keep_address(options.state_dir, status))
    *loss, last = capsys.readouterr().out.splitlines()
    assert loss and "No space left on device" in last


def test_a_change_of_places_goes_on_although_the_disk_is_full(
    options: SecondaryOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(secondary_service, "write_saved_status", full)
    chosen, sent = taken_over(options, "10.0.0.1:7790")
    assert chosen is not None and chosen.secondaries == (("10.0.0.1", 7790),)
    assert sent == [Takeover(final=True)]


@pytest.mark.parametrize("listen", ["10.0.0.1", "fe80::1:7790", "unix:relative", ""])
def test_a_place_that_is_no_address_is_refused_before_anything_is_promoted(
    options: SecondaryOptions, listen: str
) -> None:
    chosen, (answer,) = taken_over(options, listen)
    record = load_record(options.state_dir)
    assert chosen is None and answer.final and answer.refusal
    found = load_open_handover(options.state_dir)
    assert found is not None and (found.stage, found.why) == (HandoverStage.REFUSED, answer.refusal)
    service = SecondaryService(options)
    told = service.report().to_json()["handover"]
    service.close()
    assert told == found.to_report(), "it is told after a restart"
    assert record is not None and not record.promoted


def test_while_it_cannot_begin_again_its_status_and_its_refusals_say_why(
    options: SecondaryOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    service, network = SecondaryService(options), Network()
    service._connections = network  # type: ignore[assignment]
    began = secondary_service.Engine
    failures = [StateError("replica.json cannot be written: No space left on device")] * 2
    told: list[Any] = []

    def begin(*arguments: Any) -> Any:
        if failures:
            raise failures.pop()
        return began(*arguments)

    def pause(seconds: float, *, turn_away: bool) -> None:
        told.append(service.report().to_json())
        if turn_away:
            service._inbox.put((None, e.Connected(7, Hello("ab" * 16, SIZE, 4096, 7), bytes(32))))
            service._turn_primaries_away()

    monkeypatch.setattr(secondary_service, "Engine", begin)
    monkeypatch.setattr(service, "_pause", pause)
    service._rebuild("the journal cannot be written", None)
    try:
        assert [one["mode"] for one in told] == ["restarting"] * 3 and not any(one["connected"] for one in told)
        assert [one["problem"].split(" cannot")[0] for one in told] == ["the journal", "replica.json", "replica.json"]
        assert [refuse.code for refuse in network.sent] == ["restarting"] * 2
        assert all("No space left on device" in refuse.message for refuse in network.sent)
        after = service.report().to_json()
        assert (after["mode"], after["problem"]) == ("offline", "")
    finally:
        service.close()


@pytest.mark.parametrize(("volume", "told"), [("ab" * 16, "replica"), ("77" * 16, "other-volume")])
def test_a_secondary_that_cannot_go_on_answers_the_question_for_its_role_as_ever(
    options: SecondaryOptions, volume: str, told: str
) -> None:
    service, network = SecondaryService(options), Network()
    service._connections, service._trouble = network, "TARGET lacks something"  # type: ignore[assignment]
    hello = Hello(volume, SIZE, 4096, 7, features=(ASKS_ROLE,))
    service._inbox.put((None, e.Connected(7, hello, bytes(32))))
    try:
        service._turn_primaries_away()
    finally:
        service.close()
    (answer,) = network.sent
    assert (answer.role if isinstance(answer, Role) else answer.code) == told


def test_a_question_that_cannot_be_written_down_is_not_answered(
    options: SecondaryOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else its primary goes on, and after a crash of this side nobody knows here that it was asked."""
    service = SecondaryService(options)
    service._engine.start(None)
    monkeypatch.setattr(secondary_engine, "save_open_handover", full)
    asked = e.KeepHandover(OpenHandover(HandoverStage.ASKED, "10.0.0.1:7790"))
    try:
        with pytest.raises(PersistFailed, match="No space left"):
            service._engine._carry_out([asked], None)
        assert service.report().handover is None
        service._engine.stay_replica(e.TakeOver(1, "10.0.0.1:7790"), "no root")
        told = service.report().handover
        assert told is not None and told.stage is HandoverStage.REFUSED, "as long as this process lives"
    finally:
        service.close()


def test_a_change_of_places_that_is_over_is_forgotten_although_its_file_stays(
    options: SecondaryOptions, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    service = SecondaryService(options)
    service._engine.start(None)
    monkeypatch.setattr(secondary_engine, "forget_open_handover", full)
    try:
        service._engine.stay_replica(e.TakeOver(1, "10.0.0.1:7790"), "no root")
        service._engine._carry_out([e.KeepHandover(None)], None)
        assert service.report().handover is None and "No space left" in caplog.text
    finally:
        service.close()
