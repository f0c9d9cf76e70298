"""``controller mark`` is answered when the mark outlives a crash on this side too."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from threading import Event

import pytest

from pydbt.controller.primary import state_save
from pydbt.controller.primary.configuring import Joining
from pydbt.controller.primary.kept_marks import carried_over
from pydbt.controller.primary.mark_commands import answer_mark, marks_report
from pydbt.controller.primary.state_save import SaveEnded
from pydbt.controller.primary.volume import MARKS_KEY, Volume
from pydbt.controller.requests import Request
from pydbt.core.errors import PeerError, PydbtError, StateError
from pydbt.core.primary.config import PrimaryConfig
from pydbt.core.primary.mark_events import AnswerMark, MarkOutcome, WantedMark
from pydbt.core.volume.marking import Holding, KnownMark
from pydbt.store.secondary_record import SecondaryRecord, SyncPhase
from pydbt.store.volume_state import VolumeState, load_state
from tests.controller.volumes import GEOMETRY, volume_of

MARK = WantedMark(0x17, "before migration 14", 5_000_000_000, 0, True, False)
HELD = KnownMark(MARK, 0, {1: Holding.HELD})


class Writes:
    """What the state's own thread does, when the test wants it."""

    def __init__(self, volume: Volume) -> None:
        self.volume, self.asked, self.ended = volume, [], []
        volume.metadata.write_in(self, self.ended.append)  # type: ignore[arg-type]

    def submit(self, work) -> None:
        self.asked.append(work)

    def carry_out(self) -> None:
        while self.asked:
            self.asked.pop(0)()
        while self.ended:
            ended: SaveEnded = self.ended.pop(0)
            self.volume.metadata.ended(ended)


@pytest.fixture
def volume(tmp_path: Path) -> Volume:
    made = volume_of(tmp_path, SecondaryRecord(1, "h:1", SyncPhase.REPLICATING))
    made.join(1, Joining(PrimaryConfig(GEOMETRY, epoch=7, initial=False, scan_used=False)))
    made.fanout.marks.restore([HELD.to_values()], "")
    return made


def asked(volume: Volume) -> tuple[Request, AnswerMark]:
    request = Request("mark", Event())
    return request, AnswerMark(volume.waits.take(request), MarkOutcome.HELD, MARK.number)


def on_disk(volume: Volume) -> object:
    state = load_state(volume.metadata.state_dir)
    return state.more.get(MARKS_KEY) if state is not None else None


def test_a_mark_that_is_held_is_told_when_it_is_on_this_sides_disk(volume: Volume) -> None:
    writes = Writes(volume)
    request, effect = asked(volume)
    answer_mark(volume, 1, effect)
    assert not request.done.is_set() and writes.asked, "a crash of now would forget it"
    writes.carry_out()
    assert request.done.is_set() and (request.result or {})["mark"]["name"] == MARK.name
    assert on_disk(volume) == [HELD.to_values()]
    again, effect = asked(volume)
    answer_mark(volume, 1, effect)
    assert again.done.is_set() and not writes.asked, "it is there already"


def test_a_mark_of_a_boot_that_did_not_end_cleanly_is_no_answer_and_the_status_tells_it(volume: Volume) -> None:
    volume.fanout.marks.restore([{**HELD.to_values(), "boot": "before"}], "now")
    (told,) = marks_report(volume)
    assert told.before_boot and told.held_by == ("h:1",)
    request = Request("wait", Event())
    answer_mark(volume, None, AnswerMark(volume.waits.take(request), MarkOutcome.BEFORE_BOOT, MARK.number))
    assert isinstance(request.error, PeerError) and "set before this machine was started" in str(request.error)


@pytest.mark.parametrize(("clean", "boot"), [({"boot_id": "before"}, "now"), (None, "before")])
def test_a_clean_stop_loses_nothing_of_a_mark(clean: dict[str, str] | None, boot: str) -> None:
    marks = [{**HELD.to_values(), "boot": "before"}, {**HELD.to_values(), "boot": "long ago"}, "damaged"]
    state = VolumeState(
        "ab" * 16, 1 << 20, 4096, "/dev/x", {}, [], clean=clean, boot_id="before", more={MARKS_KEY: marks}
    )
    kept = carried_over(state, "now")[MARKS_KEY]
    assert [one["boot"] for one in kept[:2]] == [boot, "long ago"] and kept[2] == "damaged"
    assert marks[0]["boot"] == "before", "the state is what it was"
    assert carried_over(replace(state, more={}), "now") == {}


def test_a_disk_that_takes_nothing_is_named_in_the_answer(volume: Volume, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise StateError("/state/volume.json cannot be written: No space left on device")

    writes = Writes(volume)
    monkeypatch.setattr(state_save, "save_state", full)
    request, effect = asked(volume)
    answer_mark(volume, 1, effect)
    writes.carry_out()
    assert isinstance(request.error, PydbtError) and request.error.exit_code == StateError.exit_code
    assert "is held, but" in str(request.error) and "No space left" in str(request.error)


@pytest.mark.parametrize(
    ("stands", "key"),
    [
        (Holding.HELD, "held_by"),
        (Holding.MISSED, "not_held_by"),
        (Holding.DOUBTFUL, "perhaps_held_by"),
        (Holding.ON_THE_WAY, None),
    ],
)
def test_a_secondary_that_perhaps_holds_a_mark_is_named_apart(volume: Volume, stands: Holding, key: str | None) -> None:
    volume.fanout.marks.known[0].peers[1] = stands
    (told,) = marks_report(volume)
    assert [name for name in ("held_by", "not_held_by", "perhaps_held_by") if getattr(told, name)] == [key] * bool(key)
