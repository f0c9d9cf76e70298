"""One turn of the loop: it gathers the events, the brains decide, and their effects are done before it ends."""

from __future__ import annotations

import threading

import pytest

from pydbt.controller.primary.handshake import Refused
from pydbt.controller.primary.inbox import Heard, Wake
from pydbt.controller.primary.loop import PrimaryLoop
from pydbt.controller.primary.peer_connection import Attempt
from pydbt.controller.requests import Gone, Request
from pydbt.core.errors import DeviceError
from pydbt.core.primary import events as ev
from pydbt.core.primary.modes import Mode


@pytest.fixture
def turning(loop: PrimaryLoop, monkeypatch: pytest.MonkeyPatch) -> PrimaryLoop:
    """A loop whose checks of once per second are not due, so that a turn is about the turn alone."""
    monkeypatch.setattr(loop, "_next_check", float("inf"))
    return loop


def asked(loop: PrimaryLoop, command: str, **arguments: object) -> Request:
    request = Request(command, threading.Event(), arguments=arguments)
    loop.volume.inbox.post(request)
    return request


def test_a_captured_write_is_in_the_stream_at_the_end_of_the_turn(turning: PrimaryLoop) -> None:
    turning.volume.capture.write(4)
    assert turning.turn(0.0)
    assert turning.volume.capture.order == [4]
    assert not turning.volume.events
    assert turning.volume.brains[0].state.sequence == 1


def test_a_turn_without_anything_new_is_not_busy_and_the_brains_hear_of_the_senders(
    turning: PrimaryLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard = []
    handle = turning.volume.fanout.handle
    monkeypatch.setattr(
        turning.volume.fanout, "handle", lambda event, now, number: (heard.append(event), handle(event, now, number))[1]
    )
    turning.turn(0.0)  # the first one tells where the ring is
    heard.clear()
    assert not turning.turn(0.0)
    assert ev.Outbound(0, 0) in heard


def test_a_command_is_answered_in_the_turn_that_finds_it(turning: PrimaryLoop) -> None:
    pause = asked(turning, "pause")
    assert turning.turn(0.0)
    assert pause.done.is_set() and pause.error is None
    assert turning.volume.brains[0].mode is Mode.PAUSED
    assert pause.result is not None and pause.result["mode"] == "paused"


def test_a_status_leaves_out_no_write_that_had_completed_when_it_was_asked(turning: PrimaryLoop) -> None:
    turning.turn(0.0)
    turning.volume.peers[1].brain.link.lost("cut", 0.0)  # whatever is sent from here on is not acknowledged
    turning.volume.capture.write(4)
    status = asked(turning, "status")
    turning.take_inbox(0.0)
    assert status.result is not None
    assert status.result["out_of_sync_bytes"] == 4096 and status.result["sequence"]["submitted"] == 1
    assert status.result["replica_state"] != "up-to-date"


def test_a_command_that_nobody_knows_is_answered_with_an_error(turning: PrimaryLoop) -> None:
    request = asked(turning, "dance")
    turning.turn(0.0)
    assert request.error is not None and "knows no command 'dance'" in str(request.error)


def test_a_wait_is_answered_once_the_secondary_has_acknowledged_everything(turning: PrimaryLoop) -> None:
    wait = asked(turning, "wait")
    turning.turn(0.0)
    turning.turn(0.0)
    assert wait.result == {"sequence": 0}


def test_a_wait_that_was_given_up_is_forgotten(turning: PrimaryLoop) -> None:
    turning.volume.capture.write(4)
    wait = asked(turning, "wait")
    turning.turn(0.0)
    assert not wait.done.is_set()
    turning.volume.inbox.post(Gone(wait))
    turning.turn(0.0)
    assert turning.volume.waits.forget(wait) == []


def test_going_down_and_being_stopped_end_the_run(turning: PrimaryLoop) -> None:
    asked(turning, "down")
    turning.run()
    assert turning.commands.down is not None
    turning.commands.down = None
    turning.stop()
    turning.run()


def test_a_wake_is_nothing_but_the_end_of_the_waiting(turning: PrimaryLoop) -> None:
    turning.volume.inbox.post(Wake())
    assert turning.turn(60.0)


def test_a_refusal_of_the_only_secondary_ends_the_run(turning: PrimaryLoop) -> None:
    (peer,) = turning.volume.peers.values()
    refusal = Refused("other-volume", "it holds another volume")
    turning.volume.inbox.post(Heard(peer, Attempt(peer.connection._attempt, refusal)))
    turning.run()
    assert turning.fatal is refusal


def test_an_attempt_that_was_given_up_is_not_heard(turning: PrimaryLoop) -> None:
    (peer,) = turning.volume.peers.values()
    stale = Attempt(peer.connection._attempt - 1, ev.Disconnected("the old connection"))
    turning.volume.inbox.post(Heard(peer, stale))
    turning.turn(0.0)
    assert peer.brain.link.up


def test_a_source_that_is_gone_ends_the_run(loop: PrimaryLoop, monkeypatch: pytest.MonkeyPatch) -> None:
    error = DeviceError("the disk is gone")

    def check() -> None:
        raise error

    monkeypatch.setattr(loop.volume.reader, "check", check)
    loop.run()
    assert loop.fatal is error


def test_a_taint_that_the_audit_finds_is_written_down_at_once(
    loop: PrimaryLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop.volume.auditor, "look", lambda brains, now: [ev.Tainted("an unknown operation wrote")])
    loop.turn(0.0)
    loop.turn(0.0)
    assert [entry["reason"] for entry in loop.volume.metadata.record(1).taints] == ["an unknown operation wrote"]
