"""One block of the target that cannot be written: it is named, everything else goes on, and nothing is lost.

The replica is not usable until the target has it. A primary that cannot be told of single blocks is refused until then.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from pydbt.controller import control
from pydbt.core.errors import PeerError
from pydbt.core.protocol.frames import KEYED_DIGESTS, UNWRITABLE, Ack, Ping, Refuse, Unwritable, Welcome
from pydbt.core.secondary.bad_blocks import BadBlocks
from pydbt.store.bad_blocks_file import load_bad_blocks, save_bad_blocks
from pydbt.store.replica_state import load_record
from pydbt.store.target_problem import load_target_problem
from tests.lab.bad_block import BadBlock, bad_block
from tests.lab.patience import until
from tests.network.scripted import BLOCK, Closed, ScriptedPrimary, SecondaryProcess, blocks_frame, stream_frame
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
        kept = load_bad_blocks(secondary.state, SIZE, load_record(secondary.state))
        assert kept.runs().blocks().tolist() == [BAD]
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
                except (Closed, PeerError):  # refused, and closed
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


class KnowingPrimary(ScriptedPrimary):
    """One that is told of single blocks."""

    def __init__(self, port: int) -> None:
        super().__init__(port, SIZE, features=(KEYED_DIGESTS, UNWRITABLE))

    def bad(self) -> list[int]:
        """The blocks of the last word on them."""
        told = [frame for frame in self.heard if isinstance(frame, Unwritable)]
        return told[-1].units.blocks().tolist() if told else []

    def until_taken(self) -> None:
        def asked() -> bool:
            self.send(Ping(1))  # a silent primary is given up
            return not self.bad()

        self.until(asked, "the target has taken everything")

    def until_acknowledged(self, sequence: int) -> Ack:
        self.until(lambda: self.ack.sequence >= sequence, f"{sequence} is acknowledged")
        return self.ack


def reconnected(secondary: SecondaryProcess) -> KnowingPrimary:
    found: list[KnowingPrimary] = []

    def asked() -> bool:
        with contextlib.suppress(PeerError):  # closed, because the secondary begins anew
            primary = KnowingPrimary(secondary.port)
            if isinstance(primary.answer, Welcome):
                found.append(primary)
            else:
                assert primary.answer is None or primary.answer.code == "target-error", primary.answer
                primary.close()
        return bool(found)

    until(asked, "the primary is welcome again")
    primary = found[0]
    primary.until(lambda: bool(primary.heard), "the bad blocks are told")
    return primary


def until_applied(disk: BadBlock, content: dict[int, bytes]) -> None:
    until(lambda: disk.blocks(*content) == list(content.values()), "it is on the target")


@pytest.mark.variant
def test_everything_else_goes_on_while_a_block_cannot_be_written(tmp_path: Path, disk: BadBlock) -> None:
    with secondary_on(tmp_path, disk) as secondary:
        primary = KnowingPrimary(secondary.port)
        primary.synchronize([blocks_frame(1, {0: block("a")})], 1)
        assert primary.bad() == []
        disk.damage()
        primary.send(stream_frame(2, [(BAD, block("b")), (9, block("c"))]))
        assert primary.hear(Refuse).code == "target-error", "the place is to be found first"
        primary = reconnected(secondary)
        assert primary.bad() == [BAD] and primary.welcome.state == "inconsistent" and primary.welcome.sequence == 3
        # The stream goes on, and past the bad block onto the target. The last write to it counts.
        primary.send(stream_frame(4, [(10, block("d")), (BAD, block("e")), (11, block("f"))]))
        assert primary.until_acknowledged(6).replica_state == 0
        until_applied(disk, {9: block("c"), 10: block("d"), 11: block("f")})
        told = status(secondary)
        assert told["replica_state"] == "inconsistent" and told["connected"] and PLACE in told["target_problem"]
        assert told["unwritable"] == {"bytes": BLOCK, "places": [{"offset_bytes": BAD * BLOCK, "length_bytes": BLOCK}]}
        with pytest.raises(Exception, match=PLACE):
            control.call(secondary.state, {"command": "promote", "force": True}, 30)
        secondary.kill()
        secondary.start()
        primary = reconnected(secondary)
        assert primary.bad() == [BAD] and primary.welcome.sequence == 6
        primary.send(stream_frame(7, [(12, block("g"))]))
        assert primary.until_acknowledged(7).replica_state == 0
        assert secondary.stop() == 0, "a stop does not wait for it"
        with pytest.raises(AssertionError, match=PLACE):
            secondary.replay(promote=True)
        assert disk.blocks(BAD) == [bytes(BLOCK)]
        secondary.start()
        primary = reconnected(secondary)
        disk.mend()
        primary.until_taken()
        primary.send(stream_frame(8, [(13, block("h"))]))
        primary.until(lambda: primary.ack.sequence == 8 and primary.ack.replica_state == 3, "up to date")
        assert status(secondary)["target_problem"] == "" and status(secondary)["unwritable"]["bytes"] == 0
        assert secondary.stop() == 0
    written = [block(letter) for letter in "aecdfgh"]
    assert disk.blocks(0, BAD, 9, 10, 11, 12, 13) == written


@pytest.mark.variant
def test_a_run_of_blocks_is_narrowed_and_a_first_copy_ends_without_the_bad_one(tmp_path: Path, disk: BadBlock) -> None:
    disk.damage()
    run = {BAD + number: block(letter) for number, letter in enumerate("abcdefghi")}
    with secondary_on(tmp_path, disk) as secondary:
        copied: list[KnowingPrimary] = []

        def try_to_copy() -> bool:
            primary = KnowingPrimary(secondary.port)
            if not isinstance(primary.answer, Welcome):  # refused: the place is to be found first
                primary.close()
                return False
            with contextlib.suppress(Closed, PeerError):
                primary.synchronize([blocks_frame(1, run)], 1)
                copied.append(primary)
            return bool(copied)

        until(try_to_copy, "it is copied")
        primary = copied[0]
        assert primary.bad() == [BAD]
        until_applied(disk, {number: content for number, content in run.items() if number != BAD})
        assert status(secondary)["replica_state"] == "inconsistent"
        disk.mend()
        primary.until_taken()
        until(lambda: status(secondary)["replica_state"] != "inconsistent", "it is a replica")
        assert secondary.stop() == 0
    assert disk.blocks(*run) == list(run.values())


@pytest.mark.variant
def test_a_target_that_takes_it_while_nothing_runs_has_it_at_a_promotion(tmp_path: Path, disk: BadBlock) -> None:
    """Also where nothing else is left to be applied: the operator has repaired the disk, or copied it to another one."""
    with secondary_on(tmp_path, disk) as secondary:
        primary = KnowingPrimary(secondary.port)
        primary.synchronize([blocks_frame(1, {0: block("a")})], 1)
        disk.damage()
        primary.send(stream_frame(2, [(BAD, block("b"))]))
        primary.hear(Refuse)
        reconnected(secondary).close()
        assert secondary.stop() == 0 and load_record(secondary.state).kept_aside
        with pytest.raises(AssertionError, match=PLACE):
            secondary.replay(promote=True)
        disk.mend()
        secondary.replay(promote=True)
        record = load_record(secondary.state)
        assert record.promoted and not record.kept_aside
    assert disk.blocks(0, BAD) == [block("a"), block("b")]


def test_kept_blocks_of_another_replica_are_never_written_to_the_target(tmp_path: Path, disk: BadBlock) -> None:
    with secondary_on(tmp_path, disk) as secondary:
        with KnowingPrimary(secondary.port) as primary:
            primary.synchronize([blocks_frame(1, {BAD: block("a")})], 1)
        assert secondary.stop() == 0
        blocks = BadBlocks(SIZE)
        blocks.add(BAD, block("o"))
        save_bad_blocks(secondary.state, blocks, load_record(secondary.state).incarnation + 1)
        for _ in range(2):
            secondary.start()
            assert status(secondary)["replica_state"] == "consistent"
            assert secondary.stop() == 0
    assert disk.blocks(BAD) == [block("a")]
