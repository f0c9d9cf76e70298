"""One block of the target that cannot be written: it is named, the replica is not usable until it has it, and nothing is lost."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from pydbt.controller import control
from pydbt.core.errors import PeerError
from pydbt.core.protocol.frames import Refuse, Welcome
from pydbt.store.target_problem import load_target_problem
from tests.lab.bad_block import BadBlock, bad_block
from tests.lab.patience import until
from tests.network.scripted import BLOCK, ScriptedPrimary, SecondaryProcess, blocks_frame, stream_frame
from tests.network.test_secondary_devices import block

SIZE = 16 << 20
BAD = 1234
PLACE = f"cannot be written at byte {BAD * BLOCK}"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[BadBlock]:
    with bad_block(tmp_path / "small", SIZE, BAD) as made:
        yield made


@contextlib.contextmanager
def secondary_on(tmp_path: Path, disk: BadBlock) -> Iterator[SecondaryProcess]:
    with SecondaryProcess(tmp_path, SIZE, target=disk.path, create_bytes=None) as secondary:
        yield secondary


def status(secondary: SecondaryProcess) -> dict:
    return control.call(secondary.state, {"command": "status"}, 30)


def until_named(secondary: SecondaryProcess) -> dict:
    until(lambda: PLACE in status(secondary)["target_problem"], "the place is named")
    return status(secondary)


def until_welcome(secondary: SecondaryProcess) -> Welcome:
    found: list[Welcome] = []

    def asked() -> bool:
        with ScriptedPrimary(secondary.port, SIZE) as again:
            if isinstance(again.answer, Welcome):
                found.append(again.answer)
            else:
                assert isinstance(again.answer, Refuse) and again.answer.code == "target-error", again.answer
        return bool(found)

    until(asked, "a primary is welcome again")
    return found[0]


def test_a_block_of_the_stream_that_cannot_be_written_is_named_on_both_sides_and_written_later(
    tmp_path: Path, disk: BadBlock
) -> None:
    with secondary_on(tmp_path, disk) as secondary:
        primary = ScriptedPrimary(secondary.port, SIZE)
        primary.synchronize([blocks_frame(1, {0: block("a")})], 1)
        assert status(secondary)["target_problem"] == ""
        disk.damage()
        primary.send(stream_frame(2, [(7, block("b")), (BAD, block("c")), (9, block("d"))]))
        assert primary.hear(Refuse).code == "target-error"
        told = until_named(secondary)
        assert told["replica_state"] == "inconsistent" and not told["connected"]
        with ScriptedPrimary(secondary.port, SIZE) as again:
            assert isinstance(again.answer, Refuse) and again.answer.code == "target-error"
            assert PLACE in again.answer.message
        with pytest.raises(Exception, match=PLACE):
            control.call(secondary.state, {"command": "promote", "force": True}, 30)
        # A restart does not make it look better.
        secondary.kill()
        assert PLACE in load_target_problem(secondary.state)
        secondary.start()
        assert status(secondary)["replica_state"] == "inconsistent"
        assert PLACE in until_named(secondary)["target_problem"]
        disk.mend()
        welcome = until_welcome(secondary)
        assert welcome.state == "consistent" and welcome.sequence == 4, "what was acknowledged was in the journal"
        assert status(secondary)["target_problem"] == "" and load_target_problem(secondary.state) == ""
        assert secondary.stop() == 0
    assert disk.blocks(0, 7, BAD, 9) == [block("a"), block("b"), block("c"), block("d")]


def test_a_block_of_the_first_copy_that_cannot_be_written_is_named_and_the_others_stay(
    tmp_path: Path, disk: BadBlock
) -> None:
    disk.damage()
    with secondary_on(tmp_path, disk) as secondary:

        def copied() -> bool:
            """One attempt of a primary to copy two blocks; whether both are there."""
            with ScriptedPrimary(secondary.port, SIZE) as primary:
                if isinstance(primary.answer, Refuse) or primary.answer is None:
                    return False
                try:
                    primary.synchronize([blocks_frame(1, {5: block("e"), BAD: block("f")})], 3)
                except (AssertionError, PeerError):  # refused, and closed
                    return False
            return True

        def named() -> bool:
            assert not copied()
            return PLACE in status(secondary)["target_problem"]

        until(named, "the place is named")
        assert status(secondary)["replica_state"] == "inconsistent"
        disk.mend()
        until(copied, "it is copied")
        until(lambda: status(secondary)["replica_state"] != "inconsistent", "it is a replica")
        assert secondary.stop() == 0
    assert disk.blocks(5, BAD) == [block("e"), block("f")]
