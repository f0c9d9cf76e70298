"""A change of places is refused while nothing has changed, for whatever this side would need as a secondary afterwards."""

from __future__ import annotations

import errno
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pydbt.cli.commands.promote import promote
from pydbt.controller import roles
from pydbt.controller.options import PrimaryOptions, SecondaryOptions
from pydbt.controller.primary import handing_over
from pydbt.controller.primary.former_address import answering_the_old_primary, keep_former_address
from pydbt.controller.primary.handing_over import HandingOver
from pydbt.controller.requests import Request
from pydbt.controller.role_record import role_record
from pydbt.controller.roles import require_no_replica, require_no_successor
from pydbt.controller.secondary.other_role import as_primary
from pydbt.core.errors import BusyError, PeerError, PydbtError, StateError, UsageError
from pydbt.core.primary.modes import Mode
from pydbt.core.protocol.frames import HANDOVER, WITHDRAWAL, Hello
from pydbt.core.secondary.open_handover import HandoverStage
from pydbt.core.secondary.replica import ReplicaRecord
from pydbt.core.units import MIB
from pydbt.network.address import format_address
from pydbt.network.connection import FramedConnection
from pydbt.posix import atomic
from pydbt.store.open_handover_file import load_open_handover
from pydbt.store.replica_state import load_record, save_record
from pydbt.store.secondary_record import SecondaryRecord, SyncPhase
from pydbt.store.successor import load_successor, save_successor
from pydbt.store.volume_state import VolumeState, load_state, save_state
from tests.lab.programs import free_port


class Side:
    """A primary in sync. ``sent``: what the secondary was asked."""

    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sent: list[Any] = []
        self.held: list[int] = []
        state = SimpleNamespace(taints=[])
        connection = SimpleNamespace(features=(HANDOVER,), send=self.sent.append, local_host="127.0.0.1")
        self.peer: Any = SimpleNamespace(
            address="127.0.0.1:7790", brain=SimpleNamespace(mode=Mode.NORMAL, state=state), connection=connection
        )
        options = PrimaryOptions(Path("/dev/x"), (("127.0.0.1", 7790),), tmp_path, insecure=True)
        self.volume: Any = SimpleNamespace(
            options=options, device=SimpleNamespace(path="/dev/x"), peers={1: self.peer}, former_address=None
        )
        self.busy = False
        monkeypatch.setattr(handing_over, "require_unused", lambda *_: None)
        monkeypatch.setattr(handing_over, "check_target", lambda *_, **__: None)
        system = SimpleNamespace(O_RDWR=0, O_EXCL=0, O_CLOEXEC=0, open=self._open, close=self.held.remove)
        monkeypatch.setattr(handing_over, "os", system)

    def _open(self, path: str, flags: int) -> int:
        if self.busy:
            raise OSError(errno.EBUSY, "Device or resource busy")
        self.held.append(3)
        return 3

    def switch(self, listen: str | None) -> HandingOver:
        return HandingOver(
            self.volume, self.peer, Request("switchover", threading.Event(), arguments={"listen": listen})
        )

    def refused(self, kind: type[PydbtError], listen: str | None, *words: str) -> None:
        with pytest.raises(kind) as caught:
            self.switch(listen)
        assert all(word in str(caught.value) for word in words), caught.value
        assert not self.sent and not self.held, "the secondary was asked, or the device is held"


@pytest.fixture
def side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Side:
    return Side(tmp_path, monkeypatch)


@pytest.fixture
def taken() -> Iterator[int]:
    """A port at which another program listens."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        yield other.getsockname()[1]


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_a_port_that_another_program_has_is_refused(side: Side, taken: int) -> None:
    side.refused(BusyError, f"127.0.0.1:{taken}", "in use by another program", "--listen", "nothing was changed")


def test_the_port_of_the_other_side_is_refused_where_a_secondary_of_another_volume_has_it(
    side: Side, taken: int
) -> None:
    side.peer.address = f"10.0.0.2:{taken}"
    side.refused(BusyError, None, f"port {taken} of 127.0.0.1", "--listen")


@pytest.mark.parametrize(
    ("listen", "kind"),
    [("192.0.2.7:7790", BusyError), ("no.such.host.invalid:7790", PeerError), ("unix:/no/such/folder/s", UsageError)],
)
def test_an_address_that_is_not_of_this_machine_is_refused(side: Side, listen: str, kind: type[PydbtError]) -> None:
    side.refused(kind, listen, "could not be the secondary", "--listen", "nothing was changed")


def test_a_disk_that_is_too_small_for_the_journal_is_refused(side: Side, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(place: Path, limit_bytes: int) -> None:
        raise UsageError(f"the disk of {place} is too small for {limit_bytes}")

    port = free_port()
    monkeypatch.setattr(handing_over, "require_journal_room", refuses)
    side.refused(UsageError, f"127.0.0.1:{port}", "too small")
    assert not listens(port)


def test_the_place_is_held_from_the_question_on_and_handed_to_the_secondary(side: Side) -> None:
    port = free_port()
    change = side.switch(f"127.0.0.1:{port}")
    assert side.sent[-1].listen == f"127.0.0.1:{port}" and side.held
    with pytest.raises(BusyError):
        side.switch(f"127.0.0.1:{port}")
    change.steps.give_up("the secondary cannot")
    change.give_up()
    assert not side.held and not listens(port), "given up, and the port is still held"
    side.switch(f"127.0.0.1:{port}").give_up(PydbtError("stopped"))


def test_a_secondary_that_understands_it_is_told_that_it_was_given_up(side: Side) -> None:
    side.peer.connection.features = (HANDOVER, WITHDRAWAL)
    change = side.switch(f"127.0.0.1:{free_port()}")
    assert not side.sent[-1].is_withdrawal
    change.steps.give_up("the secondary cannot")
    change.give_up()
    assert [frame.is_withdrawal for frame in side.sent] == [False, True]
    side.peer.connection.features = (HANDOVER,)
    side.switch(f"127.0.0.1:{free_port()}").give_up(PydbtError("stopped"))
    assert not side.sent[-1].is_withdrawal, "an earlier version would answer it"


def with_file(side: Side, port: int) -> None:
    """A file of this side says where it listens as the secondary, and with how large a journal."""
    options = side.volume.options
    afterwards = SecondaryOptions(
        options.source, "127.0.0.1", port, options.state_dir, insecure=True, journal_limit_bytes=64 * MIB,
        volume_file=Path("/etc/pydbt/volumes/data.toml"), fixed_listen=True,
    )  # fmt: skip
    side.volume.options = replace(options, volume_file=afterwards.volume_file, afterwards=afterwards, compress=True)


def test_the_file_says_where_and_how_this_side_is_the_secondary_and_the_way_back_keeps_every_option(
    side: Side, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    monkeypatch.setattr(handing_over, "require_journal_room", lambda _, limit_bytes: asked.append(limit_bytes))
    port = free_port()
    with_file(side, port)
    change = side.switch(None)
    try:
        assert asked == [64 * MIB], "whatever its start asks for is asked now"
        assert side.sent[-1].listen == f"127.0.0.1:{port}"
        back = change._secondary.afterwards
        assert back is not None and back.compress and change._secondary.journal_limit_bytes == 64 * MIB
        again = as_primary(change._secondary, ("127.0.0.1", 7791))
        assert again.compress and again.secondaries == (("127.0.0.1", 7791),)
        assert again.afterwards is not None and again.afterwards.listen == ("127.0.0.1", port)
        assert again.afterwards.listener is None
    finally:
        change.give_up(PydbtError("stopped"))


def test_an_address_that_is_not_the_file_s_is_refused_because_it_is_forgotten_at_a_restart(side: Side) -> None:
    port = free_port()
    with_file(side, port)
    side.refused(UsageError, "127.0.0.1:1", f"127.0.0.1:{port}", "data.toml", "leave --listen out")
    side.switch(f"127.0.0.1:{port}").give_up(PydbtError("stopped"))
    another = free_port()
    side.volume.options = replace(
        side.volume.options, afterwards=replace(side.volume.options.afterwards, fixed_listen=False)
    )
    side.switch(f"127.0.0.1:{another}").give_up(PydbtError("where it was before, and no file says it"))


def test_a_decision_for_once_is_not_taken_again_on_the_way_back(side: Side) -> None:
    side.volume.options = replace(side.volume.options, accept_replica=True, assume_in_sync=True, new_peer_key=True)
    change = side.switch("127.0.0.1:0")
    back = change._secondary.afterwards
    change.give_up(PydbtError("stopped"))
    assert back is not None and not (back.accept_replica or back.assume_in_sync or back.new_peer_key)


def test_the_answers_to_an_old_primary_make_way_for_the_secondary_at_their_address_and_come_back(
    side: Side, tmp_path: Path
) -> None:
    """After a failover this side answers where it was a replica; its way back is the secondary of the old primary there."""
    port = free_port()
    keep_former_address(tmp_path, f"127.0.0.1:{port}")
    record = ReplicaRecord(replica="12" * 16, target="t", segment_bytes=65536, promoted="2026-01-01T00:00:00+00:00")
    save_record(tmp_path, record)
    with answering_the_old_primary(side.volume.options) as former:
        side.volume.former_address = former
        former.answer()
        assert listens(port), "it answers"
        with socket.create_connection(("127.0.0.1", port)):
            pass
        change = side.switch(f"127.0.0.1:{port}")
        assert change._secondary.listener is not None
        change.give_up(PydbtError("stopped"))
        assert change._secondary.listener is None and listens(port), "it answers again"
    assert not listens(port)


def test_a_socket_of_this_machine_is_taken_away_when_it_is_given_up(side: Side, tmp_path: Path) -> None:
    place = tmp_path / "s"
    change = side.switch(f"unix:{place}")
    assert place.is_socket()
    change.give_up(PydbtError("stopped"))
    assert not place.exists()


def test_a_free_port_that_the_kernel_chose_is_told_to_the_secondary(side: Side) -> None:
    change = side.switch("127.0.0.1:0")
    port = int(side.sent[-1].listen.rpartition(":")[2])
    assert port and listens(port)
    change.give_up(PydbtError("stopped"))


def test_a_device_that_is_taken_at_the_last_moment_leaves_the_port_free(side: Side) -> None:
    side.busy, port = True, free_port()
    side.refused(BusyError, f"127.0.0.1:{port}", "is in use")
    assert not listens(port)


@pytest.mark.parametrize(
    ("family", "name", "scope"),
    [
        (socket.AF_INET6, ("fe80::1", 7790, 0, socket.if_nametoindex("lo")), "lo"),
        (socket.AF_INET6, ("::1", 7790, 0, 0), ""),
        (socket.AF_INET, ("127.0.0.1", 7790), ""),
        (socket.AF_UNIX, "", ""),
    ],
)
def test_an_address_of_one_link_keeps_its_interface(family: int, name: Any, scope: str) -> None:
    nothing = dict.fromkeys(("settimeout", "setsockopt"), lambda *_: None)
    sock: Any = SimpleNamespace(family=family, getsockname=lambda: name, **nothing)
    assert FramedConnection(sock).local_scope == scope


class Ending:
    """A change of places whose primary has ended, on an image. ``told``: how often the other side was told to take over."""

    def __init__(self, side: Side, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str = "") -> None:
        self.place, self.told, image = tmp_path, 0, tmp_path / "image"
        image.write_bytes(bytes(1 << 20))
        record = SecondaryRecord(1, "127.0.0.1:7790", SyncPhase.REPLICATING)
        save_state(tmp_path, VolumeState("ab" * 16, 1 << 20, 4096, str(image), {}, (record,)))
        side.volume.options = PrimaryOptions(image, (("127.0.0.1", 7790),), tmp_path, insecure=True)
        side.peer.brain.config = SimpleNamespace(epoch=7)
        side.peer.brain.state.acknowledged = 10
        self.change = side.switch("127.0.0.1:0")
        self.change.steps.answered("")
        self.change.steps.drained(True, 0.0)

        def tell(*_: Any) -> str:
            self.told += 1
            return answer

        monkeypatch.setattr(self.change, "_tell", tell)

    def complete(self) -> str:
        """Why the change of places failed; empty when it did not."""
        try:
            self.change.complete(Hello("ab" * 16, 1 << 20, 4096, 7))
        except PydbtError as error:
            return str(error)
        finally:
            self.change._release()
        return ""

    def is_replica(self) -> bool:
        record = load_record(self.place)
        return record is not None and not record.promoted


class FailingOnce:
    """The disk of the state: the write or the removal of this number fails, ``after`` it was done or before."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, number: int, *, after: bool) -> None:
        self._left, self._after = number, after
        self._sync = atomic.sync_folder
        monkeypatch.setattr(atomic, "replace_file", self._of(atomic.replace_file))
        monkeypatch.setattr(atomic, "sync_folder", self._synced)
        monkeypatch.setattr(roles, "remove_file", self._of(atomic.remove_file))
        for module in ("pydbt.store.replica_state", "pydbt.store.successor", "pydbt.store.open_handover_file"):
            monkeypatch.setattr(f"{module}.replace_file", self._of(atomic.replace_file))
        for module in ("pydbt.store.successor", "pydbt.store.open_handover_file"):
            monkeypatch.setattr(f"{module}.remove_file", self._of(atomic.remove_file))

    @property
    def has_failed(self) -> bool:
        return self._left < 0

    def _of(self, action: Any) -> Any:
        def acts(path: Path, *rest: Any) -> None:
            if not self._after:
                self._count(path)
            action(path, *rest)

        return acts

    def _synced(self, folder: Path) -> None:
        self._sync(folder)
        if self._after:
            try:
                self._count(folder)
            except StateError as error:
                raise OSError(errno.EIO, str(error)) from None

    def _count(self, path: Path) -> None:
        self._left -= 1
        if self._left == -1:
            raise StateError(f"{path} cannot be written")


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("number", range(14))
def test_a_failure_of_any_write_is_reported_with_the_role_that_each_side_has(
    side: Side, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, after: bool
) -> None:
    ending = Ending(side, tmp_path, monkeypatch)
    FailingOnce(monkeypatch, number, after=after)
    words = ending.complete()
    assert ending.told == (1 if not words else 0)
    if not words:
        assert ending.is_replica()
        record = load_record(tmp_path)
        assert record is not None and (record.handed_to or load_successor(tmp_path)), "a promotion would ask nothing"
    elif ending.is_replica():
        assert "became a replica" in words and "was not told to take over" in words
        assert not ending.change.steps.may_be_given_up
        found = load_open_handover(tmp_path)
        assert found is not None and found.stage is HandoverStage.GIVEN, "no status would tell it"
    else:
        assert "became a replica" not in words and load_state(tmp_path) is not None
        assert ending.change.steps.may_be_given_up


def test_a_place_that_was_taken_is_no_question_and_one_that_may_not_have_been_is_kept_with_the_reason(
    side: Side, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ending = Ending(side, tmp_path, monkeypatch, answer="it closed the connection")
    assert not ending.complete()
    found = load_open_handover(tmp_path)
    assert found is not None and (found.other, found.why) == ("127.0.0.1:7790", "it closed the connection")
    assert found.since and load_successor(tmp_path) is None
    taken = tmp_path / "taken"
    taken.mkdir()
    ending = Ending(side, taken, monkeypatch)
    assert not ending.complete() and load_successor(taken) is not None
    known = role_record(taken)
    assert known.successor == "127.0.0.1:7790" and known.listen == format_address(*ending.change._secondary.listen)
    found = load_open_handover(taken)
    assert found is not None and found.stage is HandoverStage.TAKEN, "until that primary is heard"


def test_a_side_that_gave_its_place_away_is_not_advised_to_be_promoted(
    side: Side, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ending = Ending(side, tmp_path, monkeypatch)
    assert not ending.complete()
    with pytest.raises(UsageError, match=r"127\.0\.0\.1:7790 became the primary: run 'controller secondary' on it"):
        require_no_replica(tmp_path)
    with pytest.raises(BusyError, match=r"127\.0\.0\.1:7790 became the primary.*--force"):
        require_no_successor(tmp_path)


def test_a_replica_is_served_and_promoted_only_when_its_primary_is_lost(
    side: Side, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ending = Ending(side, tmp_path, monkeypatch)
    save_successor(tmp_path, "of an earlier time")
    roles.demote(side.volume.options.source, tmp_path)
    with pytest.raises(UsageError, match=r"'controller secondary' on it.*only if its primary is lost"):
        require_no_replica(tmp_path)
    require_no_successor(tmp_path)
    ending.change._release()


def test_promote_asks_for_force_where_this_side_gave_its_place_away(
    side: Side, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ending = Ending(side, tmp_path, monkeypatch)
    assert not ending.complete()
    asked = partial(promote.callback, side.volume.options.source, tmp_path, accept_target=False, timeout=1.0)
    with pytest.raises(BusyError, match="became the primary"):
        asked(force=False)
    assert asked(force=True) == 0 and not ending.is_replica()
