"""Changes of a target by others are noticed, and no change by this side is taken for one."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from pydbt.core.secondary.replica import ReplicaRecord
from pydbt.core.secondary.target_watch import KeptLook, TargetLook, change_while_away, may_be_another, was_emptied

LOOK = TargetLook(4096, modified_ns=7, written={"write_sectors": 3}, beginning="aa")
KEPT = KeptLook(5, "this boot", LOOK)
CUT = TargetLook(512, modified_ns=7)


@pytest.mark.parametrize(
    ("now", "word"),
    [
        (LOOK, ""),
        (replace(LOOK, size_bytes=8192), ""),
        (replace(LOOK, size_bytes=512), "cut short, from 4096 to 512"),
        (replace(LOOK, modified_ns=8), "another program"),
        (replace(LOOK, written={"write_sectors": 4}), "another program"),
        (replace(LOOK, beginning="bb"), "another program"),
        (TargetLook(4096), ""),
    ],
)
def test_each_kind_of_change_shows_and_what_is_not_known_is_none(now: TargetLook, word: str) -> None:
    assert word in now.change_since(LOOK) and bool(word) == bool(now.change_since(LOOK))


def test_a_device_that_was_attached_again_counts_anew_and_only_the_file_behind_it_tells() -> None:
    def look(sequence: int, sectors: int, file: list[int] | None) -> TargetLook:
        return TargetLook(4096, written={"disk_sequence": sequence, "write_sectors": sectors, "backing_file": file})

    assert look(2, 0, None).change_since(look(1, 3, None)) == ""
    assert look(2, 0, [5]).change_since(look(1, 3, [5])) == ""
    assert "another program" in look(2, 0, [6]).change_since(look(1, 3, [5]))
    assert "another program" in look(1, 4, [5]).change_since(look(1, 3, [5]))


def test_a_kept_look_of_this_boot_tells_of_every_change_and_one_of_another_boot_only_if_it_was_durable() -> None:
    changed = replace(LOOK, modified_ns=8)
    assert change_while_away(KEPT, 5, "this boot", LOOK) == ""
    assert "another program" in change_while_away(KEPT, 5, "this boot", changed)
    assert change_while_away(KEPT, 5, "another boot", changed) == ""
    durable = replace(KEPT, durable=True)
    assert "another program" in change_while_away(durable, 5, "another boot", changed)
    assert change_while_away(durable, 5, "another boot", replace(LOOK, written={"write_sectors": 0})) == ""
    assert "another program" in change_while_away(durable, 5, "this boot", replace(LOOK, written={"write_sectors": 0}))


def test_a_target_that_became_smaller_is_noticed_whatever_the_kept_look_is_worth() -> None:
    for kept in (KEPT, replace(KEPT, writing=True), replace(KEPT, boot="another boot")):
        assert "cut short" in change_while_away(kept, 5, "this boot", CUT)
    assert change_while_away(replace(KEPT, writing=True), 5, "this boot", replace(LOOK, modified_ns=8)) == ""


def test_no_look_and_one_of_an_earlier_opening_tell_nothing() -> None:
    assert change_while_away(None, 5, "this boot", CUT) == ""
    assert change_while_away(KEPT, 6, "this boot", CUT) == ""


def test_a_change_that_was_noticed_stays_although_nothing_shows_of_it_any_more() -> None:
    kept = replace(KEPT, writing=True, changed="was cut short")
    assert change_while_away(kept, 5, "another boot", LOOK) == "was cut short"


def test_a_look_is_kept_as_json_and_nothing_else_is_taken_for_one() -> None:
    assert KeptLook.from_values(json.loads(json.dumps(KEPT.to_values()))) == KEPT
    for wrong in ([], {}, {"look": 1}, {**KEPT.to_values(), "incarnation": -1}, {"look": KEPT.to_values()["look"]}):
        with pytest.raises((ValueError, TypeError, KeyError)):
            KeptLook.from_values(wrong)


def test_a_replica_that_is_distrusted_is_another_one_and_no_image_of_any_moment() -> None:
    record = ReplicaRecord("1" * 32, "file:1", 4096, "2" * 32, 8192, 4096, consistent=True, fresh=True, must_reach=7)
    distrusted = record.distrusted("3" * 32)
    assert (distrusted.consistent, distrusted.fresh, distrusted.must_reach) == (False, False, 0)
    assert distrusted.replica == "3" * 32 and distrusted.volume == record.volume


def test_a_nameless_device_that_looks_different_after_a_boot_may_be_another() -> None:
    durable, other = replace(KEPT, durable=True), replace(LOOK, beginning="bb")
    assert may_be_another(durable, 5, "another boot", other)
    assert not may_be_another(durable, 5, "another boot", LOOK)
    assert not may_be_another(durable, 5, "this boot", other), "then it was changed by another program"
    assert not may_be_another(durable, 6, "another boot", other)
    assert not may_be_another(durable, 5, "another boot", replace(LOOK, beginning=None))
    for kept in (KEPT, replace(durable, writing=True), None):
        assert not may_be_another(kept, 5, "another boot", other), "nobody can tell"


def test_a_disk_that_was_unplugged_is_as_it_was_and_one_that_was_cut_to_nothing_is_not() -> None:
    kept = replace(KEPT, writing=True, emptied=7)
    assert "from 4096 to 0" in was_emptied(kept, "this boot", 7)
    assert "from 4096 to 0" in change_while_away(kept, 5, "this boot", LOOK, 7)
    for boot, attachment in (("this boot", 8), ("another boot", 7), ("this boot", None)):
        assert was_emptied(kept, boot, attachment) == "", "it was plugged in again"
        assert change_while_away(kept, 5, boot, LOOK, attachment) == ""
    assert was_emptied(KEPT, "this boot", None) == ""
    earlier = KEPT.to_values()
    del earlier["emptied"]
    assert KeptLook.from_values(earlier) == KEPT
