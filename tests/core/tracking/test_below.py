"""A change of the content below the volume's device shows, and the volume's own writes and snapshots are none."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from pydbt.core.tracking.below import (
    Below,
    LoopFile,
    Mapping,
    change_at_rest,
    change_while_held,
    group_of,
    look_to_keep,
    mapping,
)

# As dmsetup prints them: a volume vg/data, without a snapshot, with one, and while that is merged.
LINEAR = "0 4194304 linear 8:16 2048"
ORIGIN = "0 4194304 snapshot-origin 253:3"
REAL = "0 4194304 linear 8:16 2048"
MERGE = "0 4194304 snapshot-merge 253:3 253:4 P 8"
THIN = "0 4194304 thin 253:2 7"
THIN_MERGED = "0 4194304 thin 253:2 9"
MOVED = "0 2097152 linear 8:16 2048\n2097152 2097152 linear 8:32 2048"
CRYPT = (
    "0 4190208 crypt aes-xts-plain64 0000000000000000000000000000000000000000000000000000000000000000 0 253:0 4096 "
    "1 allow_discards"
)


def mapped(**tables: str) -> Below:
    """By number: ``n0`` is vg-data, 253:0, and so on."""
    return Below(
        "boot",
        {
            f"253:{name[1:]}": mapping(f"vg-{name}", [line.split() for line in text.split("\n")])
            for name, text in tables.items()
        },
    )


FILE = LoopFile("/dev/loop7", 2049, 131, 1_000, 1_000, 512)


def over_file(**changes: object) -> Below:
    return Below("boot", files={"7:7": replace(FILE, **changes)})


def test_a_table_is_known_by_its_rows_and_named_by_its_kinds() -> None:
    rows = [line.split() for line in MOVED.split("\n")]
    assert mapping("vg-data", rows).kinds == "linear"
    assert mapping("vg-data", rows) == mapping("vg-data", [list(row) for row in rows])
    assert mapping("vg-data", rows) != mapping("vg-data", rows[:1])
    assert mapping("a", [[*ORIGIN.split()], ["1", "2", "error"]]).kinds == "snapshot-origin, error"
    assert mapping("a", []).kinds == "without a table"


@pytest.mark.parametrize(
    ("before", "now"),
    [
        (mapped(n0=ORIGIN, n3=REAL), mapped(n0=LINEAR)),  # merged, or the snapshot was removed
        (mapped(n0=ORIGIN, n3=REAL), mapped(n0=MERGE, n3=REAL)),
        (mapped(n0=LINEAR), mapped(n0=MERGE, n3=REAL)),
        (mapped(n0=MERGE, n3=REAL), mapped(n0=LINEAR)),
        (mapped(n0=THIN, n2="0 99 thin-pool 253:4 253:5 128 0"), mapped(n0=THIN_MERGED, n2="0 99 thin-pool 253:4 253:5 128 0")),
        (mapped(n0=LINEAR), mapped(n0=MOVED)),
        # encrypted: the change is below
        (mapped(n9=CRYPT, n0=ORIGIN, n3=REAL), mapped(n9=CRYPT, n0=LINEAR)),
        (mapped(n9=CRYPT, n0=LINEAR), mapped(n9=CRYPT)),
    ],
)  # fmt: skip
def test_a_merge_that_can_have_changed_the_content_below_shows_afterwards(before: Below, now: Below) -> None:
    reason = change_at_rest(before, now)
    assert "vg-n" in reason
    assert not change_at_rest(now, now) and not change_at_rest(before, before)


def test_numbers_and_tables_of_another_boot_say_nothing() -> None:
    assert not change_at_rest(mapped(n0=ORIGIN, n3=REAL), replace(mapped(n0=LINEAR), boot_id="later"))


def test_a_snapshot_that_was_made_and_merged_meanwhile_shows_in_its_volume_group() -> None:
    before = replace(mapped(n0=LINEAR), groups={"g": 7})
    assert "volume group" in change_at_rest(before, replace(before, groups={"g": 11}))
    assert "volume group" in change_at_rest(before, replace(before, groups={}))
    assert "volume group" in change_at_rest(before, replace(before, groups=None)), "nobody can tell"
    assert not change_at_rest(before, before)
    for unasked in (None, {}):
        assert not change_at_rest(replace(before, groups=unasked), replace(before, groups={"g": 11}))


def test_while_the_device_is_held_snapshots_and_moves_change_no_content_and_a_merge_does() -> None:
    plain, origin, merge = mapped(n0=LINEAR), mapped(n0=ORIGIN, n3=REAL), mapped(n0=MERGE, n3=REAL)
    for before, now in ((plain, origin), (origin, plain), (plain, mapped(n0=MOVED)), (merge, plain), (merge, merge)):
        assert not change_while_held(before, now)
    assert "merged into vg-n0" in change_while_held(origin, merge)
    assert "merged into vg-n0" in change_while_held(plain, merge)


@pytest.mark.parametrize("judge", [change_at_rest, change_while_held])
def test_a_file_that_changes_without_a_write_of_its_loop_device_was_changed_past_it(judge) -> None:  # type: ignore[no-untyped-def]
    assert not judge(over_file(), over_file())
    assert "past it" in judge(over_file(), over_file(written_ns=2_000, changed_ns=2_000))
    assert "past it" in judge(over_file(), over_file(changed_ns=2_000)), "the time of the write was put back"
    assert "another file" in judge(over_file(), over_file(inode=132, written_sectors=600))
    assert "another file" in judge(over_file(), over_file(device=3))
    assert "another file" in judge(over_file(), Below("boot"))


@pytest.mark.parametrize("judge", [change_at_rest, change_while_held])
def test_the_loop_devices_own_writes_explain_the_times_of_its_file(judge) -> None:  # type: ignore[no-untyped-def]
    later = {"written_ns": 2_000, "changed_ns": 2_000}
    assert not judge(over_file(), over_file(written_sectors=520, **later))
    assert not judge(over_file(), over_file(written_sectors=None, **later)), "one is under way"
    unsure = over_file(written_sectors=None)
    assert not judge(unsure, over_file(**later)) and not judge(unsure, over_file(written_sectors=None, **later))
    assert over_file().at_rest and not unsure.at_rest and Below("boot").at_rest


def test_the_next_start_compares_with_files_of_a_look_at_rest_or_of_the_end() -> None:
    first, busy = over_file(), over_file(written_ns=2_000, written_sectors=None)
    assert look_to_keep(None, None, first, own_snapshots=False, final=False) == first
    assert look_to_keep(first, first, busy, own_snapshots=False, final=False) == first, "out of date at once"
    rested = over_file(written_ns=3_000, written_sectors=700)
    assert look_to_keep(first, busy, rested, own_snapshots=False, final=False) == first, "it may still be written"
    assert look_to_keep(first, rested, rested, own_snapshots=False, final=False) == rested
    assert look_to_keep(first, busy, rested, own_snapshots=False, final=True) == rested


def test_the_next_start_compares_with_tables_of_now_unless_the_run_makes_snapshots_itself() -> None:
    plain, with_snapshot = (
        replace(mapped(n0=LINEAR), groups={"g": 1}),
        replace(mapped(n0=ORIGIN, n3=REAL), groups={"g": 2}),
    )
    assert look_to_keep(plain, plain, with_snapshot, own_snapshots=False, final=False) == with_snapshot
    kept = look_to_keep(plain, plain, with_snapshot, own_snapshots=True, final=False)
    assert kept == replace(plain, groups=None), "the changes of the group are its own"


def test_a_look_below_survives_the_state_file() -> None:
    below = replace(mapped(n9=CRYPT, n0=LINEAR), files={"7:7": FILE, "7:8": replace(FILE, written_sectors=None)})
    for one in (below, replace(below, groups={"g": 7}), Below("boot")):
        assert Below.from_values(json.loads(json.dumps(one.to_values()))) == one
    for values in ({}, {**below.to_values(), "mappings": {"1:1": ["a"]}}):
        with pytest.raises((KeyError, TypeError)):
            Below.from_values(values)
    assert Mapping("a", "b", "c") == Mapping("a", "b", "c")


@pytest.mark.parametrize(
    ("uuid", "group"),
    [
        ("LVM-" + "a" * 32 + "b" * 32, "a" * 32),
        ("LVM-" + "a" * 32 + "b" * 32 + "-real", "a" * 32),
        ("LVM-short", None),
        ("CRYPT-LUKS2-" + "a" * 64, None),
        ("", None),
    ],
)
def test_an_lvm_device_names_its_group(uuid: str, group: str | None) -> None:
    assert group_of(uuid) == group
