"""Shared data of several secondaries is released, zeroed and answered only when each agrees; and none waits for another."""

from __future__ import annotations

import numpy as np

from pydbt.core.primary import events as ev
from pydbt.core.primary.brain import Primary
from pydbt.core.primary.config import PrimaryConfig
from pydbt.core.primary.modes import Mode
from pydbt.core.primary.named_transaction import NamedTransaction
from pydbt.core.primary.rename import NAME_LASTS_S
from pydbt.core.protocol.frames import Ack, Generation, Ping, Pong
from pydbt.core.protocol.generations import Generations, verdict
from pydbt.core.tracking.capture_record import RECORD, RecordKind
from pydbt.core.transactions.asked_transaction import AskedTransaction
from pydbt.core.units import Geometry
from pydbt.core.volume.fanout import Addressed, Fanout

GEOMETRY = Geometry(64 * 4096, 4096)
ROOM = 64 << 10


def brain_of(number: int, normal: bool = True) -> Primary:
    config = PrimaryConfig(
        GEOMETRY, epoch=number, initial=False, scan_used=False, generation_seed=number,
        generations=Generations(77, shared=True),
    )  # fmt: skip
    brain = Primary(config, 0.0)
    brain.state.in_flight.certain = True
    if normal:
        brain.state.mode = Mode.NORMAL
        brain.link.connected(0.0)
        brain.quiet.next_retire = 1e9
    return brain


def fanout_of(*normal: bool) -> Fanout:
    fanout = Fanout(ROOM, quiet_held=False)
    for number, is_normal in enumerate(normal, 1):
        fanout.add(number, brain_of(number, is_normal))
    return fanout


def written(*blocks: int, first_data: int = 1) -> ev.Captured:
    records = np.zeros(len(blocks), RECORD)
    records["kind"], records["sectors"], records["op"], records["pieces"] = RecordKind.SUBMIT, 8, 1, 1
    records["sector"] = np.array(blocks) * 8
    records["data"] = np.arange(first_data, first_data + len(blocks))
    return ev.Captured(records, first_data * 64, 0)


def ack(sequence: int) -> ev.Received:
    return ev.Received(Ack(sequence=sequence, batch=0, resync_committed=0, replica_state=3))


def kinds(effects: list[Addressed]) -> list[tuple[int | None, str]]:
    """All but what is said, to people or to keep a connection alive."""
    return [
        (number, type(effect).__name__)
        for number, effect in effects
        if not isinstance(effect, ev.Log) and not (isinstance(effect, ev.SendFrame) and isinstance(effect.frame, Ping))
    ]


def released(effects: list[Addressed]) -> list[int]:
    return [
        data
        for _, effect in effects
        if isinstance(effect, ev.ReleasePayload)
        for data in effect.records["data"].tolist()
    ]


def test_data_is_given_back_after_the_last_that_sends_it():
    fanout = fanout_of(True, True)
    fanout.brains[2].link.outbound(1 << 30)  # its sender is stuck
    effects = fanout.handle(written(1, 2), 0.1)
    assert (1, "SendStream") in kinds(effects) and not released(effects)
    effects = fanout.handle(ev.Outbound(0, 0), 0.2, 2)
    names = kinds(effects)
    assert names.index((2, "SendStream")) < names.index((None, "ReleasePayload"))
    assert released(effects) == [1, 2]


def test_a_secondary_that_takes_the_room_of_others_leaves_normal_mode_alone():
    fanout = fanout_of(True, True)
    fanout.brains[2].link.outbound(1 << 30)
    for turn in range(12):
        fanout.handle(written(turn, first_data=turn + 1), 0.1)
    assert fanout.brains[1].mode is Mode.NORMAL
    assert fanout.brains[2].mode is Mode.UNSYNCHRONIZED, "nobody knows whether it is there"
    fanout.handle(ev.Received(Pong(fanout.brains[2].link.next_token(0.1))), 0.1, 2)
    assert fanout.brains[2].mode is Mode.RESYNCHRONIZING, "and begins anew, for it is there"
    missing = fanout.brains[2].state.tracker.pending.extents().blocks().tolist()
    assert missing == list(range(9)), "what it was not sent is known to be out of sync"


def flipped(fanout: Fanout, now: float) -> None:
    """A brain's flip, with the answer that the shell gives."""
    fanout.brains[1].quiet.next_retire = now
    effects = fanout.handle(ev.Tick(), now)
    assert kinds(effects) == [(None, "TakeQuiet")]
    fanout.handle(ev.QuietTaken(np.array([1 << 3], np.uint64), 0, True), now)


def test_the_quiet_bitmap_is_zeroed_only_when_each_has_what_it_names():
    fanout = fanout_of(True, True, True)
    fanout.handle(written(3), 0.1)
    flipped(fanout, 0.2)
    assert not kinds(fanout.handle(ack(1), 0.3, 1)), "the first has it, the others not"
    assert not kinds(fanout.handle(ack(1), 0.3, 2))
    assert kinds(fanout.handle(ack(1), 0.4, 3)) == [(None, "ZeroQuiet")]


def test_a_secondary_that_acknowledges_nothing_is_covered_by_its_map_and_the_others_go_on_to_flip():
    fanout = fanout_of(True, True)
    fanout.handle(written(3), 0.1)
    flipped(fanout, 0.2)
    fanout.handle(ack(1), 0.3, 1)
    fanout.handle(written(4, first_data=2), 0.4)
    fanout.brains[1].quiet.next_retire = 2.0
    assert not kinds(fanout.handle(ev.Tick(), 2.0)), "an acknowledgement gets a moment"
    effects = fanout.handle(ev.Tick(), 3.1)
    assert kinds(effects) == [(2, "Persist")]
    kept = fanout.brains[2].unsynchronized_map().extents().blocks().tolist()
    assert kept == [3, 4], "what is on its way is in the map that stands in for an acknowledgement"
    number = next(effect.number for _, effect in effects if isinstance(effect, ev.Persist))
    effects = fanout.handle(ev.Persisted(zeroed=True, cover=True, number=number), 3.1, 2)
    assert kinds(effects) == [(None, "ZeroQuiet"), (None, "TakeQuiet")]
    assert fanout.brains[2].mode is Mode.NORMAL
    fanout.handle(ack(2), 3.2, 2)
    assert not fanout.brains[2].unsynchronized_map().any()


def test_the_map_of_an_absent_secondary_is_not_written_more_often_because_of_the_others():
    fanout = fanout_of(True, True)
    fanout.brains[2].state.mode = Mode.PAUSED
    fanout.brains[2].next_merge = 1e9
    fanout.handle(written(3), 0.1)
    fanout.brains[1].quiet.next_retire = 0.2
    assert not kinds(fanout.handle(ev.Tick(), 0.2))
    assert not kinds(fanout.handle(ev.Tick(), 2.0))
    assert fanout.deadline() <= 3.3
    assert (None, "TakeQuiet") in kinds(fanout.handle(ev.Tick(), 3.3))
    effects = fanout.handle(ev.QuietTaken(np.array([1 << 3], np.uint64), 0, True), 3.3)
    assert kinds(effects) == [(2, "Persist")], "it still takes the blocks of the flip into its map"


def test_a_map_that_cannot_be_written_zeroes_nothing():
    fanout = fanout_of(True, True)
    fanout.handle(written(3), 0.1)
    flipped(fanout, 0.2)
    fanout.handle(ack(1), 0.3, 1)
    fanout.handle(written(4, first_data=2), 0.4)
    fanout.brains[1].quiet.next_retire = 2.0
    fanout.handle(ev.Tick(), 2.0)
    assert kinds(fanout.handle(ev.Tick(), 3.1)) == [(2, "Persist")]
    assert not kinds(fanout.handle(ev.Persisted(zeroed=False, error="no space left", cover=True), 3.1, 2))
    assert not kinds(fanout.handle(ev.Tick(), 3.2)), "not again at once"
    fanout.handle(ack(1), 3.3, 2)
    assert kinds(fanout.handle(ev.Tick(), 8.5)) == [(None, "ZeroQuiet"), (None, "TakeQuiet")], (
        "its acknowledgement does as well"
    )


def test_writes_that_one_secondary_misses_get_a_new_name_that_the_others_hear_before_they_get_them():
    fanout = fanout_of(True, False)
    effects = fanout.handle(written(5), 0.1)
    names = kinds(effects)
    assert names[0] == (None, "KeepAllGenerations"), "it is written down before anybody hears of it"
    assert names.index((1, "SendFrame")) < names.index((1, "SendStream"))
    views = effects[0][1].generations
    told = next(effect.frame for number, effect in effects if number == 1 and isinstance(effect, ev.SendFrame))
    assert views[1].current == views[2].current != 77
    assert told == Generation(views[1]) and views[1].shared and not views[2].shared
    assert 77 in views[2].bitmap and 77 in views[1].past
    assert not any(isinstance(e, ev.KeepAllGenerations) for _, e in fanout.handle(written(6, first_data=2), 0.2)), (
        "once"
    )


def names_told(effects: list[Addressed]) -> dict[int | None, Generations]:
    return {
        n: e.frame.generations for n, e in effects if isinstance(e, ev.SendFrame) and isinstance(e.frame, Generation)
    }


def put_back(state: Generations) -> Generations:
    """A primary with an earlier state directory, when it begins: its device was written since."""
    return state.renamed(4711, followed=False)


def test_an_image_of_another_run_has_another_name_so_that_an_earlier_state_of_the_primary_cannot_overwrite_it():
    for same_run in (False, True):
        brain = brain_of(1)
        before = brain.state.generations
        if same_run:
            brain.ancestry.offer()
            before = brain.state.generations
        brain.ancestry.offer()
        secondary = brain.state.generations.in_sync()
        assert verdict(before, Generations(77)).tracked, "one that never got that far is behind, as ever"
        assert verdict(put_back(before), secondary).allows_sync == same_run
        assert (before.current == secondary.current) == same_run, "a second image of the same run needs no other name"


def test_a_secondary_that_follows_for_days_is_told_another_name_each_day():
    fanout = Fanout(ROOM, quiet_held=False)
    first, second = brain_of(1), brain_of(2)
    first.ancestry.offer()
    second.ancestry.renamed(first.state.generations.current)
    fanout.add(1, first)
    fanout.add(2, second)
    before = first.state.generations
    assert not names_told(fanout.handle(ev.Tick(), NAME_LASTS_S - 1))
    effects = fanout.handle(ev.Tick(), NAME_LASTS_S + 1)
    assert isinstance(effects[0][1], ev.KeepAllGenerations), "it is written down before anybody hears of it"
    told = names_told(effects)
    assert told[1].current == told[2].current != before.current and told[1].shared and told[2].shared
    assert not verdict(put_back(before), told[1].in_sync()).allows_sync
    assert not names_told(fanout.handle(ev.Tick(), NAME_LASTS_S + 2)), "once"


def test_a_removed_secondary_does_not_hear_the_name_of_the_next_writes():
    fanout = fanout_of(True, True)
    effects = fanout.handle(ev.RemoveAsked(), 0.1, 2)
    views = effects[0][1].generations
    assert views[1].current != 77 and not views[2].shared
    assert not any(number == 2 and isinstance(effect, ev.SendFrame) for number, effect in effects)
    fanout.drop(2, 0.1)
    assert list(fanout.brains) == [1]


def test_a_wait_is_for_all_secondaries_or_for_the_first_or_for_the_named_one():
    fanout = fanout_of(True, True)
    fanout.handle(written(1), 0.1)
    for token, words in ((1, {}), (2, {"first": True}), (3, {"peers": (2,)})):
        assert not kinds(fanout.handle(ev.WaitAsked(token, 0, **words), 0.1))
    answered = [e.token for _, e in fanout.handle(ack(1), 0.2, 1) if isinstance(e, ev.AnswerWait)]
    assert answered == [2]
    answered = [e.token for _, e in fanout.handle(ack(1), 0.3, 2) if isinstance(e, ev.AnswerWait)]
    assert answered == [1, 3]


def test_a_wait_does_not_wait_for_a_removed_secondary():
    fanout = fanout_of(True, True)
    fanout.handle(written(1), 0.1)
    fanout.handle(ev.WaitAsked(1, 0), 0.1)
    assert not kinds(fanout.handle(ack(1), 0.2, 1))
    fanout.handle(ev.RemoveAsked(), 0.3, 2)
    assert kinds(fanout.drop(2, 0.3)) == [(None, "AnswerWait")]


def test_a_wait_for_the_first_does_not_end_well_by_a_secondary_that_lacks_a_block():
    fanout = fanout_of(True, True)
    fanout.handle(written(1), 0.1)
    fanout.brains[1].state.unreadable.add(np.array([9]), 0.1)
    for token, first in ((1, True), (2, False)):
        fanout.handle(ev.WaitAsked(token, 0, first=first), 0.1)
    effects = [one for one in fanout.handle(ack(1), 0.2, 1) if isinstance(one[1], ev.AnswerWait)]
    assert effects == [(1, ev.AnswerWait(2, lacks=True))], "it is known whose blocks they are"
    effects = [one for one in fanout.handle(ack(1), 0.3, 2) if isinstance(one[1], ev.AnswerWait)]
    assert effects == [(None, ev.AnswerWait(1))]


def test_a_wait_for_a_transaction_that_was_lost_is_answered_once_for_all():
    fanout = fanout_of(True, True)
    asked = AskedTransaction.parse("48211")
    for number in (1, 2):
        named = NamedTransaction("48211", 48211, None, 0.0, 3, 1, 3)
        fanout.brains[number].transactions.lost.add(named, "a write of it failed")
    effects = fanout.handle(ev.WaitAsked(1, 0, first=True, transaction=asked), 0.1)
    answers = [one for one in effects if isinstance(one[1], ev.AnswerWait)]
    assert answers == [(None, ev.AnswerWait(1, lost="a write of it failed"))]


def test_a_wait_for_the_first_fails_when_the_only_other_is_removed():
    fanout = fanout_of(True, True)
    fanout.handle(written(1), 0.1)
    fanout.brains[1].state.unreadable.add(np.array([9]), 0.1)
    fanout.handle(ev.WaitAsked(1, 0, first=True), 0.1)
    assert not kinds(fanout.handle(ack(1), 0.2, 1))
    fanout.handle(ev.RemoveAsked(), 0.3, 2)
    assert fanout.drop(2, 0.3) == [(1, ev.AnswerWait(1, lacks=True))]


def test_deadlines_are_reckoned_once_between_two_events(monkeypatch):
    fanout, reckoned = fanout_of(True, True), []
    for name, right in (("deadline", Primary.deadline), ("calm_until", Primary.calm_until)):
        monkeypatch.setattr(
            Primary, name, lambda brain, name=name, right=right: (reckoned.append(name), right(brain))[1]
        )
    for _ in range(3):
        assert (fanout.deadline(), fanout.calm_until()) == (fanout.deadline(), fanout.calm_until())
    assert sorted(reckoned) == ["calm_until"] * 2 + ["deadline"] * 2
    fanout.handle(written(1), 0.1)
    assert fanout.calm_until() == min(brain.calm_until() for brain in fanout.brains.values())
    fanout.drop(2, 0.2)
    assert fanout.deadline() <= fanout.brains[1].deadline()


def test_blocks_that_several_secondaries_lack_count_once():
    fanout = fanout_of(True, True)
    for number, blocks in ((1, [1, 2]), (2, [2, 3])):
        fanout.brains[number].state.tracker.pending.set_blocks(np.array(blocks))
    assert fanout.lacking_bytes() == (3 * 4096, 0)


def test_a_block_that_one_secondary_lacks_for_good_is_not_merely_on_its_way_because_another_one_gets_it() -> None:
    fanout = fanout_of(True, True)
    fanout.brains[1].state.tracker.dirty.set_blocks(np.array([1, 2]))
    fanout.brains[2].state.tracker.dirty.set_blocks(np.array([2, 3]))
    assert fanout.lacking_bytes() == (3 * 4096, 3 * 4096)
    fanout.brains[2].state.tracker.pending.set_blocks(np.array([2]))
    assert fanout.lacking_bytes() == (3 * 4096, 2 * 4096)


def test_the_bytes_that_several_secondaries_lack_are_counted_with_one_union_of_their_maps(monkeypatch) -> None:
    fanout, made = fanout_of(True, True), []
    right = Primary.out_of_sync_map
    monkeypatch.setattr(
        Primary, "out_of_sync_map", lambda brain, **given: (made.append(brain), right(brain, **given))[1]
    )
    fanout.brains[1].state.tracker.pending.set_range(5, 2)
    fanout.brains[2].state.tracker.dirty.set_blocks(np.array([6, 7]))
    assert fanout.lacking_bytes() == (3 * 4096, 4096)
    assert made == list(fanout.brains.values())
    first, second = (brain.state.tracker for brain in fanout.brains.values())
    assert first.pending.extents().blocks().tolist() == [5, 6] and not first.dirty.any(), "the maps are as they were"
    assert second.dirty.extents().blocks().tolist() == [6, 7] and not second.pending.any()


def test_at_the_end_every_map_takes_in_the_bits_of_the_kernel() -> None:
    fanout = fanout_of(True, False)
    fanout.take_last_bits(np.array([0b101], np.uint64))
    assert [brain.state.tracker.pending.extents().blocks().tolist() for brain in fanout.brains.values()] == [
        [0, 2],
        [0, 2],
    ]


def test_the_maps_tell_everything_when_none_is_tainted_and_each_that_is_there_has_the_blocks_in_use() -> None:
    fanout = fanout_of(True, True)
    assert fanout.tells_everything
    second = fanout.brains[2]
    second.state.replica.scanned = False
    assert not fanout.tells_everything
    second.quiet.mapped = False
    assert fanout.tells_everything, "without a map it is compared as a whole in any case"
    second.state.taints["an unknown operation wrote"] = 1
    assert not fanout.tells_everything
