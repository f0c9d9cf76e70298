"""The state of a side records its role, and its file only where it began; a start that lacks a fact says which one."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest

from pydbt.core.configured.role import (
    OTHER_ROLE,
    PRIMARY,
    SECONDARY,
    Recorded,
    RoleDecision,
    RoleRecord,
    StartAs,
    decide,
    recorded,
)
from pydbt.core.secondary.replica import ReplicaRecord

REPLICA = ReplicaRecord(replica="12" * 16, target="block-device:wwn-1", segment_bytes=65536)
SINCE = "2026-01-02T16:18:58+00:00"
GAVE = RoleRecord(Recorded.REPLICA, SINCE, "10.0.0.2:7790")
TOOK = RoleRecord(Recorded.PROMOTED, SINCE)
FILE = "/etc/pydbt/volumes/data.toml"


def decided(by_file: str, known: RoleRecord, *, named: bool = False, is_image: bool = False) -> RoleDecision:
    return decide(by_file, known, named=named, is_image=is_image, file=FILE)


@pytest.mark.parametrize(
    ("record", "is_volume", "found"),
    [
        (None, False, Recorded.NOTHING),
        (None, True, Recorded.VOLUME),
        (REPLICA, False, Recorded.REPLICA),
        (REPLICA, True, Recorded.REPLICA),
        (replace(REPLICA, promoted=SINCE), True, Recorded.PROMOTED),
        (replace(REPLICA, promoted=SINCE), False, Recorded.PROMOTED),
    ],
)
def test_the_record_of_a_replica_decides_whatever_a_crash_has_left_beside_it(
    record: ReplicaRecord | None, is_volume: bool, found: Recorded
) -> None:
    assert recorded(record, is_volume=is_volume) is found


@pytest.mark.parametrize("by_file", [PRIMARY, SECONDARY])
def test_without_a_change_of_roles_a_side_starts_as_its_file_says(by_file: str) -> None:
    start = StartAs.PRIMARY if by_file == PRIMARY else StartAs.SECONDARY
    for known in (RoleRecord(), RoleRecord(Recorded.VOLUME), GAVE if by_file == SECONDARY else TOOK):
        for named, is_image in product((False, True), repeat=2):
            assert decided(by_file, known, named=named, is_image=is_image) == RoleDecision(start)
        assert not known.differs(by_file)


def test_a_primary_that_gave_its_place_away_starts_as_the_secondary_where_its_primary_expects_it() -> None:
    assert decided(PRIMARY, GAVE, named=True) == RoleDecision(StartAs.SECONDARY)
    assert decided(PRIMARY, replace(GAVE, listen="10.0.0.1:7790")) == RoleDecision(StartAs.SECONDARY)
    assert GAVE.differs(PRIMARY) == (
        "its file begins as [run], and by its state this side is a replica, since 10.0.0.2:7790 took its place at 2026-01-02 "
        "16:18:58 UTC: it starts as [secondary]"
    )
    assert RoleRecord(Recorded.REPLICA).became() == "a replica", "nobody is known to have taken its place"


def test_without_an_address_to_listen_at_it_is_refused_and_the_sentence_says_what_to_write_where() -> None:
    found = decided(PRIMARY, GAVE)
    assert found.start is StartAs.REFUSE
    assert found.lacks == (
        "by its state this side is a replica, since 10.0.0.2:7790 took its place at 2026-01-02 16:18:58 UTC, and "
        f"{FILE} names no address of this machine, at which it waits for its primary: add a table [secondary] with "
        'listen = "ADDR:PORT" to it, and start it again'
    )


def test_a_replica_that_was_promoted_starts_as_the_primary_of_a_secondary_that_is_known() -> None:
    assert decided(SECONDARY, TOOK, named=True) == RoleDecision(StartAs.PRIMARY)
    assert decided(SECONDARY, replace(TOOK, secondaries=("10.0.0.1:7790",))) == RoleDecision(StartAs.PRIMARY)
    assert "the primary, since it was promoted at 2026-01-02" in TOOK.differs(SECONDARY)


def test_without_a_secondary_it_answers_its_old_primary_and_never_takes_a_write_as_a_replica() -> None:
    found = decided(SECONDARY, TOOK)
    assert found.start is StartAs.ANSWER
    assert 'add a table [run] with secondary = "ADDR:PORT" to it' in found.lacks and FILE in found.lacks


def test_an_image_file_that_was_promoted_is_nobody_s_source() -> None:
    for known in (TOOK, replace(TOOK, secondaries=("10.0.0.1:7790",))):
        assert decided(SECONDARY, known, named=True, is_image=True) == RoleDecision(StartAs.ANSWER)


def test_what_another_process_runs_already_is_left_to_it_and_its_old_primary_is_answered() -> None:
    """A person has started it with its device, as after a failover by hand."""
    known = replace(TOOK, secondaries=("10.0.0.1:7790",))
    assert decide(SECONDARY, known, named=True, is_image=False, file=FILE, is_run=True) == RoleDecision(StartAs.ANSWER)


def test_the_state_of_a_volume_makes_no_primary_of_what_a_file_calls_a_replica() -> None:
    """Somebody wrote that file anew; the start as a secondary is refused, because the state is that of a primary."""
    assert decided(SECONDARY, RoleRecord(Recorded.VOLUME), named=True) == RoleDecision(StartAs.SECONDARY)


def test_a_replica_is_never_started_as_a_primary_and_a_promoted_one_never_as_a_secondary() -> None:
    """Two primaries, or a volume that is overwritten, whatever the file says and whatever is known."""
    facts = product((PRIMARY, SECONDARY), ("", "10.0.0.1:7790"), ((), ("10.0.0.2:7790",)), (False, True), (False, True))
    for by_file, listen, secondaries, named, is_image in facts:
        replica = RoleRecord(Recorded.REPLICA, listen=listen, secondaries=secondaries)
        promoted = RoleRecord(Recorded.PROMOTED, SINCE, listen=listen, secondaries=secondaries)
        assert decided(by_file, replica, named=named, is_image=is_image).start in (StartAs.SECONDARY, StartAs.REFUSE)
        assert decided(by_file, promoted, named=named, is_image=is_image).start in (StartAs.PRIMARY, StartAs.ANSWER)
        assert replica.role(by_file) == SECONDARY == OTHER_ROLE[promoted.role(by_file)]
