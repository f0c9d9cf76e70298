"""The audit never misses a write that capture did not see, and never calls a healthy volume tainted."""

from __future__ import annotations

import random

import pytest

from pydbt.core.tracking.audit import (
    FAULTS,
    LOWER_AFTER_S,
    Audit,
    AuditRecord,
    Look,
    Parted,
    completed_by_bio,
    first_record,
    grown_faults,
    missed_unaudited,
)


class Disk:
    """A disk with writes in flight, counted by the kernel and by capture."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.flying: list[int] = [self.rng.randrange(1, 100) for _ in range(self.rng.randrange(5))]  # before the attach
        self.seen = self.completed = 0
        self.counted = self.rng.randrange(1 << 40)
        self.faults = {"unknown_ops": 0, "passthrough": 0, "unmarked_misses": 0}
        self.now = 0.0

    def submit(self, seen: bool = True) -> None:
        sectors = self.rng.randrange(1, 2000)
        self.flying.append(sectors)
        if seen:
            self.seen += sectors

    def complete(self, shown: bool = True) -> None:
        if self.flying:
            sectors = self.flying.pop(self.rng.randrange(len(self.flying)))
            self.counted += sectors
            self.completed += sectors if shown else 0

    def rest(self) -> None:
        while self.flying:
            self.complete()

    def look(self, attach: str = "a", **changes) -> Look:
        fields = {
            "attach": attach, "seen_sectors": self.seen, "completed_sectors": self.completed,
            "counted_sectors": self.counted, "idle": not self.flying, "faults": dict(self.faults),
        }  # fmt: skip
        return Look(**(fields | changes))


def work(disk: Disk, audit: Audit, steps: int) -> list[str]:
    found = []
    for _ in range(steps):
        for _ in range(disk.rng.randrange(4)):
            disk.rng.choice((disk.submit, disk.complete))()
        if disk.rng.random() < 0.2:
            disk.rest()
        disk.now += 1.0
        found += audit.look(disk.look(), not disk.flying, disk.now)
    return found


def rested(disk: Disk, audit: Audit) -> list[str]:
    disk.rest()
    found = []
    for _ in range(3):
        disk.now += 1.0
        found += audit.look(disk.look(), True, disk.now)
    return found


@pytest.mark.parametrize("seed", range(50))
def test_a_healthy_volume_is_never_tainted(seed):
    disk, audit = Disk(seed), Audit(AuditRecord())
    disk.completed = 0
    assert work(disk, audit, 300) + rested(disk, audit) == []
    assert audit.report().verdict == "agrees" and audit.report().margin_sectors == 0


@pytest.mark.parametrize("seed", range(50))
def test_one_write_that_capture_did_not_see_taints_as_soon_as_the_disk_rests(seed):
    disk, audit = Disk(seed), Audit(AuditRecord())
    assert rested(disk, audit) == []
    work(disk, audit, 20)
    disk.submit(seen=False)
    found = work(disk, audit, 20) + rested(disk, audit)
    assert len(found) >= 1 and "capture did not see" in found[0]
    assert rested(disk, audit) == [], "told twice"


@pytest.mark.parametrize("seed", range(20))
def test_a_write_unseen_while_no_controller_ran_is_found_by_the_next_one(seed):
    disk, audit = Disk(seed), Audit(AuditRecord())
    assert rested(disk, audit) == []
    kept = AuditRecord.of(audit.record.as_dict())
    disk.submit(seen=False)
    found = rested(disk, Audit(kept, inherited=True))
    assert len(found) == 1


def test_a_completion_unseen_before_a_kill_taints_and_one_that_was_noticed_does_not():
    disk, audit = Disk(1), Audit(AuditRecord())
    rested(disk, audit)
    disk.submit()
    disk.complete(shown=False)
    assert rested(disk, audit) == [], "the primary itself notices this one, and reads the block again"
    kept = audit.record
    assert rested(disk, Audit(kept, inherited=True)) == []
    disk.submit()
    disk.complete(shown=False)
    (found,) = rested(disk, Audit(kept, inherited=True))
    assert "completed unseen" in found


def test_a_request_that_the_kernel_counts_as_ended_before_it_shows_that_taints_nothing():
    """Without records, nothing but the two counts tells of it."""
    disk, audit = Disk(1), Audit(AuditRecord(), inherited=True)
    disk.rest()
    for number in range(20):
        disk.submit()
        between = disk.look(idle=True)
        disk.rest()
        assert audit.look(between, True, float(number)) == []
    assert rested(disk, audit) == []


def test_a_completion_unseen_by_a_controller_that_was_killed_before_it_wrote_anything_down_taints():
    disk = Disk(1)
    disk.rest()
    disk.completed = 0
    disk.submit()
    disk.complete(shown=False)
    (found,) = rested(disk, Audit(AuditRecord(), inherited=True))
    assert "completed unseen" in found
    assert rested(disk, Audit(AuditRecord())) == [], "its own programs: the primary notices by itself"


def test_a_fault_is_told_once_and_not_again_by_the_next_controller():
    disk, audit = Disk(1), Audit(AuditRecord())
    disk.faults["unmarked_misses"] = 3
    assert len(rested(disk, audit)) == 1
    assert rested(disk, Audit(audit.record)) == []
    disk.faults["unmarked_misses"] = 4
    assert len(rested(disk, Audit(audit.record))) == 1


def test_writes_missed_while_nobody_audited_are_found_by_the_counts_of_the_programs_alone():
    kept = AuditRecord(attach="boot 7", faults={"passthrough": 2, "unknown_ops": 0})
    assert grown_faults(kept, "boot 7", {"passthrough": 2, "unknown_ops": 0}) == []
    assert grown_faults(kept, "boot 7", {"passthrough": 3, "unknown_ops": 0}) == [FAULTS["passthrough"]]
    assert grown_faults(kept, "boot 8", {"passthrough": 1}) == [FAULTS["passthrough"]], "others count from nothing"
    assert grown_faults(AuditRecord(attach="boot 7"), "boot 7", {"unknown_ops": 1}) == [FAULTS["unknown_ops"]]


@pytest.mark.parametrize("seed", range(30))
def test_a_missed_write_shows_by_one_look_whoever_takes_it_and_whatever_is_in_flight(seed):
    disk, audit = Disk(seed), Audit(AuditRecord())
    assert rested(disk, audit) == []
    run, armed = AuditRecord.of(audit.record.as_dict()), first_record(disk.look())
    for kept in (run, armed):
        work(disk, Audit(AuditRecord()), 20)
        assert missed_unaudited(kept, disk.look()) == [], "a write in flight is seen before it is counted"
        assert missed_unaudited(kept, disk.look("b")) == [], "other programs began later"
        assert missed_unaudited(kept, disk.look(counted_sectors=None)) == []
    disk.submit(seen=False)
    disk.rest()
    for kept in (run, armed):
        (found,) = missed_unaudited(kept, disk.look())
        assert "sectors of writes that the kernel has counted" in found
    disk.faults["passthrough"] += 1
    assert missed_unaudited(armed, disk.look())[0] == FAULTS["passthrough"]


def test_the_first_record_of_a_disk_that_never_rests_claims_no_offset():
    disk = Disk(1)
    disk.submit()
    record = first_record(disk.look())
    assert record.offset_sectors is None and record.attach == "a" and record.faults == disk.faults
    assert first_record(disk.look(idle=True, counted_sectors=None)).offset_sectors is None


def test_programs_attached_anew_count_from_nothing():
    disk, audit = Disk(1), Audit(AuditRecord())
    rested(disk, audit)
    disk.seen = disk.completed = 0
    for _ in range(3):
        disk.now += 1.0
        assert audit.look(disk.look(attach="b"), True, disk.now) == []
    assert audit.report().verdict == "agrees"


def test_a_write_that_failed_before_it_reached_the_disk_does_not_hide_a_later_one_for_ever():
    disk, audit = Disk(1), Audit(AuditRecord())
    rested(disk, audit)
    disk.seen += 8
    disk.completed += 8
    assert rested(disk, audit) == [] and audit.report().margin_sectors == 8
    disk.now += LOWER_AFTER_S
    assert rested(disk, audit) == [] and audit.report().margin_sectors == 0
    disk.counted += 1
    assert len(rested(disk, audit)) == 1


def test_a_kernel_without_a_count_makes_the_verdict_unavailable():
    disk, audit = Disk(1), Audit(AuditRecord())
    assert audit.look(disk.look(counted_sectors=None), True, 0.0) == []
    assert "unavailable" in audit.report().verdict


class Bios(Disk):
    """A disk that device-mapper makes: a bio that it has split completes once, as long as the last part of it."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.flying = []
        self.bios = self.ended = 0

    def submit(self, seen: bool = True) -> None:
        super().submit(seen)
        self.bios += 1

    def complete(self, shown: bool = True) -> None:
        if self.flying:
            super().complete(shown=False)
            self.ended += shown

    def look(self, attach: str = "a", **changes) -> Look:
        return super().look(attach, completed_sectors=completed_by_bio(self.seen, self.bios, self.ended), **changes)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("unseen", [False, True])
def test_a_split_bio_is_no_completion_unseen_and_a_missing_one_is(seed, unseen):
    """The controller was killed under load, with nothing written down since the last idle instant."""
    disk, audit = Bios(seed), Audit(AuditRecord())
    assert work(disk, audit, 20) + rested(disk, audit) == []
    kept = audit.record
    for _ in range(50):
        disk.submit()
    if unseen:
        disk.complete(shown=False)
    disk.rest()
    found = rested(disk, Audit(kept, inherited=True))
    assert found == (["1 sectors of writes completed unseen while no controller could notice"] if unseen else [])


# Two programs that mark


class TwiceMarked(Disk):
    """A disk whose writes are seen by two programs, each of which can be refused for some."""

    marked = seen_misses = marked_misses = 0

    def submit(self, seen: bool = True, marked: bool = True) -> None:
        super().submit(seen)
        self.marked += self.flying[-1] if marked else 0
        self.seen_misses += not seen
        self.marked_misses += not marked

    def look(self, attach: str = "a", **changes) -> Look:
        parted = Parted(self.marked - self.seen, self.seen_misses, self.marked_misses)
        return super().look(attach, **({"marked_sectors": self.marked, "parted": parted} | changes))


@pytest.mark.parametrize("seed", range(50))
def test_a_write_that_one_of_two_programs_was_refused_for_taints_nothing(seed):
    disk, audit = TwiceMarked(seed), Audit(AuditRecord())
    assert rested(disk, audit) == []
    for _ in range(20):
        for _ in range(disk.rng.randrange(1, 3)):
            missed = disk.rng.choice(({"seen": False}, {"marked": False}))
            disk.submit(**missed)
            assert audit.look(disk.look(parted=None), False, disk.now) == [], "a look while writes come"
            assert work(disk, audit, 2) == []
        kept = AuditRecord.of(audit.record.as_dict())
        assert missed_unaudited(kept, disk.look()) == []
        if disk.rng.random() < 0.5:
            assert rested(disk, audit) == []
    assert rested(disk, audit) == [] and audit.report().margin_sectors == 0


@pytest.mark.parametrize("seed", range(50))
def test_a_write_that_neither_of_two_programs_has_seen_taints(seed):
    disk, audit = TwiceMarked(seed), Audit(AuditRecord())
    assert rested(disk, audit) == []
    for missed in ({"seen": False}, {"marked": False}) * 3:
        disk.submit(**missed)
        assert work(disk, audit, 10) == []
    kept = AuditRecord.of(audit.record.as_dict())
    disk.submit(seen=False, marked=False)
    disk.rest()
    assert "sectors of writes that the kernel has counted" in missed_unaudited(kept, disk.look())[0]
    found = work(disk, audit, 5) + rested(disk, audit)
    assert found and all("capture did not see" in one for one in found)
    assert rested(disk, audit) == [], "told twice"


def test_writes_that_each_of_both_programs_was_refused_for_between_two_looks_are_a_doubt():
    disk, audit = TwiceMarked(1), Audit(AuditRecord())
    assert rested(disk, audit) == []
    disk.submit(seen=False)
    disk.submit(marked=False)
    assert len(rested(disk, audit)) == 1, "nothing tells whether they were one and the same"
    assert rested(disk, audit) == []


def test_writes_that_are_held_back_are_no_offset_though_one_program_was_refused_meanwhile():
    disk, audit = TwiceMarked(1), Audit(AuditRecord())
    assert rested(disk, audit) == []
    held = 8
    disk.seen += held
    disk.marked += held  # submitted, and neither counted nor in flight for a while
    disk.submit(seen=False)
    assert rested(disk, audit) == []
    disk.counted += held
    disk.completed += held
    assert rested(disk, audit) == []


def test_a_record_of_one_program_is_written_as_it_always_was():
    disk, audit = Disk(1), Audit(AuditRecord())
    rested(disk, audit)
    assert set(audit.record.as_dict()) == {"attach", "offset_sectors", "unseen_sectors", "faults"}
    twice, second = TwiceMarked(1), Audit(AuditRecord())
    rested(twice, second)
    assert AuditRecord.of(second.record.as_dict()) == second.record and second.record.marked_offset_sectors is not None
