"""Questions for events over the control socket: many at once lock nobody out, and each change is told once."""

from __future__ import annotations

import contextlib
import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from pydbt.controller.control import CLIENTS_MAX, ControlServer, call
from pydbt.controller.event_log import POLLS_MAX, EventLog, journal_fields
from pydbt.core.errors import PydbtError, UsageError
from pydbt.core.seen.events import Event
from pydbt.core.seen.hooks import NO_HOOKS, Whose
from pydbt.posix.journal import Journal
from tests.core.seen.statuses import secondary
from tests.lab.patience import until

PLACE = Whose("secondary", "/dev/vdb", "data", "/var/lib/pydbt/data")
LONG_S = 100.0


class Told:
    """A status that a controller would tell."""

    def __init__(self, **changed: Any) -> None:
        self._values = {**secondary(), "volume": "ab" * 16, **changed}

    def to_json(self) -> dict[str, Any]:
        return self._values


def log_of(journal: Journal | None = None) -> EventLog:
    return EventLog(NO_HOOKS, PLACE, journal)


def ask(log: EventLog, since: int, timeout: float = 0.0) -> dict[str, Any]:
    return log.answer({"command": "events", "since": since, "timeout": timeout}, lambda: False)


def test_a_question_waits_for_the_next_change_and_gets_it_once() -> None:
    log = log_of()
    log.look(Told, 1.0)
    first = ask(log, 0)
    assert [event["name"] for event in first["events"]] == ["started", "connected", "in-sync"] and not first["lost"]
    answers: list[dict[str, Any]] = []
    waiting = threading.Thread(target=lambda: answers.append(ask(log, first["next"], LONG_S)))
    waiting.start()
    log.look(lambda: Told(connected=False), 2.0)
    waiting.join()
    assert [event["name"] for event in answers[0]["events"]] == ["disconnected"]
    assert ask(log, answers[0]["next"])["events"] == []


def test_a_controller_that_ends_answers_everybody_and_tells_that_it_ends() -> None:
    log = log_of()
    log.look(Told, 1.0)
    answers: list[dict[str, Any]] = []
    since = ask(log, 0)["next"]
    waiting = [threading.Thread(target=lambda: answers.append(ask(log, since, LONG_S))) for _ in range(3)]
    for one in waiting:
        one.start()
    log.end("stopped: no room")
    log.end()
    for one in waiting:
        one.join()
    assert {(event["name"], event["words"]) for answer in answers for event in answer["events"]} == {
        ("stopped", "stopped: no room")
    }
    assert ask(log, ask(log, 0)["next"], LONG_S)["events"] == []  # at once


def test_a_controller_that_told_nothing_tells_no_end() -> None:
    log = log_of()
    log.end()
    assert ask(log, 0)["events"] == []


def test_a_client_that_is_gone_gives_its_place_back() -> None:
    log = log_of()
    log.look(Told, 1.0)
    since = ask(log, 0)["next"]
    for _ in range(2 * POLLS_MAX):
        assert log.answer({"command": "events", "since": since, "timeout": LONG_S}, lambda: True)["events"] == []


@pytest.mark.parametrize("arguments", [{"since": "1"}, {"since": True}, {"timeout": -1.0}, {"timeout": "x"}])
def test_a_question_of_other_types_is_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        log_of().answer({"command": "events", **arguments}, lambda: False)


def test_as_many_pollers_as_there_are_places_lock_nobody_out(tmp_path: Path) -> None:
    log = log_of()
    log.look(Told, 1.0)
    since = ask(log, 0)["next"]

    def handler(request: dict[str, Any], gone: Any) -> dict[str, Any]:
        return {"alive": True} if request["command"] == "status" else log.answer(request, gone)

    stop = threading.Event()
    answered = []

    def poll() -> None:
        while not stop.is_set():
            with contextlib.suppress(PydbtError):  # one too many at a moment: as the command does, it asks again
                call(tmp_path, {"command": "events", "since": since, "timeout": LONG_S}, None)
            answered.append(1)
            stop.wait(1.0)

    with ControlServer(tmp_path, handler):
        pollers = [threading.Thread(target=poll) for _ in range(CLIENTS_MAX)]
        for one in pollers:
            one.start()
        until(lambda: len(answered) >= CLIENTS_MAX - POLLS_MAX, "those that may not wait are answered at once")
        assert call(tmp_path, {"command": "status"}, 60.0) == {"alive": True}
        stop.set()
        log.end()
        for one in pollers:
            one.join()


def test_an_event_is_an_entry_of_the_journal_with_fields_that_hostile_text_does_not_break(tmp_path: Path) -> None:
    place = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
        journal.bind(str(place))
        log = log_of(Journal(str(place)))
        log.look(lambda: Told(connected=False, problem="x\nPRIORITY=0\nEVIL=1"), 1.0)
        entries = [journal.recv(1 << 16).decode() for _ in range(3)]
    fields = [dict(line.split("=", 1) for line in entry.splitlines()) for entry in entries]
    assert [entry["PYDBT_EVENT"] for entry in fields] == ["started", "problem", "in-sync"]
    assert fields[1]["PYDBT_WORDS"] == "x\\x0aPRIORITY=0\\x0aEVIL=1" and fields[1]["PRIORITY"] == "4"
    assert fields[1]["MESSAGE"].startswith("data: problem: ") and fields[1]["PYDBT_VOLUME_ID"] == "ab" * 16
    assert "EVIL" not in fields[1] and len(fields[1]["MESSAGE_ID"]) == 32


def test_a_journal_that_takes_nothing_holds_nothing_up(tmp_path: Path) -> None:
    assert not Journal(str(tmp_path / "missing")).send({"MESSAGE": "x"})
    assert not Journal(str(tmp_path / "missing")).send({"MESSAGE": "x" * (1 << 20)})
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as full:
        full.bind(str(tmp_path / "full"))
        journal = Journal(str(tmp_path / "full"))
        assert not all(journal.send({"MESSAGE": "x" * 1000}) for _ in range(100_000))


def test_the_identity_of_a_message_belongs_to_the_name() -> None:
    one, other = (journal_fields(Event(1, "", name, ""), PLACE, "")["MESSAGE_ID"] for name in ("stopped", "started"))
    assert one != other and one == journal_fields(Event(2, "later", "stopped", "again"), PLACE, "")["MESSAGE_ID"]
