"""The secondaries of a volume at a start: those on record and those that were typed; none is forgotten by not being typed."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from pydbt.controller.options import PrimaryOptions, SecondaryOptions
from pydbt.controller.primary import opening
from pydbt.controller.primary.era_recovery import UNTRACKED, untracked_by
from pydbt.controller.primary.handshake import Refused
from pydbt.controller.primary.opening import before_attaching, distrusted, prove_secondaries, with_named
from pydbt.core.errors import NoAnswer, PeerError, StateError, Unreachable, UsageError
from pydbt.core.protocol.frames import Bye
from pydbt.core.protocol.generations import Generations
from pydbt.store.secondary_record import SecondaryRecord, SyncPhase
from pydbt.store.volume_state import VolumeState, load_state, save_state

A, B, C = ("a", 1), ("b", 2), ("::1", 3)
GENERATIONS = Generations(5, (4,), (3,), shared=True)


def state_of(*addresses: str, removed: tuple[str, ...] = ()) -> VolumeState:
    records = tuple(
        SecondaryRecord(slot, address, SyncPhase.REPLICATING, f"replica {address}", generations=GENERATIONS)
        for slot, address in enumerate(addresses, 1)
    )
    return VolumeState("ab" * 16, 1 << 20, 4096, "/dev/x", {}, records, list(removed), generations=GENERATIONS)


def typed(
    state: VolumeState, tmp_path: Path, *addresses: tuple[str, int], is_new: bool = False, **options: object
) -> VolumeState:
    return with_named(state, PrimaryOptions(Path("/dev/x"), addresses, tmp_path, **options), is_new)


def names(state: VolumeState) -> list[tuple[int, str]]:
    return [(record.slot, record.address) for record in state.secondaries]


def test_a_typed_address_that_is_not_on_record_is_a_new_secondary_and_the_others_stay_as_they_are(tmp_path):
    state = typed(state_of("a:1"), tmp_path, A, C)
    assert names(state) == [(1, "a:1"), (2, "[::1]:3")]
    known, new = state.secondaries
    assert known.replica == "replica a:1"
    assert (new.phase, new.replica, new.generations.shared) == (SyncPhase.INITIAL, "", False)
    assert new.generations.current == 5, "all are of one generation"


def test_a_secondary_on_record_is_replicated_to_although_it_was_not_typed(tmp_path):
    assert names(typed(state_of("a:1", "b:2"), tmp_path, A)) == [(1, "a:1"), (2, "b:2")]


def test_a_secondary_at_another_address_has_moved_and_is_known_by_its_own_answer(tmp_path):
    moved = typed(state_of("a:1"), tmp_path, B)
    assert names(moved) == [(1, "b:2")] and moved.record(1).replica == "replica a:1"
    assert names(typed(state_of("a:1", "b:2"), tmp_path, A, C)) == [(1, "a:1"), (2, "[::1]:3")]


def test_a_removed_secondary_that_is_typed_out_of_habit_does_not_take_the_place_of_another(tmp_path):
    state = typed(state_of("a:1", removed=("b:2",)), tmp_path, B)
    assert names(state) == [(1, "a:1"), (2, "b:2")] and state.record(2).replica == ""
    assert state.removed == []


def test_files_of_a_removed_secondary_are_not_taken_for_those_of_a_new_one(tmp_path):
    for name in ("dirty-2.map", "peer-2"):
        (tmp_path / name).write_bytes(b"of somebody else")
    typed(state_of("a:1"), tmp_path, A, B)
    assert not list(tmp_path.iterdir())


def test_a_first_run_takes_all_that_are_typed_and_trusts_them_when_told_to(tmp_path):
    state = typed(state_of(), tmp_path, A, B, is_new=True, assume_in_sync=True)
    assert names(state) == [(1, "a:1"), (2, "b:2")]
    assert {record.phase for record in state.secondaries} == {SyncPhase.ASSUMED}


def test_names_to_be_proved_are_for_each_secondary_or_for_none(tmp_path):
    with pytest.raises(UsageError, match="--peer is given 1 times for 2 secondaries"):
        PrimaryOptions(Path("/dev/x"), (A, B), tmp_path, peers=("alpha",))
    with pytest.raises(UsageError, match="one address twice"):
        PrimaryOptions(Path("/dev/x"), (A, A), tmp_path)


# The first run of a volume


def test_the_first_link_that_was_missing_is_told_and_other_taints_beside_it():
    record = distrusted(SecondaryRecord(1, "h:1"), untracked_by("the device was away"))
    assert distrusted(record, UNTRACKED) == distrusted(record, untracked_by("no closing record")) == record
    assert [entry["reason"] for entry in distrusted(record, "an unknown operation").taints] == [
        f"{UNTRACKED}: the device was away",
        "an unknown operation",
    ]


@pytest.fixture
def answers(monkeypatch):
    """What the secondary of a new volume answers, one attempt after the other; sleeps between them are counted."""
    outcomes: list[object] = []
    sleeps: list[float] = []
    sent: list[object] = []

    def shake_hands(*_):
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return SimpleNamespace(close=lambda: None, send_frames=sent.extend), SimpleNamespace(replica=outcome)

    monkeypatch.setattr(opening, "shake_hands", shake_hands)
    monkeypatch.setattr(opening.time, "sleep", sleeps.append)
    return SimpleNamespace(outcomes=outcomes, sleeps=sleeps, sent=sent)


def prove(state, wait):
    prove_secondaries(SimpleNamespace(logical_block_bytes=512), state, dict.fromkeys(range(1, 9)), wait=wait)


def test_a_secondary_that_was_only_looked_for_is_told_that_it_is_not_lost(answers):
    answers.outcomes[:] = ["replica a"]
    prove(state_of("a:1"), wait=False)
    assert [type(frame) for frame in answers.sent] == [Bye]


def test_a_new_volume_waits_for_a_secondary_that_is_started_later_and_logs_that_once(answers, caplog):
    gone = Unreachable("a:1 cannot be reached: Connection refused")
    silent = NoAnswer("a:1 closed the connection at once")
    answers.outcomes[:] = [gone, gone, Refused("busy", "starting"), silent, gone, "replica a"]
    with caplog.at_level(logging.WARNING):
        prove(state_of("a:1"), wait=True)
    assert len(answers.sleeps) == 5 and not answers.outcomes
    assert [record.message.split(";")[0] for record in caplog.records] == [
        str(gone), "starting", str(silent), str(gone)
    ]  # fmt: skip


def test_a_new_volume_does_not_wait_where_waiting_cannot_help_or_is_not_wanted(answers):
    answers.outcomes[:] = [Refused("split-brain", "both sides were written")]
    with pytest.raises(Refused):
        prove(state_of("a:1"), wait=True)
    answers.outcomes[:] = [PeerError("a:1 is no pydbt secondary")]
    with pytest.raises(PeerError):
        prove(state_of("a:1"), wait=True)
    answers.outcomes[:] = [Unreachable("a:1 cannot be reached")]
    with pytest.raises(Unreachable):
        prove(state_of("a:1"), wait=False)
    assert not answers.sleeps


def test_a_name_that_nobody_proves_is_refused(tmp_path):
    with pytest.raises(UsageError, match="--identity"):
        PrimaryOptions(Path("/dev/x"), (A,), tmp_path, peers=("alpha",))
    with pytest.raises(UsageError, match="--identity"):
        SecondaryOptions(Path("/dev/x"), "127.0.0.1", 1, tmp_path, peer="alpha")


def left_by_a_killed_run(tmp_path: Path) -> VolumeState:
    """Of two secondaries, one of which was never in sync; each has a map."""
    state = replace(state_of("a:1", "b:2"), boot_id="now")
    state = state.with_record(replace(state.record(2), phase=SyncPhase.INITIAL))
    save_state(tmp_path, state)
    for record in state.secondaries:
        (tmp_path / record.map_name).write_bytes(b"a map")
    return state


def test_before_programs_are_attached_it_is_on_the_disk_that_writes_may_be_missing_and_no_map_is_left(tmp_path):
    state = before_attaching(tmp_path, left_by_a_killed_run(tmp_path), UNTRACKED)
    assert load_state(tmp_path) == state and state.boot_id == ""
    assert [[entry["reason"] for entry in record.taints] for record in state.secondaries] == [[UNTRACKED], []]
    assert not any((tmp_path / record.map_name).exists() for record in state.secondaries)


def test_maps_that_no_write_can_be_missing_from_stay_and_their_volume_is_not_called_tracked(tmp_path):
    before = left_by_a_killed_run(tmp_path)
    state = before_attaching(tmp_path, before, "")
    assert load_state(tmp_path) == state == replace(before, boot_id="")
    assert all((tmp_path / record.map_name).exists() for record in state.secondaries)


def test_a_start_whose_taint_cannot_be_written_leaves_everything_as_it_was(tmp_path, monkeypatch):
    def fails(*_):
        raise StateError("no space left on device")

    before = left_by_a_killed_run(tmp_path)
    monkeypatch.setattr(opening, "save_state", fails)
    with pytest.raises(StateError):
        before_attaching(tmp_path, before, UNTRACKED)
    assert load_state(tmp_path) == before and all((tmp_path / one.map_name).exists() for one in before.secondaries)


def test_a_state_that_says_all_this_already_is_not_written_again(tmp_path, monkeypatch):
    state = before_attaching(tmp_path, left_by_a_killed_run(tmp_path), UNTRACKED)
    monkeypatch.setattr(opening, "save_state", None)
    assert before_attaching(tmp_path, state, untracked_by("no closing record")) == state
