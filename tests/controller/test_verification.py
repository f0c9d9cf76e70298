"""When a comparison begins that answers a taint, and with which blocks; what becomes of it when somebody cancels it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from pydbt.controller.primary import used_blocks, verification
from pydbt.controller.primary.configuring import Joining, joining
from pydbt.controller.primary.peer import Peer
from pydbt.controller.primary.verification import VolumeVerification
from pydbt.core.errors import BusyError
from pydbt.core.primary import events as ev
from pydbt.core.primary.brain import Primary
from pydbt.core.primary.config import PrimaryConfig
from pydbt.core.primary.modes import Mode
from pydbt.core.primary.schedule import CANCELLED_REST_S
from pydbt.device.filesystem import UsedExtents
from pydbt.store.secondary_record import SecondaryRecord, SyncPhase
from tests.controller.volumes import BLOCKS, GEOMETRY, volume_of
from tests.core.primary.parts import runs
from tests.lab.patience import until

LEFT_OUT = {5, 6, 7}
REASON = "the storage below the volume has changed: the file behind loop0 was changed past it"


@pytest.fixture
def peer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Peer]:
    """In mode normal; the first copy left three blocks out, one of which is in use now."""
    volume = volume_of(tmp_path, SecondaryRecord(1, "h:1", SyncPhase.REPLICATING))
    made = volume.join(1, Joining(PrimaryConfig(GEOMETRY, epoch=7, initial=False, scan_used=False)))
    made.brain.state.mode = Mode.NORMAL
    made.brain.state.left_out.add(runs((5, 3)))
    monkeypatch.setattr(used_blocks, "AT_ONCE_S", 60.0)
    monkeypatch.setattr(used_blocks, "used_extents", lambda _: used(0, 1, 5))
    yield made
    made.close()


def used(*blocks: int) -> UsedExtents:
    firsts = np.array(blocks) * 4096
    return UsedExtents(firsts, np.full(len(blocks), 4096), "as the ext4 says", False)


def taint(peer: Peer, reason: str = REASON) -> None:
    peer.brain.handle(ev.Tainted(reason), 0.0)


def begin(peer: Peer, now: float = 0.0) -> ev.VerifyAsked:
    """What is begun, and taken in by the brain."""
    asked = peer.verification.advance(now)
    assert asked is not None, "no comparison begins"
    take(peer, asked)
    return asked


def take(peer: Peer, event: ev.VerifyAsked | ev.VerifyCancelled | None) -> None:
    assert event is not None
    peer.brain.handle(event, 0.0)


def end(peer: Peer) -> None:
    """The comparison under way has looked at everything."""
    current = peer.brain.verifier.current
    assert current is not None
    peer.brain.verifier.cancel()
    peer.brain._taints.clear(current.answers)


def left_out(peer: Peer) -> list[int]:
    blocks: list[int] = peer.brain.state.left_out.blocks.extents().blocks().tolist()
    return blocks


def test_for_a_taint_a_block_is_compared_that_was_free_at_the_first_copy_and_is_in_use_now(peer: Peer) -> None:
    assert peer.verification.advance(0.0) is None, "nothing taints the volume"
    taint(peer)
    asked = begin(peer)
    assert asked.runs.blocks().tolist() == [block for block in range(BLOCKS) if block not in LEFT_OUT - {5}]
    assert left_out(peer) == [6, 7], "what differs in block 5 counts as a difference"
    assert asked.answers == peer.brain.state.taint_numbers and peer.verification.advance(1.0) is None
    end(peer)
    assert not peer.brain.state.taints and peer.verification.advance(2.0) is None


def test_where_no_file_system_tells_every_block_is_compared(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_: object) -> UsedExtents:
        raise OSError("it does not answer")

    monkeypatch.setattr(used_blocks, "used_extents", fails)
    taint(peer)
    assert begin(peer).runs.total() == BLOCKS


def test_the_same_taint_during_a_comparison_and_after_it_is_answered_by_one_more(peer: Peer) -> None:
    taint(peer)
    begin(peer)
    taint(peer)
    end(peer)
    assert list(peer.brain.state.taints) == [REASON], "the comparison had begun before"
    for now in (1.0, 2.0):
        begin(peer, now)
        end(peer)
        assert not peer.brain.state.taints
        taint(peer)


def test_the_blocks_in_use_are_looked_for_in_a_thread_and_a_taint_meanwhile_is_a_later_one(
    peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    written_out = threading.Event()
    find: Callable[[object], UsedExtents] = lambda _: written_out.wait() and used(0)  # noqa: E731
    monkeypatch.setattr(used_blocks, "AT_ONCE_S", 0.0)
    monkeypatch.setattr(used_blocks, "used_extents", find)
    taint(peer)
    (known,) = peer.brain.state.taint_numbers
    assert peer.verification.advance(0.0) is None and peer.verification.advance(1.0) is None
    report = peer.verification.report().running
    assert report is not None and report.total_bytes == GEOMETRY.size_bytes, "it is under way"
    with pytest.raises(BusyError):
        peer.verification.require({"repair": True})
    taint(peer)
    written_out.set()
    begun: list[ev.VerifyAsked] = []

    def has_begun() -> bool:
        begun.extend(filter(None, [peer.verification.advance(2.0)]))
        return bool(begun)

    until(has_begun, "the blocks in use are found")
    assert begun[0].answers == (known,)
    take(peer, begun[0])
    end(peer)
    assert peer.brain.state.taints


def test_one_that_resumes_in_the_middle_answers_no_taint(peer: Peer) -> None:
    peer.verification._metadata.change_record(1, verify={"cut_off": {"repair": False, "block": 9}})
    asked = begin(peer)
    assert asked.runs.blocks().tolist() == list(range(9, BLOCKS)) and not asked.answers
    taint(peer)
    end(peer)
    assert peer.brain.state.taints


def test_verify_on_command_answers_a_taint_too_and_looks_at_free_space_as_well(peer: Peer) -> None:
    take(peer, peer.verification.command({}))
    assert left_out(peer) == sorted(LEFT_OUT), "without a taint, free space that was never copied is no difference"
    peer.brain.verifier.cancel()
    taint(peer)
    take(peer, peer.verification.command({"repair": True}))
    assert peer.brain.verifier.current is not None and peer.brain.verifier.current.total_blocks == BLOCKS
    assert left_out(peer) == [6, 7]
    end(peer)
    assert not peer.brain.state.taints


def test_one_that_is_cancelled_begins_again_later_or_on_command(
    peer: Peer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(verification.time, "monotonic", lambda: 100.0)
    taint(peer)
    begin(peer, 100.0)
    take(peer, peer.verification.command({"cancel": True}))
    peer.verification.cancelled()
    assert peer.brain.state.taints and "stays tainted" in caplog.text
    taint(peer)
    assert peer.verification.advance(99.0 + CANCELLED_REST_S) is None, (
        "who has cancelled it wants the disks for other work"
    )
    rest = peer.verification.report().rest
    assert rest is not None and "cancelled" in rest.reason
    begin(peer, 100.0 + CANCELLED_REST_S)
    peer.brain.verifier.cancel()
    take(peer, peer.verification.command({"cancel": True}))
    peer.verification.cancelled()
    take(peer, peer.verification.command({}))
    end(peer)
    assert not peer.brain.state.taints
    taint(peer)
    begin(peer, 200.0)  # nobody has cancelled this one


def test_a_search_that_is_cancelled_begins_nothing(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(used_blocks, "AT_ONCE_S", 0.0)
    goes_on = threading.Event()
    monkeypatch.setattr(used_blocks, "used_extents", lambda _: goes_on.wait() and used(0))
    taint(peer)
    assert peer.verification.advance(0.0) is None
    take(peer, peer.verification.command({"cancel": True}))
    peer.verification.cancelled()
    assert peer.verification.report().running is None
    goes_on.set()
    assert peer.verification.advance(1.0) is None and peer.verification.advance(2.0) is None


def test_a_cause_that_taints_again_and_again_has_comparisons_with_rests_and_the_status_says_when_the_next_one_begins(
    peer: Peer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now = 100.0
    monkeypatch.setattr(verification.time, "monotonic", lambda: now)
    waited = []
    for _ in range(6):
        taint(peer)
        asked = peer.verification.advance(now)
        since = now
        while asked is None:
            rest = peer.verification.report().rest
            assert rest is not None and rest.reason == REASON
            left_s = (datetime.fromisoformat(rest.until) - datetime.now(UTC)).total_seconds()
            assert peer.brain.state.taints, "so that the replica is inconsistent meanwhile"
            now += max(left_s, 1.0)
            asked = peer.verification.advance(now)
        waited.append(now - since)
        assert peer.verification.report().rest is None
        take(peer, asked)
        now += 60.0
        taint(peer)
        peer.verification.ended(ev.VerifyEnded(BLOCKS, 0, (), 0, 0))
        end(peer)
    assert waited[:2] == [0.0, 0.0] and [round(wait / 60) for wait in waited[2:]] == [1, 2, 4, 8]
    assert caplog.text.count("tainted again and again") == 1
    taint(peer)
    assert peer.verification.advance(now) is None and peer.verification.report().rest is not None
    take(peer, peer.verification.command({"repair": True}))
    assert peer.verification.report().rest is None, "a person need not wait"


def test_one_that_is_cut_off_begins_again_at_once(peer: Peer) -> None:
    for now in range(5):
        taint(peer)
        begin(peer, float(now))
        peer.brain.verifier.cancel()  # the connection broke
    assert peer.verification.report().rest is None


def test_a_copy_of_everything_in_the_place_of_a_comparison_answers_too(peer: Peer) -> None:
    peer.brain.state.replica.compares = False
    for now in (0.0, 100.0):
        taint(peer)
        assert peer.verification.advance(now) is not None
        peer.brain.state.taints = {}
        assert peer.verification.advance(now + 60.0) is None, "it has landed"
    taint(peer)
    assert peer.verification.advance(161.0) is None and peer.verification.advance(220.0) is not None


def test_what_a_run_that_was_killed_in_the_middle_leaves_behind_begins_again(peer: Peer) -> None:
    taint(peer)
    begin(peer)
    peer.note()
    before = peer.verification
    record, state, options = replace(peer.record, later_epochs=[8]), before._metadata.state, before._options
    brain = Primary(joining(options, state, record, None, tells_all=True).config, 0.0)
    again = VolumeVerification(1, brain, before._metadata, options, before._device)
    assert again.advance(0.0) is None, "it is not in sync yet"
    brain.state.mode = Mode.NORMAL
    brain.state.left_out.add(runs((5, 3)))
    asked = again.advance(0.0)
    assert asked is not None and asked.answers == brain.state.taint_numbers and 5 in asked.runs.blocks()
