"""A running primary shows the map of its volume and the owner of a block, and is held up by nobody who asks."""

from __future__ import annotations

import re
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from pydbt.controller.primary import commands as commands_module
from pydbt.controller.primary import file_system_questions as questions_module
from pydbt.controller.primary import seen as seen_module
from pydbt.controller.primary.file_system_questions import FileSystemQuestions
from pydbt.controller.primary.loop import PrimaryLoop
from pydbt.controller.requests import Request
from pydbt.core.blocks.runs import Runs
from pydbt.core.errors import BusyError, UsageError
from pydbt.core.primary import events as ev
from pydbt.core.primary.modes import Mode
from pydbt.core.seen.heat import WHOLE, Cells, Heat
from pydbt.core.seen.history import COLUMNS
from pydbt.device.block_owner import BlockOwner
from pydbt.device.fsmap import FSMAP_RECORD, OWNER_FREE, SPECIAL_OWNER, NoMap
from tests.controller.volumes import BLOCKS, GEOMETRY

SIZE = GEOMETRY.size_bytes
WHOLE_VOLUME = Cells.over(GEOMETRY, 0, SIZE, BLOCKS)


@pytest.fixture
def asked(loop: PrimaryLoop, monkeypatch: pytest.MonkeyPatch):
    """Ask as a client does; the loop carries out what it is asked for meanwhile. No file system answers."""
    monkeypatch.setattr(loop.seen_answers, "_questions", SimpleNamespace(free=lambda cells: None))

    def ask(**arguments: object) -> dict:
        found: list[object] = []

        def client() -> None:
            try:
                found.append(loop.answer(arguments, lambda: False))
            except Exception as error:
                found.append(error)

        thread = threading.Thread(target=client)
        thread.start()
        while thread.is_alive():
            item = loop.volume.inbox.take(0.01)
            if isinstance(item, Request):
                loop.commands.carry_out(item)
        (answer,) = found
        if isinstance(answer, Exception):
            raise answer
        assert isinstance(answer, dict)
        return answer

    return ask


def hot(answer: dict, kind: str) -> list[int]:
    return [cell for cell, share in enumerate(answer["cells"][kind]) if share]


def test_a_map_shows_what_is_written_and_what_is_out_of_sync(loop: PrimaryLoop, asked) -> None:
    (brain,) = loop.volume.brains
    loop.volume.capture.write(5)
    brain.state.tracker.pending.set_range(7, 2)
    answer = asked(command="map", cells=BLOCKS)
    assert hot(answer, "written") == [5] and hot(answer, "out_of_sync") == [7, 8]
    assert (answer["start"], answer["end"], answer["cell_bytes"], answer["block_bytes"]) == (0, SIZE, 4096, 4096)
    assert answer["unknown"] == ["free"] and answer["sweep"] is None and answer["written_seconds"] is None
    brain.handle(ev.PauseAsked(), 1e9)
    assert hot(asked(command="map", cells=BLOCKS), "out_of_sync") == [5, 7, 8], "nobody follows these bits"


def test_a_map_s_figure_is_that_of_the_status(loop: PrimaryLoop, asked) -> None:
    (brain,) = loop.volume.brains
    brain.state.tracker.pending.set_range(7, 9)
    brain.state.tracker.dirty.set_range(10, 20)
    answer = asked(command="map", cells=3)
    assert answer["bytes"]["out_of_sync"] == loop.report().to_json()["out_of_sync_bytes"] == 23 * 4096
    assert asked(command="map", start=4096 * 7, end=4096 * 8)["cells"]["out_of_sync"] == [WHOLE]


def test_while_a_taint_waits_for_its_comparison_nothing_is_claimed_of_what_is_out_of_sync(
    loop: PrimaryLoop, asked
) -> None:
    (brain,) = loop.volume.brains
    brain.handle(ev.Tainted("an unknown operation wrote"), 1e9)
    answer = asked(command="map")
    assert "out_of_sync" in answer["unknown"] and "out_of_sync" not in answer["cells"]


def test_the_answer_tells_within_how_many_seconds_the_written_blocks_were_written(
    loop: PrimaryLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    volume = loop.volume
    for now in (100.0, 102.0, 104.0):
        monkeypatch.setattr("pydbt.controller.primary.volume.time", SimpleNamespace(monotonic=lambda at=now: at))
        volume.flip()
    assert volume.written_within_s(105.0) == 3.0, (
        "the quiet bitmap may have blocks from the flip before the last one on"
    )


@pytest.mark.parametrize(
    "wrong",
    [{"start": 5, "end": 5}, {"end": SIZE + 1}, {"cells": 0}, {"cells": 1 << 40}, {"start": "x"}, {"cells": True}],
)
def test_an_impossible_map_is_refused_in_one_sentence(asked, wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        asked(command="map", **wrong)


def test_one_map_is_made_at_a_time_and_a_question_that_waits_too_long_is_answered_with_busy(
    loop: PrimaryLoop, asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seen_module, "TURN_S", 0.0)
    with loop.seen_answers._turn, pytest.raises(BusyError):
        asked(command="map")
    assert asked(command="map")["unknown"] == ["free"]


def test_a_loop_that_does_not_answer_holds_a_map_no_longer_than_any_command(
    loop: PrimaryLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands_module, "_ANSWER_S", 0.05)
    monkeypatch.setattr(loop.seen_answers, "_questions", SimpleNamespace(free=lambda cells: None))
    with pytest.raises(Exception, match="did not carry out map"):
        loop.answer({"command": "map"}, lambda: False)


def test_a_block_has_its_owner_and_one_outside_of_the_volume_none(
    loop: PrimaryLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        questions_module, "owner_of", lambda device, offset: BlockOwner((4096, 8192), "/a/b", "byte 5 of it")
    )
    answer = loop.answer({"command": "block", "offset": 4101}, lambda: False)
    assert answer == {
        "offset": 4101, "extent": {"start": 4096, "length": 8192}, "file": "/a/b", "why": "byte 5 of it",
    }  # fmt: skip
    for wrong in ({}, {"offset": -1}, {"offset": SIZE}):
        with pytest.raises(UsageError, match="a byte of the volume"):
            loop.answer({"command": "block", **wrong}, lambda: False)


class Hanging:
    """A file system that does not answer before it is let."""

    def __init__(self) -> None:
        self.may_answer, self.asked = threading.Event(), 0

    def __call__(self, *_: object) -> BlockOwner:
        self.asked += 1
        assert self.may_answer.wait(20)
        return BlockOwner(None, None, "free space")


def test_a_file_system_that_hangs_is_unknown_and_has_one_thread_until_it_answers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hanging = Hanging()
    monkeypatch.setattr(questions_module, "owner_of", hanging)
    monkeypatch.setattr(questions_module, "OWNER_ANSWER_S", 0.05)
    questions = FileSystemQuestions(SimpleNamespace())
    assert questions.owner(1).why == "unknown: the file system did not answer within 0.05 s"
    for _ in range(3):
        assert questions.owner(2).why == "unknown: the file system has not answered an earlier question yet"
    assert hanging.asked == 1
    hanging.may_answer.set()
    monkeypatch.setattr(questions_module, "OWNER_ANSWER_S", 20.0)
    assert questions.owner(3) == BlockOwner(None, None, "free space") and hanging.asked == 2


def free_records(*parts: tuple[int, int]) -> np.ndarray:
    made = np.zeros(len(parts), FSMAP_RECORD)
    for row, (first, length) in zip(made, parts, strict=True):
        row["physical"], row["length"], row["owner"], row["flags"] = first, length, OWNER_FREE, SPECIAL_OWNER
    return made


@pytest.fixture
def file_system(monkeypatch: pytest.MonkeyPatch):
    """A file system whose map a test sets, and the questions to it."""
    made = SimpleNamespace(records=[free_records((4096, 8192))], reads=0, error=None, now=1000.0)

    def map_records(*_: object):
        made.reads += 1
        yield from made.records

    def mount_with_map(device: object) -> None:
        if made.error:
            raise made.error

    monkeypatch.setattr(questions_module, "map_records", map_records)
    monkeypatch.setattr(questions_module, "mount_with_map", mount_with_map)
    monkeypatch.setattr(questions_module, "open_mount", lambda *_: (questions_module.os.open("/", 0), None))
    monkeypatch.setattr(questions_module, "FREE_AT_ONCE_S", 20.0)
    monkeypatch.setattr(questions_module, "time", SimpleNamespace(monotonic=lambda: made.now))
    made.questions = FileSystemQuestions(SimpleNamespace())
    return made


def test_free_space_is_read_once_and_kept_for_a_while(file_system) -> None:
    for _ in range(3):
        found = file_system.questions.free(WHOLE_VOLUME)
        assert isinstance(found, Runs) and found.blocks().tolist() == [1, 2]
    assert file_system.reads == 1
    file_system.now += questions_module.FREE_KEPT_S
    file_system.questions.free(WHOLE_VOLUME)
    file_system.questions.free(Cells.over(GEOMETRY, 0, 8192, 1))
    assert file_system.reads == 3


def test_without_a_map_free_space_is_unknown(file_system) -> None:
    file_system.error = NoMap("no ext4")
    assert file_system.questions.free(WHOLE_VOLUME) is None
    file_system.error = OSError(5, "broken")
    assert file_system.questions.free(WHOLE_VOLUME) is None


def test_a_map_that_takes_too_long_is_not_read_on_and_no_other_one_of_its_size_for_a_while(file_system) -> None:
    class Slow:
        def __iter__(self):
            file_system.now += questions_module.FREE_READ_S + 1
            yield free_records((0, 4096))

    file_system.records = Slow()
    assert file_system.questions.free(WHOLE_VOLUME) is None and file_system.reads == 1
    assert file_system.questions.free(WHOLE_VOLUME) is None and file_system.reads == 1
    file_system.records = [free_records((0, 4096))]
    assert file_system.questions.free(Cells.over(GEOMETRY, 0, 8192, 2)).blocks().tolist() == [0], (
        "a smaller part may be"
    )
    file_system.now += questions_module.TOO_LARGE_S
    assert file_system.questions.free(WHOLE_VOLUME) is not None


def test_in_mode_normal_the_loop_s_own_bits_are_no_difference(loop: PrimaryLoop, asked) -> None:
    assert loop.volume.brains[0].mode is Mode.NORMAL
    loop.volume.capture.write(5)
    assert hot(asked(command="map", cells=BLOCKS), "out_of_sync") == []


def test_the_method_says_where_it_stands_and_why(loop: PrimaryLoop, asked) -> None:
    (brain,) = loop.volume.brains
    brain.handle(ev.PauseAsked("a person wants it"), brain.state.now + 1)
    answer = asked(command="method")
    assert (answer["secondary"], answer["secondaries"]) == ("h:1", ["h:1"])
    assert (answer["mode"], answer["phase"], answer["block_bytes"]) == ("paused", "idle", 4096)
    assert answer["why"] == "a person wants it; writes are still tracked"
    assert answer["mode"] in answer["moves"]["modes"] and answer["log"]["records"] == []
    with pytest.raises(UsageError, match="no secondary"):
        asked(command="method", secondary="h:9")


# --- the documented keys --------------------------------------------------------------------------------------------
REFERENCE = (Path(__file__).resolve().parents[2] / "docs/reference/questions.md").read_text()


def documented(section: str, table: int = 0) -> set[str]:
    """The names in the first column of a table of a section of the reference."""
    (text,) = [part for part in REFERENCE.split("\n## ") if part.startswith(section)]
    rows = re.findall(r"(?:^\|.*\n)+", text, flags=re.MULTILINE)[table].splitlines()[2:]
    return {name for row in rows for name in re.findall(r"`(\w+)`", row.split("|")[1])}


def test_the_keys_of_the_answers_are_the_documented_ones(loop: PrimaryLoop, asked, tmp_path: Path) -> None:
    assert set(asked(command="map")) == documented("The map")
    assert documented("The map", 1) == {str(kind) for kind in Heat}
    method = asked(command="method")
    assert set(method) == documented("The method")
    for name in ("log", "dirty_map"):
        assert all(f"`{key}`" in REFERENCE for key in method[name])
    assert documented("The owner of a block") == {"offset", "extent", "file", "why"}
    loop.event_log.keep_history()
    history = loop.answer({"command": "history"}, lambda: False)
    assert set(history) == documented("The history")
    assert documented("The history", 1) == set(COLUMNS)
    loop.event_log.end()
