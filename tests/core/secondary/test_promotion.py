"""A replica whose primary lives is not promoted, and a promotion says what is lost: never less than the truth."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pydbt.cli.loss import loss_lines
from pydbt.core.errors import BusyError, DeviceError, UsageError
from pydbt.core.secondary.primary_watch import PrimaryReport
from pydbt.core.secondary.promotion import (
    UNKNOWN_MOMENT,
    Loss,
    Objection,
    Position,
    loss,
    require_whole,
    superseded_words,
    why_not_promote,
    why_not_take_back,
)
from pydbt.core.secondary.replica import ReplicaState

PRIMARY = PrimaryReport(
    host="alpha", source="/dev/vda3", heard_seconds=60.0, ended=False, told="2026-01-02T16:19:23.000Z",
    behind_bytes=80 << 20, as_of="2026-01-02T16:18:58.000Z", as_of_epoch=f"{7:016x}", as_of_sequence=10,
)  # fmt: skip


def test_a_replica_of_a_living_primary_is_promoted_only_by_force() -> None:
    found = why_not_promote("/dev/vdb", ReplicaState.UP_TO_DATE, "alpha", lives=True)
    assert found is not None and found.may_be_forced and "alpha" in found.why and "--force" in found.why
    woken = why_not_promote("/dev/vdb", ReplicaState.UP_TO_DATE, "alpha", lives=True, has_slept=True)
    assert woken is not None and woken.may_be_forced and "heard within" not in woken.why
    assert "alpha was alive when this machine was suspended" in woken.why
    nameless = why_not_promote("/dev/vdb", ReplicaState.UP_TO_DATE, "", lives=True)
    assert nameless is not None and "the primary of this replica is alive" in nameless.why


@pytest.mark.parametrize("asked", ["2026-01-02T16:19:23+00:00", UNKNOWN_MOMENT])
def test_a_replica_whose_primary_asked_before_a_mount_and_was_not_heard_since_is_promoted_only_by_force(
    asked: str,
) -> None:
    found = why_not_promote("/dev/vdb", ReplicaState.CONSISTENT, "alpha", lives=False, gate_asked=asked)
    assert found is not None and found.may_be_forced and "it may be mounted and written there" in found.why
    assert f"alpha asked at {asked[:10]}".replace("T", " ") in found.why


@pytest.mark.parametrize("lives", [True, False])
def test_an_inconsistent_replica_is_never_promoted(lives: bool) -> None:
    found = why_not_promote("/dev/vdb", ReplicaState.INCONSISTENT, "alpha", lives=lives)
    assert found is not None and not found.may_be_forced and "/dev/vdb is inconsistent" in found.why


def test_an_objection_is_heeded_unless_it_may_be_forced_and_is() -> None:
    with pytest.raises(UsageError, match="never"):
        Objection("never", may_be_forced=False).heed(force=True)
    with pytest.raises(BusyError, match="not yet"):
        Objection("not yet", may_be_forced=True).heed(force=False)
    Objection("not yet", may_be_forced=True).heed(force=True)


def test_a_side_that_told_another_to_take_over_is_promoted_only_by_force() -> None:
    assert why_not_take_back("") is None
    found = why_not_take_back("beta")
    assert (
        found is not None and found.may_be_forced and "told beta to take over" in found.why and "--force" in found.why
    )


def test_nothing_forces_onto_a_target_what_it_does_not_take() -> None:
    require_whole("/dev/vdb", "")
    with pytest.raises(
        DeviceError, match=r"/dev/vdb cannot be promoted .*: TARGET cannot be written at byte 4096; .*copy"
    ):
        require_whole("/dev/vdb", "TARGET cannot be written at byte 4096")
    with pytest.raises(DeviceError, match="'controller promote NEWDISK --accept-target'"):  # the way out
        require_whole("/dev/vdb", "TARGET cannot be written at byte 4096")


@pytest.mark.parametrize("state", [ReplicaState.OUTDATED, ReplicaState.CONSISTENT, ReplicaState.UP_TO_DATE])
def test_any_usable_replica_of_a_silent_primary_is_promoted(state: ReplicaState) -> None:
    assert why_not_promote("/dev/vdb", state, "alpha", lives=False) is None


def test_the_loss_is_everything_that_the_primary_told_beyond_the_image() -> None:
    lost = loss(PRIMARY, Position(7, 12))
    assert lost == Loss("alpha", PRIMARY.as_of, PRIMARY.told, 25.0, 80 << 20, nothing=False)


@pytest.mark.parametrize("image", [Position(7, 9), Position(6, 1000)])
def test_an_image_that_went_back_behind_that_moment_is_of_an_unknown_one(image: Position) -> None:
    assert loss(PRIMARY, image).as_of == ""
    assert not loss(replace(PRIMARY, ended=True, behind_bytes=0), image).nothing


def test_nothing_is_lost_only_when_the_primary_had_ended_and_lacked_nothing() -> None:
    assert loss(replace(PRIMARY, ended=True, behind_bytes=0), Position(7, 10)).nothing
    assert not loss(replace(PRIMARY, ended=True), Position(7, 10)).nothing
    assert not loss(replace(PRIMARY, behind_bytes=0), Position(7, 10)).nothing


def test_where_the_primary_did_not_know_the_loss_is_unknown_and_not_nothing() -> None:
    for ended in (True, False):
        lost = loss(replace(PRIMARY, ended=ended, behind_bytes=None), Position(7, 10))
        assert lost.behind_bytes is None and not lost.nothing
        assert any("an unknown amount" in line and "only on alpha" in line for line in loss_lines(lost))
    known = loss_lines(loss(PRIMARY, Position(7, 10)))
    assert any("about 80.0 MiB" in line for line in known) and not any("unknown" in line for line in known)


def test_moments_that_cannot_be_read_are_no_seconds() -> None:
    assert loss(replace(PRIMARY, told="at noon"), Position(7, 10)).seconds == 0
    assert loss(replace(PRIMARY, told="2026-01-02T16:18:00+00:00"), Position(7, 10)).seconds == 0, (
        "the clock was set back"
    )


def test_the_old_primary_is_told_who_was_promoted_and_when() -> None:
    assert "beta was promoted at 2026-01-02 16:18:58 UTC" in superseded_words("beta", "2026-01-02T16:18:58+00:00")
