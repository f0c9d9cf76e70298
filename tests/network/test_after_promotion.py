"""A configured secondary whose replica is promoted: the same process answers its old primary from then on."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pydbt.controller.control import ControlServer, call, is_answering
from pydbt.controller.former_secondary import former_socket
from pydbt.controller.options import SecondaryOptions
from pydbt.controller.primary.handshake import Refused, greeted, shake_hands
from pydbt.controller.secondary import promoted
from pydbt.controller.secondary.promoted import after_a_promotion
from pydbt.core.errors import PydbtError
from pydbt.core.protocol import frames as f
from pydbt.core.protocol.generations import Generations
from pydbt.core.protocol.role import ASKS_ROLE, Role
from pydbt.core.secondary.journal import SEGMENT_BYTES
from pydbt.core.secondary.replica import ReplicaRecord
from pydbt.device.target import Target
from pydbt.posix.service_manager import ServiceManager
from pydbt.store.lock import StateLock
from pydbt.store.replica_state import load_record, save_record
from tests.lab.patience import until
from tests.lab.programs import Controller, Outcome, command

VOLUME, SIZE = "ab" * 16, 1 << 20
HELLO = f.Hello(VOLUME, SIZE, 4096, 7, generations=Generations(5, (), (4,)))


class Side:
    """A machine on which the replica ``data`` is configured; it is whole, and its primary is away."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.image, self.state, self.folder = folder / "image", folder / "state", folder
        self.address = (f"unix:{folder}/listen.sock", 0)
        self.environment = {"PYDBT_VOLUMES": str(folder / "volumes")}
        self.image.write_bytes(bytes(SIZE))
        self.state.mkdir(mode=0o700)
        (folder / "volumes").mkdir()
        lines = ("[secondary]", f'target = "{self.image}"', f'listen = "{self.address[0]}"', f'state = "{self.state}"')
        (folder / "volumes/data.toml").write_text("\n".join(lines) + "\n")
        target = Target(str(self.image))
        record = ReplicaRecord(
            replica="cd" * 16, target=target.identity, segment_bytes=SEGMENT_BYTES, volume=VOLUME, size_bytes=SIZE,
            block_bytes=4096, consistent=True, epoch=7, sequence=10, generations=Generations(5, (), (4,)),
        )  # fmt: skip
        target.close()
        save_record(self.state, record)
        self._stack = stack

    @property
    def prefix(self) -> list[str]:
        return ["env", *(f"{name}={value}" for name, value in self.environment.items())]

    def end_with(self, started: Controller) -> None:
        self._stack.callback(lambda: started.alive and started.kill())

    def secondary(self, *words: str) -> Controller:
        started = Controller(self.folder / "log", ["secondary", "data", *words], self.state, prefix=self.prefix)
        self.end_with(started)
        until(lambda: is_answering(self.state) or not started.alive, "it listens")
        assert started.alive, started.words()
        return started

    def run(self, *words: str) -> Outcome:
        return command(*words, **self.environment)

    def told(self) -> str:
        """What a primary hears that connects now: the code of a refusal; empty when it is welcome or nobody answers."""
        try:
            conversation, _ = shake_hands(*self.address, HELLO)
        except Refused as refused:
            return refused.code
        except PydbtError:
            return ""
        conversation.close()
        return ""

    @property
    def is_promoted(self) -> bool:
        record = load_record(self.state)
        return record is not None and bool(record.promoted)


@pytest.fixture
def side(tmp_path: Path) -> Iterator[Side]:
    with ExitStack() as stack:
        yield Side(tmp_path, stack)


def test_the_old_primary_is_told_without_another_start_until_a_demotion(side: Side) -> None:
    started = side.secondary()
    done = side.run("promote", "data")
    assert done.code == 0 and "'controller secondary' goes on" in done.output, done
    assert side.is_promoted
    until(lambda: side.told() == f.SUPERSEDED or not started.alive, "the old primary is told")
    assert started.alive, started.words()
    done = side.run("demote", "data")
    assert done.code == 0, done
    until(lambda: is_answering(side.state) or not started.alive, "it is a replica again")
    assert started.terminate() == 0, started.words()


def asks(side: Side) -> str:
    """What the gate of its old primary hears."""
    connection, answer = greeted(*side.address, replace(HELLO, features=(ASKS_ROLE,)))
    connection.close()
    return answer.role if isinstance(answer, Role) else type(answer).__name__


@pytest.mark.parametrize("how", ["as it runs", "after another start", "stopped", "stopped, and its file is damaged"])
def test_a_primary_that_was_let_to_mount_is_not_forgotten(side: Side, how: str) -> None:
    started = side.secondary()
    assert asks(side) == "replica"
    if how != "as it runs":
        assert started.terminate() == 0, started.words()
        if how == "after another start":
            started = side.secondary()
        if "damaged" in how:
            (side.state / "gate-asked").write_bytes(b"2026")
    refused = side.run("promote", "data")
    refused.refused(4, "asked at", "it may be mounted and written there", "--force")
    assert not side.is_promoted
    forced = side.run("promote", "data", "--force")
    assert forced.code == 0 and side.is_promoted, forced
    assert not (side.state / "gate-asked").exists(), "it is no replica any more"


def test_the_secondary_ends_after_its_promotion_where_that_was_asked_for(side: Side) -> None:
    started = side.secondary("--fixed-role")
    done = side.run("promote", "data")
    assert done.code == 0 and "start 'controller secondary', or its unit, again" in done.output, done
    assert started.wait() == 0 and side.is_promoted, started.words()


def test_the_secondary_ends_when_it_is_stopped_while_it_waits_for_the_promotion(side: Side) -> None:
    started = side.secondary()
    call(side.state, {"command": "promote"}, 30)
    until(lambda: not is_answering(side.state), "it has made way")
    assert started.terminate() == 0 and not side.is_promoted, started.words()


@pytest.fixture
def goes_on(side: Side) -> Controller:
    """A secondary whose replica was promoted."""
    started = side.secondary()
    assert side.run("promote", "data").code == 0
    until(lambda: is_answering(former_socket(side.state)) or not started.alive, "it answers commands")
    assert started.alive, started.words()
    return started


def test_commands_beside_it_are_told_of_it_and_down_stops_it(side: Side, goes_on: Controller) -> None:
    process = (
        f"(process {goes_on.process.pid}) goes on, and tells the old primary of the promotion at {side.address[0]}"
    )
    for words in (("status", "data"), ("status", side.image), ("wait", "data"), ("pause", "data"), ("verify", "data")):
        side.run(*map(str, words)).refused(9, str(side.state), "it was promoted at", process)
    listed = side.run("status")
    assert process in next(line for line in listed.output.splitlines() if str(side.image) in line), listed
    judged = side.run("check", "data")
    assert judged.code == 3 and process in judged.output, judged
    with pytest.raises(PydbtError, match=r"was promoted, .* does not know the command 'pause': use 'controller run'"):
        call(former_socket(side.state), {"command": "pause"}, 30)
    done = side.run("down", "data")
    assert done.code == 0 and done.output.startswith("stopped: nobody tells the old primary"), done
    assert goes_on.wait() == 0 and not former_socket(side.state).exists(), goes_on.words()
    side.run("status", "data").refused(9, "it was promoted at")
    assert "goes on" not in side.run("status", "data").errors
    assert side.run("down", "data").output == "nothing was running\n"


def test_a_run_of_the_volume_is_taken_down_first_and_its_former_secondary_is_told(
    side: Side, goes_on: Controller
) -> None:
    def answer(request: dict[str, Any], gone: object) -> dict[str, Any]:
        if request["command"] == "down":
            threading.Thread(target=run.stop).start()
        return {"role": "primary", "mode": "normal"}

    run = ControlServer(side.state, answer)
    with run:
        assert side.run("status", "data").code == 0, "the run is meant"
        done = side.run("down", "data")
    assert done.code == 0 and "goes on, and tells the old primary" in done.output, done
    assert "(another 'controller down' ends it)" in done.output and goes_on.alive
    assert side.run("down", "data").code == 0 and goes_on.wait() == 0


def test_a_second_one_is_refused_and_one_without_a_socket_still_tells(side: Side, goes_on: Controller) -> None:
    refused = side.run("secondary", "data")
    assert refused.code == 4 and side.address[0].removeprefix("unix:") in refused.errors.splitlines()[-1], refused
    assert goes_on.terminate() == 0
    former_socket(side.state).mkdir()
    again = Controller(side.folder / "again", ["secondary", "data"], side.state, prefix=side.prefix)
    side.end_with(again)
    until(lambda: side.told() == f.SUPERSEDED or not again.alive, "the old primary is told")
    until(lambda: "'controller down' does not reach this process" in again.words(), "its log names the command")
    assert again.terminate() == 0, again.words()


def test_the_secondary_is_a_replica_again_when_the_promotion_was_given_up(
    side: Side, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(promoted, "_PATIENCE_S", 1.5)
    signs: list[int] = []

    class Manager(ServiceManager):
        def sign_of_life(self) -> None:
            signs.append(1)

    options = SecondaryOptions(side.image, *side.address, side.state, accept_target=True, manager=Manager())
    ended: list[object] = []
    thread = threading.Thread(target=lambda: ended.append(after_a_promotion(options)), daemon=True)
    lock = StateLock(side.state)
    thread.start()
    until(lambda: len(signs) > 4, "it waits, and its manager knows that it lives")
    assert not ended, "somebody has the state directory: a promotion that takes long"
    lock.close()
    thread.join(30)
    assert ended == [replace(options, accept_target=False)] and "goes on as a replica" in caplog.text
