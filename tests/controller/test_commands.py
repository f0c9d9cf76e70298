"""Commands that wait leave room for those that are needed meanwhile, and end with their clients."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest

from pydbt.controller.primary import commands as commands_module
from pydbt.controller.primary.commands import WAITS_MAX, Commands
from pydbt.controller.primary.inbox import Inbox
from pydbt.controller.requests import Gone, Request
from pydbt.core.errors import BusyError, DeviceError, PydbtError, TimedOut
from pydbt.device.writeout import Round
from tests.lab.patience import wait_until


class Client:
    """Asks from a thread of its own, until it is gone."""

    def __init__(self, commands: Commands, **arguments: object) -> None:
        self.is_gone = False
        self.answer: object = None
        self._thread = threading.Thread(target=self._ask, args=(commands, arguments), daemon=True)
        self._thread.start()

    def _ask(self, commands: Commands, arguments: dict) -> None:
        try:
            self.answer = commands.serve(arguments, lambda: self.is_gone)
        except Exception as error:
            self.answer = error

    def ended(self) -> object:
        self._thread.join(20)
        assert not self._thread.is_alive()
        return self.answer


class Memory:
    """Stands for what writes out: it is done when the test ends it."""

    place = "/mnt"

    def __init__(self) -> None:
        self.round = Round()
        self.asked = 0

    def ask(self) -> Round:
        self.asked += 1
        return self.round


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> Commands:
    """Their loop is the test itself."""
    monkeypatch.setattr(commands_module, "LOOK_S", 0.01)
    return Commands(
        SimpleNamespace(inbox=Inbox(), writeout=Memory()),
        None,
        None,
        None,
        {"io": lambda arguments, gone: {"asked": arguments}},
    )


def taken(commands: Commands, count: int) -> list[object]:
    items: list[object] = []

    def all_there() -> bool:
        while (item := commands._volume.inbox.take(0.0)) is not None:
            items.append(item)
        return len(items) >= count

    wait_until(all_there, f"{count} items are posted")
    return items


def test_a_wait_whose_client_is_gone_is_forgotten(commands: Commands) -> None:
    client = Client(commands, command="wait")
    (request,) = taken(commands, 1)
    client.is_gone = True
    assert taken(commands, 1) == [Gone(request)]
    assert isinstance(client.ended(), TimedOut)


def test_a_question_that_does_not_need_the_loop_is_answered_without_it(commands: Commands) -> None:
    assert commands.serve({"command": "io"}, lambda: False) == {"asked": {"command": "io"}}
    assert commands._volume.inbox.empty


def test_a_command_whose_client_is_gone_holds_no_thread(commands: Commands) -> None:
    client = Client(commands, command="down")
    taken(commands, 1)
    client.is_gone = True
    assert isinstance(client.ended(), TimedOut)


def test_a_request_whose_client_was_told_of_its_failure_is_not_carried_out_later(commands: Commands) -> None:
    """The loop was held up by a disk that hangs, for example."""
    client = Client(commands, command="down")
    (request,) = taken(commands, 1)
    client.is_gone = True
    assert isinstance(client.ended(), TimedOut)
    commands.carry_out(request)
    assert commands.down is None


def test_waits_leave_room_for_the_commands_that_are_needed_during_an_outage(commands: Commands) -> None:
    waiting = [Client(commands, command="wait") for _ in range(WAITS_MAX)]
    requests = taken(commands, WAITS_MAX)
    assert isinstance(Client(commands, command="wait").ended(), BusyError)
    other = Client(commands, command="status")
    (request,) = taken(commands, 1)
    assert isinstance(request, Request)
    request.answer({"mode": "normal"})
    assert other.ended() == {"mode": "normal"}
    for one in requests:
        one.answer({"sequence": 1})
    assert [client.ended() for client in waiting] == [{"sequence": 1}] * WAITS_MAX
    again = Client(commands, command="wait", timeout=0.0)
    assert isinstance(again.ended(), TimedOut), "its place is free again"


def test_a_wait_ends_at_its_own_time(commands: Commands) -> None:
    assert isinstance(Client(commands, command="wait", timeout=0.05).ended(), TimedOut)
    assert isinstance(taken(commands, 2)[1], Gone)


def test_a_wait_with_a_sync_begins_when_everything_was_written_out_and_tells_what_was_not(commands: Commands) -> None:
    client = Client(commands, command="wait", sync=True)
    memory = commands._volume.writeout
    wait_until(lambda: memory.asked == 1, "it is asked for")
    assert commands._volume.inbox.take(0.1) is None, "writes that are in memory are none yet"
    memory.round.left_out = ["/x is out of reach"]
    memory.round.done.set()
    (request,) = taken(commands, 1)
    request.answer({"sequence": 7})
    assert client.ended() == {"sequence": 7, "left_out": ["/x is out of reach"]}


def test_a_wait_without_a_sync_writes_nothing_out(commands: Commands) -> None:
    client = Client(commands, command="wait")
    (request,) = taken(commands, 1)
    request.answer({"sequence": 7})
    assert client.ended() == {"sequence": 7} and commands._volume.writeout.asked == 0


@pytest.mark.parametrize(
    ("error", "timeout", "is_gone"), [(DeviceError("broken"), None, False), (None, 0.05, False), (None, None, True)]
)
def test_a_wait_fails_when_not_everything_was_written_out_and_names_the_place(
    commands: Commands, error: PydbtError | None, timeout: float | None, is_gone: bool
) -> None:
    client = Client(commands, command="wait", sync=True, timeout=timeout)
    client.is_gone = is_gone
    if error is not None:
        commands._volume.writeout.round.error = error
        commands._volume.writeout.round.done.set()
    answer = client.ended()
    assert answer is error or (isinstance(answer, TimedOut) and "/mnt" in str(answer))
    assert commands._volume.inbox.take(0.0) is None
