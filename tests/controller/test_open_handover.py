"""A change of places that was not completed is known after the end of a side's processes, and is told without them too."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pydbt.cli.locate import last_known
from pydbt.controller import roles
from pydbt.controller.changed_role import changed_role
from pydbt.controller.control import write_saved_status
from pydbt.controller.primary.gate import GateOptions, ask_gate
from pydbt.controller.primary.stopped import with_present_figures
from pydbt.controller.roles import note_promoted_other, require_no_replica
from pydbt.core.blocks.dirty_map import DirtyMap
from pydbt.core.configured.on_unreachable import OnUnreachable
from pydbt.core.errors import UsageError
from pydbt.core.protocol.frames import SUPERSEDED
from pydbt.core.secondary.open_handover import HandoverStage, OpenHandover
from pydbt.store.map_file import save_map
from pydbt.store.map_image import MapHeader
from pydbt.store.open_handover_file import (
    OPEN_HANDOVER_NAME,
    as_of_now,
    forget_open_handover,
    load_open_handover,
    save_open_handover,
)
from pydbt.store.peer_pin import PEER_FILE_NAME, key_file_name
from pydbt.store.replica_state import REPLICA_FILE_NAME, load_record, save_record
from pydbt.store.secondary_record import SecondaryRecord
from pydbt.store.volume_state import VOLUME_FILE_NAME, VolumeState, save_state
from tests.core.secondary.test_brain import ADOPTED

GIVEN = OpenHandover(HandoverStage.GIVEN, "10.0.0.2:7790", "2026-01-02T03:04:05+00:00")
ASKED = OpenHandover(HandoverStage.ASKED, "10.0.0.1:7790", "2026-01-02T03:04:05+00:00")
PROMOTED_AT = "2026-01-02T03:05:00+00:00"
VOLUME = VolumeState("ab" * 16, 1 << 20, 4096, "/dev/x", {})


def keep(place: Path, found: OpenHandover | None, **changes: Any) -> None:
    save_record(place, replace(ADOPTED, **changes))
    if found is not None:
        save_open_handover(place, found)


def test_an_open_change_of_places_is_read_again_and_can_be_forgotten(tmp_path: Path) -> None:
    keep(tmp_path, ASKED)
    assert load_open_handover(tmp_path) == ASKED
    forget_open_handover(tmp_path)
    forget_open_handover(tmp_path)
    assert load_open_handover(tmp_path) is None
    assert as_of_now(GIVEN) == GIVEN and as_of_now(replace(GIVEN, since="")).since


def test_the_record_decides_whether_this_side_gave_its_place_away(tmp_path: Path) -> None:
    keep(tmp_path, GIVEN, handed_to="")
    assert load_open_handover(tmp_path) is None, "it was written, and the record was not: it is still the primary"
    keep(tmp_path, GIVEN, handed_to="10.0.0.2:7790")
    assert load_open_handover(tmp_path) == GIVEN
    keep(tmp_path, ASKED, handed_to="10.0.0.2:7790")
    assert load_open_handover(tmp_path) == replace(GIVEN, since="")
    keep(tmp_path, GIVEN, handed_to="10.0.0.3:7790")
    assert load_open_handover(tmp_path) == replace(GIVEN, since="", other="10.0.0.3:7790"), (
        "an earlier version did that"
    )


def test_a_side_that_took_its_primarys_place_is_told_to_run_until_it_has(tmp_path: Path) -> None:
    keep(tmp_path, ASKED, promoted=PROMOTED_AT)
    save_state(tmp_path, VOLUME)
    found = load_open_handover(tmp_path)
    assert found == OpenHandover(HandoverStage.PROMOTED, ASKED.other, PROMOTED_AT)
    write_saved_status(tmp_path, {"role": "secondary", "mode": "offline", "replica_state": "inconsistent"})
    words = last_known(tmp_path)
    assert (
        words.startswith("; it was promoted at 2026-01-02 03:05:00 UTC; ") and "--secondary 10.0.0.1:7790" in words
    ), words
    save_state(tmp_path, replace(VOLUME, secondaries=(SecondaryRecord(1, ASKED.other),)))
    assert load_open_handover(tmp_path) is None
    (tmp_path / VOLUME_FILE_NAME).write_bytes(b"torn")
    assert load_open_handover(tmp_path) is None, "nobody can tell"


def test_a_side_that_was_promoted_by_force_or_by_hand_has_none(tmp_path: Path) -> None:
    for found in (GIVEN, None):
        keep(tmp_path, found, handed_to="10.0.0.2:7790", promoted=PROMOTED_AT)
        save_state(tmp_path, VOLUME)
        assert load_open_handover(tmp_path) is None
        forget_open_handover(tmp_path)


def test_a_place_that_was_taken_is_told_until_that_primary_is_heard(tmp_path: Path) -> None:
    keep(tmp_path, replace(GIVEN, stage=HandoverStage.TAKEN))
    found = load_open_handover(tmp_path)
    assert found is not None and found.stage is HandoverStage.TAKEN
    keep(tmp_path, found, handed_to="10.0.0.2:7790")
    assert load_open_handover(tmp_path) == replace(GIVEN, since=""), "the record was not written"


def test_a_side_that_was_demoted_since_its_secondary_was_promoted_tells_where_its_primary_is(tmp_path: Path) -> None:
    keep(tmp_path, None)
    status: dict[str, Any] = {
        "role": "primary",
        "secondaries": [{"secondary": "10.0.0.2:7790", "refused": "other-volume"}],
    }
    for nothing in (None, {}, status):
        note_promoted_other(tmp_path, nothing)
        assert load_open_handover(tmp_path) is None
    status["secondaries"].append({"secondary": "10.0.0.3:7790", "refused": SUPERSEDED})
    note_promoted_other(tmp_path, status)
    found = load_open_handover(tmp_path)
    assert found is not None and found.words.startswith(
        "10.0.0.3:7790 took the place of this side, and has not been heard"
    )


def test_a_side_that_was_killed_with_its_files_of_a_primary_is_still_reported_as_a_replica(tmp_path: Path) -> None:
    keep(tmp_path, GIVEN, handed_to="10.0.0.2:7790")
    save_state(tmp_path, replace(VOLUME, secondaries=(SecondaryRecord(1, GIVEN.other),)))
    one = {"secondary": GIVEN.other, "out_of_sync_bytes": 0}
    saved = {
        "role": "primary",
        "mode": "stopped",
        "replica_state": "outdated",
        "out_of_sync_bytes": 0,
        "secondaries": [one],
    }
    told = with_present_figures(tmp_path, saved)
    assert (told["mode"], told["replica_state"], told["out_of_sync_bytes"]) == ("demoted", None, None)
    assert told["handover"] == GIVEN.to_report() and told["secondaries"][0]["out_of_sync_bytes"] is None
    assert changed_role(tmp_path, "primary") == "demoted"


@pytest.mark.parametrize("content", [b"", b"torn", b'{"version": 1}\n', b"\xff"])
def test_a_file_that_cannot_be_read_tells_nothing(tmp_path: Path, content: bytes) -> None:
    keep(tmp_path, ASKED)
    (tmp_path / OPEN_HANDOVER_NAME).write_bytes(content)
    assert load_open_handover(tmp_path) is None
    (tmp_path / REPLICA_FILE_NAME).write_bytes(b"torn")
    assert load_open_handover(tmp_path) is None


@pytest.mark.parametrize("role", ["secondary", "primary"])
def test_a_status_that_was_saved_before_tells_it(tmp_path: Path, role: str) -> None:
    keep(tmp_path, GIVEN, handed_to="10.0.0.2:7790")
    assert with_present_figures(tmp_path, {"role": role})["handover"] == GIVEN.to_report()
    assert last_known(tmp_path).endswith(GIVEN.words), "although no status was saved"
    write_saved_status(tmp_path, {"role": role, "mode": "stopped"})
    assert last_known(tmp_path).count("gave its place to") == 1
    keep(tmp_path, None, handed_to="10.0.0.2:7790", promoted=PROMOTED_AT)
    assert with_present_figures(tmp_path, {"role": role})["handover"] is None


def test_a_side_that_gave_its_place_away_is_refused_as_a_primary_and_at_the_gate(tmp_path: Path) -> None:
    keep(tmp_path, GIVEN, handed_to="10.0.0.2:7790")
    with pytest.raises(UsageError, match=r"is that of a replica.*gave its place to 10\.0\.0\.2:7790"):
        require_no_replica(tmp_path)
    verdict = ask_gate(GateOptions(tmp_path), OnUnreachable.parse("refuse"))
    assert "gave its place to 10.0.0.2:7790" in verdict.words


def test_a_demotion_by_hand_forgets_what_was_open_before(tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.write_bytes(bytes(1 << 20))
    keep(tmp_path, ASKED, promoted="2026-01-02T03:05:00+00:00")
    save_state(tmp_path, VolumeState("ab" * 16, 1 << 20, 4096, str(image), {}))
    roles.demote(image, tmp_path)
    record = load_record(tmp_path)
    assert record is not None and not record.promoted and load_open_handover(tmp_path) is None


def test_a_demotion_leaves_no_file_of_the_primary_except_the_names_of_the_other_machines(tmp_path: Path) -> None:
    image, state_dir = tmp_path / "image", tmp_path / "state"
    image.write_bytes(bytes(1 << 20))
    state_dir.mkdir()
    secondaries = tuple(SecondaryRecord(slot, f"h:{slot}") for slot in (1, 2, 3))
    state = VolumeState("ab" * 16, 1 << 20, 4096, str(image), {}, secondaries)
    save_state(state_dir, state)
    for record in secondaries:
        for name in record.file_names:
            if name.endswith(".map"):
                save_map(state_dir / name, MapHeader(state.uuid, state.geometry), DirtyMap(state.geometry.block_count))
            else:
                (state_dir / name).write_text("beta\n")
    roles.demote(image, state_dir)
    left = {path.name for path in state_dir.iterdir()}
    assert left == {REPLICA_FILE_NAME, PEER_FILE_NAME, key_file_name(PEER_FILE_NAME)}
