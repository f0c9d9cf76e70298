"""The secondary that answers: its report counts, and is written down when the map has everything it lacks."""

from __future__ import annotations

from pydbt.core.primary.events import Connected, RememberReplica
from pydbt.core.primary.modes import Mode
from pydbt.core.primary.recognition import Recognition
from pydbt.core.primary.state import State
from pydbt.core.protocol.frame_checks import REPLICA_STATE_NAMES
from pydbt.core.protocol.frames import Ack
from tests.core.primary.parts import lines, state_of, taken_effects

KNOWN = {"replica": "mine", "replica_epoch": 7, "replica_sequence": 5, "replica_progress": 100}


def known(**settings: object) -> tuple[State, Recognition]:
    state = state_of(**{**KNOWN, **settings})
    return state, Recognition(state)


def word_of(state: str) -> Ack:
    return Ack(0, replica_state=REPLICA_STATE_NAMES.index(state))


def said(replica: str = "mine", progress: int | None = 100, **words: object) -> Connected:
    return Connected(replica, "consistent", 7, 5, False, False, progress=progress, **words)  # type: ignore[arg-type]


def test_the_known_replica_is_remembered_as_it_is() -> None:
    state, recognition = known()
    assert recognition.connected(said(progress=120)) == ""
    recognition.remember_when_mapped()
    assert taken_effects(state) == [RememberReplica("mine", 7, 5, 120, in_sync=True)]
    assert state.replica.state == "outdated" and not recognition.scan_whole


def test_a_replica_that_went_back_is_scanned_anew_and_the_next_run_would_notice_it_too() -> None:
    state, recognition = known()
    assert "went back" in recognition.connected(said(progress=90))
    assert lines(state, "warning")
    assert taken_effects(state) == [RememberReplica("mine", 7, 5, 100, in_sync=True)]
    assert state.replica.initial and not state.replica.scanned and state.replica.state == "inconsistent"
    recognition.remember_when_mapped()
    recognition.map_written(4)
    assert not taken_effects(state), "the map lacks the blocks in use"
    state.replica.scanned = True
    recognition.scanned(6)
    recognition.map_written(5)
    assert not taken_effects(state), "this map was on its way to the disk when the secondary answered"
    recognition.map_written(6)
    assert taken_effects(state) == [RememberReplica("mine", 7, 5, 90, in_sync=False)]
    recognition.map_written(7)
    assert not taken_effects(state)


def test_a_replica_that_reconnects_before_the_map_with_its_missing_blocks_is_saved_is_not_saved_yet() -> None:
    """A run that is killed here leaves the map of another replica, and would take it for that of this one."""
    state, recognition = known()
    recognition.connected(said("other", progress=3))
    recognition.remember_when_mapped()
    state.replica.scanned = True
    recognition.scanned(6)
    assert recognition.connected(said("other", progress=3)) == ""
    recognition.remember_when_mapped()
    assert not [e for e in taken_effects(state) if isinstance(e, RememberReplica)]
    recognition.map_written(6)
    assert [e.replica for e in taken_effects(state) if isinstance(e, RememberReplica)] == ["other"]
    recognition.connected(said("other", progress=3))
    recognition.remember_when_mapped()
    assert [e.replica for e in taken_effects(state) if isinstance(e, RememberReplica)] == ["other"]


def test_an_earlier_image_to_go_back_to_is_known_even_during_our_first_copy() -> None:
    state, recognition = known(initial=True)
    recognition.connected(said())
    assert state.replica.state == "inconsistent" and state.replica.goes_back
    recognition.replica_says(word_of("inconsistent"))
    assert not state.replica.goes_back
    recognition.replica_says(word_of("outdated"))
    assert state.replica.goes_back
    recognition.connected(Connected("mine", "inconsistent", 7, 5, False, False, progress=100))
    assert not state.replica.goes_back


def test_nothing_of_another_replica_is_remembered_before_its_map() -> None:
    state, recognition = known()
    assert "another replica" in recognition.connected(said("other", progress=3, of_this_volume=True))
    recognition.remember_when_mapped()
    assert not taken_effects(state) and state.replica.identifier == "other" and state.replica.progress == 3
    assert recognition.scan_whole, "it may hold a content of this volume where that has free space now"


def test_its_report_of_its_image_counts_when_it_is_worse() -> None:
    for mode, word, state_of_image in (
        (Mode.NORMAL, "inconsistent", "inconsistent"),
        (Mode.NORMAL, "consistent", "outdated"),
        (Mode.RESYNCHRONIZING, "consistent", "outdated"),
        (Mode.SNAPSHOTS, "consistent", "consistent"),
    ):
        state, recognition = known()
        state.mode = mode
        recognition.replica_says(word_of(word))
        assert state.replica.state == state_of_image


def test_an_image_that_cannot_be_used_stays_so_until_the_secondary_says_otherwise() -> None:
    state, recognition = known()
    recognition.left(unusable=False)
    assert state.replica.state == "outdated"
    recognition.left(unusable=True)
    recognition.left(unusable=False)
    assert state.replica.state == "inconsistent", "a cut does not repair a disk"
    recognition.connected(said())
    assert state.replica.state == "outdated"
